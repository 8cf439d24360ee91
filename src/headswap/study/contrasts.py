"""Set a treatment's runs against the control's, seed by seed on the same test examples. Study chain: runs -> contrasts.

The metrics whose value an example has alone are compared by the crossed interval; those that only a whole split has
(F1, BLEU, perplexity) by the same interval over what each example adds to them, where they are functions of sums over
examples (answers.Summed), and by the t interval over seeds where they are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headswap.answers import Summed
from headswap.contracts import Metric
from headswap.errors import RunError
from headswap.spine import StudyConfig
from headswap.study import statistics
from headswap.study.linearised import linearised_interval, pseudo_values
from headswap.study.runs import FinishedRun
from headswap.study.statistics import Components, Equivalence, Interval, McNemar

Outcome = Literal["better", "worse", "equivalent", "not settled"]
Pair = tuple[FinishedRun, FinishedRun]
DIFFERENT = ("better", "worse")
OF_TARGETS = ("perplexity", "token_loss", "target_accuracy")
"""The metrics of a target's tokens, whose second sum is their number."""


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
    mcnemar: McNemar | None = None
    """Of one pair alone, where an example is right or wrong: these two checkpoints, not the methods."""
    q: float | None = None
    """Benjamini-Hochberg over all contrasts of the study but the primary one, which has none."""

    @property
    def said(self) -> str:
        """The outcome, and whether correcting for several comparisons takes a difference back."""
        taken_back = self.q is not None and self.q > 1 - self.interval.confidence
        return f"{self.outcome} before correction" if taken_back and self.outcome in DIFFERENT else self.outcome


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
        _mcnemar(pairs),
    )


def corrected(contrasts: Sequence[Contrast], primary: Contrast | None) -> tuple[Contrast, ...]:
    """Give every contrast but the primary its q, over all that have a p: the primary was declared beforehand."""
    found = statistics.q_values([None if each is primary else each.interval.p_value() for each in contrasts])
    return tuple(replace(each, q=q) for each, q in zip(contrasts, found, strict=True))


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
    """Refuse models of a pair that had other tokens to guess: their losses are not of one thing."""
    counts = [_targets(run) for run in (first, second)]
    if counts[0] != counts[1]:
        raise RunError(
            f"{first.folder} and {second.folder}: runs of one comparison must guess the same tokens; found "
            f"{sum(counts[0]):.0f} and {sum(counts[1]):.0f} targets; give both arms one tokenizer and one masking"
        )


def _targets(run: FinishedRun) -> list[float]:
    """Return how many tokens each example had to guess, empty where the metric is none of tokens."""
    if run.problem.endswith("language_modeling"):
        return [sums[2] for sums in run.predictions]
    of_tokens = run.problem == "sequence_to_sequence" and run.primary in OF_TARGETS
    return run.sums[:, 1].tolist() if of_tokens and run.sums is not None else []


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
    shares = _shares(pairs, metric)
    if shares is not None:
        found = linearised_interval(shares, over_seeds.mean, over_seeds.confidence)
        if found.known:
            return found, statistics.variance_components(shares)
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


def _shares(pairs: Sequence[Pair], metric: Metric | None) -> NDArray[np.floating] | None:
    """Return differences [seeds, examples] of what examples add to the score; None for a metric that sums do not give.

    Raises RunError when the sums do not give the recorded score: they are not those of the metric that was computed.
    """
    if not isinstance(metric, Summed):
        return None
    rows = []
    for pair in pairs:
        sums = [run.sums for run in pair if run.sums is not None and run.primary == metric.name]
        if len(sums) < len(pair):
            return None
        for run, each in zip(pair, sums, strict=True):
            _check_score(run, metric.of_sums(each.sum(axis=0)))
        rows.append(pseudo_values(metric.of_sums, sums[0]) - pseudo_values(metric.of_sums, sums[1]))
    return np.array(rows)


def _mcnemar(pairs: Sequence[Pair]) -> McNemar | None:
    """Return the test of a lone pair, where the metric says of each example that it is right or wrong."""
    if len(pairs) > 1 or not pairs[0][0].greater_is_better:
        return None
    first, second = (example_values(run) for run in pairs[0])
    if first is None or second is None or not np.isin([first, second], (0, 1)).all():
        return None
    return statistics.mcnemar(first, second)


def _check_score(run: FinishedRun, found: float) -> None:
    if not abs(found - run.score) <= 1e-6 * max(1.0, abs(run.score)):
        raise RunError(
            f"{run.folder}: predictions.parquet and result.json disagree; "
            f"test {run.primary} {found:.6f} and {run.score:.6f}; run it again with output.reuse=false"
        )
