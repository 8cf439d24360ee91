"""The labels of texts that are to be written, and the loss of a decoder that is shown them (teacher forcing)."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    MBartConfig,
    MBartForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from headswap.errors import ConfigError, WeightsError
from headswap.seeds import Seeds
from tiny_families import ENCODER_DECODER, FAMILIES
from tiny_tables import SEEDS
from tiny_translations import (
    ROWS,
    TEXTS,
    WRITTEN,
    batch_of,
    model_of,
    plain_ids,
    spread,
    task,
    tokenizer_of,
    until_the_end,
)


@pytest.mark.parametrize("family", ["T5", "BART", "Marian"])
@pytest.mark.parametrize("max_target_length", [12, 5])
def test_labels_are_those_of_transformers_own_scripts(family, max_target_length):
    tokenizer = FAMILIES[family].tokenizer()
    found = task(max_target_length=max_target_length).encode(ROWS, tokenizer, 32)
    expected = tokenizer(text_target=WRITTEN, max_length=max_target_length, truncation=True)["input_ids"]
    assert found["labels"] == expected
    whole = tokenizer(text_target=WRITTEN)["input_ids"]
    assert found["target_truncated"] == [int(len(row) > max_target_length) for row in whole]
    assert found["input_ids"] == tokenizer(TEXTS)["input_ids"]
    assert found["truncated"] == [False] * 4


def test_a_bert_decoder_starts_with_the_class_token_and_is_not_taught_it():
    tokenizer = FAMILIES["BERT"].tokenizer()
    found = task(max_target_length=64).encode(ROWS, tokenizer, 32)
    assert found["labels"] == [row[1:] for row in tokenizer(WRITTEN)["input_ids"]]
    model = model_of("BERT", tokenizer)
    batch = batch_of(task(max_target_length=64), tokenizer)
    started = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    assert started[1].tolist() == tokenizer(WRITTEN)["input_ids"][1][:-1]


def test_an_end_token_is_added_where_the_tokenizer_adds_none():
    found = task().encode({"en": ["tea"], "de": ["tea"]}, FAMILIES["GPT-2"].tokenizer(), 32)
    tokenizer = FAMILIES["GPT-2"].tokenizer()
    assert found["labels"] == [[*tokenizer("tea")["input_ids"], tokenizer.eos_token_id]]
    raw = Tokenizer(models.WordLevel({"a": 0, "1": 1, "?": 2}, unk_token="?"))
    with pytest.raises(WeightsError, match="nothing that ends a text; found no eos_token and no sep_token"):
        task().encode(ROWS, PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="?"), 32)


def test_targets_that_the_tokenizer_cannot_spell_are_counted():
    rows = {"en": ["tea"] * 4, "de": ["good tea", "Good tea", "na\u00efve tea", "the good tea in a good cafe"]}
    lower = task(max_target_length=6).encode(rows, FAMILIES["BERT"].tokenizer(), 32)
    assert lower["target_altered"] == [0, 1, 1, 0]
    cased = task(max_target_length=6).encode(rows, FAMILIES["BART"].tokenizer(), 32)
    assert cased["target_altered"] == [0] * 4


def test_prefix_and_truncation_of_the_source():
    tokenizer = FAMILIES["T5"].tokenizer()
    found = task(prefix="film: ").encode({"en": TEXTS}, tokenizer, 8)
    assert (
        found["input_ids"] == tokenizer(["film: " + text for text in TEXTS], max_length=8, truncation=True)["input_ids"]
    )
    assert found["truncated"] == [True, True, True, False]
    assert set(found) == {"input_ids", "truncated"}


@pytest.mark.parametrize(
    ("kind", "languages", "column"),
    [
        ("mBART", ("en_XX", "de_DE"), "target_start"),
        ("mBART-50", ("en_XX", "de_DE"), "target_first"),
        ("NLLB", ("eng_Latn", "deu_Latn"), "target_first"),
    ],
)
def test_tokenizers_of_many_languages_write_the_codes(kind, languages, column):
    expected = tokenizer_of(kind)
    expected.src_lang, expected.tgt_lang = languages
    both = task(source_language=languages[0], target_language=languages[1], max_target_length=64)
    found = both.encode(ROWS, tokenizer_of(kind), 32)
    assert found["input_ids"] == expected(TEXTS)["input_ids"]
    assert found["labels"] == expected(text_target=WRITTEN)["input_ids"]
    assert found[column] == [expected.convert_tokens_to_ids(languages[1])] * 4
    assert len({"target_start", "target_first"} & set(found)) == 1


def test_the_tokenizer_that_is_saved_knows_its_languages_though_no_row_was_tokenised():
    tokenizer = tokenizer_of("mBART")
    task(source_language="en_XX", target_language="de_DE").collator(tokenizer, Seeds(0))
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("en_XX", "de_DE")


def test_languages_are_checked_against_the_tokenizer():
    with pytest.raises(ConfigError, match=r"task\.target_language: .* found none; set its code, such as ar_AR, cs_CZ"):
        task().encode(ROWS, tokenizer_of("mBART"), 32)
    with pytest.raises(ConfigError, match=r"task\.target_language: unknown to this body's tokenizer; found 'german'"):
        task(target_language="german").encode(ROWS, tokenizer_of("NLLB"), 32)
    with pytest.raises(
        ConfigError, match=r"task\.source_language: this body's tokenizer knows no languages; found 'en'"
    ):
        task(source_language="en").encode(ROWS, FAMILIES["T5"].tokenizer(), 32)


def test_mbart_starts_with_the_language_and_is_taught_it_last():
    tokenizer = tokenizer_of("mBART")
    both = task(source_language="en_XX", target_language="de_DE")
    torch.manual_seed(1)
    model = spread(MBartForConditionalGeneration(MBartConfig(vocab_size=len(tokenizer), **ENCODER_DECODER)))
    batch = batch_of(both, tokenizer)
    code = tokenizer.convert_tokens_to_ids("de_DE")
    assert model.prepare_decoder_input_ids_from_labels(batch["labels"].clone())[:, 0].tolist() == [code] * 4
    found = both.observe(model, batch, None)
    settings = {"num_beams": 1, "max_new_tokens": 12, "decoder_start_token_id": code, "forced_eos_token_id": None}
    model.generation_config = type(model.generation_config)(pad_token_id=1, eos_token_id=2)
    expected = model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **settings)
    assert plain_ids(found) == until_the_end(expected, 2)


@pytest.mark.parametrize("family", ["T5", "BART", "Marian"])
def test_the_teacher_forced_loss_is_the_models_own(family):
    tokenizer = FAMILIES[family].tokenizer()
    model, made = model_of(family, tokenizer), task()
    batch = batch_of(made, tokenizer)
    output, loss = made.forward(model, batch), made.loss(None)
    own = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]).loss
    torch.testing.assert_close(loss(output, batch) / loss.weight(batch), own)
    assert loss.weight(batch) == sum(map(len, made.encode(ROWS, tokenizer, 32)["labels"]))
    with torch.inference_mode():
        sums = np.stack([row[:3] for row in task(label_smoothing=0.3).observe(model, batch, output)])
    assert sums[:, 0].sum() / sums[:, 2].sum() == pytest.approx(own.item(), rel=1e-6)
    assert sums[:, 2].tolist() == [len(row) for row in made.encode(ROWS, tokenizer, 32)["labels"]]
    best = output.logits.argmax(-1) == batch["labels"]
    assert sums[:, 1].tolist() == best.sum(1).tolist()
    assert [row[:3].tolist() for row in made.observe(model, batch, None)] == [[0, 0, 0]] * 4


def test_the_loss_of_a_model_that_shifts_inside_is_its_own_too():
    tokenizer = tokenizer_of("NLLB")
    both = task(source_language="eng_Latn", target_language="deu_Latn")
    torch.manual_seed(1)
    special = {"pad_token_id": 1, "decoder_start_token_id": 2}
    model = spread(
        M2M100ForConditionalGeneration(M2M100Config(vocab_size=len(tokenizer), **ENCODER_DECODER, **special))
    )
    assert not hasattr(model, "prepare_decoder_input_ids_from_labels")
    batch, loss = batch_of(both, tokenizer), both.loss(None)
    own = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]).loss
    torch.testing.assert_close(loss(both.forward(model, batch), batch) / loss.weight(batch), own)
    assert {row[0] for row in plain_ids(both.observe(model, batch, None))} == {
        tokenizer.convert_tokens_to_ids("deu_Latn")
    }


def test_a_bert_encoder_decoder_learns_each_word_from_those_before_it():
    tokenizer, made = FAMILIES["BERT"].tokenizer(), task(label_smoothing=0.1)
    model, batch = model_of("BERT", tokenizer), batch_of(made, tokenizer)
    loss = made.loss(None)
    total = 0.0
    with torch.inference_mode():
        output = made.forward(model, batch)
    for row, text in enumerate(WRITTEN):
        ids = tokenizer(text, return_tensors="pt")["input_ids"][:, :13]
        kept = batch["attention_mask"][row : row + 1].bool()
        logits = model(input_ids=batch["input_ids"][row : row + 1][kept][None], decoder_input_ids=ids[:, :-1]).logits[0]
        total += torch.nn.CrossEntropyLoss(reduction="sum", label_smoothing=0.1)(logits, labels_of(batch, row)).item()
    assert loss(output, batch).item() == pytest.approx(total, rel=1e-5)


def labels_of(batch, row):
    labels = batch["labels"][row]
    return labels[labels != -100]


def test_filling_of_labels_moves_to_the_right_for_tokenizers_that_fill_on_the_left():
    tokenizer = FAMILIES["T5"].tokenizer()
    assert task().collator(tokenizer, SEEDS) is None
    tokenizer.padding_side = "left"
    batch = {"labels": torch.tensor([[-100, 5, 6], [7, 8, 9], [-100, -100, 4]])}
    found = task().collator(tokenizer, SEEDS)(batch, "train", np.arange(3), 0)
    assert found["labels"].tolist() == [[5, 6, -100], [7, 8, 9], [4, -100, -100]]
