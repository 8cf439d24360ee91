"""Where the difference comes from: by class and by input length. Study chain: runs -> this -> figures."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from headswap.answers import Summed
from headswap.contracts import Metric
from headswap.study.contrasts import Pair, example_values
from headswap.study.linearised import linearised_interval, pseudo_values
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
Part = tuple[Kind, str, NDArray]
"""What a part is told apart by, its name, and which test examples are its own."""


@dataclass(frozen=True)
class Slice:
    """The paired difference on some of the test examples."""

    kind: Kind
    name: str
    examples: int
    treatment: float
    control: float
    interval: Interval
    others: Mapping[str, float] = field(default_factory=dict)
    """Further arms' scores, where their runs have what these are made of."""


@dataclass(frozen=True)
class Slices:
    """The paired difference on all test examples and on parts of them.

    `metric` is the primary one where it is a mean over examples or a function of sums over them; where rows have one
    label, accuracy stands in for what is no mean.
    """

    metric: str
    slices: tuple[Slice, ...]
    classes_left_out: int

    def of(self, kind: Kind) -> list[Slice]:
        return [each for each in self.slices if each.kind == kind]


def slices(
    pairs: Sequence[Pair],
    confidence: float,
    metric: Metric | None = None,
    others: Mapping[str, Sequence[FinishedRun]] | None = None,
) -> Slices | None:
    """Return the differences by class and by length; None where examples have no value of their own, or no parts.

    Runs of before lengths were written, and baselines, lack them: then the classes alone are told apart.

    Args:
        metric: the primary one; where it is no mean over examples but a function of sums over them (BLEU), a part is
            scored by the sums of its examples.
        others: the runs of further arms, whose scores stand beside.
    """
    judge = _Judge(pairs, confidence, metric, others or {})
    parts = [*_classes(pairs[0][0]), *_lengths(pairs)]
    if not parts or not (judge.means or judge.summed):
        return None
    kept = sorted((part for part in parts if part[0] == "class"), key=lambda part: -part[2].sum())[:MOST_CLASSES]
    names = {name for _, name, _ in kept}
    everything: Part = "all", "all", np.ones(len(pairs[0][0].ids), dtype=bool)
    shown = [everything, *(part for part in parts if part[0] == "length" or part[1] in names)]
    first = pairs[0][0]
    other = judge.means and not first.result.get("per_example", {}).get(first.primary, False)
    left = sum(part[0] == "class" for part in parts) - len(kept)
    return Slices("accuracy" if other else first.primary, tuple(judge(part) for part in shown), left)


@dataclass(frozen=True)
class _Judge:
    """Scores parts of the test examples: by means over examples, or where some run has none by sums over them."""

    pairs: Sequence[Pair]
    confidence: float
    metric: Metric | None
    others: Mapping[str, Sequence[FinishedRun]]

    def __call__(self, part: Part) -> Slice:
        kind, name, mine = part
        treatment, control = np.array([[self._score(run, mine) for run in pair] for pair in self.pairs]).T
        arms = {arm: [self._score(run, mine) for run in runs] for arm, runs in self.others.items() if self._known(runs)}
        return Slice(
            kind, name, int(mine.sum()), float(treatment.mean()), float(control.mean()),
            self._interval(mine, float((treatment - control).mean())),
            {arm: float(np.mean(scores)) for arm, scores in arms.items()},
        )  # fmt: skip

    @functools.cached_property
    def means(self) -> bool:
        return all(_values(run) is not None for pair in self.pairs for run in pair)

    @functools.cached_property
    def summed(self) -> bool:
        return all(self._has_sums(run) for pair in self.pairs for run in pair)

    def _has_sums(self, run: FinishedRun) -> bool:
        return isinstance(self.metric, Summed) and run.primary == self.metric.name and run.sums is not None

    def _known(self, runs: Sequence[FinishedRun]) -> bool:
        """Say whether all runs of an arm were tested on these examples, and have what they are scored by."""
        ids = self.pairs[0][0].ids
        able = all((_values(run) is not None) if self.means else self._has_sums(run) for run in runs)
        return bool(runs) and able and all(np.array_equal(run.ids, ids) for run in runs)

    def _score(self, run: FinishedRun, mine: NDArray) -> float:
        metric: Any = self.metric
        return _values(run)[mine].mean() if self.means else metric.of_sums(run.sums[mine].sum(axis=0))  # pyright: ignore

    def _interval(self, mine: NDArray, gap: float) -> Interval:
        metric: Any = self.metric
        given: Any = [[_values(run) if self.means else run.sums for run in pair] for pair in self.pairs]
        parts = [[each[mine] for each in pair] for pair in given]
        if self.means:
            return crossed_interval(np.array([first - second for first, second in parts], dtype=float), self.confidence)
        shares = [np.subtract(*(pseudo_values(metric.of_sums, each) for each in pair)) for pair in parts]
        return linearised_interval(np.array(shares), gap, self.confidence)


def _values(run: FinishedRun) -> NDArray | None:
    values = example_values(run)
    return (run.predictions == run.labels).astype(float) if values is None and run.classifies else values


def _classes(run: FinishedRun) -> Iterator[Part]:
    if run.problem == "single_label_classification":
        for number, name in enumerate(run.result.get("labels", ())):
            if (mine := run.labels == number).any():
                yield "class", str(name), mine


def lengths_of(pairs: Sequence[Pair]) -> NDArray | None:
    """Return the tokens of each test example (n,), as the first run that has written them counted; None for none."""
    columns = (test_column(run, "length") for arm in zip(*pairs, strict=True) for run in arm)
    found = next((column for column in columns if column is not None and len(column)), None)
    return None if found is None else found.to_numpy()


def _lengths(pairs: Sequence[Pair]) -> Iterator[Part]:
    """Yield the quarters by length, in tokens; fewer where many examples are equally long."""
    lengths = lengths_of(pairs)
    if lengths is None:
        return
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, BUCKETS + 1)[1:], method="inverted_cdf"))
    bucket = np.searchsorted(edges, lengths)
    for each in range(len(edges) if len(edges) > 1 else 0):
        mine = bucket == each
        low, high = int(lengths[mine].min()), int(lengths[mine].max())
        yield "length", f"{count(low)} to {count(high)} tokens" if low < high else plural(low, "token"), mine


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
    if found.of("all")[0].others:
        caption += " The table has the other arms' scores as well."
    if found.classes_left_out:
        caption += f" {plural(found.classes_left_out, 'label')} with fewer rows left out."
    return caption


def _table(found: Slices, comparison: Comparison, unit: Unit) -> Table:
    study, share = comparison.study, percent(comparison.study.confidence)
    kinds = {"all": "all", "class": "label", "length": "length"}
    rows = tuple(
        (kinds[each.kind], each.name, count(each.examples), unit.score(each.treatment), unit.score(each.control),
         unit.difference(each.interval.mean),
         *(NONE if end is None else unit.signed(end) for end in (each.interval.low, each.interval.high)),
         *map(unit.score, each.others.values()))
        for each in found.slices
    )  # fmt: skip
    columns = ("by", "part", "test rows", study.treatment, study.control, "difference", f"{share} low", f"{share} high")
    columns += tuple(found.slices[0].others)
    return Table(f"{_opening(unit.name)} on parts of the test rows", columns, rows, words=2)


def _ends(interval: Interval) -> Iterator[float]:
    yield interval.mean
    if interval.low is not None and interval.high is not None:
        yield from (interval.low, interval.high)


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:21]}…"


def _opening(name: str) -> str:
    return name[:1].upper() + name[1:]
