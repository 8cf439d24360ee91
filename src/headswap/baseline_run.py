"""A run without a body: rows to scores by a baseline. Floor 4; run.py hands over to it.

load the data -> fit on the training rows, validation chooses -> score the test rows once -> write it down

The folder is that of any run, without what only training makes: no ledger, no curve, no model. scikit-learn computes on
one thread, so that the numbers are the same on every machine with its version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from headswap.answers import Observed, Scores
from headswap.config import Plugs
from headswap.contracts import Splits
from headswap.errors import ConfigError, RunError
from headswap.evaluate import by_example, judged
from headswap.fitted import Baseline, Columns, Fitted
from headswap.hardware import cpu_name
from headswap.provenance import provenance
from headswap.records import RunFolder
from headswap.run_data import data_facts, data_request, repeats_and_imbalance
from headswap.runlog import Clock
from headswap.seeds import Seeds
from headswap.spine import Config
from headswap.summary import PREDICTIONS, hashes, outcome, rows_of, write_predictions
from headswap.training import Report

PLACE = {"device": "cpu", "processes": 1, "threads": 1}


def run_baseline(config: Config, plugs: Plugs, baseline: Baseline, folder: RunFolder, report: Report) -> dict[str, Any]:
    """Fit and score; return what result.json holds. A run that was cut off begins again: it is short.

    Raises:
        HeadswapError: the data failed, or the baseline's outputs are not what the task reads.
    """
    clock = Clock()
    folder.clear()
    about = provenance(config, PLACE | {"device_name": cpu_name()})
    about["versions"]["scikit-learn"] = metadata.version("scikit-learn")
    folder.note(status="running", **about)

    splits = plugs.task.load(data_request(config), Seeds(config.seed))
    folder.note(data={**data_facts(splits), "notes": dict(splits.notes)})
    report({"kind": "baseline", "rows": rows_of(splits)["rows"], "warnings": repeats_and_imbalance(splits)})
    clock.lap("data")

    judge = _Judge(plugs, splits)
    with threadpool_limits(1):
        fitted, validation, tried = _chosen(baseline, judge)
        clock.lap("fit")
        test = judge.score(fitted, "test", validation.calibration)
    scores = {split: by_example(found, plugs.metrics) for split, found in (("validation", validation), ("test", test))}
    clock.lap("score")

    write_predictions(folder / PREDICTIONS, scores, plugs.metrics[0])
    clock.lap("save")
    result = {
        **outcome(plugs.metrics, splits, scores),
        "baseline": {**fitted.settings, "tried": tried},
        "steps": 0,
        "planned_steps": 0,
        "examples": len(splits.train),
        "parameters": {"trainable": fitted.parameters},
        **PLACE,
        "sha256": hashes(folder),
        "seconds": {**clock.laps, "train": clock.laps["fit"], "total": clock.total},
    }
    folder.finish(result)
    return result


def _chosen(baseline: Baseline, judge: _Judge) -> tuple[Fitted, Scores, list[dict[str, Any]]]:
    """Return the model with the best first metric on validation, its scores, and every setting with its own."""
    metric, splits = judge.plugs.metrics[0], judge.splits
    sign, best, tried = 1 if metric.greater_is_better else -1, None, []
    for fitted in baseline.fits(judge.rows("train"), judge.plugs.task.inputs, splits.labels):
        scores = judge.score(fitted, "validation")
        tried.append({**fitted.settings, metric.name: scores.values[metric.name]})
        if best is None or sign * (scores.values[metric.name] - best[1].values[metric.name]) > 0:
            best = fitted, scores
    if best is None:
        raise RunError(f"baseline: {type(baseline).__name__} fitted nothing; found no setting; give it one or more")
    return *best, tried


@dataclass(frozen=True)
class _Rows:
    """The rows of a split where a trained model has features: one each."""

    ids: tuple[str, ...]

    @property
    def example(self) -> np.ndarray:
        return np.arange(len(self.ids))

    def column(self, name: str, feature: int) -> np.ndarray:
        raise ConfigError(f"baseline: a row is not tokenised; found a task that asks for {name}; set baseline=none")


@dataclass(frozen=True)
class _Judge:
    """What scoring a baseline needs; it reads outputs as evaluate.Judge reads a model's."""

    plugs: Plugs
    splits: Splits

    def rows(self, split: str) -> Columns:
        return self.splits.of(split)[:]

    def score(self, fitted: Fitted, split: str, calibration: Any = None) -> Scores:
        rows, labels = self.rows(split), self.splits.labels
        outputs = np.asarray(fitted.outputs(rows), dtype=np.float32)
        _require_form(outputs, (len(rows["id"]), labels.count))
        # The tasks that baselines serve read outputs and rows alone.
        nothing = cast(Any, None)
        observed = Observed(list(outputs), _Rows(tuple(rows["id"])), rows, nothing, labels, calibration or {})
        return judged(observed, self.plugs.task, self.plugs.metrics, (split, self._loss(outputs, rows["label"])))

    def _loss(self, outputs: np.ndarray, targets: Sequence[Any]) -> float:
        """Return the task's own loss, which a trained model is judged by too."""
        loss, batch = self.plugs.task.loss(self.splits), {"labels": torch.tensor(targets)}
        total = loss(SimpleNamespace(logits=torch.from_numpy(outputs)), batch)
        return float(total / loss.weight(batch))


def _require_form(outputs: np.ndarray, shape: tuple[int, int]) -> None:
    """Refuse what a baseline of one's own may give that no task reads."""
    if outputs.shape != shape or not np.isfinite(outputs).all():
        found = "NaN or Inf" if outputs.shape == shape else f"the shape {list(outputs.shape)}"
        raise RunError(
            f"baseline: its outputs must be finite numbers, rows x outputs of the task {list(shape)}; found {found}; "
            "mend its fits()"
        )
