"""What tuning a study's arms found: trials, chosen values, and which of them lie at the end of their range.

Study chain: tuning -> choosing -> tuning.json (this) -> plan, results, words and drawings. Nothing here needs Optuna.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headswap.errors import RunError
from headswap.records import read_json
from headswap.search_space import Choice, Dimension, Span, value_of

TUNING = "tuning.json"


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
