"""The figures of joined studies: forest plot, interquartile means, probability of improvement.

Joined chain: joining -> figures -> page. Differences in percentage points share one axis; so do those of metrics
between -1 and 1; a metric with a unit of its own has an axis of its own. Nothing is standardised.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headswap.study.joined.joining import Joined
from headswap.study.joined.reading import StudyRead
from headswap.study.joined.verdict import metrics_text, probability
from headswap.study.page import NONE, Figure, Plot, Table
from headswap.study.statistics import Interval
from headswap.study.traces import layout_of, line, margin_band
from headswap.study.units import Unit, bracket, number, percent

ROW = 46
Row = tuple[str, Interval, str]
"""A row of a drawing: its name, what is drawn, and its marker."""


def figures(joined: Joined) -> list[Figure]:
    """Return the figures that these studies have data for."""
    made = (forest(joined), interquartile_means(joined), improvements(joined))
    return [figure for figure in made if figure is not None]


def forest(joined: Joined) -> Figure:
    """One row a study, one panel a unit: the primary difference with its interval."""
    panels: dict[str, list[StudyRead]] = {}
    for each in joined.studies:
        panels.setdefault(_axis(each), []).append(each)
    plots = tuple(_panel(name, studies, joined, len(panels) > 1) for name, studies in panels.items())
    names = joined.main.treatment, joined.main.control
    standing = (
        f"Filled: stands at q ≤ {1 - joined.confidence:.2g} after Benjamini and Hochberg's correction; open: does not."
    )
    caption = (
        f"{names[0]} minus {names[1]} at each study's largest size, with its interval. {standing} "
        f"{'Each unit has an axis of its own. ' if len(panels) > 1 else ''}Shaded: the difference that matters, where "
        "the studies of an axis have one."
    )
    lines = [f"{each.label} {_difference(each)}, {each.primary.outcome}" for each in joined.studies]
    rows = tuple(
        (each.label, each.primary.outcome, Unit(each.comparison.metric).name, *_ends(each), _q(joined.adjusted[place]))
        for place, each in enumerate(joined.studies)
    )
    columns = (joined.noun, "verdict", "metric", "difference", "low", "high", "q")
    table = Table("Primary differences", columns, rows, words=3)
    description = f"Forest plot of {names[0]} minus {names[1]}: {'; '.join(lines)}."
    return Figure("forest", f"Difference by {joined.noun}", caption, description, plots, table)


def interquartile_means(joined: Joined) -> Figure | None:
    """One row an arm that all studies have; None where the scores are not averaged."""
    found = joined.main.interquartile
    if found is None:
        return None
    unit, share = joined.unit, percent(joined.confidence)
    arms = [(each.treatment, each.interquartile.treatment) for each in joined.aggregates if each.interquartile]
    arms.insert(1, (joined.main.control, found.control))
    layout = _rows_of(
        len(arms), [_plain(name) for name, _ in arms], f"interquartile mean{' (%)' if unit.percent else ''}"
    )
    traces = _marks(
        [(name, each, "circle") for name, each in arms], unit.scale, [_score(each, unit) for _, each in arms]
    )
    caption = (
        f"Mean of the middle half of all test scores ({metrics_text(joined)}), {joined.nouns} and seeds pooled; "
        f"bar: {share} interval from seeds resampled within {joined.nouns}. These and their test rows are fixed."
    )
    said = [f"{name} {_score(each, unit)}" for name, each in arms]
    rows = tuple((name, unit.score(each.mean), *_cells(each, unit.score)) for name, each in arms)
    table = Table("Interquartile means", ("arm", "mean", f"{share} low", f"{share} high"), rows)
    description = f"Interquartile means: {'; '.join(said)}."
    title = f"Interquartile mean over {len(joined.averaged)} {joined.nouns}"
    return Figure("means", title, caption, description, (Plot("", traces, layout),), table)


def improvements(joined: Joined) -> Figure | None:
    """One row a study and one for all; None for too few studies."""
    main, share = joined.main, percent(joined.confidence)
    if main.improvement is None:
        return None
    names = [each.label for each in joined.studies]
    layout = _rows_of(
        len(names) + 1,
        [*map(_plain, names), f"all {len(names)}"],
        f"P({_plain(main.treatment)} > {_plain(main.control)})",
    )
    layout["xaxis"] |= {"range": [-0.03, 1.03], "tickvals": [0, 0.25, 0.5, 0.75, 1]}
    layout["shapes"] = [_upright(0.5)]
    bare = [Interval(value, None, None, None, None, joined.confidence, 0) for value in main.improvements]
    rows = [(name, each, "circle-open") for name, each in zip(names, bare, strict=True)]
    words = [number(each.mean, 2) for each in bare]
    traces = _marks([*rows, ("all", main.improvement, "diamond")], 1.0, [*words, probability(main.improvement)])
    caption = (
        f"How often a run of {main.treatment} scores better than a run of {main.control} (Mann-Whitney's U over all "
        f"pairs, ties half). Diamond: mean over the {joined.nouns}, with its {share} interval from seeds resampled "
        f"within them. At 0.5 neither is ahead."
    )
    said = "; ".join(f"{name} {word}" for name, word in zip(names, words, strict=True))
    description = f"Probability of improvement: {said}; all {probability(main.improvement)}."
    cells = [(name, number(each.mean, 2), NONE, NONE) for name, each, _ in rows]
    total = f"all {len(names)}", number(main.improvement.mean, 2), *_cells(main.improvement, lambda end: number(end, 2))
    columns = (joined.noun, "probability", f"{share} low", f"{share} high")
    table = Table("Probability of improvement", columns, (*cells, total))
    return Figure("improvement", "Probability of improvement", caption, description, (Plot("", traces, layout),), table)


def _panel(name: str, studies: Sequence[StudyRead], joined: Joined, several: bool) -> Plot:
    unit = Unit(studies[0].comparison.metric)
    labels = [f"{_plain(each.label)}<br>{_difference(each)}, {each.primary.outcome}" for each in studies]
    layout = _rows_of(len(studies), labels, "" if several else name)
    layout["xaxis"] |= {"nticks": 4 if several else 9, "tickangle": 0}
    margins = {each.comparison.margin for each in studies}
    band = margin_band(max(margins) * unit.scale)  # lies along y; a forest's values run along x
    turned = {"xref": "x", "yref": "paper", "x0": band["y0"], "x1": band["y1"], "y0": 0, "y1": 1}
    layout["shapes"] = [*([band | turned] if len(margins) == 1 and max(margins) else []), _upright(0.0)]
    places = {each.label: place for place, each in enumerate(joined.studies)}
    rows = [
        (each.label, each.primary.interval, f"diamond{'' if joined.stands(places[each.label]) else '-open'}")
        for each in studies
    ]
    words = [f"{each.label}: {_difference(each)} {bracket(each.primary.interval, unit)}" for each in studies]
    return Plot(name if several else "", _marks(rows, unit.scale, words), layout)


def _axis(study: StudyRead) -> str:
    """Return the title of the axis that the study's difference lies on; studies of one title share it."""
    unit = Unit(study.comparison.metric)
    shared = {"percent": "difference (pp)", "bounded": "difference, of metrics within ±1"}
    title = shared.get(unit.kind, f"{unit.name} difference")
    return title if study.comparison.greater_is_better else f"{title} (less is better)"


def _rows_of(amount: int, names: Sequence[str], title: str) -> dict[str, Any]:
    """Return the layout of a drawing whose rows are read from the top."""
    layout = layout_of(70 + ROW * amount, title, "")
    layout["yaxis"] |= {"range": [amount - 0.45, -0.55], "tickvals": list(range(amount)), "showgrid": False}
    layout["yaxis"] |= {"ticktext": list(names)}
    return layout


def _marks(rows: Sequence[Row], scale: float, words: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows' points, those with an interval apart: a bar of no length would still have its caps."""
    numbered = list(zip(range(len(rows)), rows, words, strict=True))
    bare = [each for each in numbered if each[1][1].low is None]
    known = [each for each in numbered if each[1][1].low is not None]
    return [_points(some, scale) for some in (bare, known) if some]


def _points(numbered: Sequence[tuple[int, Row, str]], scale: float) -> dict[str, Any]:
    found = [interval for _, (_, interval, _), _ in numbered]
    values = [each.mean * scale for each in found]
    trace = line(values, [place for place, *_ in numbered], "@ink", 2, "solid")
    symbols = [symbol for _, (*_, symbol), _ in numbered]
    marker = {"symbol": symbols, "size": 11, "color": "@ink", "line": {"color": "@ink", "width": 1.6}}
    texts = {"text": [_plain(word) for *_, word in numbered], "hovertemplate": "%{text}<extra></extra>"}
    trace |= {"mode": "markers", "marker": marker, "hoverinfo": "text"} | texts
    above = [scale * each.high - value for each, value in zip(found, values, strict=True) if each.high is not None]
    below = [value - scale * each.low for each, value in zip(found, values, strict=True) if each.low is not None]
    bar = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "color": "@ink"}
    return trace | ({"error_x": bar | {"thickness": 2, "width": 6}} if above else {})


def _upright(value: float) -> dict[str, Any]:
    ends = {"yref": "paper", "x0": value, "x1": value, "y0": 0, "y1": 1}
    return {"type": "line", "line": {"color": "@ink", "width": 1.5}, "layer": "below"} | ends


def _plain(text: str) -> str:
    """Return text that plotly does not take for markup."""
    return text.replace("<", "&lt;")


def _difference(study: StudyRead) -> str:
    return Unit(study.comparison.metric).difference(study.primary.interval.mean)


def _ends(study: StudyRead) -> tuple[str, str, str]:
    unit, interval = Unit(study.comparison.metric), study.primary.interval
    return unit.difference(interval.mean), *_cells(interval, unit.signed)


def _cells(interval: Interval, write: Any) -> tuple[str, str]:
    low, high = (NONE if end is None else write(end) for end in (interval.low, interval.high))
    return low, high


def _score(interval: Interval, unit: Unit) -> str:
    low, high = _cells(interval, unit.score)
    return unit.score(interval.mean) if interval.low is None else f"{unit.score(interval.mean)} ({low} to {high})"


def _q(value: float | None) -> str:
    return NONE if value is None else "< 0.001" if value < 0.001 else number(value, 3)
