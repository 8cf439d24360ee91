"""The report's figures as plain plotly dictionaries. Study chain: results -> figures (this) -> report.

Colours are tokens such as `@arm0` that the page replaces from `traces.palettes()`: one figure, light and dark.
Every figure brings a caption, a description for those who cannot see it, and its numbers as a table.
"""

from __future__ import annotations

from math import log10
from typing import Any

from headswap.study.arrivals import arrivals_figure
from headswap.study.body_figures import body_change, layers_kept
from headswap.study.calibration import calibration_figure
from headswap.study.confusion import confusion_figure
from headswap.study.contrasts import Contrast
from headswap.study.forest import forest_figure
from headswap.study.page import NONE, Figure, Plot, Table
from headswap.study.results import Comparison
from headswap.study.slices import slices_figure
from headswap.study.summaries import ArmScore, Curve
from headswap.study.traces import (
    DASHES,
    SYMBOLS,
    arm_index,
    band,
    layout_of,
    line,
    log_range,
    margin_band,
    named,
    padded,
)
from headswap.study.tuning_drawings import rates, tuning_curves
from headswap.study.units import Unit, count, percent, plural, times
from headswap.study.verdict import shown_saving


def figures(comparison: Comparison) -> list[Figure]:
    """Return the figures that this study has data for, in the order of the page."""
    made = (
        learning_curves(comparison),
        arrivals_figure(comparison),
        score_by_labels(comparison),
        paired_differences(comparison),
        forest_figure(comparison),
        layers_kept(comparison),
        slices_figure(comparison),
        confusion_figure(comparison),
        calibration_figure(comparison),
        body_change(comparison),
        tuning_curves(comparison),
        rates(comparison),
    )
    return [figure for figure in made if figure is not None]


def learning_curves(comparison: Comparison) -> Figure | None:
    """One panel a size, on shared axes: mean line, t band and thin seed lines of every arm."""
    if not comparison.curves:
        return None
    unit, share, words = Unit(comparison.metric), percent(comparison.study.confidence), comparison.words
    everything = [point for curve in comparison.curves for line in curve.seeds.values() for point in line]
    seen = [examples for examples, _ in everything if examples > 0]
    spread = padded([score * unit.scale for _, score in everything])
    sizes = sorted({(curve.labels, curve.size) for curve in comparison.curves}, key=lambda each: each[0])
    plots = []
    for labels, size in sizes:
        traces = [
            trace for curve in comparison.curves if curve.size == size for trace in _curve(curve, comparison, unit)
        ]
        layout = layout_of(290, f"training {words.seen}s seen", f"validation {unit.title}")
        layout["xaxis"] |= {"type": "log", "range": log_range(seen), "dtick": 1, "exponentformat": "none"}
        layout["xaxis"] |= {"separatethousands": True}
        layout["yaxis"] |= {"range": spread}
        plots.append(Plot(plural(labels, words.row), traces, layout))
    ends = [
        f"{curve.arm} with {plural(curve.labels, words.row)} goes from {unit.score(curve.mean[0])} to "
        f"{unit.score(curve.mean[-1])} over {count(curve.examples[-1])} {words.seen}s"
        for curve in comparison.curves
        if curve.mean
    ]
    caption = (
        f"Validation {unit.name} while training{_sense(comparison)}; shared axes, logarithmic {words.seen}s. "
        f"Thick line: mean over seeds, where all have values; band: {share} t interval; thin lines: the seeds."
        f"{words.note}"
    )
    description = f"Learning curves. {'; '.join(ends)}."
    arms = tuple(dict.fromkeys(curve.arm for curve in comparison.curves))
    return Figure("curves", "Learning curves", caption, description, tuple(plots), _curve_table(comparison, unit), arms)


def score_by_labels(comparison: Comparison) -> Figure | None:
    """Test score against labelled rows with the labels-saved arrow; None for fewer than two sizes."""
    sizes = sorted({score.labels for score in comparison.scores})
    if len(sizes) < 2:
        return None
    unit, share, words = Unit(comparison.metric), percent(comparison.study.confidence), comparison.words
    traces: list[dict[str, Any]] = []
    for arm in comparison.arms:
        traces += _by_labels([score for score in comparison.scores if score.arm == arm], comparison, unit)
    layout = layout_of(400, f"{words.rows} (training + validation)", f"test {unit.title}")
    ticks = {"tickvals": sizes, "ticktext": [count(size) for size in sizes]}
    layout["xaxis"] |= {"type": "log", "range": log_range([sizes[0] * 0.85, sizes[-1] * 1.18]), **ticks}
    lines, fitted = _fitted_lines(comparison, unit)
    traces += lines
    note = f"{fitted}{_arrow(comparison, traces, layout, unit)}"
    caption = (
        f"Test score{_sense(comparison)} against the number of {words.rows}, logarithmic. "
        f"Line: mean over seeds; band: {share} t interval over seeds; small marks: the seeds.{note}"
    )
    means = [f"{s.arm} with {plural(s.labels, words.row)} {unit.score(s.mean)}" for s in comparison.scores]
    rows = tuple(
        (score.arm, count(score.labels), *_mean_cells(score.mean, score.interval.low, score.interval.high, unit))
        for score in comparison.scores
    )
    columns = ("arm", words.rows, "mean", f"{share} low", f"{share} high")
    table = Table(f"Test score by number of {words.rows}", columns, rows)
    description = f"Test score by number of {words.rows}. {'; '.join(means)}.{note}"
    plots = (Plot("", traces, layout),)
    return Figure(
        "labels", f"Score against number of {words.rows}", caption, description, plots, table, comparison.arms
    )


def paired_differences(comparison: Comparison) -> Figure | None:
    """Seed differences by size as dots, with mean and interval at their side and the margin behind."""
    main = comparison.main_contrasts
    if not main:
        return None
    unit, study, words = Unit(comparison.metric), comparison.study, comparison.words
    traces = [trace for place, each in enumerate(main) for trace in _dots(place, each, unit)]
    layout = layout_of(380, words.rows, unit.difference_title)
    names = [count(each.labels) for each in main]
    layout["xaxis"] |= {"range": [-0.6, len(main) - 0.4], "tickvals": list(range(len(main))), "ticktext": names}
    layout["xaxis"] |= {"showgrid": False}
    layout["yaxis"] |= {"zeroline": True, "zerolinecolor": "@ink", "zerolinewidth": 1.5}
    layout["shapes"] = [margin_band(comparison.margin * unit.scale)] if comparison.margin else []
    share = percent(study.confidence)
    shaded = f" Shaded: ±{unit.margin(comparison.margin)}, what you said matters." if comparison.margin else ""
    caption = (
        f"One ring a paired seed: {study.treatment} minus {study.control} on the same test rows{_sense(comparison)}. "
        f"Diamond and bar: mean and {share} interval (over {main[-1].scope}).{shaded}"
    )
    lines = [f"with {plural(e.labels, words.row)} {unit.difference(e.interval.mean)}, {e.outcome}" for e in main]
    pairs = [(each, pair) for each in main for pair in each.pairs]
    rows = tuple(
        (
            str(pair.seed),
            count(each.labels),
            *map(unit.score, (pair.treatment, pair.control)),
            unit.signed(pair.difference),
        )
        for each, pair in pairs
    )
    columns = ("seed", words.rows, study.treatment, study.control, "difference")
    table = Table("Paired test scores by seed", columns, rows)
    description = f"Paired seed differences: {'; '.join(lines)}."
    return Figure("pairs", "Paired seed differences", caption, description, (Plot("", traces, layout),), table)


def _curve(curve: Curve, comparison: Comparison, unit: Unit) -> list[dict[str, Any]]:
    index = arm_index(curve.arm, comparison)
    traces = []
    for seed in curve.seeds.values():
        points = [(examples, score * unit.scale) for examples, score in seed if examples > 0]
        traces.append(line([x for x, _ in points], [y for _, y in points], f"@thin{index}", 1, DASHES[index]))
    known = [each for each in zip(curve.examples, curve.low, curve.high, strict=True) if each[1] is not None]
    traces.append(band([x for x, *_ in known], [e[1] for e in known], [e[2] for e in known], (index, unit)))
    mean = line(list(curve.examples), [value * unit.scale for value in curve.mean], f"@arm{index}", 2.6, DASHES[index])
    traces.append(mean | named(curve.arm, index, f"%{{x:,.0f}} {comparison.words.seen}s: {unit.hover()}"))
    return traces


def _by_labels(scores: list[ArmScore], comparison: Comparison, unit: Unit) -> list[dict[str, Any]]:
    index = arm_index(scores[0].arm, comparison)
    known = [score for score in scores if score.interval.low is not None]
    ends = [s.interval.low for s in known], [s.interval.high for s in known]
    seeds = [(score.labels, value * unit.scale) for score in scores for value in score.scores.values()]
    marks = line([x for x, _ in seeds], [y for _, y in seeds], f"@thin{index}", 1, "solid")
    marks |= {"mode": "markers", "marker": {"symbol": SYMBOLS[index], "size": 5, "color": f"@thin{index}"}}
    means = [score.mean * unit.scale for score in scores]
    drawn = line([score.labels for score in scores], means, f"@arm{index}", 2.6, DASHES[index])
    cloud = band([score.labels for score in known], *ends, (index, unit))
    return [cloud, marks, drawn | named(scores[0].arm, index, f"%{{x:,.0f}} {comparison.words.rows}: {unit.hover()}")]


def _fitted_lines(comparison: Comparison, unit: Unit) -> tuple[list[dict[str, Any]], str]:
    """Return the power laws that hold as dashed lines, and the caption's word on them."""
    held = [law for law in comparison.power_laws if law.holds]
    best = unit.best if comparison.greater_is_better else 0.0
    traces = []
    for law in held:
        scores = [abs((best or 0.0) - error) * unit.scale for error in law.errors]
        traces.append(line(list(law.labels), scores, f"@arm{arm_index(law.arm, comparison)}", 1.4, "3px,3px"))
    names = " and ".join(law.arm for law in held)
    return traces, f" Dashed: a power law, error = E + A N^-b, fitted to {names}." if held else ""


def _arrow(comparison: Comparison, traces: list[dict[str, Any]], layout: dict[str, Any], unit: Unit) -> str:
    """Draw the labels-saved arrow and return its sentence; an open head stands for a bound."""
    saved = shown_saving(comparison.labels_saved)
    value = (saved.ratio or saved.bound) if saved else None
    if saved is None or value is None or not saved.settled:
        return ""
    sign = 1 if comparison.greater_is_better else -1
    height, end = sign * saved.score * unit.scale, saved.labels * value
    head = f"triangle-{'right' if value > 1 else 'left'}{'' if saved.ratio else '-open'}"
    marker = {"symbol": ["line-ns", head], "size": [10, 13], "color": "@ink", "line": {"width": 1.6, "color": "@ink"}}
    traces.append(
        line([saved.labels, end], [height, height], "@ink", 1.6, "solid") | {"mode": "lines+markers", "marker": marker}
    )
    middle = (log10(saved.labels) + log10(end)) / 2
    text = f"{saved.sense}{times(value)} {comparison.words.rows}"
    font = {"size": 13, "color": "@ink"}
    place = {"x": middle, "y": height, "yshift": -13, "showarrow": False, "bgcolor": "@paper", "borderpad": 1}
    layout["annotations"] = [place | {"text": text, "font": font}]
    kind = "; the open head stands for a bound: the sizes tried do not hold the point" if saved.bound_kind else ""
    names = comparison.study.treatment, comparison.study.control
    rows = plural(saved.labels, comparison.words.row)
    worth = f"{rows} with {names[0]} stand for {saved.sense}{times(value)} as many with {names[1]}"
    return f" Arrow: {worth}{kind}."


def _dots(place: int, contrast: Contrast, unit: Unit) -> list[dict[str, Any]]:
    total = len(contrast.pairs)
    spread = [place - 0.12 + (0.24 * (index / (total - 1) - 0.5) if total > 1 else 0) for index in range(total)]
    dots = line(spread, [pair.difference * unit.scale for pair in contrast.pairs], "@muted", 1, "solid")
    dots |= {
        "mode": "markers",
        "marker": {"symbol": "circle-open", "size": 9, "color": "@muted", "line": {"width": 1.6}},
    }
    dots |= {"text": [f"seed {pair.seed}" for pair in contrast.pairs], "hoverinfo": "text+y"}
    dots |= {"hovertemplate": f"%{{text}}: {unit.hover(signed=True)}<extra></extra>"}
    interval = contrast.interval
    mean = line([place + 0.2], [interval.mean * unit.scale], "@ink", 2, "solid")
    mean |= {"mode": "markers", "marker": {"symbol": "diamond", "size": 11, "color": "@ink"}, "hoverinfo": "y"}
    mean |= {"hovertemplate": f"mean: {unit.hover(signed=True)}<extra></extra>"}
    if interval.high is not None:
        half = (interval.high - interval.mean) * unit.scale
        mean["error_y"] = {"type": "data", "array": [half], "color": "@ink", "thickness": 2, "width": 7}
    return [dots, mean]


def _curve_table(comparison: Comparison, unit: Unit) -> Table:
    share = percent(comparison.study.confidence)
    rows = tuple(
        (curve.arm, count(curve.labels), count(examples), *_mean_cells(mean, low, high, unit))
        for curve in comparison.curves
        for examples, mean, low, high in zip(curve.examples, curve.mean, curve.low, curve.high, strict=True)
    )
    words = comparison.words
    columns = ("arm", words.rows, f"{words.seen}s seen", "mean", f"{share} low", f"{share} high")
    return Table("Validation score while training", columns, rows)


def _mean_cells(mean: float, low: float | None, high: float | None, unit: Unit) -> tuple[str, str, str]:
    ends = [NONE if end is None else unit.score(end) for end in (low, high)]
    return unit.score(mean), ends[0], ends[1]


def _sense(comparison: Comparison) -> str:
    return "" if comparison.greater_is_better else " (less is better)"
