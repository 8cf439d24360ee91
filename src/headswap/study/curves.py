"""What the learning curves and the training sizes say: speed of learning and labels saved. Pure numbers.

Study chain: runs -> curves (this) -> results. Scores are turned so that more is better before they come here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, optimize, stats

from headswap.study.runs import LearningCurve
from headswap.study.speed import Arrival, Bound, Survival, arrival, speed_ratios, survival
from headswap.study.statistics import Interval, t_interval

CENSORED_LIMIT = 0.05
RESAMPLES = 2000


@dataclass(frozen=True)
class Convergence:
    """Speed of learning at one size; areas are the mean score over log examples seen, in the metric's unit."""

    size: int | None
    labels: int
    treatment_area: float
    control_area: float
    area_difference: Interval
    arrivals: tuple[Arrival, ...]
    reached: int
    ratios: dict[str, Interval]
    """How many times less the treatment needed, by measure (geometric mean); empty when any pair is censored."""
    bounds: dict[str, Bound]
    """What the ratios are at least, when any pair is censored."""
    at_least: bool
    caught_up_at: float | None
    """Examples seen from which the control's mean curve stays level with or above the treatment's, if any."""
    survival: Survival | None = None
    control_gain: float = math.inf
    """How much better the control's last validation score is than its first, on average over seeds."""

    @property
    def ratio(self) -> Interval | None:
        """How many times fewer examples the treatment needed."""
        return self.ratios.get("examples")


@dataclass(frozen=True)
class LabelsSaved:
    """How many labels the control needs for the score that the treatment has with `labels`, as a ratio.

    `ratio` is None when 5 % or more of the seed resamples are censored; `bound` with `bound_kind` ("at least",
    "at most" or "unknown") then holds what can be said, one-sided 95 %. `transferred` is the effective data transferred
    (Hernandez et al. 2021, arXiv 2102.01293; there in characters): the labels that the control
    needs beyond those that the treatment has. Like the ratio it is None where censored; its bound then follows from it.
    """

    labels: int
    score: float
    ratio: float | None
    low: float | None
    high: float | None
    bound_kind: str
    bound: float | None
    censored_share: float
    transferred: float | None = None
    transferred_low: float | None = None
    transferred_high: float | None = None

    @property
    def settled(self) -> bool:
        """Whether the ratio, or where it is censored its bound, can be told from 1."""
        if self.bound is not None:
            return self.bound > 1 if self.bound_kind == "at least" else self.bound < 1
        return self.low is not None and self.high is not None and (self.low > 1 or self.high < 1)

    @property
    def sense(self) -> str:
        """Return what a bound has before its number; nothing before a ratio."""
        return {"at least": "≥ ", "at most": "≤ "}.get(self.bound_kind, "")


def curve_area(curve: LearningCurve, start: float, end: float) -> float:
    """Return the mean score between `start` and `end` examples seen, every doubling weighing the same."""
    grid = np.unique(np.concatenate([[start, end], curve.examples[(curve.examples > start) & (curve.examples < end)]]))
    scores = score_at(curve, grid)
    return float(integrate.trapezoid(scores, np.log(grid)) / math.log(end / start))


def score_at(curve: LearningCurve, examples: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the scores at these numbers of examples, linear in log examples, held flat outside the run."""
    seen = curve.examples > 0
    return np.interp(np.log(examples), np.log(curve.examples[seen]), curve.scores[seen])


def common_range(curves: list[LearningCurve]) -> tuple[float, float] | None:
    """Return the first and last number of examples that every curve covers, None when they share no stretch."""
    seen = [curve.examples[curve.examples > 0] for curve in curves]
    if not seen or any(len(examples) < 2 for examples in seen):
        return None
    start, end = max(examples[0] for examples in seen), min(examples[-1] for examples in seen)
    return (float(start), float(end)) if start < end else None


def convergence(
    size: int | None, labels: int, pairs: list[tuple[int, LearningCurve, LearningCurve]], confidence: float
) -> Convergence | None:
    """Compare the learning curves of the pairs (seed, treatment, control) of one size; None without common steps."""
    span = common_range([curve for _, first, second in pairs for curve in (first, second)])
    if span is None:
        return None
    areas = np.array([[curve_area(first, *span), curve_area(second, *span)] for _, first, second in pairs])
    arrivals = tuple(arrival(*pair) for pair in pairs)
    ratios, bounds = speed_ratios(arrivals, confidence)
    return Convergence(
        size,
        labels,
        float(areas[:, 0].mean()),
        float(areas[:, 1].mean()),
        t_interval(areas[:, 0] - areas[:, 1], confidence),
        arrivals,
        sum(each.treatment is not None for each in arrivals),
        ratios,
        bounds,
        any(each.at_first_evaluation for each in arrivals),
        _caught_up(pairs, span[0]),
        survival(arrivals),
        float(np.mean([second.scores[-1] - second.scores[0] for _, _, second in pairs])),
    )


def _caught_up(pairs: list[tuple[int, LearningCurve, LearningCurve]], start: float) -> float | None:
    seen = [curve.examples for _, first, second in pairs for curve in (first, second)]
    grid = np.unique(np.concatenate(seen))
    grid = grid[grid >= start]
    gaps = np.mean([score_at(first, grid) - score_at(second, grid) for _, first, second in pairs], axis=0)
    behind = np.flatnonzero(gaps > 0)
    if not behind.size:
        return float(grid[0])
    return float(grid[behind[-1] + 1]) if behind[-1] + 1 < len(grid) else None


def labels_saved(
    treatment: NDArray[np.floating],
    control: NDArray[np.floating],
    sizes: NDArray[np.floating],
    confidence: float = 0.95,
) -> list[LabelsSaved]:
    """Return the labels-saved ratio at every size, with intervals from seeds resampled jointly over arms and sizes.

    The resampled deviations are stretched by sqrt(S / (S - 1)) t / z, without which a bootstrap over a handful of
    seeds is too narrow. The learning-by-size curves are smoothed to rise only (isotonic regression), because more
    labels do not hurt but noise does, and interpolated in log labels.

    Args:
        treatment: [seeds, sizes] test scores, more is better; control likewise, with the same seeds in the rows.
        sizes: labelled rows, rising; at least two.
    """
    seeds = len(treatment)
    if seeds < 3 or len(sizes) < 2:
        return []
    means = np.stack([treatment.mean(axis=0), control.mean(axis=0)])
    dice = np.random.default_rng(0)
    drawn = dice.integers(seeds, size=(RESAMPLES, seeds))
    tail = (1 + confidence) / 2
    stretch = math.sqrt(seeds / (seeds - 1)) * stats.t.ppf(tail, seeds - 1) / stats.norm.ppf(tail)
    resampled = np.stack([treatment[drawn].mean(axis=1), control[drawn].mean(axis=1)], axis=1)
    logs = np.log(sizes)
    central = _log_ratios(means[0], means[1], logs)
    spread = np.array([_log_ratios(a, b, logs) for a, b in means + stretch * (resampled - means)])
    smooth = _rising(means[0])
    return [
        _saved(int(size), float(smooth[index]), central[index], spread[:, index], (sizes, confidence))
        for index, size in enumerate(sizes)
    ]


def _log_ratios(treatment: NDArray, control: NDArray, log_sizes: NDArray) -> NDArray:
    """Return log(labels the control needs / labels the treatment has) by size; +-inf beyond the control's sizes.

    nan where no label has bought either arm anything: any number of them is worth any other.
    """
    first, second = _rising(treatment), _rising(control)
    found = labels_for(first, second, log_sizes)
    bought_nothing = np.isneginf(found) & (first == first[0]) & (first == second[0])
    return np.where(bought_nothing, np.nan, found) - log_sizes


def labels_for(targets: NDArray, scores: NDArray, log_sizes: NDArray) -> NDArray:
    """Return the log labels at which rising `scores` first reach each target, by linear interpolation.

    +inf where no size does. -inf where the smallest has more, or the same as the next: how many fewer do is not known.
    """
    place = np.searchsorted(scores, targets, side="left")
    inner = np.clip(place, 1, len(scores) - 1)
    rise = scores[inner] - scores[inner - 1]
    share = (targets - scores[inner - 1]) / np.where(rise > 0, rise, 1.0)
    found = log_sizes[inner - 1] + share * (log_sizes[inner] - log_sizes[inner - 1])
    found = np.where(place == 0, np.where((targets < scores[0]) | (rise == 0), -np.inf, log_sizes[0]), found)
    return np.where(place == len(scores), np.inf, found)


def _rising(scores: NDArray) -> NDArray:
    return optimize.isotonic_regression(scores).x


def _saved(
    labels: int, score: float, central: float, spread: NDArray, frame: tuple[NDArray[np.floating], float]
) -> LabelsSaved:
    sizes, confidence = frame
    nothing, spread = np.isnan(spread), spread[~np.isnan(spread)]
    above, below = (float(np.sum(spread == end) + nothing.sum()) / nothing.size for end in (np.inf, -np.inf))
    censored = float(np.sum(np.isinf(spread)) + nothing.sum()) / nothing.size
    if censored < CENSORED_LIMIT and math.isfinite(central):
        inner = np.sort(np.clip(spread, math.log(sizes[0] / labels), math.log(sizes[-1] / labels)))
        low, high = np.quantile(inner, [(1 - confidence) / 2, (1 + confidence) / 2])
        ends = math.exp(central), math.exp(min(low, central)), math.exp(max(high, central))
        transferred = [(end - 1) * labels for end in ends]
        return LabelsSaved(labels, score, *ends, "", None, censored, *transferred)
    if above >= CENSORED_LIMIT and below >= CENSORED_LIMIT:
        return LabelsSaved(labels, score, None, None, None, "unknown", None, censored)
    tail = 0.05 if above >= below else 0.95
    edge = sizes[-1] if above >= below else sizes[0]
    limit = math.log(edge / labels)
    quantile = float(np.quantile(spread, tail, method="lower" if tail < 0.5 else "higher"))
    bound = math.exp(min(quantile, limit) if above >= below else max(quantile, limit))
    kind = "at least" if above >= below else "at most"
    return LabelsSaved(labels, score, None, None, None, kind, bound, censored)
