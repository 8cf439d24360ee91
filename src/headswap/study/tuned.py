"""What tuning a study's arms found: trials, chosen values, and which of them lie at the end of their range.

Study chain: tuning -> tuning.json (this) -> plan, results, words and drawings. Nothing here needs Optuna, and no test
score is read: a setting is chosen by its validation score, a tie by the lower validation loss.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headswap.errors import RunError
from headswap.records import RESULT, read_json
from headswap.search_space import Choice, Dimension, Span, value_of
from headswap.sweep.axes import Axis
from headswap.sweep.findings import SEED, Findings, Tried

TUNING = "tuning.json"
EDGE = 0.05
FEWEST = 4
"""A choice of fewer numbers has no inside: its best would nearly always be an end."""


@dataclass(frozen=True)
class Trial:
    """One setting that was tried.

    Args:
        settings: key -> override word.
        state: complete, pruned or fail.
        score: the mean over the trial seeds; None unless all of them finished.
        loss: the mean validation loss, where it is known.
    """

    settings: dict[str, str]
    state: str
    score: float | None
    loss: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Edge:
    """A chosen value at the end of what was tried. `side`: low or high; `low` and `high`: the range's ends as words."""

    key: str
    value: str
    side: str
    low: str
    high: str


@dataclass(frozen=True)
class ArmTuning:
    """The trials of one arm at one size.

    Args:
        folder: the sweep's name, beside the study's folder.
        space: key -> what could be tried, as the sweep's page writes it.
        best: the place of the chosen setting among `trials`.
    """

    arm: str
    size: int | None
    folder: str
    space: dict[str, dict[str, Any]]
    trials: tuple[Trial, ...]
    best: int
    edges: tuple[Edge, ...] = ()

    @property
    def chosen(self) -> dict[str, str]:
        """The best setting, key -> override word."""
        return self.trials[self.best].settings

    @property
    def score(self) -> float:
        score = self.trials[self.best].score
        assert score is not None
        return score

    @property
    def changes(self) -> dict[str, Any]:
        """The chosen values as a nested overlay."""
        return nested({key: value_of(word) for key, word in self.chosen.items()})

    def count(self, state: str) -> int:
        return sum(trial.state == state for trial in self.trials)

    @property
    def dimensions(self) -> dict[str, Dimension]:
        return {key: dimension_of(told) for key, told in self.space.items()}


@dataclass(frozen=True)
class Curve:
    """What the best of k trials is expected to score, k from 1 upward.

    Args:
        middle: the median best of k random trials, None for none but failed ones; else the best of the first k.
        low: the band's lower end at k, None where nothing bounds it; empty for no band.
        why: why there is no band.
    """

    arm: str
    size: int | None
    middle: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Tuning:
    """How the arms of a study were tuned. `given`: arms that keep the values of study.arms."""

    trials: int
    sampler: str
    pruner: str
    first_rung: float
    objective: str
    greater_is_better: bool
    seeds: tuple[int, ...]
    arms: tuple[ArmTuning, ...]
    given: tuple[str, ...] = ()
    curves: tuple[Curve, ...] = ()

    def of(self, arm: str, size: int | None) -> ArmTuning | None:
        """Return the trials that serve an arm at a size: those at the nearest tuned size by log, the larger of two."""
        own = [each for each in self.arms if each.arm == arm]
        if not own or size is None:
            return own[0] if own else None
        return min(own, key=lambda each: (abs(math.log((each.size or size) / size)), -(each.size or size)))

    def chosen(self, sizes: Sequence[int]) -> dict[tuple[str, int | None], dict[str, Any]]:
        """Return (arm, size) -> the values that tuning chose for it; no sizes are all rows."""
        names = dict.fromkeys(each.arm for each in self.arms)
        found = {(arm, size): self.of(arm, size) for arm in names for size in sizes or [None]}
        return {cell: each.changes for cell, each in found.items() if each is not None}


def rows_of(size: int | None) -> str:
    """Return what a size is called in titles."""
    return "all rows" if size is None else f"{size} rows"


def recipes(arms: Mapping[str, Any], tuning: Tuning | None) -> dict[str, Any]:
    """Return the arms' overlays with the values that tuning chose at the largest tuned size."""
    if tuning is None:
        return dict(arms)
    largest = {each.arm: each for each in sorted(tuning.arms, key=lambda each: each.size or 0)}
    return {arm: _laid(changes or {}, largest[arm].changes if arm in largest else {}) for arm, changes in arms.items()}


def _laid(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    inner = (key for key in under if isinstance(under[key], dict) and isinstance(over.get(key), dict))
    both = {key: _laid(under[key], over[key]) for key in inner}
    return {**under, **over, **both}


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted key -> value as nested dicts."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return tree


def told_of(dimension: Dimension) -> dict[str, Any]:
    """Return what could be tried as JSON holds it."""
    return {"words": list(dimension.words)} if isinstance(dimension, Choice) else dataclasses.asdict(dimension)


def dimension_of(told: Mapping[str, Any]) -> Dimension:
    return Choice(tuple(told["words"])) if "words" in told else Span(**told)


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
    sign = found.measures[0].sign
    ranked = sorted(
        (place for place, trial in enumerate(tried) if trial.score is not None),
        key=lambda place: (-sign * (tried[place].score or 0.0), _or_infinite(tried[place].loss)),
    )
    if not ranked:
        said = next((trial.error for trial in tried if trial.error), "no reason recorded")
        raise RunError(
            f"study.tuning: no trial of {cell[0]} {rows_of(cell[1])} finished; found {len(tried)} that did not, the "
            f"first: {said}; correct the arm or its ranges"
        )
    chosen = tried[ranked[0]].settings
    edges = tuple(edge for key, each in space.items() if key in chosen and (edge := at_edge(key, each, chosen[key])))
    told = {key: told_of(each) for key, each in space.items()}
    return ArmTuning(*cell, found.name, told, tuple(tried), ranked[0], edges)


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


def _or_infinite(loss: float | None) -> float:
    return math.inf if loss is None else loss


def at_edge(key: str, dimension: Dimension, word: str) -> Edge | None:
    """Return the end of its range that a value lies at: an end of a grid, or within 5 % of the (log) range of one.

    A low end of 0 is no edge, since nothing lies below it, and a choice of few or of words has none.
    """
    if isinstance(dimension, Choice):
        words = _risen(dimension.words)
        if len(words) < FEWEST or word not in (words[0], words[-1]):
            return None
        side, low, high = ("low" if word == words[0] else "high"), words[0], words[-1]
    else:
        low, high, place = f"{dimension.low:.9g}", f"{dimension.high:.9g}", Axis(key, dimension).place(word)
        room = 1e-9 if dimension.count is not None else EDGE
        if room < place < 1 - room or (dimension.count or 3) < 3:
            return None
        side = "low" if place <= room else "high"
    return None if side == "low" and float(low) == 0 else Edge(key, word, side, low, high)


def _risen(words: Sequence[str]) -> list[str]:
    try:
        return sorted(words, key=float)
    except ValueError:
        return []


def read(folder: Path) -> Tuning:
    """Return what tuning.json in a study's folder says. Raises RunError where it is damaged."""
    told = read_json(folder / TUNING)
    try:
        arms = tuple(
            ArmTuning(**each | {"trials": _all(Trial, each["trials"]), "edges": _all(Edge, each["edges"])})
            for each in told["arms"]
        )
        plain = {"seeds": tuple(told["seeds"]), "given": tuple(told["given"]), "curves": ()}
        return Tuning(**told | plain | {"arms": arms})
    except (KeyError, TypeError) as error:
        raise RunError(
            f"{folder / TUNING}: not as headswap writes it; found {type(error).__name__}: {error}; remove it and run "
            "headswap compare again"
        ) from error


def _all(kind: Any, told: Sequence[Mapping[str, Any]]) -> tuple[Any, ...]:
    return tuple(kind(**each) for each in told)
