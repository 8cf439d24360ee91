"""Set a treatment's runs against the control's, seed by seed on the same test examples. Study chain: runs -> contrasts.

The metrics whose value an example has alone are compared by the crossed interval; those that only a whole split has
(F1, Matthews) by the t interval over seeds, and from 10 seeds by resampling seeds and examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headswap.errors import RunError
from headswap.spine import StudyConfig
from headswap.study import statistics
from headswap.study.runs import FinishedRun
from headswap.study.statistics import Components, Equivalence, Interval

BOOTSTRAP_SEEDS = 10
Outcome = Literal["better", "worse", "equivalent", "not settled"]
Pair = tuple[FinishedRun, FinishedRun]


@dataclass(frozen=True)
class PairedScores:
    """One seed's two test scores."""

    seed: int
    treatment: float
    control: float
    treatment_folder: str
    control_folder: str

    @property
    def difference(self) -> float:
        return self.treatment - self.control


@dataclass(frozen=True)
class Contrast:
    """Treatment minus control at one size, in the metric's unit."""

    treatment: str
    control: str
    size: int | None
    labels: int
    pairs: tuple[PairedScores, ...]
    test_examples: int
    interval: Interval
    seeds_interval: Interval
    scope: Literal["seeds and examples", "seeds only"]
    outcome: Outcome
    equivalence: Equivalence | None
    components: Components | None
    detectable: float | None
    seeds_needed: int | None
    examples_needed: int | None
    sign_flip_p: float | None
    pair_correlation: float | None
    disagreement: float | None
    """Mean share of test examples that the two runs of a pair predict differently."""


def contrast(pairs: Sequence[Pair], study: StudyConfig) -> Contrast:
    """Compare the paired runs of one size. Raises RunError when they were not tested on the same examples."""
    check_same_test(pairs)
    first, second = pairs[0]
    scores = tuple(PairedScores(a.seed, a.score, b.score, str(a.folder), str(b.folder)) for a, b in pairs)
    seeds_interval = statistics.t_interval([pair.difference for pair in scores], study.confidence)
    interval, components = _interval(pairs, seeds_interval)
    fair = statistics.equivalence(interval, study.margin)
    detectable, needed = _power(interval, components, study)
    return Contrast(
        first.arm,
        second.arm,
        first.record.size,
        first.labelled_rows,
        scores,
        len(first.ids),
        interval,
        seeds_interval,
        "seeds only" if interval is seeds_interval else "seeds and examples",
        outcome(interval, fair, first.result.get("greater_is_better", True)),
        fair,
        components,
        detectable,
        *needed,
        statistics.sign_flip_p([pair.difference for pair in scores]),
        statistics.pair_correlation([pair.treatment for pair in scores], [pair.control for pair in scores]),
        float(np.mean([a.predictions != b.predictions for a, b in pairs])) if first.classifies else None,
    )


def outcome(interval: Interval, fair: Equivalence | None, greater_is_better: bool) -> Outcome:
    """Return one of the four verdicts; lack of a difference is never taken for sameness."""
    if interval.low is not None and interval.high is not None and (interval.low > 0 or interval.high < 0):
        return "better" if (interval.low > 0) == greater_is_better else "worse"
    return "equivalent" if fair is not None and fair.equivalent else "not settled"


def check_same_test(pairs: Sequence[Pair]) -> None:
    """Raise RunError unless all runs have the same metric, label names and test rows (ids and labels)."""
    runs = [run for pair in pairs for run in pair]
    reference = runs[0]
    for run in runs[1:]:
        fault = _difference(reference, run)
        if fault:
            raise RunError(
                f"{reference.folder} and {run.folder}: runs of one comparison must share metric, labels and test rows; "
                f"{fault}; run them with the same task, data.split_seed, data.test_rows and metric"
            )


def example_values(run: FinishedRun) -> NDArray[np.floating] | None:
    """Return the primary metric's value of every test example, None when it is no mean of such values.

    Raises RunError when their mean is not the recorded score: the predictions are not those that were scored.
    """
    values = run.values
    if values is None or not run.result.get("per_example", {}).get(run.primary, False) or not run.ids.size:
        return None
    if abs(values.mean() - run.score) > 1e-6 * max(1.0, abs(run.score)):
        raise RunError(
            f"{run.folder}: predictions.parquet and result.json disagree; "
            f"test {run.primary} {values.mean():.6f} and {run.score:.6f}; run it again with output.reuse=false"
        )
    return values


def _interval(pairs: Sequence[Pair], over_seeds: Interval) -> tuple[Interval, Components | None]:
    values = [[example_values(run) for run in pair] for pair in pairs]
    rows = [first - second for first, second in values if first is not None and second is not None]
    if len(rows) == len(pairs):
        differences = np.array(rows)
        crossed = statistics.crossed_interval(differences, over_seeds.confidence)
        return crossed, statistics.variance_components(differences) if crossed.known else None
    statistic = _whole_split(pairs) if len(pairs) >= BOOTSTRAP_SEEDS else None
    if statistic is not None:
        size = len(pairs), len(pairs[0][0].ids)
        return statistics.pigeonhole_interval(statistic, *size, over_seeds.confidence), None
    spread = over_seeds.standard_error
    return over_seeds, None if spread is None else Components(spread**2 * len(pairs), 0.0, 0.0)


def _power(
    interval: Interval, components: Components | None, study: StudyConfig
) -> tuple[float | None, tuple[int | None, int | None]]:
    """Return what the study could detect and the seeds or examples it would need to detect the margin."""
    error, freedom = interval.standard_error, interval.degrees_of_freedom
    if error is None or freedom is None:
        return None, (None, None)
    detectable = statistics.minimum_detectable_effect(error, freedom, study.confidence)
    if components is None or study.margin <= 0:
        return detectable, (None, None)
    examples = interval.examples or 1
    needed = statistics.size_needed(components, study.margin, interval.seeds, examples, study.confidence)
    return detectable, needed if interval.examples else (needed[0], None)


def _difference(first: FinishedRun, second: FinishedRun) -> str:
    if first.primary != second.primary:
        return f"metrics {first.primary} and {second.primary}"
    if first.result.get("labels") != second.result.get("labels"):
        return f"labels {first.result.get('labels')} and {second.result.get('labels')}"
    if not np.array_equal(first.ids, second.ids):
        return (
            f"{len(first.ids)} and {len(second.ids)} test ids, {len(np.intersect1d(first.ids, second.ids))} in common"
        )
    other = [mine for mine, theirs in zip(first.labels.tolist(), second.labels.tolist(), strict=True) if mine != theirs]
    if other:
        return f"{len(other)} test rows with another label"
    return ""


def _whole_split(pairs: Sequence[Pair]) -> Callable[[NDArray, NDArray], float] | None:
    """Return (seeds, example counts) -> mean difference from confusion matrices, None for a metric not known here."""
    score = _CONFUSION_SCORES.get(pairs[0][0].primary)
    if score is None or not pairs[0][0].classifies:
        return None
    classes = 1 + max(int(max(run.labels.max(), run.predictions.max())) for pair in pairs for run in pair)
    cells = [[run.labels * classes + run.predictions for run in pair] for pair in pairs]

    def of(cell: NDArray, counts: NDArray) -> float:
        return score(np.bincount(cell, weights=counts, minlength=classes**2).reshape(classes, classes))

    ones = np.ones(len(pairs[0][0].ids))
    recomputed = [of(cell, ones) for pair in cells for cell in pair]
    if not np.allclose(recomputed, [run.score for pair in pairs for run in pair], rtol=0, atol=1e-6):
        return None  # the run's metric averages in another way

    def statistic(seeds: NDArray, counts: NDArray) -> float:
        gaps = {seed: of(cells[seed][0], counts) - of(cells[seed][1], counts) for seed in set(seeds.tolist())}
        return float(np.mean([gaps[seed] for seed in seeds.tolist()]))

    return statistic


def _macro_f1(confusion: NDArray) -> float:
    twice = confusion.sum(axis=0) + confusion.sum(axis=1)
    present = twice > 0
    return float(np.mean(2 * np.diag(confusion)[present] / twice[present]))


def _matthews(confusion: NDArray) -> float:
    actual, predicted, total = confusion.sum(axis=1), confusion.sum(axis=0), confusion.sum()
    below = (total**2 - predicted @ predicted) * (total**2 - actual @ actual)
    return float((np.trace(confusion) * total - actual @ predicted) / np.sqrt(below)) if below > 0 else 0.0


_CONFUSION_SCORES = {"macro_f1": _macro_f1, "matthews": _matthews, "matthews_correlation": _matthews}
