"""One text or a pair of texts: a class, a set of labels, or a number, by AutoModelForSequenceClassification."""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn.metrics
import transformers
from scipy.stats import pearsonr, spearmanr
from training import Job, Outcome, predict, train

THRESHOLDS = np.arange(0.05, 0.951, 0.05)


def classes(job: Job) -> Outcome:
    """One class a text; trivial: the most frequent class of training."""
    target = job.row.target
    names = sorted({row[target] for row in job.split("train")})
    labels = {split: np.array([names.index(row[target]) for row in job.split(split)]) for split in ("train", "test")}
    logits = _fine_tuned(job, "single_label_classification", len(names), labels["train"].tolist(), ["test"])["test"]
    majority = np.full(len(labels["test"]), np.bincount(labels["train"]).argmax())
    scores = _class_scores(labels["test"], logits.argmax(axis=1))
    return Outcome(scores, {"majority": _class_scores(labels["test"], majority)})


def label_sets(job: Job) -> Outcome:
    """Any number of labels a text, a threshold each from validation; trivial: always the most frequent label."""
    splits = {split: [row[job.row.target] for row in job.split(split)] for split in ("train", "validation", "test")}
    count = 1 + max(max(labels, default=0) for rows in splits.values() for labels in rows)
    true = {split: _hot(rows, count) for split, rows in splits.items()}
    logits = _fine_tuned(
        job, "multi_label_classification", count, true["train"].astype(float).tolist(), ["validation", "test"]
    )
    chances = {split: 1 / (1 + np.exp(-values)) for split, values in logits.items()}
    cuts = np.array(
        [_threshold(true["validation"][:, label], chances["validation"][:, label]) for label in range(count)]
    )
    rates = true["train"].mean(axis=0)
    always = np.tile(np.arange(count) == rates.argmax(), (len(true["test"]), 1))
    return Outcome(
        _set_scores(true["test"], chances["test"] >= cuts, chances["test"]),
        {"most frequent label": _set_scores(true["test"], always, np.tile(rates, (len(always), 1)))},
    )


def numbers(job: Job) -> Outcome:
    """A number a text; trivial: the mean of training."""
    values = {split: np.array([float(row[job.row.target]) for row in job.split(split)]) for split in ("train", "test")}
    found = _fine_tuned(job, "regression", 1, values["train"].tolist(), ["test"])["test"][:, 0]
    linear: Any = pearsonr(found, values["test"])
    ranked: Any = spearmanr(found, values["test"])
    error = _rmse(found, values["test"])
    scores = {"pearson": float(linear.statistic), "spearman": float(ranked.statistic), "rmse": error}
    mean = {"pearson": 0.0, "spearman": 0.0, "rmse": _rmse(values["train"].mean(), values["test"])}
    return Outcome(scores, {"mean": mean})


def _fine_tuned(job: Job, problem: str, outputs: int, targets: list[Any], splits: list[str]) -> dict[str, np.ndarray]:
    """Train on the targets of the training rows; return the logits [rows, outputs] of the splits."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        job.body, num_labels=outputs, problem_type=problem
    )
    collate = transformers.DataCollatorWithPadding(job.tokenizer)
    features = [row | {"labels": target} for row, target in zip(_features(job, "train"), targets, strict=True)]
    model = train(model, features, collate, job)
    return {split: _logits(model, _features(job, split), collate, outputs) for split in splits}


def _features(job: Job, split: str) -> list[dict[str, Any]]:
    rows = job.split(split)
    columns = [[row[name] for row in rows] for name in job.row.columns]
    encoded = job.tokenizer(*columns, truncation=True, max_length=job.row.max_length)
    return [{name: encoded[name][number] for name in encoded} for number in range(len(rows))]


def _logits(model: Any, features: list[dict[str, Any]], collate: Any, outputs: int) -> np.ndarray:
    logits = np.zeros((len(features), outputs))
    for number, output, place in predict(model, features, collate):
        logits[number] = output["logits"][place].float().numpy()
    return logits


def _class_scores(true: np.ndarray, found: np.ndarray) -> dict[str, float]:
    return {
        "accuracy": float(sklearn.metrics.accuracy_score(true, found)),
        "macro_f1": float(sklearn.metrics.f1_score(true, found, average="macro", zero_division=0)),  # type: ignore[arg-type]
        "matthews": float(sklearn.metrics.matthews_corrcoef(true, found)),
    }


def _set_scores(true: np.ndarray, found: np.ndarray, chances: np.ndarray) -> dict[str, float]:
    return {
        "micro_f1": float(sklearn.metrics.f1_score(true, found, average="micro", zero_division=0)),  # type: ignore[arg-type]
        "macro_f1": float(sklearn.metrics.f1_score(true, found, average="macro", zero_division=0)),  # type: ignore[arg-type]
        "map": float(sklearn.metrics.average_precision_score(true, chances, average="macro")),
    }


def _threshold(true: np.ndarray, chances: np.ndarray) -> float:
    """Return the threshold of the best F1; of several the one nearest to a half."""
    grid = sorted(THRESHOLDS, key=lambda cut: abs(cut - 0.5))
    return max(grid, key=lambda cut: sklearn.metrics.f1_score(true, chances >= cut, zero_division=0))  # type: ignore[arg-type]


def _hot(rows: list[list[int]], count: int) -> np.ndarray:
    hot = np.zeros((len(rows), count), dtype=bool)
    for number, labels in enumerate(rows):
        hot[number, labels] = True
    return hot


def _rmse(found: Any, true: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found - true) ** 2)))
