"""One run from configuration to folder: what it leaves, that others can read it, that it can be repeated to the bit."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file
from sklearn import metrics as sklearn_metrics
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from headswap import config as configuration
from headswap.errors import ConfigError
from headswap.launch import folder_of
from headswap.overlays import overlay
from headswap.records import RunFolder, read_json, read_jsonl, write_text
from headswap.run import run
from headswap.tasks.text_classification import TextClassification
from tiny_runs import reviews, tiny, words_of
from tiny_tables import written


def ran(config, folder: Path | None = None):
    """Run in this process, as a child would; return the folder."""
    place = folder_of(config) if folder is None else RunFolder(folder)
    write_text(place / "config.yaml", configuration.dump(config))
    run(configuration.load(place / "config.yaml"), place, lambda line: None)
    return place


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    return reviews(tmp_path_factory.mktemp("tables") / "reviews.csv", 80)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def config(table, tiny_body, root):
    return tiny(table, tiny_body, root, "train.max_steps=40", "train.learning_rate=1e-2", "train.evaluations=3")


@pytest.fixture(scope="module")
def finished(config):
    return ran(config)


def predictions(folder, split="test"):
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    return [row for row in rows if row["split"] == split]


def test_a_run_leaves_every_file_it_promises(finished, config, root):
    assert finished.path.parent == root / "tiny"
    assert finished.path.name.startswith("text-transformer-full-pretrained-seed0-")
    for name in ("config.yaml", "run.json", "ledger.json", "metrics.jsonl", "predictions.parquet", "result.json"):
        assert (finished / name).is_file(), name
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= {
        path.name for path in (finished / "model").iterdir()
    }
    assert not [path for path in finished.path.rglob("*") if path.name.endswith(".tmp")]
    about = read_json(finished / "run.json")
    assert about["status"] == "finished"
    assert about["versions"]["torch"] == torch.__version__
    assert about["data"]["labels"] == ["neg", "pos"]


def test_the_metrics_tell_every_step_and_evaluation(finished):
    lines = read_jsonl(finished / "metrics.jsonl")
    trained = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in trained] == list(range(1, 41))
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [1, 6, 40]  # 40 ** 0.5 is 6.3
    assert trained[-1]["examples"] == finished.result()["examples"] == 8 * 40  # 48 training rows: 6 whole batches
    assert finished.result()["rows"] == {"train": 48, "validation": 16, "test": 16}


def test_the_result_is_what_scikit_learn_says_of_the_predictions(finished):
    for split in ("validation", "test"):
        rows = predictions(finished, split)
        labels, guesses = [row["label"] for row in rows], [row["prediction"] for row in rows]
        scores = finished.result()["scores"][split]
        assert scores["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(labels, guesses), abs=1e-12)
        assert scores["macro_f1"] == pytest.approx(
            sklearn_metrics.f1_score(labels, guesses, average="macro"), abs=1e-12
        )
        assert scores["matthews"] == pytest.approx(sklearn_metrics.matthews_corrcoef(labels, guesses), abs=1e-12)
        logits = np.array([row["logits"] for row in rows])
        assert scores["loss"] == pytest.approx(sklearn_metrics.log_loss(labels, softmax(logits)), abs=1e-6)
        assert max(Counter(row["id"] for row in rows).values()) == 1


def softmax(logits):
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_the_best_evaluation_is_the_validation_score_of_the_result(finished):
    lines = [line for line in read_jsonl(finished / "metrics.jsonl") if line["kind"] == "validation"]
    result = finished.result()
    best = next(line for line in lines if line["step"] == result["best_step"])
    assert best["accuracy"] == max(line["accuracy"] for line in lines) == result["scores"]["validation"]["accuracy"]


def texts_of(table, rows):
    """Look the texts of predictions up by their id: the row's number in the file, from 1, the header not counted."""
    lines = Path(table).read_text(encoding="utf-8").splitlines()
    pairs = [lines[int(row["id"])].split(",") for row in rows]
    assert [label for _, label in pairs] == [["neg", "pos"][row["label"]] for row in rows]
    return [text for text, _ in pairs]


def test_the_model_loads_in_plain_transformers_and_says_the_same(finished, table):
    rows = predictions(finished)
    model = AutoModelForSequenceClassification.from_pretrained(finished / "model")
    tokenizer = AutoTokenizer.from_pretrained(finished / "model")
    assert model.config.id2label == {0: "neg", 1: "pos"}
    assert model.config.label2id == {"neg": 0, "pos": 1}
    assert model.config.problem_type == "single_label_classification"
    batch = tokenizer(texts_of(table, rows), padding=True, truncation=True, max_length=32, return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits
    np.testing.assert_allclose(logits.numpy(), np.array([row["logits"] for row in rows]), rtol=0, atol=1e-5)
    assert logits.argmax(dim=1).tolist() == [row["prediction"] for row in rows]
    assert len(set(logits.argmax(dim=1).tolist())) == 2


def test_the_pipeline_of_transformers_gives_the_labels_of_the_predictions(finished, table):
    rows = predictions(finished)
    answers = pipeline("text-classification", model=str(finished / "model"), device="cpu")(texts_of(table, rows))
    assert [answer["label"] for answer in answers] == [["neg", "pos"][row["prediction"]] for row in rows]


def test_the_saved_configuration_repeats_the_run_to_the_bit(finished, tmp_path):
    again = configuration.load(finished / "config.yaml")
    assert folder_of(again).path == finished.path
    other = ran(again, tmp_path / "again")
    assert (other / "model" / "model.safetensors").read_bytes() == (
        finished / "model" / "model.safetensors"
    ).read_bytes()
    assert predictions(other) == predictions(finished)
    first, second = (
        [line for line in read_jsonl(folder / "metrics.jsonl") if line["kind"] == "train"]
        for folder in (finished, other)
    )
    assert [line["loss"] for line in first] == [line["loss"] for line in second]


def test_the_saved_configuration_is_plain_yaml_without_references(finished):
    text = (finished / "config.yaml").read_text()
    assert "${" not in text
    assert yaml.safe_load(text)["train"]["learning_rate"] == 1e-2


def sha256(tensor):
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def test_a_run_starts_from_the_body_of_an_earlier_run(finished, table, tiny_body, root):
    words = [word for word in words_of(table, tiny_body, root) if not word.startswith("body")]
    later = configuration.compose([*words, "body=from_run", f"run='{finished.path}'"])
    ledger = json.loads((ran(later) / "ledger.json").read_text())
    trained = load_file(finished / "model" / "model.safetensors")
    body = [entry for entry in ledger["entries"] if entry["part"] == "body"]
    assert len(body) == sum(name.startswith("bert.") for name in trained)
    for entry in body:
        assert entry["fate"] == "kept"
        assert entry["sha256"] == sha256(trained[entry["name"]]), entry["name"]
    start = load_file(tiny_body / "model.safetensors")
    assert not torch.equal(
        start["encoder.layer.0.output.dense.weight"], trained["bert.encoder.layer.0.output.dense.weight"]
    )
    fates = [entry["fate"] for entry in ledger["entries"] if entry["part"] == "head"]
    assert sorted(fates) == ["dropped", "dropped", "new", "new"]  # of the checkpoint, of the model


def test_a_probe_saves_the_body_it_was_given(table, tiny_body, root):
    folder = ran(tiny(table, tiny_body, root, "strategy=probe", "output.keep_model=true"))
    given, saved = load_file(tiny_body / "model.safetensors"), load_file(folder / "model" / "model.safetensors")
    assert all(torch.equal(value, saved[f"bert.{name}"]) for name, value in given.items())
    assert folder.result()["parameters"]["trainable"] == 2 * 32 + 2


def test_only_identity_decides_the_folder(config, table, tiny_body, root, tmp_path):
    folder = folder_of(config).path
    same = overlay(config, {"hardware": {"threads": 2}, "output": {"reuse": False}}, "test")
    assert folder_of(same).path == folder
    for changes in (
        {"seed": 1},
        {"train": {"learning_rate": 1e-4}},
        {"body": {"init": "random"}},
        {"data": {"max_length": 16}},
    ):
        assert folder_of(overlay(config, changes, "test")).path != folder, changes
    assert folder_of(overlay(config, {"output": {"root": str(tmp_path)}}, "test")).path.name == folder.name


def test_other_bytes_of_the_data_make_another_folder(tiny_body, root, tmp_path):
    table = written(tmp_path / "t.csv", [("a good film", "pos"), ("a bad film", "neg")])
    first = folder_of(tiny(table, tiny_body, root)).path
    written(tmp_path / "t.csv", [("a good film", "pos"), ("a dull film", "neg")])
    assert folder_of(tiny(table, tiny_body, root)).path != first


def test_a_task_whose_inputs_are_no_texts_is_refused_before_anything_loads(config, monkeypatch, tmp_path):
    monkeypatch.setattr(TextClassification, "processor", "AutoImageProcessor")
    with pytest.raises(ConfigError, match=r"^task: inputs of this kind are not served yet; found AutoImageProcessor"):
        run(config, RunFolder(tmp_path / "run"), lambda line: None)


def test_a_run_pulls_by_its_strategy(table, tiny_body, tmp_path):
    """A pull of the whole way leaves the pretrained body, bit for bit, under a head that has learned."""
    folder = ran(tiny(table, tiny_body, tmp_path, "strategy=l2_sp", "strategy.alpha=1e9", "train.keep=last"))
    made, file = load_file(folder / "model" / "model.safetensors"), load_file(tiny_body / "model.safetensors")
    assert all(torch.equal(made[f"bert.{name}"], value) for name, value in file.items())
    entries = {each["name"]: each["sha256"] for each in read_json(folder / "ledger.json")["entries"]}
    assert hashlib.sha256(made["classifier.weight"].numpy().tobytes()).hexdigest() != entries["classifier.weight"]


def test_a_run_begins_layers_anew_by_its_strategy(table, tiny_body, tmp_path):
    folder = ran(tiny(table, tiny_body, tmp_path, "strategy=reinit_top", "strategy.layers=1"))
    fates = {each["name"]: each["fate"] for each in read_json(folder / "ledger.json")["entries"]}
    query = "bert.encoder.layer.{}.attention.self.query.weight"
    assert (fates[query.format(0)], fates[query.format(1)]) == ("kept", "new")
