"""Which tokens are to be guessed: how many, which never, whole words, and the same ones however batches are made."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from conftest import make_tokenizer
from headswap.encoded import encode_rows
from headswap.errors import ConfigError
from headswap.masking import Vocabulary
from headswap.seeds import Seeds
from headswap.tasks.language_modeling import MaskedLanguageModeling
from tiny_families import CORPUS, FAMILIES

TASK = MaskedLanguageModeling(text=["text"], source="a.csv")
TEXTS = [" ".join(text.split()[: 3 + number % 9]) for number, text in enumerate(CORPUS * 8)]


def encoded(tokenizer, texts=tuple(TEXTS), task=TASK, max_length=64):
    rows = {"id": [str(number) for number in range(len(texts))], "text": list(texts)}
    return encode_rows(rows, task, tokenizer, max_length)


def masked(of, features, tokenizer, task=TASK, *, seed=0, split="train", epoch=0):
    """Return the batch as encoded, and after the collator."""
    features = np.asarray(features)
    plain = of.collate(features)
    return of.collate(features), task.collator(tokenizer, Seeds(seed))(plain, split, features, epoch)


def rows_of(batch):
    """Return for each row of a batch what the model sees and what it is to guess, without padding."""
    mask = batch["attention_mask"].bool()
    pairs = zip(batch["input_ids"], batch["labels"], mask, strict=True)
    return [(ids[real].tolist(), labels[real].tolist()) for ids, labels, real in pairs]


@pytest.mark.parametrize("name", ["BERT", "RoBERTa", "ALBERT"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_fixed_share_of_the_ordinary_tokens_is_to_be_guessed_and_no_other_changes(name, split):
    tokenizer = FAMILIES[name].tokenizer()
    of = encoded(tokenizer)
    plain, batch = masked(of, range(len(of)), tokenizer, split=split)
    chosen = batch["labels"] != -100
    assert torch.equal(batch["labels"][chosen], plain["input_ids"][chosen])
    assert torch.equal(batch["input_ids"][~chosen], plain["input_ids"][~chosen])
    assert torch.equal(batch["attention_mask"], plain["attention_mask"])
    framing = torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id])
    ordinary = ~torch.isin(plain["input_ids"], framing)
    assert not (chosen & ~ordinary).any()
    expected = [max(1, round(0.15 * count)) for count in ordinary.sum(dim=1).tolist()]
    assert chosen.sum(dim=1).tolist() == expected


def test_of_these_80_percent_are_masked_10_random_and_10_kept():
    tokenizer, found = FAMILIES["BERT"].tokenizer(), Counter()
    of = encoded(tokenizer)
    for epoch in range(60):
        _, batch = masked(of, range(len(of)), tokenizer, epoch=epoch)
        chosen = batch["labels"] != -100
        seen, true = batch["input_ids"][chosen], batch["labels"][chosen]
        found["masked"] += int((seen == tokenizer.mask_token_id).sum())
        found["kept"] += int((seen == true).sum())
        found["all"] += len(seen)
        strangers = seen[(seen != tokenizer.mask_token_id) & (seen != true)].tolist()
        found.update(strangers)
    specials = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    ordinary = len(tokenizer) - len(specials)
    assert not specials & set(found)
    assert binomtest(found["masked"], found["all"], 0.8).pvalue > 1e-3
    assert binomtest(found["kept"], found["all"], 0.1 + 0.1 / ordinary).pvalue > 1e-3
    assert len(set(found) - {"masked", "kept", "all"}) > 0.8 * ordinary  # 318 draws reach 1 - exp(-318 / 148) = 88 %


def test_the_shares_are_the_users():
    tokenizer = make_tokenizer()
    of = encoded(tokenizer)
    all_kept = replace(TASK, mask_share=0.5, random_share=0.0, kept_share=1.0)
    plain, batch = masked(of, range(10), tokenizer, all_kept)
    assert torch.equal(batch["input_ids"], plain["input_ids"])
    ordinary = (plain["input_ids"] > 4) | (plain["input_ids"] == tokenizer.unk_token_id)
    assert (batch["labels"] != -100).sum(dim=1).tolist() == [round(0.5 * n) for n in ordinary.sum(dim=1).tolist()]
    _, batch = masked(of, range(10), tokenizer, replace(TASK, random_share=0.0, kept_share=0.0))
    assert set(batch["input_ids"][batch["labels"] != -100].tolist()) == {tokenizer.mask_token_id}


@pytest.mark.parametrize("name", ["BERT", "RoBERTa", "ALBERT", "DeBERTa-v2"])
def test_a_whole_word_is_hidden_or_none_of_it(name):
    tokenizer, task = FAMILIES[name].tokenizer(), replace(TASK, whole_word=True)
    texts = [f"the {word}ness of an un{word}ly film" for word in ("clear", "dark", "odd", "sharp", "thin", "wild")]
    of, long_words = encoded(tokenizer, texts, task), 0
    _, batch = masked(of, range(len(of)), tokenizer, task)
    for text, (_, labels) in zip(texts, rows_of(batch), strict=True):
        words = tokenizer(text).word_ids()
        guessed = {word for word, label in zip(words, labels, strict=True) if label != -100}
        assert len(guessed) == max(1, round(0.15 * (len(set(words) - {None}))))
        whole = [(word in guessed) == (label != -100) for word, label in zip(words, labels, strict=True)]
        assert all(whole)
        long_words += sum(words.count(word) > 1 for word in guessed)
    assert long_words


@pytest.mark.parametrize("whole_word", [False, True])
def test_a_features_masks_hang_on_seed_epoch_and_number_and_on_no_neighbour(whole_word):
    tokenizer, task = FAMILIES["RoBERTa"].tokenizer(), replace(TASK, whole_word=whole_word)
    of = encoded(tokenizer, task=task)
    together = rows_of(masked(of, range(len(of)), tokenizer, task, seed=3, epoch=2)[1])
    for part in ([7], [9, 0, 31], [35, 2]):
        assert rows_of(masked(of, part, tokenizer, task, seed=3, epoch=2)[1]) == [together[number] for number in part]
    left = replace(of, padding=replace(of.padding, side="left"))
    assert rows_of(masked(left, range(len(of)), tokenizer, task, seed=3, epoch=2)[1]) == together
    for other in ({"seed": 4, "epoch": 2}, {"seed": 3, "epoch": 1}):
        assert rows_of(masked(of, range(len(of)), tokenizer, task, **other)[1]) != together


def test_outside_training_a_text_is_masked_alike_in_every_run_file_and_place():
    tokenizer = FAMILIES["BERT"].tokenizer()
    first = rows_of(masked(encoded(tokenizer), range(len(TEXTS)), tokenizer, split="test")[1])
    turned = encoded(tokenizer, TEXTS[::-1])
    other = rows_of(masked(turned, range(len(TEXTS)), tokenizer, seed=8, split="validation", epoch=5)[1])
    assert other == first[::-1]


def test_a_text_of_one_token_is_guessed_and_special_tokens_in_a_text_are_not():
    tokenizer = make_tokenizer()
    of = encoded(tokenizer, ["film", "zürich", "[MASK] film [SEP]"])
    for epoch in range(5):
        _, batch = masked(of, range(3), tokenizer, epoch=epoch)
        film = tokenizer.convert_tokens_to_ids("film")
        assert rows_of(batch)[0][1] == [-100, film, -100]
        assert rows_of(batch)[2][1] == [-100, -100, film, -100, -100]


def test_the_unknown_token_is_one_to_guess_but_not_where_it_has_another_role():
    tokenizer = make_tokenizer()
    assert not Vocabulary.of(tokenizer).special[tokenizer.unk_token_id]
    tokenizer.pad_token = tokenizer.unk_token
    assert Vocabulary.of(tokenizer).special[tokenizer.unk_token_id]


def test_a_tokenizer_without_mask_token_is_told_with_the_way_out():
    told = (
        r"task: masked language modelling needs a mask token; found none in the body's tokenizer \(GPT2Tokenizer\); "
        "use task=causal_language_modeling"
    )
    tokenizer = FAMILIES["GPT-2"].tokenizer()
    for ask in (lambda: encoded(tokenizer), lambda: TASK.collator(tokenizer, Seeds(0))):
        with pytest.raises(ConfigError, match=told):
            ask()
