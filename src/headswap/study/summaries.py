"""Condense the runs of one arm and size, and set the arms' curves beside each other. Study chain: runs -> results."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headswap.spine import StudyConfig
from headswap.study.contrasts import Pair
from headswap.study.curves import (
    Convergence,
    LabelsSaved,
    LearningCurve,
    common_range,
    convergence,
    labels_saved,
    score_at,
)
from headswap.study.power_law import PowerLaw, power_law
from headswap.study.runs import FinishedRun, RunRecord
from headswap.study.statistics import Interval, t_interval
from headswap.study.units import Unit

Groups = dict[tuple[str, int | None], list[FinishedRun]]
"""The finished runs by arm and size, seeds rising."""


@dataclass(frozen=True)
class ArmScore:
    """The finished runs of one arm at one size. Collapsed runs count in the mean and are told apart."""

    arm: str
    size: int | None
    labels: int
    interval: Interval
    deviation: float | None
    scores: dict[int, float]
    collapsed: tuple[int, ...]
    failed: int
    reused: int
    metrics: dict[str, float]
    rows: dict[str, int]
    steps: float
    examples: float
    seconds: dict[str, float]
    parameters: dict[str, int]
    flops: float | None = None

    @property
    def mean(self) -> float:
        return self.interval.mean

    @property
    def runs(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Curve:
    """The mean learning curve of one arm at one size with its band, and every seed's own."""

    arm: str
    size: int | None
    labels: int
    examples: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    seeds: dict[int, tuple[tuple[float, float], ...]]


def paired(treated: list[FinishedRun], controls: list[FinishedRun]) -> list[Pair]:
    """Return (treated, control) for every seed that both have."""
    by_seed = {run.seed: run for run in controls}
    return [(run, by_seed[run.seed]) for run in treated if run.seed in by_seed]


def arm_score(runs: list[FinishedRun], records: Sequence[RunRecord], study: StudyConfig) -> ArmScore:
    first = runs[0]
    scores = {run.seed: run.score for run in runs}
    tests = [run.result["scores"]["test"] for run in runs]
    metrics = {
        name: float(np.mean([test[name] for test in tests])) for name in tests[0] if all(name in t for t in tests)
    }
    kin = [each for each in records if (each.arm, each.size) == (first.arm, first.record.size)]
    clocks = [run.result.get("seconds", {}) for run in runs]
    return ArmScore(
        first.arm,
        first.record.size,
        first.labelled_rows,
        t_interval(list(scores.values()), study.confidence),
        float(np.std(list(scores.values()), ddof=1)) if len(scores) > 1 else None,
        scores,
        tuple(run.seed for run in runs if run.collapsed),
        len(kin) - len(runs),
        sum(run.record.reused for run in runs),
        metrics,
        {split: int(value) for split, value in first.result["rows"].items()},
        float(np.mean([run.result.get("steps", 0) for run in runs])),
        float(np.mean([run.result.get("examples", 0) for run in runs])),
        {name: float(np.mean([clock.get(name, 0.0) for clock in clocks])) for name in ("train", "evaluate", "total")},
        first.result.get("parameters", {}),
        float(np.mean([run.result["flops"] for run in runs])) if all("flops" in run.result for run in runs) else None,
    )


def mean_curve(runs: list[FinishedRun], confidence: float) -> Curve | None:
    """Average the seeds where all of them have values: on the shortest run's steps, linear in log examples."""
    span = common_range([run.curve for run in runs])
    if span is None:
        return None
    grid = min((run.curve.examples for run in runs), key=len)
    grid = grid[(grid >= span[0]) & (grid <= span[1])]
    values = np.array([score_at(run.curve, grid) for run in runs])
    bands = [t_interval(column, confidence) for column in values.T]
    return Curve(
        runs[0].arm,
        runs[0].record.size,
        runs[0].labelled_rows,
        tuple(grid.tolist()),
        tuple(values.mean(axis=0).tolist()),
        tuple(band.low for band in bands),
        tuple(band.high for band in bands),
        {run.seed: tuple(zip(run.curve.examples.tolist(), run.curve.scores.tolist(), strict=True)) for run in runs},
    )


def upward(run: FinishedRun) -> LearningCurve:
    """Return a run's curve turned so that more is better."""
    sign = 1.0 if run.greater_is_better else -1.0
    return dataclasses.replace(run.curve, scores=sign * run.curve.scores)


def speed_of_learning(groups: Groups, study: StudyConfig) -> tuple[Convergence, ...]:
    found = []
    for (arm, size), runs in groups.items():
        pairs = paired(runs, groups.get((study.control, size), [])) if arm == study.treatment else []
        curves = [(first.seed, upward(first), upward(second)) for first, second in pairs]
        found.append(convergence(size, runs[0].labelled_rows, curves, study.confidence) if curves else None)
    return tuple(filter(None, found))


def labels_by_size(groups: Groups, study: StudyConfig) -> tuple[LabelsSaved, ...]:
    """Use the seeds that both arms have at every size they share."""
    sizes = [size for arm, size in groups if arm == study.treatment and (study.control, size) in groups]
    arms = {arm: [groups[arm, size] for size in sizes] for arm in (study.treatment, study.control)}
    every = [{run.seed for run in runs} for arm in arms.values() for runs in arm]
    seeds = sorted(set.intersection(*every)) if every else []
    if not seeds:
        return ()
    sign = 1.0 if groups[study.treatment, sizes[0]][0].greater_is_better else -1.0

    def grid(arm: str) -> np.ndarray:
        by_seed = [{run.seed: sign * run.score for run in runs} for runs in arms[arm]]
        return np.array([[scores[seed] for scores in by_seed] for seed in seeds])

    labels = np.array([runs[0].labelled_rows for runs in arms[study.treatment]], dtype=float)
    if not (np.diff(labels) > 0).all():
        return ()
    return tuple(labels_saved(grid(study.treatment), grid(study.control), labels, study.confidence))


def laws_by_arm(groups: Groups) -> tuple[PowerLaw, ...]:
    """Return the power laws of the arms' errors over labels; none of a metric whose best value is not known."""
    found = []
    for arm in dict.fromkeys(arm for arm, _ in groups):
        runs = sorted(
            (each for (name, _), each in groups.items() if name == arm), key=lambda each: each[0].labelled_rows
        )
        first = runs[0][0]
        best = Unit(first.primary).best if first.greater_is_better else 0.0
        sizes = [each[0].labelled_rows for each in runs]
        if best is not None and len(set(sizes)) == len(sizes):
            errors = [[abs(best - run.score) for run in each] for each in runs]
            found.append(power_law(arm, sizes, errors))
    return tuple(filter(None, found))
