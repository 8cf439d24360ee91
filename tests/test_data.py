import dataclasses

import datasets
import numpy as np
import pytest
import torch

from headswap.config import compose
from headswap.contracts import Labels, Splits
from headswap.data import Batches, evaluation_batches, make_batches, order
from headswap.encoded import Padding, pad_token_id, tokenise
from headswap.errors import DataError
from headswap.seeds import Seeds
from headswap.tasks.regression import Regression
from headswap.tasks.text_classification import TextClassification
from tiny_tokenizer import TEXT, tiny_tokenizer

TASK = TextClassification(text=["text"], source="a.csv")
SENTENCES = ["a b", "a b c d e f", "good", "bad d e"]


def splits_of(sentences, labels=None) -> Splits:
    labels = labels or [number % 2 for number in range(len(sentences))]
    rows = {"id": [f"r{number}" for number in range(len(sentences))], "text": sentences, "label": labels}
    dataset = datasets.Dataset.from_dict(rows)
    return Splits(dataset, dataset.select([0, 1]), dataset.select([1]), Labels(("no", "yes")), "fingerprint")


def random_sentences(count, seed=0):
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(TEXT, generator.integers(1, 12))) for _ in range(count)]


def padded_by_transformers(sentences, tokenizer, **options):
    return dict(tokenizer(sentences, truncation=True, padding=True, return_tensors="pt", **options))


@pytest.mark.parametrize("side", ["right", "left"])
def test_collate_is_the_padding_of_transformers(side):
    sentences = random_sentences(40)
    tokenizer = tiny_tokenizer(padding_side=side)
    encoded = tokenise(splits_of(sentences), TASK, tokenizer, 8, None)["train"]
    for indices in (np.array([3]), np.array([7, 0, 39, 21]), np.arange(40)):
        batch = encoded.collate(indices)
        expected = padded_by_transformers([sentences[i] for i in indices], tokenizer, max_length=8)
        assert batch["input_ids"].equal(expected["input_ids"])
        assert batch["attention_mask"].equal(expected["attention_mask"])
        assert batch["labels"].tolist() == [i % 2 for i in indices]


@pytest.mark.parametrize("side", ["right", "left"])
def test_collate_of_pairs_is_the_padding_of_transformers(side):
    one, two = random_sentences(20), random_sentences(20, seed=1)
    tokenizer = tiny_tokenizer(padding_side=side)
    rows = datasets.Dataset.from_dict(
        {"id": [str(n) for n in range(20)], "one": one, "two": two, "label": [[0.5]] * 20}
    )
    task = Regression(text=["one", "two"], source="a.csv", label=["label"])
    splits = Splits(rows, rows, rows, Labels(("label",), "regression"), "")
    batch = tokenise(splits, task, tokenizer, 12, None)["train"].collate(np.arange(20))
    expected = tokenizer(one, two, truncation=True, max_length=12, padding=True, return_tensors="pt")
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        assert batch[name].equal(expected[name]), name
    assert batch["labels"].dtype == torch.float32


def test_widths_can_be_rounded_up_or_fixed():
    encoded = tokenise(splits_of(SENTENCES), TASK, tiny_tokenizer(), 16, None)["train"]
    assert encoded.collate(np.array([0, 3]))["input_ids"].shape == (2, 5)
    rounded = dataclasses.replace(encoded, padding=Padding(encoded.padding.values, multiple=4))
    assert rounded.collate(np.array([0, 3]))["input_ids"].shape == (2, 8)
    fixed = dataclasses.replace(encoded, padding=Padding(encoded.padding.values, width=6))
    assert fixed.collate(np.array([0, 3]))["input_ids"].shape == (2, 6)
    with pytest.raises(DataError, match="a row is longer than the batch; found 8 tokens for 6"):
        fixed.collate(np.array([1]))


def test_lengths_and_truncation_are_truthful():
    encoded = tokenise(splits_of(SENTENCES), TASK, tiny_tokenizer(), 6, None)["train"]
    assert encoded.lengths.tolist() == [4, 6, 3, 5]  # with [CLS] and [SEP]
    assert encoded.truncated.tolist() == [False, True, False, False]
    assert encoded.truncated_share == 0.25


@pytest.fixture
def calls(monkeypatch):
    counted = []
    encode = TextClassification.encode
    monkeypatch.setattr(
        TextClassification,
        "encode",
        lambda task, rows, *rest: counted.append(len(rows["id"])) or encode(task, rows, *rest),
    )
    return counted


def same(one, two):
    return all(
        one[split].ids == two[split].ids
        and all(
            one[split].collate(np.arange(len(one[split])))[name].equal(tensor)
            for name, tensor in two[split].collate(np.arange(len(two[split]))).items()
        )
        for split in one
    )


def test_rows_are_tokenised_once(tmp_path, calls):
    splits, tokenizer = splits_of(SENTENCES), tiny_tokenizer()
    first = tokenise(splits, TASK, tokenizer, 8, tmp_path)
    assert calls == [4, 2, 1]
    tokenizer(["a"], truncation=True, max_length=3, padding="max_length")  # leaves its mark in the tokenizer's own text
    assert same(tokenise(splits, TASK, tokenizer, 8, tmp_path), first)
    assert same(tokenise(splits_of(SENTENCES), TASK, tiny_tokenizer(), 8, tmp_path), first)
    assert calls == [4, 2, 1]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".arrow"] * 3


def test_what_changes_the_tokens_changes_the_key(tmp_path, calls):
    base = (splits_of(SENTENCES), TASK, tiny_tokenizer(), 8)
    tokenise(*base, tmp_path)
    other = tiny_tokenizer()
    other.truncation_side = "left"
    for place, value in (
        (0, splits_of(["b", *SENTENCES[1:]])),
        (0, splits_of(SENTENCES, [1, 1, 0, 0])),
        (2, other),
        (3, 7),
    ):
        calls.clear()
        tokenise(*base[:place], value, *base[place + 1 :], tmp_path)
        assert calls[0] == 4, (place, value)


@pytest.mark.parametrize("damage", [lambda content: content[:-7], lambda content: b"", lambda content: b"x" * 5,
                                    lambda content: content[:400] + bytes([content[400] ^ 1]) + content[401:]])  # fmt: skip
def test_a_damaged_cache_file_is_made_again(tmp_path, calls, damage):
    first = tokenise(splits_of(SENTENCES), TASK, tiny_tokenizer(), 8, None)
    tokenise(splits_of(SENTENCES), TASK, tiny_tokenizer(), 8, tmp_path)
    whole = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for path, content in whole.items():
        path.write_bytes(damage(content))
    calls.clear()
    assert same(tokenise(splits_of(SENTENCES), TASK, tiny_tokenizer(), 8, tmp_path), first)
    assert calls == [4, 2, 1]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == whole


def test_a_cache_that_cannot_be_written_costs_nothing_but_the_cache(tmp_path):
    (tmp_path / "file").write_text("")
    encoded = tokenise(splits_of(SENTENCES), TASK, tiny_tokenizer(), 8, tmp_path / "file")
    assert len(encoded["train"]) == 4


def test_a_tokenizer_without_padding_pads_with_its_end_token():
    assert pad_token_id(tiny_tokenizer()) == 0
    decoder = tiny_tokenizer(pad_token=None, eos_token="h")
    assert pad_token_id(decoder) == decoder.convert_tokens_to_ids("h")
    with pytest.raises(DataError, match="the tokenizer can pad with nothing; found no pad and no end token"):
        pad_token_id(tiny_tokenizer(pad_token=None))
    batch = tokenise(splits_of(SENTENCES), TASK, decoder, 8, None)["train"].collate(np.array([0, 2]))
    assert batch["input_ids"][1, -1] == decoder.convert_tokens_to_ids("h")
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


@pytest.mark.parametrize("bucket", [True, False])
@pytest.mark.parametrize(("rows", "size"), [(1, 4), (8, 4), (9, 4), (1000, 7)])
def test_an_epoch_serves_every_row_once_in_full_batches_but_one(rows, size, bucket):
    lengths = np.random.default_rng(0).integers(1, 60, rows).astype(np.int32)
    batches = order(lengths, size, np.random.default_rng(5), bucket)
    assert sorted(np.concatenate(batches).tolist()) == list(range(rows))
    assert sorted(map(len, batches), reverse=True)[:-1] == [size] * (len(batches) - 1)
    again = order(lengths, size, np.random.default_rng(5), bucket)
    assert all(np.array_equal(one, two) for one, two in zip(batches, again, strict=True))


def test_buckets_hold_rows_of_like_length_in_random_order():
    lengths = np.random.default_rng(0).integers(1, 100, 5000).astype(np.int32)
    spread = [
        np.mean([np.ptp(lengths[batch]) for batch in order(lengths, 20, np.random.default_rng(1), bucket)])
        for bucket in (True, False)
    ]
    assert spread[0] < 4
    assert spread[1] > 80
    means = [lengths[batch].mean() for batch in order(lengths, 20, np.random.default_rng(1))]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2


def test_evaluation_takes_the_longest_rows_first_and_each_row_once():
    batches = evaluation_batches(np.array([3, 9, 1, 9, 4], dtype=np.int32), 2)
    assert [batch.tolist() for batch in batches] == [[1, 3], [4, 0], [2]]


def test_epochs_depend_on_seed_and_number_alone():
    encoded = tokenise(splits_of(random_sentences(50)), TASK, tiny_tokenizer(), 16, None)
    one, two = (Batches(encoded, 8, 16, Seeds(1)) for _ in range(2))
    two.epoch(0)
    assert one.steps_per_epoch == len(one.epoch(3)) == 7
    assert all(np.array_equal(mine, other) for mine, other in zip(one.epoch(3), two.epoch(3), strict=True))
    assert one.epoch(3) is one.epoch(3)
    assert not all(np.array_equal(mine, other) for mine, other in zip(one.epoch(4), two.epoch(3), strict=True))
    other_seed = Batches(encoded, 8, 16, Seeds(2)).epoch(3)
    assert not all(np.array_equal(mine, other) for mine, other in zip(one.epoch(3), other_seed, strict=True))
    assert [batch.tolist() for batch in one.evaluation("validation")] == [
        np.argsort(-encoded["validation"].lengths, kind="stable").tolist()
    ]
    assert one.collate("test", np.array([0]))["labels"].tolist() == [1]


def test_cut_rows_and_unknown_words_above_five_per_cent_are_noted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = compose(["data.max_length=6", "task=text", "task.source=a.csv", "task.text=[text]", "task.label=label"])
    notes = make_batches(splits_of([*SENTENCES, "what is that"]), TASK, tiny_tokenizer(), config, Seeds(0)).notes
    assert notes["train"] == {"tokens": 23, "longest": 6, "truncated_share": 0.2, "unknown_share": 3 / 23}
    assert notes["warnings"] == [
        "train: truncated share is 20.0%; raise data.max_length",
        "train: unknown share is 13.0%; check body and task.encoding",
        "validation: truncated share is 50.0%; raise data.max_length",
        "test: truncated share is 100.0%; raise data.max_length",
    ]
    assert len(list((tmp_path / "outputs" / ".cache" / "tokens").iterdir())) == 3
