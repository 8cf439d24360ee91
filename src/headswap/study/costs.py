"""How long runs take: from one run that was timed to others of its arm, and from all of them to a study's end.

Study chain: plan -> probe -> costs (this). A run's seconds hang on few numbers: its steps, how often how many rows are
scored, and what every run pays once.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headswap.records import METRICS, RunFolder, read_jsonl
from headswap.spine import Config
from headswap.study.plan import Planned, rows_for
from headswap.study.units import seconds

WARM_UP = 3
"""The first steps are slower: kernels are chosen, memory is taken."""
AROUND = 0.3
"""Seconds that a child's process takes around its run, where only the run itself was timed."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a run by what they hang on.

    Args:
        once: process, data, body, warm-up, saving.
        step: of an optimizer step.
        watched: of a validation row, each time it is scored while the run trains.
        scored: of a row that the final weights are scored on.
        kept: of a row whose frozen features are computed once, 0 where nothing is frozen.
        rows: of the run that was timed, by split; they count where a configuration takes all there are.
    """

    once: float
    step: float
    watched: float
    scored: float
    kept: float
    rows: Mapping[str, int]

    def of(self, config: Config) -> float:
        """Return what a run of this configuration takes."""
        from headswap.schedule import evaluation_steps, total_steps

        if self.step == 0:  # nothing is trained step by step: a baseline
            return self.once
        train = config.data.train_rows or self.rows["train"]
        validation = config.data.validation_rows or self.rows["validation"]
        steps = total_steps(config.train, -(-train // config.train.batch_size))
        marks, final = len(evaluation_steps(config.train, steps)), validation + self.rows["test"]
        scoring = self.watched * marks * validation + self.scored * final
        return self.once + self.step * steps + scoring + self.kept * (train + final)

    @property
    def said(self) -> str:
        if self.step == 0:
            return f"{seconds(self.once)} in all"
        rows, parts = self.rows, [f"{seconds(self.once)} to begin and end", f"{self.step:.3g} s a step"]
        parts.append(
            f"{seconds(self.watched * rows['validation'])} a scoring of {rows['validation']:,} validation rows"
        )
        parts.append(f"{seconds(self.scored * rows['test'])} for the {rows['test']:,} test rows")
        if self.kept:
            parts.append(f"{seconds(self.kept * sum(rows.values()))} for what stays frozen, once")
        return ", ".join(parts)


def cost_of(folder: RunFolder, wall: float | None = None) -> Cost:
    """Return what a finished run's files say of its seconds.

    Args:
        wall: seconds of its whole process, where they were measured.
    """
    result, lines = folder.result(), read_jsonl(folder / METRICS)
    clock, rows = result.get("seconds", {}), {split: int(found) for split, found in result["rows"].items()}
    whole = wall or float(clock.get("total", 0.0)) + AROUND
    steps = {line["step"]: float(line["seconds"]) for line in lines if line["kind"] == "train"}
    if not steps:
        return Cost(whole, 0.0, 0.0, 0.0, 0.0, rows)
    step, scorings = _pace(steps), list(_scorings(lines))
    watched = sorted(scorings)[len(scorings) // 2] if scorings else 0.0
    kept = sum(_table_seconds(folder.about().get("features") or {}))
    score = float(clock.get("score", 0.0))
    once = whole - step * len(steps) - sum(scorings) - score - kept
    every = sum(rows.values())
    return Cost(
        max(0.0, once),
        step,
        watched / max(1, rows["validation"]),
        score / max(1, every - rows["train"]),
        kept / max(1, every),
        rows,
    )


def mean(costs: Sequence[Cost]) -> Cost:
    """Return the mean of the costs of some runs of one arm."""
    parts = ("once", "step", "watched", "scored", "kept")
    means = {part: sum(getattr(each, part) for each in costs) / len(costs) for part in parts}
    return Cost(**means, rows=costs[0].rows)


@dataclass(frozen=True)
class Timed:
    """One stage of an arm as it was timed: its cost, and its configuration as the study will run it."""

    cost: Cost
    config: Config
    sized: bool = True
    """Whether the study's sizes cut its rows."""


def left(cells: Sequence[Planned], arms: Mapping[str, Sequence[Timed]], config: Config) -> list[list[float]]:
    """Return the seconds of what is still to run, stage by stage in the order of the plan.

    Of a chain only its first stage can be known to have finished.
    """
    rounds: list[list[float]] = []
    seen = set()
    for cell in cells:
        finished = cell.job.folder.finished and cell.job.config.output.reuse
        for place, timed in enumerate(arms[cell.arm]):
            size = cell.size if timed.sized else None
            key = cell.job.folder.path if place == 0 else (cell.arm, place, size, cell.seed)
            if key in seen or (finished and place == 0):
                continue
            seen.add(key)
            while len(rounds) <= place:
                rounds.append([])
            rounds[place].append(timed.cost.of(_as_run(cell, timed, config) if cell.count > 1 else cell.job.config))
    return rounds


def _as_run(cell: Planned, timed: Timed, config: Config) -> Config:
    """Return a stage's configuration at the size of a cell: it was timed at the largest."""
    rows: dict[str, Any] = rows_for(cell.size, config.study) if timed.sized else {}
    return dataclasses.replace(timed.config, data=dataclasses.replace(timed.config.data, **rows))


def makespan(rounds: Sequence[Sequence[float]], workers: int) -> float:
    """Return the seconds until the last run has ended: each goes to the worker that is free first."""
    total = 0.0
    for durations in rounds:
        ends = [0.0] * max(1, workers)
        for duration in durations:
            heapq.heapreplace(ends, ends[0] + duration)
        total += max(ends)
    return total


def _pace(steps: Mapping[int, float]) -> float:
    """Return the seconds of a step, the first ones left out where there are others."""
    marks = sorted(steps)
    first = marks[min(WARM_UP, len(marks) - 1) - 1] if len(marks) > 1 else 0
    return (steps[marks[-1]] - steps.get(first, 0.0)) / (marks[-1] - first)


def _scorings(lines: Sequence[Mapping[str, Any]]) -> Iterator[float]:
    """Yield the seconds of each scoring of validation: from the line before it to its own."""
    for before, line in itertools.pairwise(lines):
        if line["kind"] == "validation" and before["kind"] == "train" and before["step"] == line["step"]:
            yield max(0.0, float(line["time"]) - float(before["time"]))


def _table_seconds(features: Mapping[str, Any]) -> Iterator[float]:
    """Yield the seconds that tables of frozen outputs took, of the body and of its lowest layers."""
    if features.get("served"):
        yield float(features.get("seconds", 0.0))
    for each in (features.get("lowest_layers") or {}).values():
        yield from _table_seconds(each)
