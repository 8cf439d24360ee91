"""What a finished run is judged by: result.json, the predictions, their hashes. Floor 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from headswap.answers import Answers, Scores, Summed
from headswap.contracts import Metric, Splits
from headswap.durable import read_manifest, replace_file
from headswap.flops import told
from headswap.hardware import Hardware
from headswap.hashes import file_sha256
from headswap.ledger import Ledger
from headswap.records import BODY_CHANGE, RunFolder
from headswap.training import Progress

PREDICTIONS = "predictions.parquet"


def summary(
    metrics: Sequence[Metric], made: tuple[Splits, Ledger, Progress, Hardware], scores: Mapping[str, Scores]
) -> dict[str, Any]:
    """Return result.json without its timings."""
    splits, ledger, progress, hardware = made
    counts = ledger.summary()
    return {
        **outcome(metrics, splits, scores),
        "steps": progress.step,
        "planned_steps": progress.total,
        "best_step": progress.best_step,
        "stopped_early": progress.stopped_early,
        "examples": progress.examples,
        **told(progress),
        "parameters": {
            "trainable": progress.trainable,
            **parameter_counts(counts),
            "embeddings": ledger.embeddings,
        },
        **{key: hardware.describe()[key] for key in ("device", "processes", "threads", "precision")},
    }


def outcome(metrics: Sequence[Metric], splits: Splits, scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Return what result.json says of any run, however its model was made."""
    test = scores["test"]
    return {
        "status": "finished",
        "primary": metrics[0].name,
        "greater_is_better": metrics[0].greater_is_better,
        "per_example": {metric.name: metric.per_example for metric in metrics},
        "scores": {split: {**found.values, "loss": found.loss} for split, found in scores.items()},
        "labels": list(splits.labels.names),
        **rows_of(splits),
        "problem": splits.labels.problem,
        "collapsed": collapsed(test.answers),
        "calibration": dict(test.calibration),
    }


def rows_of(splits: Splits) -> dict[str, dict[str, int]]:
    """Return the number of rows of each split."""
    return {"rows": {name: len(splits.of(name)) for name in ("train", "validation", "test")}}


def parameter_counts(counts: Mapping[str, Any]) -> dict[str, int]:
    """Return the elements of the model's body and head, from the ledger's summary."""
    return {part: int(counts["elements"].get(part, 0)) for part in ("body", "head")}


def collapsed(answers: Answers) -> bool:
    """Say whether a model that labels gives everything the same label."""
    if len(answers.predictions) < 2:
        return False
    if answers.labels.problem in ("single_label_classification", "multiple_choice"):
        return len(set(answers.predictions.tolist())) == 1
    if answers.labels.problem == "token_classification":
        return len({int(tag) for tags in answers.predictions for tag in tags}) == 1
    if answers.labels.problem == "multi_label_classification":
        return len({tuple(row) for row in answers.predictions.tolist()}) == 1
    if answers.labels.problem in ("sequence_to_sequence", "question_answering"):
        return len(answers.predictions) > 1 and len(set(answers.predictions)) == 1
    return False


def write_predictions(path: Path, scores: Mapping[str, Scores], primary: Metric) -> None:
    """Write every scored example: split, id, label, prediction, logits, length, and what a study's statistics need.

    The length is in input tokens after cutting, over all features of the example. The statistics need the value of each
    metric that is a mean (`value_accuracy`), and what the example adds to the sums that the primary metric is a
    function of (`sums_entity_f1`).
    """
    tables = [
        pyarrow.table(
            {
                "split": [split] * len(found.ids),
                "id": list(found.ids),
                "label": _plain(found.answers.references),
                "prediction": _plain(found.answers.predictions),
                "logits": [output.ravel() for output in found.answers.outputs] or [None] * len(found.ids),
                **{f"value_{name}": values for name, values in found.examples.items()},
                **_sums(primary, found.answers),
                **({} if found.lengths is None else {"length": found.lengths}),
            }
        )
        for split, found in scores.items()
    ]
    content = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.concat_tables(tables, promote_options="permissive"), content)
    replace_file(path, content.getvalue().to_pybytes())


def _sums(metric: Metric, answers: Answers) -> dict[str, list[np.ndarray]]:
    return {f"sums_{metric.name}": list(metric.sums(answers))} if isinstance(metric, Summed) else {}


def _plain(items: Any) -> Any:
    """Return one item an example as Arrow takes them."""
    if isinstance(items, np.ndarray):
        return items if items.ndim == 1 else items.tolist()
    return [item.tolist() if isinstance(item, np.ndarray) else item for item in items]


def hashes(folder: RunFolder) -> dict[str, str]:
    """Return the sha256 of what a finished run is judged by: its files, and weights as their manifest has it."""
    found = {name: file_sha256(folder / name) for name in (PREDICTIONS, BODY_CHANGE) if (folder / name).exists()}
    sealed = read_manifest(folder / "model") if (folder / "model").is_dir() else {}
    return found | {name: facts["sha256"] for name, facts in sealed.items() if name.endswith(".safetensors")}
