"""Figures: what training changed in the body, and how many pretrained layers it takes. Study chain: like figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from headswap.study.body_change import BodyChange, LayerMean
from headswap.study.kept_layers import NOTHING, KeptLayers
from headswap.study.page import NONE, Figure, Plot, Table
from headswap.study.results import Comparison
from headswap.study.statistics import Interval
from headswap.study.traces import DASHES, arm_index, band, layout_of, line, log_range, margin_band, named
from headswap.study.units import Unit, count, percent, plural

CHANGE, ALIKE = Unit("relative_change"), Unit("cka")
BANDS = 4  # with more arms, treatment and control alone have a band


class Mean(NamedTuple):
    """A mean on the x axis, what it is called there, and the ends of its interval."""

    x: int
    name: str
    mean: float
    low: float | None
    high: float | None


def body_change(comparison: Comparison) -> Figure | None:
    """Relative change and debiased CKA by layer, a line an arm, at the largest size; None where no run measured it."""
    if not comparison.body_changes:
        return None
    rows = max(each.labels for each in comparison.body_changes)
    shown = [each for each in comparison.body_changes if each.labels == rows]
    names = max((each.layers for each in shown), key=len)
    changes = {
        each.arm: [point for point in _by_layer(each.relative_change, each.layers, names) if point.mean > 0]
        for each in shown
    }
    alike = {each.arm: _by_layer(each.cka, each.layers, names) for each in shown}
    plots = [
        _layer_plot("How far the weights went", changes, names, (comparison, CHANGE)),
        _layer_plot("How alike the outputs are", alike, names, (comparison, ALIKE)),
    ]
    plots = [plot for plot in plots if plot.data]
    if not plots:
        return None
    share, row = percent(comparison.study.confidence), comparison.words.row
    bands = "bands" if len(shown) <= BANDS else f"bands of {comparison.study.treatment} and {comparison.study.control}"
    caption = (
        f"Runs with {plural(rows, row)}; lines: means over seeds, {bands}: {share} t intervals. How far: |end − start| "
        "/ |start| over a layer's weights, logarithmic; what did not move is not drawn. How alike: debiased CKA of the "
        "layer's outputs before and after training, on the same validation texts; 1 is the same but for rotation and "
        "scale, 0 nothing in common. A layer that went little and stayed near 1 was used as it came; one far below 1 "
        f"does something else now, and in an arm that starts random there was nothing to keep.{_absent(shown)}"
    )
    ends = "; ".join(f"{each.arm}: {_told(each)}" for each in shown)
    table = _change_table(comparison.body_changes, share, comparison.words.rows)
    arms = tuple(dict.fromkeys(each.arm for each in shown))
    description = f"Change of the body by layer. {ends}."
    return Figure("body", "What training changed in the body", caption, description, tuple(plots), table, arms)


def layers_kept(comparison: Comparison) -> Figure | None:
    """Score, and difference to the arm that keeps all, against the pretrained layers that an arm begins with."""
    cells = comparison.kept_layers
    if not cells:
        return None
    unit, share, words = Unit(comparison.metric), percent(comparison.study.confidence), comparison.words
    whole = next(each.arm for each in cells if each.kept == each.layers)
    shown = [each for each in cells if each.labels == max(cell.labels for cell in cells)]
    sense = "" if comparison.greater_is_better else " (less is better)"
    caption = (
        f"Runs with {plural(shown[0].labels, words.row)}. Each point begins with one more pretrained layer, counted "
        "from the input (emb.: the embeddings alone); the layers above begin as random ones. Where the line levels "
        "off, the pretrained layers above added nothing that these runs can tell. "
        f"Score{sense}: mean over seeds, {share} t band, small marks: the seeds. Difference to {whole}, which keeps "
        f"all: over the same seeds, {share} band over {_scope(shown)}.{_recipes(shown)}"
    )
    lines = [
        f"{_number(each)} layers kept with {plural(each.labels, words.row)}: {_score_text(each, comparison, unit)}"
        for each in cells
    ]
    columns = ("arm", "layers kept", words.rows, "mean", f"{share} low", f"{share} high", f"minus {whole}")
    columns += (f"{share} low", f"{share} high", "verdict")
    rows = tuple(_kept_row(each, comparison, unit) for each in cells)
    table = Table("Test score by pretrained layers kept", columns, rows)
    title = "How many pretrained layers it takes"
    plots = _kept_plots(shown, comparison, unit, whole)
    return Figure("kept", title, caption, f"Score by layers kept. {'; '.join(lines)}.", plots, table)


def _by_layer(means: Sequence[LayerMean], layers: Sequence[str], names: Sequence[str]) -> list[Mean]:
    places = {name: place for place, name in enumerate(names)}
    return [
        Mean(places[layer], layer, each.mean, each.low, each.high)
        for layer, each in zip(layers, means, strict=True)
        if each.mean is not None and layer in places
    ]


def _line(
    arm: str, means: Sequence[Mean], drawn: tuple[Comparison, Unit], at: str, banded: bool = True
) -> list[dict[str, Any]]:
    """Return the mean line of an arm, over its band where one is wanted; a band needs two runs."""
    comparison, unit = drawn
    index = arm_index(arm, comparison)
    mean = line(
        [each.x for each in means], [each.mean * unit.scale for each in means], f"@arm{index}", 2.4, DASHES[index]
    )
    mean |= named(arm, index, f"{at}: {unit.hover()}") | {"text": [each.name for each in means]}
    floor = min((each.mean for each in means), default=0.0) / 100  # a logarithmic axis has no zero
    known = [
        (each.x, max(each.low, floor) if unit is CHANGE else each.low, each.high)
        for each in means
        if each.low is not None and each.high is not None
    ]
    cloud = band([x for x, *_ in known], [low for _, low, _ in known], [high for *_, high in known], (index, unit))
    return ([cloud] if known and banded else []) + ([mean] if means else [])


def _layer_plot(
    title: str, lines: Mapping[str, Sequence[Mean]], names: Sequence[str], drawn: tuple[Comparison, Unit]
) -> Plot:
    """Return a line an arm over the layers; changes are drawn on a logarithmic axis, CKA between 0 and 1."""
    main = (drawn[0].study.treatment, drawn[0].study.control)
    banded = {arm: len(lines) <= BANDS or arm in main for arm in lines}
    traces = [trace for arm, means in lines.items() for trace in _line(arm, means, drawn, "%{text}", banded[arm])]
    change = drawn[1] is CHANGE
    layout = layout_of(320, "layer, from below", "relative change of weights" if change else "debiased CKA")
    ticks = [name.replace("layer ", "").replace("embeddings", "emb.") for name in names]
    layout["xaxis"] |= {"range": [-0.4, len(names) - 0.6], "tickvals": list(range(len(names))), "ticktext": ticks}
    layout["xaxis"] |= {"tickangle": 0}
    points = [point for means in lines.values() for point in means]
    if not change:
        layout["yaxis"] |= {"range": [min([-0.03, *(each.low for each in points if each.low is not None)]), 1.03]}
    elif points:
        layout["yaxis"] |= _logarithmic(points)
    return Plot(title, traces, layout)


def _logarithmic(points: Sequence[Mean]) -> dict[str, Any]:
    """Return the axis that holds all means and the upper ends; a lower end far below its mean runs out of it."""
    ends = [end for each in points for end in (each.mean, each.high) if end is not None]
    ends += [each.low for each in points if each.low is not None and each.low > each.mean / 10]
    ticks = [digit * 10.0**power for power in range(-9, 4) for digit in (1, 2, 5)]
    inside = [tick for tick in ticks if min(ends) * 0.9 <= tick <= max(ends) * 1.1]
    return {"type": "log", "range": log_range(ends), "tickvals": inside, "ticktext": [f"{tick:g}" for tick in inside]}


def _told(change: BodyChange) -> str:
    """Return an arm's lowest and highest layer in words."""
    if not change.moved:
        return "its body did not move"
    said = []
    for place in (0, -1):
        far, alike = change.relative_change[place].mean, change.cka[place].mean
        parts = [] if far is None else [f"relative change {CHANGE.score(far)}"]
        parts += [] if alike is None else [f"CKA {alike:.2f}"]
        said.append(f"{change.layers[place]} {' and '.join(parts) or 'not measured'}")
    return ", ".join(said)


def _absent(shown: Sequence[BodyChange]) -> str:
    still = [each.arm for each in shown if not each.moved]
    said = [f" The body of {', '.join(still)} did not move: 0 and 1 by construction."] if still else []
    said += [f" Of {each.arm} {reason}." for each in shown for reason in each.absent]
    return "".join(said)


def _change_table(changes: Sequence[BodyChange], share: str, rows: str) -> Table:
    def cells(mean: LayerMean) -> tuple[str, ...]:
        return tuple(NONE if value is None else f"{value:.4f}" for value in (mean.mean, mean.low, mean.high))

    lines = tuple(
        (each.arm, layer, count(each.labels), *cells(far), *cells(alike), str(max(far.runs, alike.runs)))
        for each in changes
        for layer, far, alike in zip(each.layers, each.relative_change, each.cka, strict=True)
    )
    ends = (f"{share} low", f"{share} high")
    columns = ("arm", "layer", rows, "relative change", *ends, "CKA", *ends, "runs")
    return Table("Change of the body by layer: means over seeds", columns, lines, words=2)


def _kept_plots(cells: Sequence[KeptLayers], comparison: Comparison, unit: Unit, whole: str) -> tuple[Plot, Plot]:
    """Return the scores of one size, and the differences to the arm that keeps all."""
    points = [(each, score) for each in cells if (score := comparison.score_of(each.arm, each.size)) is not None]
    means = [Mean(each.kept, _number(each), score.mean, *_ends(score.interval)) for each, score in points]
    seeds = [(each.kept, value * unit.scale) for each, score in points for value in score.scores.values()]
    marks = line([x for x, _ in seeds], [y for _, y in seeds], "@thin0", 1, "solid")
    marks |= {"mode": "markers", "marker": {"symbol": "circle", "size": 5, "color": "@thin0"}}
    arm, at = comparison.study.treatment, "%{text} kept"
    scores = [marks, *_line(arm, means, (comparison, unit), at)]
    gaps = [
        Mean(each.kept, _number(each), each.difference.interval.mean, *_ends(each.difference.interval))
        if each.difference
        else Mean(each.kept, _number(each), 0.0, None, None)
        for each in cells
        if each.difference or each.arm == whole
    ]
    layout = _kept_layout(cells, unit.difference_title)
    layout["yaxis"] |= {"zeroline": True, "zerolinecolor": "@ink", "zerolinewidth": 1.5}
    layout["shapes"] = [margin_band(comparison.margin * unit.scale)] if comparison.margin else []
    apart = Plot(f"Difference to {whole}", _line(arm, gaps, (comparison, unit), at), layout)
    return Plot("Score", scores, _kept_layout(cells, f"test {unit.title}")), apart


def _ends(interval: Interval) -> tuple[float | None, float | None]:
    return interval.low, interval.high


def _kept_layout(cells: Sequence[KeptLayers], y: str) -> dict[str, Any]:
    layout = layout_of(340, "pretrained layers kept, from below", y)
    numbers = [each.kept for each in cells]
    ends = {"range": [min(numbers) - 0.4, max(numbers) + 0.4]}
    layout["xaxis"] |= {**ends, "tickvals": numbers, "ticktext": [_number(each) for each in cells], "tickangle": 0}
    return layout


def _number(cell: KeptLayers) -> str:
    if cell.kept == cell.layers:
        return f"all {cell.layers}"
    return {NOTHING: "none", 0: "emb."}.get(cell.kept, str(cell.kept))


def _scope(cells: Sequence[KeptLayers]) -> str:
    return next((each.difference.scope for each in cells if each.difference), "seeds")


def _recipes(cells: Sequence[KeptLayers]) -> str:
    """Name the arms whose recipe is another, so that not all of the difference is the layers'."""
    told = {each.arm: ", ".join(each.recipe) for each in cells if each.recipe}
    said = "; ".join(f"{arm}: {keys}" for arm, keys in told.items())
    return f" Other settings differ too, so not all of it is the layers' ({said})." if said else ""


def _score_text(cell: KeptLayers, comparison: Comparison, unit: Unit) -> str:
    score = comparison.score_of(cell.arm, cell.size)
    gap = f", {unit.difference(cell.difference.interval.mean)} to all" if cell.difference else ""
    return f"{NONE if score is None else unit.score(score.mean)}{gap}"


def _kept_row(cell: KeptLayers, comparison: Comparison, unit: Unit) -> tuple[str, ...]:
    score, gap = comparison.score_of(cell.arm, cell.size), cell.difference
    values = (score.mean, score.interval.low, score.interval.high) if score else (None,) * 3
    gaps = (gap.interval.mean, gap.interval.low, gap.interval.high) if gap else (None,) * 3
    return (
        cell.arm,
        _number(cell),
        count(cell.labels),
        *(NONE if value is None else unit.score(value) for value in values),
        *(NONE if value is None else unit.signed(value) for value in gaps),
        gap.outcome if gap else NONE,
    )
