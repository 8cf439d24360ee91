"""How the best score came about, and how far chance alone may explain it: best-so-far and its bands."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

from headswap.sweep.findings import Findings, Tried

SHARE = 0.95


@dataclass(frozen=True)
class Band:
    """A band over the trial numbers; an end is None where there is none.

    Args:
        kind: "luck": where the median best of so many random trials lies, with 95 % confidence at each number.
            "quartiles": of the finished trials so far.
        numbers: of the trials at which the ends stand.
    """

    kind: Literal["luck", "quartiles"]
    numbers: tuple[int, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]


def best_so_far(found: Findings, place: int = 0) -> tuple[list[Tried], list[float]]:
    """Return the finished trials by number, and the best value of each objective up to each of them."""
    better = max if found.objectives[place].greater_is_better else min
    done = sorted(found.finished, key=lambda trial: trial.number)
    return done, list(itertools.accumulate((trial.values[place] for trial in done), better))


def band(found: Findings, place: int = 0) -> Band | None:
    """Return the band that is right for how the sweep proposed its trials; None for fewer than four finished ones."""
    if len(found.finished) < 4:
        return None
    return luck(found, place) if independent(found) else quartiles(found, place)


def independent(found: Findings) -> bool:
    """Say whether the trials are independent draws: proposed at random, and none ended by the others' scores."""
    return found.sampler == "random" and not found.of("pruned")


def luck(found: Findings, place: int = 0) -> Band:
    """Return the exact distribution-free interval of the median best of k, for k up to the number of trials.

    The best of k draws has its median at the draws' quantile 0.5 ** (1 / k), whose interval follows from the ranks of
    the draws alone (Conover 1999; scipy.stats.quantile_test). A failed trial counts as worse than any other. Where the
    draws are too few to bound the quantile, an end is None.
    """
    from scipy.stats import quantile_test

    sign, drawn = found.measures[place].sign, sorted(found.of("complete", "fail"), key=lambda trial: trial.number)
    draws = [sign * trial.values[place] if trial.state == "complete" else float("-inf") for trial in drawn]
    low, high = [], []
    for count in range(1, len(draws) + 1):
        ends = quantile_test(draws, q=0, p=0.5 ** (1 / count)).confidence_interval(SHARE)
        known = [sign * float(end) if abs(end) < float("inf") else None for end in (ends.low, ends.high)]
        low.append(known[0])
        high.append(known[1])
    return Band("luck", tuple(trial.number for trial in drawn), tuple(low), tuple(high))


def quartiles(found: Findings, place: int = 0) -> Band:
    """Return the quartiles of the finished trials up to each of them, from the fourth on."""
    import numpy as np

    done, _ = best_so_far(found, place)
    values = [trial.values[place] for trial in done]
    ends = [np.quantile(values[:count], (0.25, 0.75)) for count in range(4, len(values) + 1)]
    numbers = tuple(trial.number for trial in done[3:])
    return Band("quartiles", numbers, tuple(float(end[0]) for end in ends), tuple(float(end[1]) for end in ends))
