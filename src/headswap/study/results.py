"""Gather a study's runs into one `Comparison`: what comparison.json holds and what verdict and report are made from.

Study chain: execute -> RunRecords -> compare (this) -> verdict, report. Nothing here trains; a study is compared again
from its folders at any time.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headswap.errors import RunError
from headswap.spine import StudyConfig
from headswap.study.contrasts import Contrast, Pair, contrast
from headswap.study.curves import Convergence, LabelsSaved, LearningCurve, convergence, labels_saved
from headswap.study.environment import environment, warnings_about
from headswap.study.runs import FinishedRun, RunRecord, read_run
from headswap.study.statistics import Interval, t_interval

__all__ = ["ArmScore", "Comparison", "Curve", "Excluded", "RunRecord", "compare", "save"]


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


@dataclass(frozen=True)
class Excluded:
    """A run that stands outside the comparison, and why."""

    arm: str
    size: int | None
    seed: int
    reason: str
    folder: str


@dataclass(frozen=True)
class Comparison:
    """Everything a study found. All fields are plain data; scores are in the metric's own unit (accuracy in [0, 1])."""

    study: StudyConfig
    overlays: dict[str, Any]
    metric: str
    greater_is_better: bool
    per_example: bool
    scores: tuple[ArmScore, ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    curves: tuple[Curve, ...] = ()
    convergence: tuple[Convergence, ...] = ()
    labels_saved: tuple[LabelsSaved, ...] = ()
    excluded: tuple[Excluded, ...] = ()
    warnings: tuple[str, ...] = ()
    environment: dict[str, tuple[str, ...]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    test_rows: int = 0
    ledgers: dict[str, dict[str, Any]] = field(default_factory=dict)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    data_notes: dict[str, Any] = field(default_factory=dict)

    @property
    def primary(self) -> Contrast | None:
        """The comparison declared beforehand: treatment against control at the largest size."""
        main = self.main_contrasts
        return main[-1] if main else None

    @property
    def main_contrasts(self) -> tuple[Contrast, ...]:
        """Treatment against control, by rising size."""
        return tuple(each for each in self.contrasts if each.treatment == self.study.treatment)

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms with finished runs: treatment, control, then the others."""
        return tuple(dict.fromkeys(score.arm for score in self.scores))

    def score_of(self, arm: str, size: int | None) -> ArmScore | None:
        return next((score for score in self.scores if (score.arm, score.size) == (arm, size)), None)


def compare(records: Sequence[RunRecord], study: StudyConfig, overlays: Mapping[str, Any]) -> Comparison:
    """Read the finished runs and compare every arm with the control at every size.

    Args:
        records: one a run of the study, finished or failed.
        overlays: arm -> its resolved overlay (the recipe), as the report shows it.

    Raises:
        RunError: two records of one arm, size and seed; paired runs that do not share metric, labels or test rows.
    """
    _check_unique(records)
    runs, excluded = _read(records)
    runs.sort(key=lambda run: (_rank(run.arm, study), run.labelled_rows, run.seed))
    if not runs:
        return Comparison(study, dict(overlays), "accuracy", True, True, excluded=tuple(excluded))
    groups = _groups(runs)
    contrasts = []
    for arm, size in groups:
        if arm != study.control:
            pairs, alone = _pairs(groups.get((arm, size), []), groups.get((study.control, size), []))
            excluded += alone
            contrasts += [contrast(pairs, study)] if pairs else []
    excluded += _lone_controls(groups, study)
    first = runs[0]
    scores = tuple(_arm_score(group, records, study) for group in groups.values())
    return Comparison(
        study,
        dict(overlays),
        first.primary,
        bool(first.result.get("greater_is_better", True)),
        bool(first.result.get("per_example", {}).get(first.primary, False)),
        scores,
        tuple(contrasts),
        tuple(filter(None, (_curve(group, study.confidence) for group in groups.values()))),
        _convergence(groups, study),
        _labels_saved(groups, study),
        tuple(excluded),
        tuple(warnings_about(runs, scores, contrasts, study)),
        environment(runs),
        tuple(str(label) for label in first.result.get("labels", ())),
        len(first.ids),
        *_samples(groups),
        first.about.get("data", {}).get("notes", {}),
    )


def save(comparison: Comparison, folder: Path) -> Path:
    """Write comparison.json into `folder`; numbers that are not finite become null."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "comparison.json"
    text = json.dumps(plain(dataclasses.asdict(comparison)), indent=2, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def plain(node: Any) -> Any:
    """Return `node` as JSON can hold it."""
    if isinstance(node, Mapping):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple | set):
        return [plain(value) for value in node]
    if isinstance(node, np.generic):
        return plain(node.item())
    if isinstance(node, float) and not math.isfinite(node):
        return None
    return node if node is None or isinstance(node, str | int | float | bool) else str(node)


def _check_unique(records: Sequence[RunRecord]) -> None:
    seen: dict[tuple, RunRecord] = {}
    for record in records:
        key = record.arm, record.size, record.seed
        if key in seen:
            raise RunError(
                f"{seen[key].folder} and {record.folder}: two runs of one arm, size and seed; "
                f"found {record.arm}, {record.size}, {record.seed} twice; keep one"
            )
        seen[key] = record


def _read(records: Sequence[RunRecord]) -> tuple[list[FinishedRun], list[Excluded]]:
    runs, excluded = [], []
    for record in records:
        try:
            if record.status != "finished":
                raise RunError(f"failed: {record.reason or 'no reason recorded'}")
            runs.append(read_run(record))
        except RunError as fault:
            excluded.append(_excluded(record, str(fault)))
    return runs, excluded


def _excluded(record: RunRecord, reason: str) -> Excluded:
    return Excluded(record.arm, record.size, record.seed, reason, str(record.folder))


def _rank(arm: str, study: StudyConfig) -> tuple[int, str]:
    return ({study.treatment: 0, study.control: 1}.get(arm, 2), arm)


Groups = dict[tuple[str, int | None], list[FinishedRun]]


def _groups(runs: Iterable[FinishedRun]) -> Groups:
    groups: Groups = {}
    for run in runs:
        groups.setdefault((run.arm, run.record.size), []).append(run)
    return groups


def _pairs(treated: list[FinishedRun], controls: list[FinishedRun]) -> tuple[list[Pair], list[Excluded]]:
    by_seed = {run.seed: run for run in controls}
    pairs = [(run, by_seed[run.seed]) for run in treated if run.seed in by_seed]
    reason = "no finished control run of this size and seed to pair with; counts in its arm's mean only"
    return pairs, [_excluded(run.record, reason) for run in treated if run.seed not in by_seed]


def _lone_controls(groups: Groups, study: StudyConfig) -> list[Excluded]:
    lone = []
    for (arm, size), runs in groups.items():
        seeds = {run.seed for run in groups.get((study.treatment, size), [])}
        reason = f"no finished {study.treatment} run of this size and seed to pair with; counts in its arm's mean only"
        lone += [_excluded(run.record, reason) for run in runs if arm == study.control and run.seed not in seeds]
    return lone


def _arm_score(runs: list[FinishedRun], records: Sequence[RunRecord], study: StudyConfig) -> ArmScore:
    first = runs[0]
    scores = {run.seed: run.score for run in runs}
    tests = [run.result["scores"]["test"] for run in runs]
    metrics = {name: float(np.mean([test[name] for test in tests])) for name in tests[0] if all(name in t for t in tests)}
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
    )


def _curve(runs: list[FinishedRun], confidence: float) -> Curve | None:
    """Average the seeds where all of them have values: on the shortest run's steps, linear in log examples."""
    from headswap.study.curves import common_range, score_at

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


def _upward(run: FinishedRun) -> LearningCurve:
    sign = 1.0 if run.result.get("greater_is_better", True) else -1.0
    return dataclasses.replace(run.curve, scores=sign * run.curve.scores)


def _convergence(groups: Groups, study: StudyConfig) -> tuple[Convergence, ...]:
    found = []
    for (arm, size), runs in groups.items():
        pairs, _ = _pairs(runs, groups.get((study.control, size), [])) if arm == study.treatment else ([], [])
        curves = [(first.seed, _upward(first), _upward(second)) for first, second in pairs]
        found.append(convergence(size, runs[0].labelled_rows, curves, study.confidence) if curves else None)
    return tuple(filter(None, found))


def _labels_saved(groups: Groups, study: StudyConfig) -> tuple[LabelsSaved, ...]:
    """Use the seeds that both arms have at every size they share."""
    sizes = [size for arm, size in groups if arm == study.treatment and (study.control, size) in groups]
    arms = {arm: [groups[arm, size] for size in sizes] for arm in (study.treatment, study.control)}
    every = [{run.seed for run in runs} for arm in arms.values() for runs in arm]
    seeds = sorted(set.intersection(*every)) if every else []
    if not seeds:
        return ()
    sign = 1.0 if groups[study.treatment, sizes[0]][0].result.get("greater_is_better", True) else -1.0

    def grid(arm: str) -> np.ndarray:
        by_seed = [{run.seed: sign * run.score for run in runs} for runs in arms[arm]]
        return np.array([[scores[seed] for scores in by_seed] for seed in seeds])

    labels = np.array([runs[0].labelled_rows for runs in arms[study.treatment]], dtype=float)
    if not (np.diff(labels) > 0).all():
        return ()
    return tuple(labels_saved(grid(study.treatment), grid(study.control), labels, study.confidence))


def _samples(groups: Groups) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return ledger summary and config of one run an arm: the first seed at its largest size."""
    sample = {arm: runs[0] for (arm, _), runs in groups.items()}
    return {arm: run.ledger for arm, run in sample.items()}, {arm: run.config for arm, run in sample.items()}
