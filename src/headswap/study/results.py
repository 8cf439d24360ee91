"""Gather a study's runs into one `Comparison`: what comparison.json holds and what verdict and report are made from.

Study chain: execute -> RunRecords -> compare (this) -> verdict, report. Nothing here trains.
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

from headswap.contracts import Metric
from headswap.errors import RunError
from headswap.spine import StudyConfig
from headswap.study.answered import Answered, answered
from headswap.study.arrivals import Arrived, arrivals
from headswap.study.attribution import Further, further
from headswap.study.body_change import BodyChange, body_changes
from headswap.study.contrasts import Contrast, Pair, contrast
from headswap.study.curves import Convergence, LabelsSaved
from headswap.study.environment import environment, warnings_about
from headswap.study.fairness import Audit
from headswap.study.kept_layers import KeptLayers, kept_layers
from headswap.study.one_sided import texts_of
from headswap.study.power_law import PowerLaw
from headswap.study.runs import FinishedRun, RunRecord, read_run
from headswap.study.summaries import (
    ArmScore,
    Curve,
    Groups,
    arm_score,
    labels_by_size,
    laws_by_arm,
    mean_curve,
    paired,
    speed_of_learning,
)
from headswap.study.tuned import Tuning
from headswap.study.units import Unit
from headswap.study.words import Words, words_of

__all__ = ["ArmScore", "Comparison", "Curve", "Excluded", "RunRecord", "compare", "save"]


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
    problem: str = "single_label_classification"
    body_changes: tuple[BodyChange, ...] = ()
    kept_layers: tuple[KeptLayers, ...] = ()
    arrivals: tuple[Arrived, ...] = ()
    answered: Answered = field(default_factory=Answered)
    further: Further = field(default_factory=Further)
    tuning: Tuning | None = None
    audit: Audit | None = None
    power_laws: tuple[PowerLaw, ...] = ()

    @property
    def margin(self) -> float:
        """The difference that matters, 0 where none is known."""
        return self.study.margin or 0.0

    @property
    def from_scratch(self) -> bool:
        """Neither arm of the verdict has a pretrained weight, as where two architectures are compared."""
        return all(self.ledgers.get(a, {}).get("init") == "random" for a in (self.study.treatment, self.study.control))

    @property
    def words(self) -> Words:
        """What rows and features are called."""
        return words_of(self.problem)

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

    @property
    def baselines(self) -> tuple[str, ...]:
        """The arms that are fitted rather than trained, in the order of `arms`."""
        return tuple(arm for arm in self.arms if self.configs.get(arm, {}).get("baseline") is not None)

    @property
    def fitted(self) -> list[str]:
        """Which of the two main arms is a baseline."""
        return [arm for arm in (self.study.treatment, self.study.control) if arm in self.baselines]

    def audited(self, audit: Audit) -> Comparison:
        """Return it with the audit of its pairs, whose warnings stand behind the others."""
        return dataclasses.replace(self, audit=audit, warnings=(*self.warnings, *audit.warnings))

    def score_of(self, arm: str, size: int | None) -> ArmScore | None:
        return next((score for score in self.scores if (score.arm, score.size) == (arm, size)), None)


def compare(
    records: Sequence[RunRecord], study: StudyConfig, overlays: Mapping[str, Any], metric: Metric | None = None
) -> Comparison:
    """Read the finished runs and compare every arm with the control at every size.

    Args:
        records: one a run of the study, finished or failed.
        study: without a margin of its own it gets the metric's usual one, 0 for none.
        overlays: arm -> its resolved overlay (the recipe), as the report shows it.
        metric: the primary metric, to score resampled examples with.

    Raises:
        RunError: two records of one arm, size and seed; paired runs that do not share metric, labels or test rows.
    """
    _check_unique(records)
    runs, excluded = _read(records)
    runs.sort(key=lambda run: (_rank(run.arm, study), run.labelled_rows, run.seed))
    if not runs:
        study = _with_margin(study, "accuracy")
        return Comparison(study, dict(overlays), "accuracy", True, True, excluded=tuple(excluded))
    first, groups = runs[0], _groups(runs)
    study = _with_margin(study, first.primary)
    contrasts, alone = _contrasts(groups, study, metric)
    contrasts, beyond = further(groups, study, contrasts, metric)
    scores = tuple(arm_score(group, records, study) for group in groups.values())
    return Comparison(
        study,
        dict(overlays),
        first.primary,
        first.greater_is_better,
        bool(first.result.get("per_example", {}).get(first.primary, False)),
        scores,
        contrasts,
        tuple(filter(None, (mean_curve(group, study.confidence) for group in groups.values()))),
        speed_of_learning(groups, study),
        labels_by_size(groups, study),
        (*excluded, *alone),
        tuple(warnings_about(runs, scores, (*contrasts, *beyond.contrasts), study)),
        environment(runs),
        tuple(str(label) for label in first.result.get("labels", ())),
        len(first.ids),
        *_samples(groups),
        first.about.get("data", {}).get("notes", {}),
        first.problem,
        body_changes=body_changes(groups, study.confidence),
        kept_layers=kept_layers(groups, study, metric),
        arrivals=arrivals(groups, study),
        answered=answered(groups, study, metric),
        further=beyond,
        power_laws=laws_by_arm(groups),
    )


def with_texts(comparison: Comparison) -> Comparison:
    """Return the same with the texts of the examples that only one arm gets right, read from the task's data."""
    found = comparison.answered
    told = dataclasses.replace(found, one_sided=texts_of(found.one_sided))
    return dataclasses.replace(comparison, answered=told)


def _with_margin(study: StudyConfig, metric: str) -> StudyConfig:
    return study if study.margin is not None else dataclasses.replace(study, margin=Unit(metric).usual_margin)


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


def _groups(runs: Iterable[FinishedRun]) -> Groups:
    groups: Groups = {}
    for run in runs:
        groups.setdefault((run.arm, run.record.size), []).append(run)
    return groups


def _paired(treated: list[FinishedRun], controls: list[FinishedRun]) -> tuple[list[Pair], list[Excluded]]:
    pairs = paired(treated, controls)
    matched = {run.seed for run, _ in pairs}
    reason = "no finished control run of this size and seed to pair with; counts in its arm's mean only"
    return pairs, [_excluded(run.record, reason) for run in treated if run.seed not in matched]


def _contrasts(
    groups: Groups, study: StudyConfig, metric: Metric | None
) -> tuple[tuple[Contrast, ...], list[Excluded]]:
    """Return every arm's contrasts with the control, and the runs that have no partner."""
    contrasts, alone = [], _lone_controls(groups, study)
    for arm, size in groups:
        if arm != study.control:
            pairs, unpaired = _paired(groups[arm, size], groups.get((study.control, size), []))
            contrasts += [contrast(pairs, study, metric)] if pairs else []
            alone += unpaired
    return tuple(contrasts), alone


def _lone_controls(groups: Groups, study: StudyConfig) -> list[Excluded]:
    lone = []
    for (arm, size), runs in groups.items():
        seeds = {run.seed for run in groups.get((study.treatment, size), [])}
        reason = f"no finished {study.treatment} run of this size and seed to pair with; counts in its arm's mean only"
        lone += [_excluded(run.record, reason) for run in runs if arm == study.control and run.seed not in seeds]
    return lone


def _samples(groups: Groups) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return ledger summary and config of one run an arm: the first seed at its largest size."""
    sample = {arm: runs[0] for (arm, _), runs in groups.items()}
    return {arm: run.ledger for arm, run in sample.items()}, {arm: run.config for arm, run in sample.items()}
