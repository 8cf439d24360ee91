import json
import re

import pytest

from headswap.checks import imbalance
from headswap.contracts import DataRequest
from headswap.errors import ConfigError, DataError
from tiny_tables import fault, loaded, numbered, written


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


def test_a_rare_damaged_row_is_kept_and_counted(tmp_path):
    rows = [*numbered(399), ("Treasury\x12s plan", "pos")]
    assert loaded(source=written(tmp_path / "a.csv", rows)).notes["rows_with_damage"] == 1


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


def test_uneven_labels_are_said_with_what_helps():
    even = {"a": 30, "b": 10}
    assert imbalance("single_label_classification", even) is None
    assert imbalance("token_classification", {"O": 900, "B-x": 1}) is None
    assert imbalance("regression", {}) is None
    assert imbalance("single_label_classification", {"no": 1800, "maybe": 150, "yes": 50}) == (
        "training labels are uneven: no has 1,800 of 2,000 rows (90%: so often no alone is right), yes 50; score them "
        "with metric=[macro_f1,matthews], weigh them with task.class_weights=balanced"
    )
    assert imbalance("multi_label_classification", {"joy": 40, "fear": 0}) == (
        "training labels are uneven: joy has 40 rows, fear 0; score them with "
        "metric=[multi_label_macro_f1,mean_average_precision], weigh them with task.class_weights=balanced"
    )
