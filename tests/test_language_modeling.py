"""Texts as their own targets: chunks that lose nothing, transformers' own loss, sums of a text, faults told."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from conftest import make_tokenizer
from headswap.answers import Labels, Observed
from headswap.config import build_plugs, compose
from headswap.contracts import DataRequest
from headswap.encoded import encode_rows
from headswap.errors import ConfigError, DataError
from headswap.results import Modelled
from headswap.seeds import Seeds
from headswap.tasks.language_modeling import CausalLanguageModeling, MaskedLanguageModeling
from tiny_families import CORPUS, FAMILIES, config_of
from tiny_tables import SEEDS, loaded, output, written
from tiny_tokenizer import tiny_tokenizer

MASKED = MaskedLanguageModeling(text=["text"], source="a.csv")
CAUSAL = CausalLanguageModeling(text=["text"], source="a.csv")
TEXTS = [*CORPUS, "a film", "nobody loved the poor plot of a movie, not in 1999"]


def encoded(task, tokenizer, texts=tuple(TEXTS), max_length=64):
    rows = {"id": [f"row{number}" for number in range(len(texts))], "text": list(texts)}
    return encode_rows(rows, task, tokenizer, max_length)


def batch_of(task, of, tokenizer, features=None):
    features = np.arange(len(of)) if features is None else np.asarray(features)
    return task.collator(tokenizer, Seeds(0))(of.collate(features), "test", features, 0)


def model_of(name, tokenizer, auto):
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return auto.from_config(config_of(name, tokenizer, max_position_embeddings=64)).eval()


def tokens(of, tokenizer):
    """Return each feature's tokens as words, and the number of its example."""
    found = [tokenizer.convert_ids_to_tokens(of.column("input_ids", each).tolist()) for each in range(len(of))]
    return list(zip(found, of.example.tolist(), strict=True))


def test_a_long_text_becomes_chunks_between_special_tokens_and_nothing_is_cut():
    tokenizer = make_tokenizer()
    of = encoded(MASKED, tokenizer, ["the film was very good and", "a plot", "bad bad bad bad"], max_length=5)
    assert tokens(of, tokenizer) == [
        (["[CLS]", "the", "film", "was", "[SEP]"], 0),
        (["[CLS]", "very", "good", "and", "[SEP]"], 0),
        (["[CLS]", "a", "plot", "[SEP]"], 1),
        (["[CLS]", "bad", "bad", "bad", "[SEP]"], 2),
        (["[CLS]", "bad", "[SEP]"], 2),
    ]
    assert not of.truncated.any()


def test_a_causal_chunk_begins_with_the_last_token_of_the_one_before():
    tokenizer = tiny_tokenizer(eos_token="fine")
    tokenizer.backend_tokenizer.post_processor = None
    of = encoded(CAUSAL, tokenizer, ["a b c d e f", "g", "a b fine"], max_length=4)
    assert tokens(of, tokenizer) == [
        (["a", "b", "c", "d"], 0),
        (["d", "e", "f", "fine"], 0),
        (["g", "fine"], 1),
        (["a", "b", "fine"], 2),  # it ends with the end token already
    ]
    assert not of.truncated.any()
    without = encoded(replace(CAUSAL, append_end=False), tokenizer, ["a b c d e", "a b c d"], max_length=4)
    assert [each for each, _ in tokens(without, tokenizer)] == [["a", "b", "c", "d"], ["d", "e"], ["a", "b", "c", "d"]]


@pytest.mark.parametrize("max_length", [2, 3, 5, 64])
def test_every_token_but_a_texts_first_is_predicted_once(max_length):
    tokenizer = FAMILIES["GPT-2"].tokenizer()
    of = encoded(CAUSAL, tokenizer, max_length=max_length)
    labels = [[] for _ in TEXTS]
    for feature, example in enumerate(of.example):
        row = batch_of(CAUSAL, of, tokenizer, [feature])["labels"][0].tolist()
        assert row[0] == -100
        labels[example] += row[1:]
    assert labels == [[*tokenizer(text)["input_ids"][1:], tokenizer.eos_token_id] for text in TEXTS]


@pytest.mark.parametrize("name", ["BERT", "RoBERTa", "ModernBERT", "DistilBERT"])
def test_the_masked_loss_is_that_of_transformers(name):
    tokenizer = FAMILIES[name].tokenizer()
    batch = batch_of(MASKED, encoded(MASKED, tokenizer), tokenizer)
    same_loss(MASKED, model_of(name, tokenizer, AutoModelForMaskedLM), batch)


@pytest.mark.parametrize("name", ["GPT-2", "Llama", "BERT"])
def test_the_causal_loss_is_that_of_transformers(name):
    tokenizer = FAMILIES[name].tokenizer()
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    batch = batch_of(CAUSAL, encoded(CAUSAL, tokenizer), tokenizer)
    same_loss(CAUSAL, model_of(name, tokenizer, AutoModelForCausalLM), batch)


@torch.inference_mode()
def same_loss(task, model, batch):
    loss, result = task.loss(None), model(**batch)
    mine = task.forward(model, batch)
    assert mine.loss is None  # the targets did not reach the model
    assert float(loss(mine, batch) / loss.weight(batch)) == pytest.approx(float(result.loss), rel=1e-5)
    sums = np.stack(task.observe(model, batch, mine))
    for row, found in enumerate(sums):
        ahead = 1 if task is CAUSAL else 0
        targets = [(place, label) for place, label in enumerate(batch["labels"][row].tolist()) if label != -100]
        pairs = [(result.logits[row, place - ahead].double(), label) for place, label in targets]
        lost = -sum(float(log_softmax(logits, -1)[label]) for logits, label in pairs)
        right = sum(int(logits.argmax()) == label for logits, label in pairs)
        assert found.tolist() == pytest.approx([lost, right, len(pairs)], rel=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["GPT-2", "Llama"])
def test_a_texts_score_does_not_hang_on_its_neighbours_or_the_side_of_padding(name, side):
    tokenizer = FAMILIES[name].tokenizer()
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, side
    model, of = model_of(name, tokenizer, AutoModelForCausalLM), encoded(CAUSAL, tokenizer)
    with torch.inference_mode():
        together = CAUSAL.observe(model, *observable(batch_of(CAUSAL, of, tokenizer), model))
        for feature, found in enumerate(together):
            ids = torch.tensor([of.column("input_ids", feature).tolist()])
            alone = model(input_ids=ids, labels=ids).loss * (ids.shape[1] - 1)
            assert found[[0, 2]].tolist() == pytest.approx([float(alone), ids.shape[1] - 1], rel=1e-5)


def observable(batch, model):
    return batch, CAUSAL.forward(model, batch)


@pytest.mark.parametrize("task", [MASKED, CAUSAL])
def test_half_precision_losses_are_summed_in_float32(task):
    labels = torch.ones(200, 4, dtype=torch.long)
    logits = torch.zeros(200, 4, 2, dtype=torch.float16)
    logits[..., 0] = 300.0  # each target costs 300 nats; all together beyond float16's 65,504
    count = 800 if task is MASKED else 600
    assert float(task.loss(None)(output(logits), {"labels": labels})) == 300.0 * count
    assert float(task.loss(None).weight({"labels": labels if task is MASKED else labels[:, 1:]})) == count


def test_a_text_of_several_features_is_answered_by_their_sums():
    of = encoded(MASKED, make_tokenizer(), ["the film was very good and", "a plot"], max_length=5)
    outputs = [np.float32([3.0, 1, 2]), np.float32([1.5, 0, 1]), np.float32([0.5, 2, 2])]
    observed = Observed(outputs, of, {}, None, Labels((), "masked_language_modeling"))
    answers = MASKED.answers(observed)
    assert answers.predictions.tolist() == [[4.5, 1.0, 3.0], [0.5, 2.0, 2.0]]
    assert answers.references.shape == (2, 0)
    first, second = MASKED.results(observed)
    assert first == Modelled(1.5, math.exp(1.5), 1 / 3, 3)
    assert second.cells() == {
        "token_loss": 0.25, "perplexity": 1.2840254, "target_accuracy": 1.0, "tokens": 2,
    }  # fmt: skip
    assert str(second) == "loss 0.2500  perplexity 1.28  100.0% of 2 tokens right"


def test_texts_are_read_without_a_label(tmp_path):
    source = written(tmp_path / "a.csv", [(f"text {number}",) for number in range(30)], ("text",))
    task = replace(MASKED, source=source)
    splits = task.load(DataRequest(train_rows=10), SEEDS)
    assert (splits.labels.names, splits.labels.problem) == ((), "masked_language_modeling")
    assert splits.notes["rows_used"] == {"train": 10, "validation": 3, "test": 3}
    assert splits.train.column_names == ["id", "text"]
    assert task.read(source, splits.labels)["text"] == [f"text {number}" for number in range(30)]


def test_a_file_is_split_as_the_run_that_follows_splits_it(tmp_path):
    rows = [(f"text {number} {number % 7}", ("neg", "pos", "pos")[number % 3]) for number in range(80)]
    source = written(tmp_path / "a.csv", [*rows, *rows[:9]])
    request = DataRequest(train_rows=20, test_rows=5)
    classified = loaded(request, source=source)
    task = replace(MASKED, source=source, stratify="label")
    splits = task.load(request, SEEDS)
    for split in ("train", "validation", "test"):
        assert splits.of(split)["id"] == classified.of(split)["id"]
        assert splits.of(split).column_names == ["id", "text"]
    unlabelled = written(tmp_path / "b.csv", [("new text",)], ("text",))
    assert task.read(unlabelled, splits.labels)["text"] == ["new text"]


def test_rows_that_leave_nothing_to_predict_are_named():
    told = r"task.text: the tokenizer leaves nothing of a text that could be predicted; found it in rows with id row1"
    with pytest.raises(DataError, match=told):
        encoded(MASKED, make_tokenizer(), ["a film", "\u200b", "a plot"])
    with pytest.raises(DataError, match=told):
        encoded(MASKED, make_tokenizer(), ["a film", "[SEP]"])
    with pytest.raises(
        DataError, match=told + ", row2; remove these rows, or, of a causal model, set task.append_end=true"
    ):
        encoded(replace(CAUSAL, append_end=False), FAMILIES["GPT-2"].tokenizer(), ["a film", "a", "a"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"text": ["a", "b"]}, r"task.text: must name one column; found a, b; set task.text=\[COLUMN\]"),
        ({"mask_share": 0.0}, r"task.mask_share: must lie in \(0, 1\); found 0.0; set a share such as 0.15"),
        ({"random_share": 0.6, "kept_share": 0.5}, "task.random_share: it and kept_share are parts of 1; found 0.6"),
        ({"stratify": "text"}, "task.text: text, label and id must be different columns"),
    ],
)
def test_wrong_settings_are_told_before_any_file_is_read(changes, told):
    with pytest.raises(ConfigError, match=told):
        replace(MASKED, **changes)


def test_a_tokenizer_that_cannot_do_what_is_asked_is_told():
    with pytest.raises(ConfigError, match=r"data.max_length: no room for a token; found 2; set 8 or more"):
        encoded(MASKED, make_tokenizer(), max_length=2)
    with pytest.raises(ConfigError, match=r"data.max_length: no room for a token and the next; found 1"):
        encoded(CAUSAL, FAMILIES["GPT-2"].tokenizer(), max_length=1)
    with pytest.raises(ConfigError, match=r"task.append_end: the tokenizer has no end token; found neither"):
        CAUSAL.encode({"id": ["0"], "text": ["a b"]}, tiny_tokenizer(sep_token=None), 8)


@pytest.mark.parametrize("name", ["masked_language_modeling", "causal_language_modeling"])
def test_the_option_brings_its_own_head_and_metrics(name):
    given = [f"task={name}", "task.source=a.csv", "task.text=[a]"]
    config = compose(given)
    assert config.choices["head"] == "if_present"
    assert [each.name for each in build_plugs(config).metrics] == ["perplexity", "token_loss", "target_accuracy"]
    with pytest.raises(ConfigError, match=f"metric: does not fit the task; found accuracy for {name}"):
        build_plugs(compose([*given, "metric=accuracy"]))
