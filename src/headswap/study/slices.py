"""Where the difference comes from: by class and by input length. Study chain: runs -> this -> figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from headswap.study.contrasts import Pair, example_values
from headswap.study.page import NONE, Figure, Plot, Table
from headswap.study.runs import FinishedRun, test_column
from headswap.study.statistics import Interval, crossed_interval
from headswap.study.traces import arm_index, interval_row, list_layout, padded, safe
from headswap.study.units import Unit, count, percent, plural

if TYPE_CHECKING:
    from headswap.study.results import Comparison

BUCKETS = 4
MOST_CLASSES = 20
Kind = Literal["all", "class", "length"]


@dataclass(frozen=True)
class Slice:
    """The paired difference on some of the test examples."""

    kind: Kind
    name: str
    examples: int
    treatment: float
    control: float
    interval: Interval


@dataclass(frozen=True)
class Slices:
    """The paired difference on all test examples and on parts of them.

    `metric` is the primary one where it is a mean over examples, else accuracy where rows have one label.
    """

    metric: str
    slices: tuple[Slice, ...]
    classes_left_out: int

    def of(self, kind: Kind) -> list[Slice]:
        return [each for each in self.slices if each.kind == kind]


def slices(pairs: Sequence[Pair], confidence: float) -> Slices | None:
    """Return the differences by class and by length; None where examples have no value of their own, or no parts.

    Runs of before lengths were written, and baselines, lack them: then the classes alone are told apart.
    """
    found = [[_values(run) for run in pair] for pair in pairs]
    scored = [[values for values in pair if values is not None] for pair in found]
    if any(len(pair) < 2 for pair in scored):
        return None
    values = np.array(scored, dtype=float).transpose(1, 0, 2)
    parts = [*_classes(pairs[0][0]), *_lengths(pairs)]
    if not parts:
        return None
    kept = sorted((part for part in parts if part[0] == "class"), key=lambda part: -part[2].sum())[:MOST_CLASSES]
    names = {name for _, name, _ in kept}
    everything: tuple[Kind, str, NDArray] = "all", "all", np.ones(values.shape[2], dtype=bool)
    shown = [everything, *(part for part in parts if part[0] == "length" or part[1] in names)]
    first = pairs[0][0]
    metric = first.primary if first.result.get("per_example", {}).get(first.primary, False) else "accuracy"
    left = sum(part[0] == "class" for part in parts) - len(kept)
    return Slices(metric, tuple(_slice(part, values, confidence) for part in shown), left)


def _values(run: FinishedRun) -> NDArray | None:
    values = example_values(run)
    return (run.predictions == run.labels).astype(float) if values is None and run.classifies else values


def _classes(run: FinishedRun) -> Iterator[tuple[Kind, str, NDArray]]:
    if run.problem == "single_label_classification":
        for number, name in enumerate(run.result.get("labels", ())):
            if (mine := run.labels == number).any():
                yield "class", str(name), mine


def _lengths(pairs: Sequence[Pair]) -> Iterator[tuple[Kind, str, NDArray]]:
    """Yield the quarters by length, in tokens; fewer where many examples are equally long."""
    columns = (test_column(run, "length") for arm in zip(*pairs, strict=True) for run in arm)
    found = next((column for column in columns if column is not None and len(column)), None)
    if found is None:
        return
    lengths = found.to_numpy()
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, BUCKETS + 1)[1:], method="inverted_cdf"))
    bucket = np.searchsorted(edges, lengths)
    for each in range(len(edges) if len(edges) > 1 else 0):
        mine = bucket == each
        low, high = int(lengths[mine].min()), int(lengths[mine].max())
        yield "length", f"{count(low)} to {count(high)} tokens" if low < high else plural(low, "token"), mine


def _slice(part: tuple[Kind, str, NDArray], values: NDArray, confidence: float) -> Slice:
    kind, name, mine = part
    treatment, control = values[:, :, mine]
    interval = crossed_interval(treatment - control, confidence)
    return Slice(kind, name, int(mine.sum()), float(treatment.mean()), float(control.mean()), interval)


def slices_figure(comparison: Comparison) -> Figure | None:
    """The paired difference by class and by length, each beside that of all examples."""
    found, study, primary = comparison.answered.slices, comparison.study, comparison.primary
    if found is None or primary is None:
        return None
    unit = Unit(found.metric)
    kinds: tuple[tuple[str, Kind], ...] = (("By label", "class"), ("By input length", "length"))
    groups = [(title, [*found.of("all"), *found.of(kind)]) for title, kind in kinds if found.of(kind)]
    ends = [end * unit.scale for each in found.slices for end in _ends(each.interval)]
    limits = padded([0.0, *ends])
    margin = study.margin if found.metric == comparison.metric and study.margin else 0.0
    whole = {"symbol": "diamond", "size": 11, "color": "@ink"}
    part = {"symbol": "circle", "size": 9, "color": f"@arm{arm_index(study.treatment, comparison)}"}
    plots = []
    for title, group in groups:
        names = [f"{safe(_short(each.name))} ({count(each.examples)})" for each in group]
        layout = list_layout(names, unit.gap_title, margin * unit.scale, 30)
        layout["xaxis"] |= {"range": limits}
        marks = [
            interval_row(place, each.interval, unit, whole if each.kind == "all" else part)
            for place, each in enumerate(group)
        ]
        plots.append(Plot(title, marks, layout))
    said = [
        f"{each.name}, {plural(each.examples, 'test row')}: {unit.difference(each.interval.mean)}"
        for each in found.slices
    ]
    description = f"{study.treatment} minus {study.control} on parts of the test rows. {'; '.join(said)}."
    return Figure(
        "slices", "Where the difference comes from", _caption(found, comparison, unit), description, tuple(plots),
        _table(found, comparison, unit),
    )  # fmt: skip


def _caption(found: Slices, comparison: Comparison, unit: Unit) -> str:
    study, primary = comparison.study, comparison.primary
    assert primary is not None
    caption = (
        f"{study.treatment} minus {study.control} in {unit.name} on parts of the test rows (how many, in brackets), "
        f"with {plural(primary.labels, comparison.words.row)}; bars: {percent(study.confidence)} intervals over seeds "
        f"and examples, not corrected for there being several. Diamond: all test rows."
    )
    if found.metric != comparison.metric:
        caption += f" {_opening(Unit(comparison.metric).name)} is no mean over examples, so {unit.name} stands here."
    if found.of("length"):
        caption += " Lengths: tokens that the model was given of a row, in quarters."
    if found.classes_left_out:
        caption += f" {plural(found.classes_left_out, 'label')} with fewer rows left out."
    return caption


def _table(found: Slices, comparison: Comparison, unit: Unit) -> Table:
    study, share = comparison.study, percent(comparison.study.confidence)
    kinds = {"all": "all", "class": "label", "length": "length"}
    rows = tuple(
        (kinds[each.kind], each.name, count(each.examples), unit.score(each.treatment), unit.score(each.control),
         unit.difference(each.interval.mean),
         *(NONE if end is None else unit.signed(end) for end in (each.interval.low, each.interval.high)))
        for each in found.slices
    )  # fmt: skip
    columns = ("by", "part", "test rows", study.treatment, study.control, "difference", f"{share} low", f"{share} high")
    return Table(f"{_opening(unit.name)} on parts of the test rows", columns, rows, words=2)


def _ends(interval: Interval) -> Iterator[float]:
    yield interval.mean
    if interval.low is not None and interval.high is not None:
        yield from (interval.low, interval.high)


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:21]}…"


def _opening(name: str) -> str:
    return name[:1].upper() + name[1:]
