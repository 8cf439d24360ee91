"""Choose an arm's setting among a sweep's trials. Study chain: tuning -> choosing (this) -> tuning.json.

No test score is read: a setting is chosen by its validation score; of equal ones that in their middle is taken.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headswap.errors import RunError
from headswap.records import RESULT, read_json
from headswap.search_space import Choice, Dimension
from headswap.study.tuned import ArmTuning, Edge, Trial, rows_of, told_of
from headswap.sweep.axes import Axis
from headswap.sweep.findings import SEED, Findings, Tried

EDGE = 0.05
FEWEST = 4
"""A choice of fewer numbers has no inside: its best would nearly always be an end."""


def arm_tuning(cell: tuple[str, int | None], found: Findings, beside: Path, how: tuple[int, int]) -> ArmTuning:
    """Return what a sweep found.

    Args:
        beside: where the folders of sweeps and runs lie.
        how: how many settings count, the first ones, and on how many seeds each was tried.

    Raises:
        RunError: none of them finished.
    """
    space = {key: each for key, each in found.space.items() if key != SEED}
    trials, seeds = how
    tried = [_trial(group, seeds, beside) for group in _settings(found)[:trials]]
    if all(trial.score is None for trial in tried):
        said = next((trial.error for trial in tried if trial.error), "no reason recorded")
        raise RunError(
            f"study.tuning: no trial of {cell[0]} {rows_of(cell[1])} finished; found {len(tried)} that did not, the "
            f"first: {said}; correct the arm or its ranges"
        )
    best = _best(tried, space, found.measures[0].sign)
    chosen = tried[best].settings
    edges = tuple(edge for key, each in space.items() if key in chosen and (edge := at_edge(key, each, chosen[key])))
    told = {key: told_of(each) for key, each in space.items()}
    return ArmTuning(*cell, found.name, told, tuple(tried), best, edges)


def _settings(found: Findings) -> list[list[Tried]]:
    """Return the trials by setting, in the order in which settings were first asked for; each seed's last try alone.

    Proposals that learn may come twice and are trials of their own.
    """
    groups: dict[Any, dict[str, Tried]] = {}
    for trial in sorted(found.trials, key=lambda trial: trial.number):
        words = tuple((key, word) for key, word in trial.settings.items() if key != SEED)
        if words and (found.sampler == "random" or trial.state != "lost"):
            key = words if found.sampler == "random" else trial.number
            groups.setdefault(key, {})[trial.settings.get(SEED, "")] = trial
    return [list(group.values()) for group in groups.values()]


def _trial(group: Sequence[Tried], seeds: int, beside: Path) -> Trial:
    words = {key: word for key, word in group[0].settings.items() if key != SEED}
    done = [trial for trial in group if trial.state == "complete"]
    if len(done) < seeds:
        failed = next((trial for trial in group if trial.state != "complete"), group[0])
        return Trial(words, failed.state, None, error=failed.reason)
    losses = [_loss(beside / trial.folder) for trial in done]
    loss = statistics.mean(each for each in losses if each is not None) if None not in losses else None
    return Trial(words, "complete", statistics.mean(trial.values[0] for trial in done), loss)


def _loss(folder: Path) -> float | None:
    """Return a run's validation loss; None where its folder has gone."""
    try:
        loss = float(read_json(folder / RESULT)["scores"]["validation"]["loss"])
    except (RunError, KeyError, TypeError, ValueError):
        return None
    return loss if math.isfinite(loss) else None


def _best(tried: Sequence[Trial], space: Mapping[str, Dimension], sign: float) -> int:
    """Return the place of the best trial; of equal ones the one in their middle, and then of the lower loss.

    Where many settings reach the same score (all rows right, or none) the loss alone would choose the boldest of them,
    whose next seed may fail.
    """
    scores = {place: sign * trial.score for place, trial in enumerate(tried) if trial.score is not None}
    equal = [place for place, score in scores.items() if score == max(scores.values())]
    axes = [Axis(key, each) for key, each in space.items()]

    def order(place: int) -> tuple[float, float]:
        apart = sum(_distance(tried[place].settings, tried[other].settings, axes) for other in equal)
        loss = tried[place].loss
        return round(apart, 9), math.inf if loss is None else loss

    return min(equal, key=order)


def _distance(first: Mapping[str, str], second: Mapping[str, str], axes: Sequence[Axis]) -> float:
    """Return how far two settings lie apart: 1 a key from one end of its range to the other, or between words."""
    total = 0.0
    for axis in axes:
        words = [settings.get(axis.key) for settings in (first, second)]
        if words[0] is None or words[1] is None or not axis.ordered:
            total += float(words[0] != words[1])
        else:
            total += abs(axis.place(words[0]) - axis.place(words[1]))
    return total


def at_edge(key: str, dimension: Dimension, word: str) -> Edge | None:
    """Return the end of its range that a value lies at: an end of a grid, or within 5 % of the (log) range of one.

    A low end of 0 is no edge, since nothing lies below it, and a choice of few or of words has none.
    """
    axis = Axis(key, dimension)
    if isinstance(dimension, Choice):
        words = axis.words
        if not axis.ordered or len(words) < FEWEST or word not in (words[0], words[-1]):
            return None
        side, low, high = ("low" if word == words[0] else "high"), words[0], words[-1]
    else:
        low, high, place = f"{dimension.low:.9g}", f"{dimension.high:.9g}", axis.place(word)
        room = 1e-9 if dimension.count is not None else EDGE
        if room < place < 1 - room or (dimension.count or 3) < 3:
            return None
        side = "low" if place <= room else "high"
    return None if side == "low" and float(low) == 0 else Edge(key, word, side, low, high)
