"""What a finished run is judged by: result.json, the predictions, their hashes. Floor 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from headswap.contracts import Metric, Scores, Splits
from headswap.durable import read_manifest, replace_file
from headswap.hardware import Hardware
from headswap.hashes import file_sha256
from headswap.ledger import Ledger
from headswap.loop import Progress
from headswap.records import RunFolder

PREDICTIONS = "predictions.parquet"


def summary(
    metrics: Sequence[Metric], made: tuple[Splits, Ledger, Progress, Hardware], scores: Mapping[str, Scores]
) -> dict[str, Any]:
    """Return result.json without its timings."""
    splits, ledger, progress, hardware = made
    test = scores["test"]
    counts = ledger.summary()
    return {
        "status": "finished",
        "primary": metrics[0].name,
        "greater_is_better": metrics[0].greater_is_better,
        "per_example": {metric.name: metric.per_example for metric in metrics},
        "scores": {split: {**found.values, "loss": found.loss} for split, found in scores.items()},
        "steps": progress.step,
        "planned_steps": progress.total,
        "best_step": progress.best_step,
        "stopped_early": progress.stopped_early,
        "examples": progress.examples,
        "labels": list(splits.labels.names),
        **rows_of(splits),
        "parameters": {"trainable": progress.trainable, **parameter_counts(counts)},
        "collapsed": bool(splits.labels.problem != "regression" and len(set(test.predictions.tolist())) == 1),
        **{key: hardware.describe()[key] for key in ("device", "processes", "threads", "precision")},
    }


def rows_of(splits: Splits) -> dict[str, dict[str, int]]:
    """Return the number of rows of each split."""
    return {"rows": {name: len(splits.of(name)) for name in ("train", "validation", "test")}}


def parameter_counts(counts: Mapping[str, Any]) -> dict[str, int]:
    """Return the elements of the model's body and head, from the ledger's summary."""
    return {part: int(counts["elements"].get(part, 0)) for part in ("body", "head")}


def write_predictions(path: Path, scores: Mapping[str, Scores]) -> None:
    """Write every scored example: split, id, label, prediction, logits. Paired statistics need it."""
    tables = [
        pyarrow.table(
            {
                "split": [split] * len(found.ids),
                "id": list(found.ids),
                "label": found.references,
                "prediction": found.predictions,
                "logits": list(found.logits),
            }
        )
        for split, found in scores.items()
    ]
    content = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.concat_tables(tables), content)
    replace_file(path, content.getvalue().to_pybytes())


def hashes(folder: RunFolder) -> dict[str, str]:
    """Return the sha256 of what a finished run is judged by: predictions, and weights as their manifest has it."""
    found = {PREDICTIONS: file_sha256(folder / PREDICTIONS)}
    sealed = read_manifest(folder / "model") if (folder / "model").is_dir() else {}
    return found | {name: facts["sha256"] for name, facts in sealed.items() if name.endswith(".safetensors")}
