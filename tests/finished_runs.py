"""Finished runs in little, as far as predicting reads them, and what transformers itself predicts with their models."""

import json
import shutil
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification

from conftest import make_tokenizer, tiny_config
from headswap import config as configuration

LABELS = ("negative", "neutral", "positive")
TEXTS = [
    "so good",
    "the plot was dull and the film very poor, it is not fine",
    "great",
    "NA",
    "a film that was loved and hated, caf\u00e9 and all, by this or that one",
    "it is",
]
PAIRS = [("the film is good", "it is great"), ("bad plot", "this movie was very very fine"), ("so", "dull")]
CUT = 12


def make_run(folder: Path, model: Path | None, *overrides: str) -> Path:
    """Write what a finished run leaves behind, as far as predicting reads it."""
    given = ["task=text", "task.source=reviews.csv", "task.text=[review]", "task.label=stars", f"data.max_length={CUT}"]
    given = [each for each in given if each.split("=")[0] not in {name.split("=")[0] for name in overrides}]
    folder.mkdir(parents=True)
    text = configuration.dump(configuration.compose([*given, *overrides]))
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    if model is not None:
        shutil.copytree(model, folder / "model")
    (folder / "result.json").write_text(json.dumps({"status": "finished", "labels": LABELS}))
    return folder


def make_number_run(place: Path) -> Path:
    """Write a run that learned a number, the column `stars`."""
    names = {"id2label": {0: "stars"}, "label2id": {"stars": 0}, "problem_type": "regression"}
    with torch.random.fork_rng():
        torch.manual_seed(5)
        BertForSequenceClassification(tiny_config(**names)).save_pretrained(place / "made")
    make_tokenizer().save_pretrained(place / "made")
    return make_run(place / "numbers", place / "made", "task=regression", "task.label=[stars]")


def manual(model_folder: Path, texts: list, max_length: int) -> list[list[float]]:
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForSequenceClassification.from_pretrained(model_folder, dtype=torch.float32).eval()
    rows = []
    for text in texts:
        parts = (text,) if isinstance(text, str) else text
        segments = {"return_token_type_ids": True} if len(parts) == 2 else {}  # as BERT learns pairs
        inputs = tokenizer(*parts, truncation=True, max_length=max_length, return_tensors="pt", **segments)
        with torch.no_grad():
            logits = model(**inputs).logits[0]
        rows.append((logits if len(logits) == 1 else logits.softmax(dim=-1)).tolist())
    return rows


def probabilities(results: list) -> list[list[float]]:
    return [list(result.scores.values()) for result in results]


def close(found: list[list[float]], expected: list[list[float]]) -> bool:
    return torch.allclose(torch.tensor(found), torch.tensor(expected), rtol=0, atol=1e-5)
