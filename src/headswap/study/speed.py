"""How much sooner one arm gets to a score, pair by pair, and what can be said where some run never does. Pure numbers.

Study chain: runs -> curves, speed (this) -> results. A ratio is a point with an interval only where every time is
known; where one is censored there is a lower bound of the median ratio, and no more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from headswap.study.runs import LearningCurve
from headswap.study.statistics import Interval, t_interval

MEASURES = ("steps", "examples", "flops", "seconds")
HITS = 3
ONE_SIDED = 0.95

Moment = dict[str, float]


@dataclass(frozen=True)
class Arrival:
    """When one pair's arms first held the control's own final validation score; None = not within the run."""

    seed: int
    target: float
    treatment: Moment | None
    control: Moment | None
    at_first_evaluation: bool
    """The treatment was there when first looked at, so its time is an upper bound."""
    treatment_end: Moment
    control_end: Moment
    control_at_first: bool = False


@dataclass(frozen=True)
class Bound:
    """A ratio that is known from below alone: `at_least` in the median pair, `low` with one-sided confidence.

    `low` is None where the seeds are too few for one, or too many of them never arrived.
    """

    at_least: float
    low: float | None
    confidence: float
    seeds: int


@dataclass(frozen=True)
class Survival:
    """Times to the target in examples where some run never got there.

    Attributes:
        cap: up to which every run was watched; the restricted means are those of min(time, cap).
        treatment_median: by Kaplan and Meier; None where fewer than half arrived; control_median likewise.
        treatment_left: (examples, share of runs not there yet) after each arrival.
        logrank_p: two-sided, of the same times in both arms; None where nothing can be compared.
    """

    cap: float
    treatment_mean: float
    control_mean: float
    treatment_median: float | None
    control_median: float | None
    treatment_left: tuple[tuple[float, float], ...]
    control_left: tuple[tuple[float, float], ...]
    logrank_p: float | None


def arrival_index(scores: NDArray[np.floating], target: float) -> int | None:
    """Return the first of three consecutive evaluations at `target` or above, None when there is none.

    A stretch that lasts to the end of the run counts even when it is shorter: the control thereby reaches its own
    final score by construction, and only the treatment can be censored. A single first hit would favour noise.
    """
    above = scores >= target
    hits = (index for index in range(len(above)) if above[index : index + HITS].all())
    return next(hits, None)


def arrival(seed: int, treatment: LearningCurve, control: LearningCurve) -> Arrival:
    """Return when both arms of a pair reached the control's score at its last evaluation."""
    target = float(control.scores[-1])
    first, second = arrival_index(treatment.scores, target), arrival_index(control.scores, target)
    return Arrival(
        seed,
        target,
        None if first is None else moment(treatment, first),
        None if second is None else moment(control, second),
        first == 0,
        moment(treatment, -1),
        moment(control, -1),
        second == 0,
    )


def moment(curve: LearningCurve, index: int) -> Moment:
    return {name: float(getattr(curve, name)[index]) for name in MEASURES}


def speed_ratios(arrivals: Sequence[Arrival], confidence: float) -> tuple[dict[str, Interval], dict[str, Bound]]:
    """Return by measure how many times less the treatment needed: intervals, or bounds where any time is censored."""
    censored = any(
        each.treatment is None or each.control is None or each.at_first_evaluation or each.control_at_first
        for each in arrivals
    )
    ratios: dict[str, Interval] = {}
    bounds: dict[str, Bound] = {}
    for measure in MEASURES:
        lowest = [_ratio_at_least(each, measure) for each in arrivals]
        if any(math.isnan(value) for value in lowest):
            continue
        if censored:
            bounds[measure] = lower_bound(lowest)
        elif min(lowest) > 0:
            ratios[measure] = _geometric(lowest, confidence)
    return ratios, bounds


def _ratio_at_least(pair: Arrival, measure: str) -> float:
    """Return what control / treatment is at least; NaN where the measure is not known.

    A treatment that never arrived may need any time: 0. One that was there when first looked at needed that time or
    less. A control that was there when first looked at may have needed none.
    """
    first, second = pair.treatment, pair.control or pair.control_end
    known = [moments[measure] for moments in (pair.treatment_end, pair.control_end, first or second, second)]
    if not all(math.isfinite(value) for value in known):
        return math.nan
    if first is None or pair.control_at_first or second[measure] <= 0:
        return 0.0
    return second[measure] / first[measure] if first[measure] > 0 else math.nan


def _geometric(ratios: Sequence[float], confidence: float) -> Interval:
    interval = t_interval(np.log(ratios), confidence)
    return replace(
        interval,
        mean=math.exp(interval.mean),
        low=None if interval.low is None else math.exp(interval.low),
        high=None if interval.high is None else math.exp(interval.high),
        standard_error=None,
        degrees_of_freedom=None,
        method="t over seeds of log ratios",
    )


def lower_bound(lowest: Sequence[float], confidence: float = ONE_SIDED) -> Bound:
    """Return what the median ratio is at least, from what each pair's ratio is at least; 0 says nothing.

    The limit is an order statistic: it holds whatever the ratios' distribution, and needs 5 seeds. Fewer than
    `place` of n ratios lie below the true median with probability `confidence` or more.
    """
    values = sorted(lowest)
    place = int(stats.binom.ppf(1 - confidence, len(values), 0.5))
    low = values[place - 1] if place else 0.0
    return Bound(values[(len(values) - 1) // 2], low or None, confidence, len(values))


def survival(arrivals: Sequence[Arrival]) -> Survival | None:
    """Return what Kaplan and Meier and the log-rank test say, None where every run arrived."""
    if all(each.treatment and each.control for each in arrivals):
        return None
    pairs = [
        [(each.treatment, each.treatment_end) for each in arrivals],
        [(each.control, each.control_end) for each in arrivals],
    ]
    cap = min(end["examples"] for arm in pairs for _, end in arm)
    times = [[(there or end)["examples"] for there, end in arm] for arm in pairs]
    means = [float(np.mean(np.minimum(arm, cap))) for arm in times]
    samples = [
        stats.CensoredData(
            uncensored=[there["examples"] for there, _ in arm if there],
            right=[end["examples"] for there, end in arm if not there],
        )
        for arm in pairs
    ]
    left = [_left(sample) for sample in samples]
    medians = [next((time for time, share in arm if share <= 0.5), None) for arm in left]
    return Survival(cap, means[0], means[1], medians[0], medians[1], left[0], left[1], _logrank(samples[0], samples[1]))


def _left(sample: stats.CensoredData) -> tuple[tuple[float, float], ...]:
    """Return the Kaplan-Meier estimate after each arrival."""
    found = stats.ecdf(sample).sf
    steps = zip(found.quantiles.tolist(), found.probabilities.tolist(), strict=True)
    shares = [1.0, *found.probabilities.tolist()]
    return tuple(step for before, step in zip(shares, steps, strict=False) if step[1] < before)


def _logrank(first: stats.CensoredData, second: stats.CensoredData) -> float | None:
    with np.errstate(divide="ignore", invalid="ignore"):
        found = float(stats.logrank(first, second).pvalue)
    return found if math.isfinite(found) else None
