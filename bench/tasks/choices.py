"""One of several continuations is right, by AutoModelForMultipleChoice."""

from __future__ import annotations

from typing import Any

import numpy as np
import transformers
from training import Job, Outcome, predict, train


def choices(job: Job) -> Outcome:
    """Trivial: the place that is right most often in training."""
    model = transformers.AutoModelForMultipleChoice.from_pretrained(job.body)
    collate = transformers.DataCollatorForMultipleChoice(job.tokenizer)
    model = train(model, _features(job, "train"), collate, job, by_length=False)
    features = _features(job, "test")
    true = np.array([feature["labels"] for feature in features])
    found = np.zeros(len(features), dtype=int)
    for number, output, place in predict(model, features, collate):
        found[number] = int(output["logits"][place].argmax())
    majority = np.bincount([feature["labels"] for feature in _features(job, "train")]).argmax()
    trivial = {"majority": {"accuracy": float((true == majority).mean())}}
    return Outcome({"accuracy": float((true == found).mean())}, trivial)


def _features(job: Job, split: str) -> list[dict[str, Any]]:
    """Return a feature a row; its columns hold one list a choice: (premise and question, choice)."""
    *context, choices_column = job.row.columns
    features = []
    for row in job.split(split):
        asked, offered = " ".join(row[name] for name in context), row[choices_column]
        encoded = job.tokenizer([asked] * len(offered), offered, truncation=True, max_length=job.row.max_length)
        features.append({name: encoded[name] for name in encoded} | {"labels": row[job.row.target]})
    return features
