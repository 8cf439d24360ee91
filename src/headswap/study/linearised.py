"""Scores that only a whole split has, shared out over its examples. Study chain: contrasts -> these -> statistics.

F1, BLEU, perplexity and correlations are functions of sums over examples (answers.Summed) and have no value an example.
Jackknife pseudo-values stand in for it: n times the score, less n - 1 times the score without the example (Tukey 1958;
Efron and Stein 1981). Their differences [seeds, examples] have the two-way analysis of variance that accuracy's have.
bench/coverage.py holds it against the pigeonhole bootstrap (Owen 2007), which counts the residual variance three times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headswap.study.statistics import Interval, crossed_interval

METHOD = "crossed seeds × examples, jackknifed"


def pseudo_values(score: Callable[[NDArray[np.floating]], float], sums: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return what each example adds to a score that is a function of sums.

    Args:
        score: totals [k] -> the score of the examples that add up to them.
        sums: [examples, k], what each example adds to the totals.
    """
    count, totals = len(sums), sums.sum(axis=0)
    distinct, place = np.unique(sums, axis=0, return_inverse=True)  # labels and predictions alike: few different rows
    without = np.array([score(totals - row) for row in distinct])
    return (count * score(totals) - (count - 1) * without)[place.reshape(-1)]


def linearised_interval(differences: NDArray[np.floating], mean: float, confidence: float) -> Interval:
    """Return the interval of the mean paired difference of whole-split scores over seeds and test examples.

    Args:
        differences: [seeds, examples] of pseudo-values, treatment minus control.
        mean: the mean difference of the scores themselves, about which the interval lies.
    """
    if not np.isfinite(differences).all():
        seeds, examples = differences.shape
        bare = Interval(mean, None, None, None, None, confidence, seeds, examples, METHOD)
        return replace(bare, reason="without one of the test examples the score is not a number")
    return replace(crossed_interval(differences, confidence), mean=mean, method=METHOD).at(confidence)
