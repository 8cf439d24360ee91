"""What an arm is worth over several tasks: interquartile mean and probability of improvement. Numbers in, numbers out.

Joined chain: reading -> joining (these) -> verdict, figures, page. Both are those of Agarwal et al. 2021 (2108.13264,
the rliable library), with the intervals changed where bench/joined_coverage.py found them too narrow: seeds are
resampled within tasks in pairs, and the resampled deviations are stretched for there being few of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from headswap.study.statistics import Interval

MINIMUM_TASKS = 4
RESAMPLES = 2000
METHOD = "bootstrap of seeds within tasks"
Sample = tuple[NDArray[np.floating], NDArray[np.floating]]
"""One task's test scores by paired seed: treatment, control."""
Statistic = Callable[..., NDArray[np.floating]]
"""(seed places of every task) -> [values, ...]"""


@dataclass(frozen=True)
class Interquartile:
    """The mean of the middle half of all scores, tasks and seeds pooled, of both arms and of their difference."""

    treatment: Interval
    control: Interval
    difference: Interval


def interquartile_mean(*scores: NDArray[np.floating], axis: int = -1) -> NDArray[np.floating]:
    """Return the mean of the scores of all tasks together without the lowest and the highest quarter of them."""
    return np.asarray(stats.trim_mean(np.concatenate(scores, axis=axis), 0.25, axis=axis))


def improvement_in(treatment: NDArray[np.floating], control: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return how often a run of the treatment scores above one of the control, ties half: Mann-Whitney's U / (m n)."""
    found = stats.mannwhitneyu(treatment, control, axis=-1, method="asymptotic")  # its p is not used
    return np.asarray(found.statistic) / (treatment.shape[-1] * control.shape[-1])


def interquartile(samples: Sequence[Sample], confidence: float) -> Interquartile | None:
    """Return both arms' interquartile means and their difference; None for fewer than four tasks."""
    if len(samples) < MINIMUM_TASKS:
        return None

    def statistic(*drawn: NDArray[np.intp], axis: int = -1) -> NDArray[np.floating]:
        arms = [[sample[arm][seeds] for sample, seeds in zip(samples, drawn, strict=True)] for arm in (0, 1)]
        first, second = (interquartile_mean(*scores, axis=axis) for scores in arms)
        return np.stack([first, second, first - second])

    return Interquartile(*_intervals(samples, statistic, confidence))


def improvement(samples: Sequence[Sample], confidence: float) -> Interval | None:
    """Return the mean over tasks of P(treatment > control), more being better; None for fewer than four tasks."""
    if len(samples) < MINIMUM_TASKS:
        return None

    def statistic(*drawn: NDArray[np.intp], axis: int = -1) -> NDArray[np.floating]:
        pairs = zip(samples, drawn, strict=True)
        tasks = [improvement_in(treatment[seeds], control[seeds]) for (treatment, control), seeds in pairs]
        return np.mean(tasks, axis=0)[None]

    return _within(_intervals(samples, statistic, confidence)[0], 0.0, 1.0)


def stretch(seeds: Sequence[int], confidence: float) -> float:
    """Return by how much resampled deviations are too small with these numbers of seeds a task."""
    fewest = min(seeds)
    freedom = sum(seeds) / 2 - len(seeds) / 2
    tail = (1 + confidence) / 2
    return math.sqrt(fewest / (fewest - 1)) * float(stats.t.ppf(tail, freedom) / stats.norm.ppf(tail))


def _intervals(samples: Sequence[Sample], statistic: Statistic, confidence: float) -> list[Interval]:
    seeds = [len(treatment) for treatment, _ in samples]
    places = [np.arange(count) for count in seeds]
    central = statistic(*places)
    if min(seeds) < 2:
        reason = "a task with a single paired seed has no spread over seeds"
        return [_bare(float(value), confidence, sum(seeds), reason) for value in central]
    drawn = stats.bootstrap(
        places, statistic, n_resamples=RESAMPLES, vectorized=True, method="percentile", rng=np.random.default_rng(0)
    ).bootstrap_distribution
    wide = stretch(seeds, confidence)
    return [
        _percentile(float(value), wide * (row - value), confidence, sum(seeds))
        for value, row in zip(central, drawn, strict=True)
    ]


def _percentile(central: float, deviations: NDArray[np.floating], confidence: float, seeds: int) -> Interval:
    if np.ptp(deviations) <= 1e-12 * max(1.0, abs(central)):
        return _bare(central, confidence, seeds, "no resampling of the seeds changes it, so it has no spread to show")
    low, high = central + np.quantile(deviations, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(central, float(low), float(high), None, None, confidence, seeds, method=METHOD)


def _bare(central: float, confidence: float, seeds: int, reason: str) -> Interval:
    return Interval(central, None, None, None, None, confidence, seeds, method=METHOD, reason=reason)


def _within(interval: Interval, least: float, most: float) -> Interval:
    if interval.low is None or interval.high is None:
        return interval
    return replace(interval, low=max(least, interval.low), high=min(most, interval.high))
