"""Set a treatment's runs against the control's, seed by seed on the same test examples. Study chain: runs -> contrasts.

The metrics whose value an example has alone are compared by the crossed interval; those that only a whole split has
(F1, BLEU, perplexity) by the t interval over seeds, and from 10 seeds by resampling seeds and examples where the metric
is a function of sums over examples (answers.Summed).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from headswap.answers import Summed
from headswap.contracts import Metric
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


def contrast(pairs: Sequence[Pair], study: StudyConfig, metric: Metric | None = None) -> Contrast:
    """Compare the paired runs of one size. Raises RunError when they were not tested on the same examples.

    Args:
        metric: the primary one, whose scores of resampled examples are wanted; without it those of means alone are.
    """
    check_same_test(pairs)
    first, second = pairs[0]
    scores = tuple(PairedScores(a.seed, a.score, b.score, str(a.folder), str(b.folder)) for a, b in pairs)
    seeds_interval = statistics.t_interval([pair.difference for pair in scores], study.confidence)
    interval, components = _interval(pairs, seeds_interval, metric)
    fair = statistics.equivalence(interval, study.margin) if study.margin else None
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
        outcome(interval, fair, first.greater_is_better),
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
    for one, other in pairs:
        _check_same_targets(one, other)


def _check_same_targets(first: FinishedRun, second: FinishedRun) -> None:
    """Refuse language models of a pair that had other tokens to guess: their losses are not of one thing."""
    if not first.problem.endswith("language_modeling"):
        return
    counts = [[sums[2] for sums in run.predictions] for run in (first, second)]
    if counts[0] != counts[1]:
        raise RunError(
            f"{first.folder} and {second.folder}: runs of one comparison must guess the same tokens; found "
            f"{sum(counts[0]):.0f} and {sum(counts[1]):.0f} targets; give both arms one tokenizer and one masking"
        )


def example_values(run: FinishedRun) -> NDArray[np.floating] | None:
    """Return the primary metric's value of every test example, None when it is no mean of such values.

    Raises RunError when their mean is not the recorded score: the predictions are not those that were scored.
    """
    values = run.values
    if values is None or not run.result.get("per_example", {}).get(run.primary, False) or not run.ids.size:
        return None
    _check_score(run, float(values.mean()))
    return values


def _interval(pairs: Sequence[Pair], over_seeds: Interval, metric: Metric | None) -> tuple[Interval, Components | None]:
    values = [[example_values(run) for run in pair] for pair in pairs]
    rows = [first - second for first, second in values if first is not None and second is not None]
    if len(rows) == len(pairs):
        differences = np.array(rows)
        crossed = statistics.crossed_interval(differences, over_seeds.confidence)
        return crossed, statistics.variance_components(differences) if crossed.known else None
    statistic = _whole_split(pairs, metric) if len(pairs) >= BOOTSTRAP_SEEDS else None
    if statistic is not None:
        size = len(pairs), len(pairs[0][0].ids)
        resampled = statistics.pigeonhole_interval(statistic, *size, over_seeds.confidence)
        if resampled.known:
            return resampled, None
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
    if components is None or not study.margin:
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


def _whole_split(pairs: Sequence[Pair], metric: Metric | None) -> Callable[[NDArray, NDArray], float] | None:
    """Return (seeds, how often each example counts) -> mean difference; None for a metric that sums do not give.

    Raises RunError when the sums do not give the recorded score: they are not those of the metric that was computed.
    """
    runs = [run for pair in pairs for run in pair]
    if not isinstance(metric, Summed) or any(run.sums is None or run.primary != metric.name for run in runs):
        return None
    columns = [sparse.csr_array(run.sums.T) for run in runs if run.sums is not None]
    score = metric.of_sums
    for run, column in zip(runs, columns, strict=True):
        _check_score(run, score(column.sum(axis=1)))

    def statistic(seeds: NDArray, counts: NDArray) -> float:
        gaps = {
            seed: score(columns[2 * seed] @ counts) - score(columns[2 * seed + 1] @ counts)
            for seed in set(seeds.tolist())
        }
        return float(np.mean([gaps[seed] for seed in seeds.tolist()]))

    return statistic


def _check_score(run: FinishedRun, found: float) -> None:
    if not abs(found - run.score) <= 1e-6 * max(1.0, abs(run.score)):
        raise RunError(
            f"{run.folder}: predictions.parquet and result.json disagree; "
            f"test {run.primary} {found:.6f} and {run.score:.6f}; run it again with output.reuse=false"
        )
