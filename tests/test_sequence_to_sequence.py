"""Translation and summarization: rows, what a model writes, and a run that learns to copy."""

import dataclasses
import json
import random

import numpy as np
import pyarrow.parquet
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from headswap.answers import Labels, Observed
from headswap.config import compose
from headswap.contracts import DataRequest
from headswap.errors import ConfigError, DataError, WeightsError
from headswap.results import Generated
from tiny_families import FAMILIES
from tiny_runs import ran
from tiny_tables import SEEDS
from tiny_translations import ROWS, SPECIAL, WRITTEN, batch_of, model_of, plain_ids, task, until_the_end


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def fault(path, rows, **fields):
    with pytest.raises(DataError) as caught:
        task(source=written(path, rows), **fields).load(DataRequest(), SEEDS)
    return str(caught.value)


def test_the_rows_hold_source_target_and_references(tmp_path):
    rows = [{"en": f"text {n}", "de": f"Text {n}", "all": [f"Text {n}", f"der Text {n}"]} for n in range(10)]
    splits = task(source=written(tmp_path / "pairs.jsonl", rows), references="all").load(DataRequest(), SEEDS)
    assert splits.labels == Labels((), "sequence_to_sequence")
    assert [len(splits.of(name)) for name in ("train", "validation", "test")] == [8, 1, 1]
    assert sorted(splits.train.column_names) == ["all", "de", "en", "id"]
    assert splits.test[0]["all"] == [splits.test[0]["de"], f"der {splits.test[0]['de']}"]


def test_a_repeated_source_is_dropped_from_training(tmp_path):
    rows = [{"en": "the same", "de": f"one {n}"} for n in range(3)] + [{"en": f"e {n}", "de": "d"} for n in range(9)]
    splits = task(source=written(tmp_path / "pairs.jsonl", rows)).load(DataRequest(), SEEDS)
    assert splits.notes["rows_dropped_as_repeats"]["train"] == 2


def test_an_empty_target_is_told_with_its_row(tmp_path):
    rows = [{"en": "a", "de": "b"}, {"en": "c", "de": " "}, {"en": "d", "de": None}]
    said = fault(tmp_path / "pairs.jsonl", rows)
    assert "pairs.jsonl: empty text in column 'de'; rows 2, 3 (the first at line 2); fill or remove" in said


def test_references_are_lists_of_texts(tmp_path):
    rows = [{"en": "a", "de": "b", "all": ["b"]}, {"en": "c", "de": "d", "all": "d"}, {"en": "e", "de": "f", "all": []}]
    assert "no list of texts in column 'all'; rows 2, 3" in fault(tmp_path / "a.jsonl", rows, references="all")
    rows[1]["all"], rows[2]["all"] = ["d", ""], ["f"]
    said = fault(tmp_path / "b.jsonl", rows, references="all")
    assert "empty text, or none, in a list in column 'all'; row 2" in said


def test_faults_of_the_fields_are_told_together():
    with pytest.raises(ConfigError) as caught:
        task(text=["en", "fr"], num_beams=0, max_target_length=2, label_smoothing=1.0)
    said = str(caught.value)
    assert "task.text: must name one column; found en, fr" in said
    assert "task.num_beams: must be 1 or more; found 0" in said
    assert "task.max_target_length: must be 4 or more; found 2" in said
    assert "task.label_smoothing: must lie in [0, 1); found 1.0" in said


@pytest.mark.parametrize("family", ["T5", "BART", "Marian", "BERT"])
@pytest.mark.parametrize("beams", [1, 3])
def test_what_is_written_is_what_plain_generate_writes(family, beams):
    tokenizer, made = FAMILIES[family].tokenizer(), task(num_beams=beams, length_penalty=0.8, no_repeat_ngram_size=3)
    model, batch = model_of(family, tokenizer), batch_of(made, tokenizer)
    settings = {"num_beams": beams, "max_new_tokens": 12, "no_repeat_ngram_size": 3, "forced_eos_token_id": None}
    settings |= {"length_penalty": 0.8} if beams > 1 else {}
    first = {"forced_bos_token_id": 0} if family == "BART" else {}
    model.generation_config.forced_eos_token_id = None
    sources = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    expected = until_the_end(model.generate(**sources, **settings, **first), model.config.eos_token_id)
    with torch.inference_mode():
        assert plain_ids(made.observe(model, batch, made.forward(model, batch))) == expected
        each = [made.observe(model, batch_of(made, tokenizer, None, [row]), None)[0] for row in range(4)]
    assert plain_ids(each) == expected
    assert len(set(map(tuple, expected))) > 1


def test_a_checkpoints_own_generation_settings_do_not_leak():
    tokenizer, made = FAMILIES["BART"].tokenizer(), task()
    model, batch = model_of("BART", tokenizer), batch_of(made, tokenizer)
    greedy = plain_ids(made.observe(model, batch, None))
    leaked = {"num_beams": 4, "min_length": 11, "no_repeat_ngram_size": 1, "forced_eos_token_id": 2, "max_length": 7}
    for name, value in leaked.items():
        setattr(model.generation_config, name, value)
    model.generation_config.bad_words_ids = [[greedy[0][3]]]  # a token that is no word stays one
    found = plain_ids(made.observe(model, batch, None))
    assert [row for row in found if greedy[0][3] in row] == []
    model.generation_config.bad_words_ids = None
    assert plain_ids(made.observe(model, batch, None)) == greedy


def test_special_tokens_and_positions_are_checked_before_writing():
    tokenizer, made = FAMILIES["BART"].tokenizer(), task()
    model, batch = model_of("BART", tokenizer), batch_of(made, tokenizer)
    with pytest.raises(ConfigError, match=r"task\.max_new_tokens: .* found 65 for 64; set 64 or less"):
        dataclasses.replace(made, max_new_tokens=65).observe(model, batch, None)
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    with pytest.raises(WeightsError, match="found no eos_token_id in its config"):
        made.observe(model, batch, None)


def test_broken_logits_are_not_read_as_text():
    tokenizer, made = FAMILIES["T5"].tokenizer(), task()
    model, batch = model_of("T5", tokenizer), batch_of(made, tokenizer)
    output = made.forward(model, batch)
    output.logits[2, 0, 0] = float("nan")
    sound = [bool(np.isfinite(row).all()) for row in made.observe(model, batch, output)]
    assert sound == [True, True, False, True]


def test_answers_are_texts_beside_their_references():
    tokenizer = FAMILIES["T5"].tokenizer()
    tokens = tokenizer(WRITTEN, add_special_tokens=False)["input_ids"]
    outputs = [np.asarray([2.5, 1, place, *row]) for place, row in enumerate(tokens)]
    rows = ROWS | {"all": [[text, "another"] for text in WRITTEN]}
    observed = Observed(outputs, None, rows, tokenizer, Labels((), "sequence_to_sequence"))
    assert task().answers(observed).predictions == WRITTEN
    assert task().answers(observed).references == [[text] for text in WRITTEN]
    assert [each.tolist() for each in task().answers(observed).outputs] == [[2.5, 1, place] for place in range(4)]
    assert task(references="all").answers(observed).references == rows["all"]
    assert task().results(observed) == [Generated(text) for text in WRITTEN]
    assert Generated("le film").cells() == {"predicted_text": "le film"}


def copier(folder):
    """Save a tiny BART that knows twenty words."""
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *(f"w{number}" for number in range(20))])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", model_input_names=["input_ids", "attention_mask"], **names
    )
    sizes = {"d_model": 64, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0, "max_position_embeddings": 16}
    wide = {f"{half}_ffn_dim": 64 for half in ("encoder", "decoder")}
    heads = {f"{half}_attention_heads": 4 for half in ("encoder", "decoder")}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BartForConditionalGeneration(BartConfig(vocab_size=24, **sizes, **wide, **heads)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_run_learns_to_copy_and_its_model_writes_the_same_in_plain_transformers(tmp_path):
    dice = random.Random(0)
    rows = [" ".join(dice.sample([f"w{number}" for number in range(20)], 5)) for _ in range(16)]
    table = written(tmp_path / "copy.jsonl", [{"source": row, "target": row} for row in rows])
    config = compose([
        "task=translation", *(f"task.{split}={table}" for split in ("train", "validation", "test")),
        "task.text=[source]", "task.target=target", "task.max_target_length=10", "data.drop_duplicates=false",
        "body=transformer", f"body.source={copier(tmp_path / 'body')}", "data.max_length=12", "train.max_steps=60",
        "train.batch_size=16", "train.evaluations=1", "train.learning_rate=1e-2", "train.precision=fp32",
        "hardware=cpu", "hardware.threads=1", f"output.root={tmp_path}", "name=tiny",
    ])  # fmt: skip
    ended = ran(tmp_path / "run", config)
    assert ended["kind"] == "finished", ended
    assert ended["result"]["problem"] == "sequence_to_sequence"
    assert ended["result"]["scores"]["test"]["bleu"] > 90
    kept = pyarrow.parquet.read_table(tmp_path / "run" / "predictions.parquet").to_pylist()
    test = [row for row in kept if row["split"] == "test"]
    assert [row["label"] for row in test] == [[text] for text in rows]
    folder = str(tmp_path / "run" / "model")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    tokens = tokenizer(rows, padding=True, return_tensors="pt")
    plain = tokenizer.batch_decode(model.generate(**tokens), skip_special_tokens=True)
    assert plain == [row["prediction"] for row in test]
