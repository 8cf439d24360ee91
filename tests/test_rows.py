import numpy as np
import pytest

from headswap.contracts import DataRequest
from headswap.errors import DataError
from headswap.rows import automatic_split, stratified_order
from headswap.seeds import Seeds
from tiny_tables import loaded, numbered, written


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
