"""What the best of k trials is expected to score, with opda's bands. Study chain: tuned -> this -> words, drawings.

Random trials are independent draws, so their scores bound the score of the best of any k of them: Lourie et al. 2024
(2311.09480). A failed trial counts as the worst score there is. Other samplers get the best so far and no band.
"""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from headswap.study.tuned import ArmTuning, Curve, Tuning
from headswap.study.units import Unit

_BOUNDS = {"percent": (0.0, 1.0), "points": (0.0, 100.0), "bounded": (-1.0, 1.0)}


def with_curves(tuning: Tuning, confidence: float) -> Tuning:
    """Return the tuning with a curve for every arm and size."""
    return replace(tuning, curves=tuple(_curve(each, tuning, confidence) for each in tuning.arms))


def overlap(first: Curve, second: Curve) -> int | None:
    """Return the number of trials from which on two bands overlap to the end; None where they are apart there."""
    apart = [_apart(first, second, place) or _apart(second, first, place) for place in range(_both(first, second))]
    if not apart or apart[-1]:
        return None
    return len(apart) - next((back for back, each in enumerate(reversed(apart)) if each), len(apart)) + 1


def _both(first: Curve, second: Curve) -> int:
    return min(len(first.low), len(second.low))


def _apart(below: Curve, above: Curve, place: int) -> bool:
    top, bottom = below.high[place], above.low[place]
    return top is not None and bottom is not None and top < bottom


def _curve(each: ArmTuning, tuning: Tuning, confidence: float) -> Curve:
    if tuning.sampler != "random" or each.count("pruned"):
        why = "trials ended early have no score" if tuning.sampler == "random" else "the trials were chosen, not drawn"
        return Curve(each.arm, each.size, _best_so_far(each, tuning), why=why)
    try:
        import opda.nonparametric
    except ImportError:
        why = 'opda is not installed: pip install "headswap[sweep]"'
        return Curve(each.arm, each.size, _best_so_far(each, tuning), why=why)
    worst, best = _bounds(tuning)
    scores = [worst if trial.score is None else trial.score for trial in each.trials]
    low, high = min(worst, best, *scores), max(worst, best, *scores)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tied scores, which make the band wider than it need be
        shares = opda.nonparametric.EmpiricalDistribution.confidence_bands(
            scores, confidence, a=low, b=high, generator=_dice(len(scores)), method="ld_equal_tailed", n_jobs=1
        )
        counts, less = list(range(1, len(scores) + 1)), not tuning.greater_is_better
        # The least share of trials below a score bounds the scores from above, and the largest from below.
        highest, middle, lowest = (share.quantile_tuning_curve(counts, minimize=less).tolist() for share in shares)
    return Curve(
        each.arm, each.size, tuple(map(_known, middle)), tuple(map(_known, lowest)), tuple(map(_known, highest))
    )


@functools.cache
def _dice(count: int) -> Any:
    """Return the dice of the simulation in which opda finds a band's width: the same for as many trials."""
    import numpy as np

    return np.random.default_rng(count)


def _bounds(tuning: Tuning) -> tuple[float, float]:
    """Return the worst and the best score that there is."""
    low, high = _BOUNDS.get(Unit(tuning.objective).kind, (-math.inf, math.inf))
    return (low, high) if tuning.greater_is_better else (high, low)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _best_so_far(each: ArmTuning, tuning: Tuning) -> tuple[float, ...]:
    done: Sequence[float] = [trial.score for trial in each.trials if trial.score is not None]
    return tuple(itertools.accumulate(done, max if tuning.greater_is_better else min))
