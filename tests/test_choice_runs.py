"""Whole runs that choose, on a table of a few questions: plain transformers gives their logits."""

import json
import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import accuracy_score
from transformers import AutoModelForMultipleChoice, AutoTokenizer

import tiny_families
from headswap.config import compose
from headswap.records import read_json
from tiny_runs import ran


def test_bodies_that_cannot_choose_are_told(tmp_path, table):
    folder = tiny_families.two_labels("GPT-2", tmp_path / "gpt2")
    ended = ran(tmp_path / "run", config_of(table, tmp_path, folder))
    assert ended[
        "kind"
    ] == "failed" and "AutoModelForMultipleChoice does not serve this architecture; found model_type 'gpt2'" in str(
        ended
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    """Questions whose right choice has a word that says so."""
    dice, rows = random.Random(0), []
    filler = ["the", "plot", "was", "very", "not", "but", "it"]
    for number in range(80):
        premise, right = " ".join(dice.choices(filler, k=dice.randint(3, 9))), dice.randrange(3)
        choices = [" ".join([*dice.choices(filler, k=2), "good" if place == right else "bad"]) for place in range(3)]
        rows.append({"premise": premise, "choices": choices, "answer": right, "id": f"q{number}"})
    path = tmp_path_factory.mktemp("tables") / "quiz.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def config_of(table, root, body):
    return compose(
        [
            "task=multiple_choice", f"task.source={table}", "task.context=[premise]", "task.choices=[choices]", "task.label=answer",
            "task.id=id", "task.validation_share=0.2", "task.test_share=0.2", "body=transformer", f"body.source={body}",
            "data.max_length=32", "train.max_steps=80", "train.batch_size=8", "train.evaluations=2",
            "train.learning_rate=1e-2", "train.precision=fp32", "hardware=cpu", "hardware.threads=1", f"output.root={root}",
        ]
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory, table, tiny_body) -> Path:
    root = tmp_path_factory.mktemp("runs")
    ended = ran(root / "run", config_of(table, root, tiny_body))
    assert ended["kind"] == "finished", ended
    return root / "run"


def test_a_run_learns_to_choose_and_plain_transformers_gives_its_logits(finished, table):
    result = read_json(finished / "result.json")
    rows = [row for row in pq.read_table(finished / "predictions.parquet").to_pylist() if row["split"] == "test"]
    given = {row["id"]: row for row in map(json.loads, Path(table).read_text(encoding="utf-8").splitlines())}
    assert [given[row["id"]]["answer"] for row in rows] == [row["label"] for row in rows]
    score = accuracy_score([row["label"] for row in rows], [row["prediction"] for row in rows])
    assert result["scores"]["test"]["accuracy"] == pytest.approx(score)
    assert (result["primary"], result["problem"], score > 0.6) == ("accuracy", "multiple_choice", True)
    tokenizer = AutoTokenizer.from_pretrained(finished / "model")
    model = AutoModelForMultipleChoice.from_pretrained(finished / "model").eval()
    for row in rows:
        question = given[row["id"]]
        pairs = tokenizer([question["premise"]] * 3, question["choices"], padding=True, return_tensors="pt")
        with torch.no_grad():
            logits = model(**{name: tensor[None] for name, tensor in pairs.items()}).logits[0]
        np.testing.assert_allclose(row["logits"], logits.numpy(), atol=1e-5)
        assert row["prediction"] == int(logits.argmax())
        assert row["length"] == int(pairs["attention_mask"].sum())  # of all choices together


def test_the_head_of_another_run_is_taken_over_as_it_is(finished, table, tmp_path):
    words = [
        f"{key}"
        for key in ("body=from_run", f"run='{finished}'", "head=keep", "train.max_steps=1", "train.learning_rate=1e-9")
    ]
    fields = [
        "task=multiple_choice",
        f"task.source={table}",
        "task.context=[premise]",
        "task.choices=[choices]",
        "task.label=answer",
    ]
    rest = [
        "train.batch_size=8",
        "train.precision=fp32",
        "hardware=cpu",
        "hardware.threads=1",
        f"output.root={tmp_path}",
    ]
    ended = ran(tmp_path / "run", compose([*fields, *words, *rest]))
    assert ended["kind"] == "finished", ended
    head = [entry for entry in read_json(tmp_path / "run" / "ledger.json")["entries"] if entry["part"] == "head"]
    assert {entry["fate"] for entry in head} == {"kept"}
    assert read_json(tmp_path / "run" / "result.json")["scores"]["test"]["accuracy"] > 0.6
