"""Simulated studies for bench/coverage.py: what 2,000 studies of one design would have measured, with the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 200


@dataclass(frozen=True)
class Design:
    """Paired seeds, test examples, and the standard deviation between seeds of a paired difference.

    `lean`: how far a fifth of the examples of right_and_wrong() leans to one arm, at every seed.
    """

    seeds: int
    examples: int
    deviation: float
    lean: float = 0.5

    def __str__(self) -> str:
        return f"{self.seeds} × {self.examples:,}, {100 * self.deviation:g} pp{'' if self.lean else ', no row leans'}"

    @property
    def dice(self) -> np.random.Generator:
        return np.random.default_rng([self.seeds, self.examples, round(1e4 * self.deviation)])


@dataclass(frozen=True)
class Runs:
    """Runs scored by a function of sums: `sums` is [studies, arms, seeds, examples, k], the treatment first."""

    sums: NDArray
    score: Callable[[NDArray], NDArray]
    truth: float

    @property
    def gaps(self) -> NDArray:
        """Differences of the scores [studies, seeds]."""
        scores = self.score(self.sums.sum(axis=3, dtype=float))
        return scores[:, 0] - scores[:, 1]


def right_and_wrong(design: Design, truth: float, studies: int) -> NDArray[np.int8]:
    """Draw differences of right and wrong answers [studies, seeds, examples] whose mean is `truth`.

    A fifth of the examples leans to one arm at every seed, seeds differ by the design's deviation, the rest is chance.
    """
    dice, (seeds, examples) = design.dice, (design.seeds, design.examples)
    drawn = np.empty((studies, seeds, examples), dtype=np.int8)
    for block in np.array_split(drawn, max(1, drawn.size // 4_000_000)):
        leans = dice.random((len(block), 1, examples), dtype=np.float32)
        lean = design.lean * np.where(leans < 0.1, -1, leans < 0.2).astype(np.float32)
        shift = np.float32(truth) + dice.normal(0, design.deviation, (len(block), seeds, 1)).astype(np.float32)
        differing, chance = np.abs(lean) + np.float32(0.15), lean + shift
        dots = dice.random(block.shape, dtype=np.float32)
        block[:] = (dots < (differing + chance) / 2).astype(np.int8) - (dots > 1 - (differing - chance) / 2)
    return drawn


def found_by(design: Design, studies: int) -> NDArray[np.bool_]:
    """Draw what two checkpoints get right [studies, 2, examples]: equally able, on examples of equal hardness."""
    dice = design.dice
    hardness = dice.normal(0, 0.8, (studies, 1, design.examples))
    return hardness + dice.normal(0, 0.6, (studies, 2, design.examples)) < 0.7


def family(
    design: Design, gains: tuple[float, ...], studies: int, p_of: Callable[[NDArray], NDArray]
) -> tuple[NDArray, NDArray[np.bool_]]:
    """Return p-values [studies, comparisons] of arms against one control at three sizes, and which are truly null.

    All arms meet the same examples, and each leans its own way on them at all sizes; the control's runs are in each
    comparison of their size. The first arm's at the largest size is primary and left out.
    """
    dice, (seeds, examples) = design.dice, (design.seeds, design.examples)
    rows = 0.6 * dice.standard_normal((studies, 1, examples), dtype=np.float32)
    leans = [0.5 * dice.standard_normal((studies, 1, examples), dtype=np.float32) for _ in (0.0, *gains)]

    def right(arm: int, gain: float) -> NDArray[np.int8]:
        ability = 0.6 + (gain + dice.normal(0, design.deviation / math.sqrt(2), (studies, seeds, 1))) / 0.33
        chance = dice.standard_normal((studies, seeds, examples), dtype=np.float32)
        return (rows + leans[arm] + np.float32(0.62) * chance < ability).astype(np.int8)

    p_values, null = [], []
    for size in range(3):
        control = right(0, 0.0)
        for arm, gain in enumerate(gains, start=1):
            if (arm, size) != (1, 2):
                p_values.append(p_of(right(arm, gain) - control))
                null.append(gain == 0)
    return np.stack(p_values, axis=1), np.array(null)


def macro_f1_runs(design: Design, studies: int, dice: np.random.Generator, rarest: float = 0.2) -> Runs:
    """Draw three labels of unequal size, the rarer the harder; a wrong answer names the commonest other label.

    A run is right with probability Phi(ability + ease of the label), so the score of infinitely many rows is known.

    Args:
        rarest: share of the rows with the rarest label.
    """
    seeds, examples = design.seeds, design.examples
    shares, ease, wrong = np.array([0.7 - rarest, 0.3, rarest]), np.array([0.9, 0.6, 0.3]), np.array([1, 0, 0])
    gain, spread = 0.1, 2.5 * design.deviation
    labels = dice.choice(3, size=(studies, 1, 1, examples), p=shares)
    ability = np.array([gain, 0.0])[:, None, None] + dice.normal(0, spread, (studies, 2, seeds, 1))
    answers = np.where(_chance(studies, design, dice) < ability + ease[labels], labels, wrong[labels])
    truly = np.broadcast_to(labels, answers.shape)
    hits = [(answers == label) & (truly == label) for label in range(3)]
    columns = [*hits, *(answers == label for label in range(3)), *(truly == label for label in range(3))]

    def expected(ability: float) -> float:
        right = shares * stats.norm.cdf(ability + ease)
        predicted = right + np.bincount(wrong, weights=shares - right, minlength=3)
        return float(macro_f1(np.concatenate([right, predicted, shares])))

    truth = _mean_over_seeds(expected, gain, spread) - _mean_over_seeds(expected, 0.0, spread)
    return Runs(np.stack(columns, axis=-1).astype(np.int8), macro_f1, truth)


def pearson_runs(design: Design, studies: int, dice: np.random.Generator) -> Runs:
    """Draw a number for each row and each run's guess of it, whose error has a standard deviation of 1."""
    gain, spread = 0.15, 2.5 * design.deviation
    actual = dice.standard_normal((studies, 1, 1, design.examples))
    skill = 1 + np.array([gain, 0.0])[:, None, None] + dice.normal(0, spread, (studies, 2, design.seeds, 1))
    guesses = skill * actual + _chance(studies, design, dice)
    truly = np.broadcast_to(actual, guesses.shape)
    columns = [np.ones_like(guesses), guesses, truly, guesses**2, truly**2, guesses * truly]

    def expected(skill: float) -> float:
        return skill / math.sqrt(skill**2 + 1)

    truth = _mean_over_seeds(expected, 1 + gain, spread) - _mean_over_seeds(expected, 1.0, spread)
    return Runs(np.stack(columns, axis=-1), pearson, truth)


def _chance(studies: int, design: Design, dice: np.random.Generator) -> NDArray:
    """Draw unit normals [studies, arms, seeds, examples]: of a row, of a row and an arm, and of each answer."""
    shapes = (1, 1), (2, 1), (2, design.seeds)
    parts = [dice.standard_normal((studies, *shape, design.examples)) for shape in shapes]
    return 0.6 * parts[0] + 0.5 * parts[1] + math.sqrt(1 - 0.6**2 - 0.5**2) * parts[2]


def _mean_over_seeds(expected: Callable[[float], float], centre: float, spread: float) -> float:
    points, weights = np.polynomial.hermite_e.hermegauss(21)
    return float(sum(w * expected(centre + spread * p) for p, w in zip(points, weights / weights.sum(), strict=True)))


def macro_f1(totals: NDArray) -> NDArray:
    right, predicted, actual = np.moveaxis(totals.reshape(*totals.shape[:-1], 3, 3), -2, 0)
    below = predicted + actual
    return np.where(below > 0, 2 * right / np.maximum(below, 1e-12), 0.0).mean(axis=-1)


def pearson(totals: NDArray) -> NDArray:
    count = totals[..., 0]
    first, second, square, other, product = (totals[..., place] / count for place in range(1, 6))
    return (product - first * second) / np.sqrt((square - first**2) * (other - second**2))


def shares(runs: Runs) -> NDArray:
    """Return differences of jackknife pseudo-values [studies, seeds, examples] (linearised.pseudo_values on arrays)."""
    count, totals = runs.sums.shape[3], runs.sums.sum(axis=3, keepdims=True, dtype=float)
    values = count * runs.score(totals) - (count - 1) * runs.score(totals - runs.sums)
    return values[:, 0] - values[:, 1]


def pigeonhole_errors(runs: Runs) -> NDArray:
    """Return the standard error of each study by resampling its seeds and its examples independently (Owen 2007)."""
    studies, _, seeds, examples, width = runs.sums.shape
    dice = np.random.default_rng(0)
    often = dice.multinomial(examples, np.full(examples, 1 / examples), size=RESAMPLES).astype(np.float32)
    weights = dice.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds
    errors = np.empty(studies)
    for study, sums in enumerate(runs.sums):
        columns = sums.transpose(2, 0, 1, 3).reshape(examples, -1).astype(np.float32)
        scores = runs.score((often @ columns).reshape(RESAMPLES, 2, seeds, width).astype(float))
        errors[study] = ((scores[:, 0] - scores[:, 1]) * weights).sum(axis=1).std(ddof=1)
    return errors


def labels_curves(saving: float, studies: int) -> Iterator[tuple[NDArray, NDArray, NDArray]]:
    """Yield treatment and control [seeds, sizes]: 0.1 a doubling of labels, and `saving` times the labels."""
    sizes = np.array([100.0, 200.0, 400.0, 800.0, 1600.0])
    dice, rise = np.random.default_rng(round(saving)), 0.1 * np.log2(sizes / 100)
    for _ in range(studies):
        noise = dice.normal(0, 0.02, (2, 5, 5))
        yield 0.4 + 0.1 * math.log2(saving) + rise + noise[0], 0.4 + rise + noise[1], sizes


def table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print a Markdown table line by line."""
    print("", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", sep="\n")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)
