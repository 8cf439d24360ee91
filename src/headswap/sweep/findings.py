"""What a sweep found, read from sweep.json and confirmed.json: without Optuna, and without a test score but those of
confirmed settings. Sweep chain: page, drawings, show -> this.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from headswap.errors import RunError
from headswap.records import read_json
from headswap.search_space import Choice, Dimension, Span
from headswap.sweep.measure import Measure
from headswap.sweep.search import Objective

SUMMARY, CONFIRMED = "sweep.json", "confirmed.json"
STATES = {"complete": "finished", "pruned": "pruned", "fail": "failed", "lost": "lost with an earlier process"}
STATES |= {"running": "running", "waiting": "waiting"}
SEED = "seed"


@dataclass(frozen=True)
class Confirmed:
    """One setting on fresh seeds.

    Args:
        found: its objective in the sweep.
        again: the same objective on each fresh seed that finished.
        test: the run's first metric on the test rows, of the same runs.
        errors: why others failed.
        metric: the name of the run's first metric.
    """

    trial: int
    settings: Mapping[str, str]
    found: float
    again: tuple[float, ...]
    test: tuple[float, ...]
    errors: tuple[str, ...] = ()
    metric: str = ""

    @property
    def mean(self) -> float:
        return statistics.mean(self.again) if self.again else float("nan")

    @property
    def fell(self) -> float:
        """By how much the objective changed, away from the sweep's value."""
        return self.mean - self.found


@dataclass(frozen=True)
class Tried:
    """One trial. `values` of a pruned one are its last score; `scores`: percent of its own steps -> score there."""

    number: int
    state: str
    settings: Mapping[str, str]
    values: tuple[float, ...]
    scores: Mapping[float, float]
    folder: str
    error: str
    begun: str | None
    seconds: float | None

    @property
    def reason(self) -> str:
        """Why it did not finish, in a line."""
        if self.state == "pruned":
            return "fell behind the other trials"
        lines = self.error.splitlines()
        return (
            lines[0] if lines else {"lost": "its process ended; its settings were asked for again"}.get(self.state, "")
        )


@dataclass(frozen=True)
class Setting:
    """Trials that differ in their seed alone, the best first; `values` of the first objective, one a seed."""

    settings: Mapping[str, str]
    trials: tuple[Tried, ...]

    @property
    def number(self) -> int:
        """The best trial's."""
        return self.trials[0].number

    @property
    def values(self) -> tuple[float, ...]:
        return tuple(trial.values[0] for trial in self.trials)

    @property
    def mean(self) -> float:
        return statistics.mean(self.values)

    @property
    def deviation(self) -> float | None:
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Findings:
    """A sweep's trials and what they say."""

    name: str
    objectives: tuple[Objective, ...]
    space: Mapping[str, Dimension]
    sampler: str
    pruner: str
    total: int
    importances: Mapping[str, float]
    trials: tuple[Tried, ...]
    confirmed: tuple[Confirmed, ...] = ()

    @property
    def measures(self) -> list[Measure]:
        return [Measure(each) for each in self.objectives]

    @property
    def counted(self) -> list[Tried]:
        """Return the trials but those lost with their process, whose settings were asked for again."""
        return [trial for trial in self.trials if trial.state != "lost"]

    def of(self, *states: str) -> list[Tried]:
        return [trial for trial in self.trials if trial.state in states]

    @property
    def finished(self) -> list[Tried]:
        return self.of("complete")

    def best(self) -> list[Tried]:
        """Return the finished trials, the best first; of several objectives the Pareto set alone."""
        signs = [measure.sign for measure in self.measures]
        if len(signs) == 1:
            return sorted(self.finished, key=lambda trial: -signs[0] * trial.values[0])
        points = {
            trial.number: [sign * value for sign, value in zip(signs, trial.values, strict=True)]
            for trial in self.finished
        }
        return [trial for trial in self.finished if not _beaten(points[trial.number], points.values())]

    @property
    def winner(self) -> Confirmed | None:
        """Return the confirmed setting with the best mean on fresh seeds: the first that has one."""
        return next((each for each in self.confirmed if each.again), None)

    def settings(self) -> list[Setting]:
        """Return the settings that finished, each with its trials on other seeds of the space, the best mean first."""
        sign, groups = self.measures[0].sign, dict[tuple, dict[str, Tried]]()
        for trial in self.finished:
            words = {key: word for key, word in trial.settings.items() if key != SEED}
            groups.setdefault(tuple(sorted(words.items())), {}).setdefault(trial.settings.get(SEED, ""), trial)
        made = [
            Setting(
                {key: dict(words)[key] for key in self.space if key in dict(words)},
                tuple(sorted(seeds.values(), key=lambda trial: -sign * trial.values[0])),
            )
            for words, seeds in groups.items()
        ]
        return sorted(made, key=lambda each: -sign * each.mean)

    def wall(self) -> float | None:
        """Return the seconds in which at least one trial ran; pauses between two calls are not in it."""
        spans = [(_moment(trial.begun), trial.seconds) for trial in self.trials if trial.begun and trial.seconds]
        total, reached = 0.0, float("-inf")
        for begun, seconds in sorted(spans):
            total += max(0.0, begun + seconds - max(begun, reached))
            reached = max(reached, begun + seconds)
        return total if spans else None


def read(folder: Path) -> Findings:
    """Return the findings of a sweep's folder. Raises RunError where sweep.json is damaged or of another version."""
    again = folder / CONFIRMED
    return findings(read_json(folder / SUMMARY), folder, read_json(again) if again.is_file() else ())


def findings(told: Mapping[str, Any], folder: Path, confirmed: Sequence[Mapping[str, Any]] = ()) -> Findings:
    """Return what sweep.json and confirmed.json say."""
    try:
        return Findings(
            folder.name,
            tuple(Objective(**each) for each in told["objectives"]),
            {key: _dimension(each) for key, each in told["space"].items()},
            told["sampler"],
            told["pruner"],
            told["total"],
            told["importances"],
            tuple(_tried(each) for each in told["trials"]),
            tuple(Confirmed(**{key: _frozen(value) for key, value in each.items()}) for each in confirmed),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{folder / SUMMARY}: not as headswap writes it; found {type(error).__name__}: {error}; "
            "headswap sweep --resume FOLDER writes it again"
        ) from error


def _dimension(told: Mapping[str, Any]) -> Dimension:
    return Choice(tuple(told["words"])) if "words" in told else Span(**told)


def _tried(told: Mapping[str, Any]) -> Tried:
    return Tried(
        int(told["number"]),
        told["state"],
        told["settings"],
        tuple(map(float, told["values"] or ())),
        {float(step): float(value) for step, value in told["scores"].items()},
        Path(told["folder"] or "").name,
        told["error"] or "",
        told["begun"],
        told["seconds"],
    )


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _beaten(point: Sequence[float], others: Any) -> bool:
    """Say whether another point is as good everywhere and better somewhere."""
    return any(
        all(theirs >= ours for theirs, ours in zip(other, point, strict=True)) and list(other) != list(point)
        for other in others
    )


def _moment(begun: str) -> float:
    return datetime.fromisoformat(begun).timestamp()
