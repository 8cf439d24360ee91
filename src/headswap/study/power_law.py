"""error(N) = E + A N^-b over numbers of labels, an arm at a time, and whether it may be shown. Pure numbers.

Study chain: runs -> curves, power_law (this) -> results. A law is shown where it was fitted to six sizes or more and,
fitted without the largest of them, foretells it. It says nothing beyond twice the largest size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from headswap.study.curves import LabelsSaved

LEAST_SIZES = 6
LEAST_SEEDS = 3
RESAMPLES = 100
BEYOND = 2.0
MOST_STEPS = 100
"""Of one fit: a law that the data determine is found in about ten."""
_STEEPEST = 3.0


@dataclass(frozen=True)
class PowerLaw:
    """One arm's law; `labels`, `errors`, `low` and `high` are the line to draw, with its 95 % band.

    Attributes:
        left_out: the largest size: its error as foretold from the others, the ends of that, and as it was found.
        holds: whether what was found lies between these ends, and the resampled exponents off their limits.
    """

    arm: str
    floor: float
    scale: float
    exponent: float
    smallest: float
    largest: float
    labels: tuple[float, ...]
    errors: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    left_out: tuple[float, float, float, float]
    holds: bool

    def labels_for(self, error: float) -> float | None:
        """Return the labels at which the law comes to an error, None outside (half of smallest, twice largest)."""
        if error <= self.floor:
            return None
        found = (self.scale / (error - self.floor)) ** (1 / self.exponent)
        return found if self.smallest / BEYOND <= found <= self.largest * BEYOND else None

    def error_at(self, labels: float) -> float:
        return self.floor + self.scale * labels**-self.exponent


def power_law(
    arm: str, sizes: Sequence[float], errors: Sequence[Sequence[float]], confidence: float = 0.95
) -> PowerLaw | None:
    """Fit the law to an arm's errors; None for fewer than six sizes of three seeds, or where the error does not fall.

    Args:
        sizes: labelled rows, rising.
        errors: by size, one a seed; less is better, and 0 is the best there is.
    """
    if len(sizes) < LEAST_SIZES or any(len(each) < LEAST_SEEDS for each in errors):
        return None
    counts, means = np.array(sizes, dtype=float), np.array([np.mean(each) for each in errors])
    spread = np.array([np.std(each, ddof=1) / math.sqrt(len(each)) for each in errors])
    if spread.max() <= 1e-12 * means.max() or means[0] - means[-1] <= 2 * math.hypot(spread[0], spread[-1]):
        return None  # nothing falls that could be told from chance
    spread = np.maximum(spread, spread[spread > 0].min())  # a size whose seeds agree by luck does not outweigh all
    middle = float(np.exp(np.log(counts).mean()))
    try:
        return _fitted(
            arm, (counts, counts / middle, middle), (means, spread, _stretch(errors, confidence)), confidence
        )
    except RuntimeError:  # curve_fit found none, or the noise leaves it open
        return None


def fitted_ratio(saved: LabelsSaved, laws: Sequence[PowerLaw], names: tuple[str, str]) -> float | None:
    """Return the labels-saved ratio by the laws of treatment and control, where both hold and interpolation agrees."""
    known = {law.arm: law for law in laws if law.holds}
    if saved.low is None or saved.high is None or any(name not in known for name in names):
        return None
    needed = known[names[1]].labels_for(known[names[0]].error_at(saved.labels))
    if needed is None or not saved.low <= needed / saved.labels <= saved.high:
        return None
    return needed / saved.labels


def _stretch(errors: Sequence[Sequence[float]], confidence: float) -> NDArray[np.floating]:
    """Return by size how much wider than normal a mean of so few seeds strays: t / z."""
    tail = (1 + confidence) / 2
    return stats.t.ppf(tail, np.array([len(each) - 1 for each in errors])) / stats.norm.ppf(tail)


def _fitted(
    arm: str, places: tuple[NDArray, NDArray, float], found: tuple[NDArray, NDArray, NDArray], confidence: float
) -> PowerLaw:
    (counts, scaled, middle), (means, spread, stretch) = places, found
    central = _fit(scaled, means, spread)
    shorter = _fit(scaled[:-1], means[:-1], spread[:-1])
    drawn = means + stretch * spread * np.random.default_rng(0).standard_normal((RESAMPLES, len(means)))
    fits = np.array([_fit(scaled, each, spread, central) for each in drawn])
    foretold = np.array([_law(scaled[-1], *_fit(scaled[:-1], each[:-1], spread[:-1], shorter)) for each in drawn])
    grid = np.geomspace(counts[0], counts[-1], 24)
    lines = np.array([_law(grid / middle, *fit) for fit in fits])
    ends = (1 - confidence) / 2, (1 + confidence) / 2
    low, high = np.quantile(lines, ends, axis=0)
    apart = np.quantile(foretold - drawn[:, -1] + means[-1], ends)
    floor, scale, exponent = (float(value) for value in central)
    drawn_lines = [tuple(line.tolist()) for line in (grid, _law(grid / middle, floor, scale, exponent), low, high)]
    left_out = float(_law(scaled[-1], *shorter)), float(apart[0]), float(apart[1]), float(means[-1])
    return PowerLaw(
        arm=arm,
        floor=floor,
        scale=scale * middle**exponent,
        exponent=exponent,
        smallest=float(counts[0]),
        largest=float(counts[-1]),
        labels=drawn_lines[0],
        errors=drawn_lines[1],
        low=drawn_lines[2],
        high=drawn_lines[3],
        left_out=left_out,
        holds=bool(apart[0] <= means[-1] <= apart[1]) and _determined(fits[:, 2]),
    )


def _determined(exponents: NDArray) -> bool:
    return bool(np.mean((exponents > 0.01) & (exponents < 0.99 * _STEEPEST)) >= 0.95)


def _fit(scaled: NDArray, errors: NDArray, spread: NDArray, start: NDArray | None = None) -> NDArray:
    highest = float(np.max(errors))
    first = np.array([0.5 * max(float(np.min(errors)), 0.0), max(highest, 1e-9), 0.5]) if start is None else start
    limits = [0.0, 0.0, 0.0], [max(highest, 2 * float(first[0]), 1e-9), np.inf, _STEEPEST]
    return optimize.curve_fit(
        _law,
        scaled,
        errors,
        p0=np.clip(first, *limits),
        sigma=spread,
        absolute_sigma=True,
        bounds=limits,
        jac=_slopes,
        ftol=1e-6,
        xtol=1e-6,
        max_nfev=MOST_STEPS,
    )[0]


def _law(scaled: NDArray, floor: float, scale: float, exponent: float) -> NDArray:
    return floor + scale * scaled**-exponent


def _slopes(scaled: NDArray, floor: float, scale: float, exponent: float) -> NDArray:
    fallen = scaled**-exponent
    return np.stack([np.ones_like(scaled), fallen, -scale * fallen * np.log(scaled)], axis=1)
