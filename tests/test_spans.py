"""Windows of a context, places of answers, and the loss on them, judged by hand and by transformers."""

import itertools
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import WORDS, make_tokenizer, tiny_config
from headswap.encoded import encode_rows
from headswap.errors import DataError, WeightsError
from headswap.losses import SpanCrossEntropy
from tiny_families import FAMILIES, config_of
from tiny_questions import split_row, task_of

UNICODE = "🙂 the film was naïve cafe\u0301  good\n\nand fine 👩‍👩‍👧 it is not e\u0301te\u0301 bad end"


def test_a_feature_holds_question_context_and_the_places_of_the_answer():
    found = task_of().encode(split_row("is it good", "the film  was good.", "good", 14), make_tokenizer(), 64)
    # [CLS] is it good [SEP] the film was good . [SEP]
    assert len(found["input_ids"][0]) == 11
    assert (found["target_start"], found["target_end"], found["truncated"]) == ([8], [8], [False])
    assert found["target_from"] == [[-1, -1, -1, -1, -1, 0, 4, 10, 14, 18, -1]]
    assert found["target_to"] == [[-1, -1, -1, -1, -1, 3, 8, 13, 18, 19, -1]]
    bare = task_of().encode({"question": ["is it"], "context": ["the film"]}, make_tokenizer(), 64)
    assert set(bare) == {"input_ids", "example", "target_from", "target_to", "truncated"}


def test_an_answer_beyond_the_first_window_is_found_in_a_later_one():
    context = " ".join(["the film was very dull and poor but"] * 4 + ["it is great"])
    found = task_of(stride=3).encode(split_row("is it", context, "great", len(context) - 5), make_tokenizer(), 20)
    windows = [ids[4:-1] for ids in found["input_ids"]]  # [CLS] is it [SEP] ... [SEP]
    assert all(len(window) == 15 for window in windows[:-1])
    assert all(one[-3:] == other[:3] for one, other in itertools.pairwise(windows))
    assert found["example"] == [0] * len(windows)
    assert found["target_start"] == found["target_end"] == [0] * (len(windows) - 1) + [len(windows[-1]) + 3]
    default = task_of().encode(split_row("is it", context, "great", len(context) - 5), make_tokenizer(), 20)
    assert default["input_ids"][1][4:9] == default["input_ids"][0][-6:-1]  # a quarter of 20


def test_targets_are_those_of_transformers_script():
    dice, tokenizer, task = random.Random(4), make_tokenizer(), task_of(stride=4)
    for _ in range(40):
        words = dice.choices(WORDS, k=dice.randint(1, 60))
        first = dice.randrange(len(words))
        text = " ".join(words[first : first + dice.randint(1, 6)])
        context, start = " ".join(words), len(" ".join([*words[:first], ""]))
        found = task.encode(split_row("what was it", context, text, start), tokenizer, 24)
        assert list(zip(found["target_start"], found["target_end"], strict=True)) == scripts_targets(
            tokenizer, "what was it", context, (start, start + len(text))
        )


def scripts_targets(tokenizer, question, context, answer):
    """Return what prepare_train_features of transformers' run_qa.py does, but for a start in the context's last token.

    There the script runs on into the special token behind it (whose offsets are 0), as its own comment says.
    """
    encoded = tokenizer(
        [question], [context], truncation="only_second", max_length=24, stride=4, return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )  # fmt: skip
    targets = []
    for window, offsets in enumerate(encoded["offset_mapping"]):
        parts = encoded.sequence_ids(window)
        first = parts.index(1)
        last = len(parts) - 1 - parts[::-1].index(1)
        if not (offsets[first][0] <= answer[0] and offsets[last][1] >= answer[1]):
            targets.append((0, 0))
            continue
        end_of_context = last
        while first <= end_of_context and offsets[first][0] <= answer[0]:
            first += 1
        while offsets[last][1] >= answer[1]:
            last -= 1
        targets.append((first - 1, last + 1))
    return targets


@pytest.mark.parametrize("name", FAMILIES)
def test_every_word_of_a_text_in_many_scripts_keeps_its_characters(name):
    tokenizer, task = FAMILIES[name].tokenizer(), task_of(stride=24)
    for word in dict.fromkeys(UNICODE.split()):
        start = UNICODE.index(word)
        found = task.encode(split_row("is it", UNICODE, word, start), tokenizer, 64)
        assert found["truncated"] == [False] * len(found["input_ids"])
        spans = [
            (found["target_from"][window][first], found["target_to"][window][last])
            for window, (first, last) in enumerate(zip(found["target_start"], found["target_end"], strict=True))
            if found["target_from"][window][first] >= 0
        ]
        assert spans
        assert {UNICODE[begin:end] for begin, end in spans} == {word}
        assert set(spans) == {(start, start + len(word))}


def test_an_answer_that_no_window_holds_counts_as_truncated():
    context = " ".join(["dull"] * 40)
    found = task_of().encode(split_row("is it", context, context, 0), make_tokenizer(), 20)
    assert found["truncated"] == [True] * len(found["input_ids"])
    assert set(found["target_start"]) == {0}
    none = task_of(no_answer=True).encode(split_row("is it", context), make_tokenizer(), 20)
    assert not any(none["truncated"])


def test_a_question_that_leaves_no_room_is_refused_with_its_row():
    rows = {"id": ["a", "b"], "question": ["is it", "is it " * 20], "context": ["the film"] * 2}
    with pytest.raises(DataError) as caught:
        task_of().encode(rows, make_tokenizer(), 32)
    assert str(caught.value) == (
        "data.max_length: no room for a context beside these questions; found 40 tokens where 20 of 32 may be the "
        "question's (rows with id b); shorten them, raise data.max_length, or lower task.stride (8)"
    )
    just = {**rows, "question": ["is it", "is it " * 10], "context": ["the film", "dull " * 90]}
    assert task_of().encode(just, make_tokenizer(), 32)["example"][-1] == 1


def test_a_tokenizer_without_places_is_refused():
    slow = SimpleNamespace(is_fast=False)
    with pytest.raises(WeightsError, match=r"body: this tokenizer does not tell which characters .* fast tokenizer"):
        task_of().encode(split_row("is it", "the film"), slow, 32)


def test_the_loss_is_transformers_own_on_rows_of_one_length():
    from transformers import BertForQuestionAnswering

    model = BertForQuestionAnswering(tiny_config()).eval()
    dice = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (6, 12), generator=dice)
    starts, ends = torch.randint(0, 12, (2, 6), generator=dice)
    starts[2], ends[3] = 50, 12  # outside: transformers ignores them
    with torch.no_grad():
        output = model(input_ids=ids, start_positions=starts, end_positions=ends)
    for rows in (torch.tensor([0, 1, 4, 5]), torch.arange(6)):
        batch = {
            "attention_mask": torch.ones(len(rows), 12, dtype=torch.int64),
            "target_start": starts[rows],
            "target_end": ends[rows],
        }
        part = SimpleNamespace(start_logits=output.start_logits[rows], end_logits=output.end_logits[rows])
        loss = SpanCrossEntropy()
        with torch.no_grad():
            own = model(input_ids=ids[rows], start_positions=starts[rows], end_positions=ends[rows]).loss
        torch.testing.assert_close(loss(part, batch) / loss.weight(batch), own)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_neither_loss_nor_observation(side):
    dice = torch.Generator().manual_seed(2)
    lengths, width = [5, 9, 7], 9
    batch = {"target_start": torch.tensor([4, 0, 2]), "target_end": torch.tensor([4, 8, -1])}
    logits, mask = torch.randn(2, 3, width, generator=dice) * 4, torch.zeros(3, width, dtype=torch.int64)
    kept = [slice(width - length, width) if side == "left" else slice(0, length) for length in lengths]
    for number, places in enumerate(kept):
        mask[number, places] = 1
    batch["attention_mask"] = mask
    output = SimpleNamespace(start_logits=logits[0], end_logits=logits[1])
    expected = sum(
        -torch.log_softmax(logits[which, number, places], dim=0)[target] / 2
        for number, places in enumerate(kept)
        for which, target in enumerate((batch["target_start"][number], batch["target_end"][number]))
        if target >= 0
    )
    torch.testing.assert_close(SpanCrossEntropy()(output, batch), expected)
    assert float(SpanCrossEntropy().weight(batch)) == 2.5
    seen = task_of().observe(None, batch, output)
    for number, places in enumerate(kept):
        np.testing.assert_array_equal(seen[number], logits[:, number, places].numpy())


@pytest.mark.parametrize("name", ["RoBERTa", "ALBERT", "GPT-2", "Llama", "T5", "BART"])
def test_a_batch_gives_every_feature_the_logits_and_the_loss_that_it_has_alone(name):
    from transformers import AutoModelForQuestionAnswering

    tokenizer, task = FAMILIES[name].tokenizer(), task_of(no_answer=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = AutoModelForQuestionAnswering.from_config(config_of(name, tokenizer)).eval()
    context = "the film was a good one and the plot was fine, but nobody loved it"
    rows = {
        "id": ["1", "2"], "question": ["what was it", "is this a great film?"], "context": [context, "it is not bad"],
        "answer_texts": [["the plot"], []], "answer_starts": [[context.index("the plot")], []],
    }  # fmt: skip
    encoded = encode_rows(rows, task, tokenizer, 28)
    batch = encoded.collate(np.arange(len(encoded)))
    assert len(set(encoded.lengths)) > 1
    with torch.no_grad():
        output = task.forward(model, batch)
        seen = task.observe(model, batch, output)
        alone, losses = [], []
        for feature in range(len(encoded)):
            one = encoded.collate(np.array([feature]))
            starts, ends = one.pop("target_start"), one.pop("target_end")
            inputs = {key: value for key, value in one.items() if not key.startswith("target")}
            single = model(**inputs)
            alone.append(torch.stack([single.start_logits[0], single.end_logits[0]]).numpy())
            logits = torch.stack([single.start_logits, single.end_logits])
            losses.append(torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.cat([starts, ends])))
    for mine, own in zip(seen, alone, strict=True):
        np.testing.assert_allclose(mine, own, atol=2e-5)
    torch.testing.assert_close(SpanCrossEntropy()(output, batch), sum(losses), atol=1e-4, rtol=1e-5)
