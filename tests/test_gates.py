"""What a checkpoint must pass: every gate trips on a crafted one, with its message."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from headswap.bodies.transformer import TransformerBody
from headswap.errors import ConfigError, WeightsError
from headswap.heads.fresh import Fresh
from headswap.model import join
from headswap.seeds import Seeds
from swapping import THREE, entry, stored, swap


def without(*names):
    return lambda file: {name: value for name, value in file.items() if name not in names}


def scaled(name, value):
    return lambda file: file | {name: file[name] * value}


BROKEN = {
    "missing": (
        without("encoder.layer.0.output.dense.weight", "encoder.layer.1.output.dense.weight"),
        r"2 body tensors are missing.*not bert\.encoder\.layer\.0\.output.*body\.allow_new=\[",
    ),
    "unexpected": (
        lambda file: file | {"encoder.layer.2.output.dense.bias": torch.zeros(32)},
        r"1 body tensors of the checkpoint have no place.*encoder\.layer\.2\.output.*body\.allow_unexpected=\[",
    ),
    "shape": (
        lambda file: file | {"embeddings.word_embeddings.weight": torch.zeros(7, 32)},
        r"1 body tensors have another shape; found embeddings\.word_embeddings\.weight \[7, 32\] for \[",
    ),
    "prefix": (
        lambda file: {f"module.net.{name}": value for name, value in file.items()},
        r"0 % of the body is in the checkpoint.*found module\.\* \(39\).*has bert\.\* with or without",
    ),
    "nan": (scaled("pooler.dense.bias", float("nan")), r"1 tensors hold NaN or infinite values; found bert\.pooler"),
    "inf": (
        lambda file: {name: value.double() * (1e300 if "query" in name else 1) for name, value in file.items()},
        r"NaN or infinite values; found bert\.encoder\.layer\.0\.attention\.self\.query\.weight",
    ),
    "integers": (
        lambda file: file | {"pooler.dense.weight": torch.zeros(32, 32, dtype=torch.int8)},
        r"1 weights are not stored as F32.*pooler\.dense\.weight \(I8\); the checkpoint is quantised",
    ),
    "two names": (
        lambda file: file | {"bert.pooler.dense.bias": torch.zeros(32)},
        r"two tensors claim one place; found bert\.pooler\.dense\.bias and pooler\.dense\.bias",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_body_that_did_not_fully_load_stops_the_run(tiny_body, variant, fault):
    change, told = BROKEN[fault]
    with pytest.raises(WeightsError, match=told):
        swap(variant(tiny_body, change))


def test_all_kinds_of_faults_are_told_at_once(tiny_body, variant):
    def change(file):
        return without("pooler.dense.bias")(file) | {"encoder.extra": torch.zeros(1)}

    with pytest.raises(WeightsError, match=r"are missing.*; also .*have no place"):
        swap(variant(tiny_body, change))


@pytest.mark.parametrize("keep", [100, 3000])
def test_a_truncated_file_is_named(tiny_body, variant, keep):
    folder = variant(tiny_body)
    os.truncate(folder / "model.safetensors", keep)
    with pytest.raises(WeightsError, match=r"model\.safetensors: truncated or not safetensors; found [\d,]+ bytes"):
        swap(folder)


def test_an_architecture_without_this_task_is_refused(tiny_body, variant):
    with pytest.raises(WeightsError, match=r"AutoModelForSequenceClassification does not serve.*'vit'"):
        swap(variant(tiny_body, model_type="vit"))
    with pytest.raises(ConfigError, match=r"auto_class: no such transformers class.*did you mean AutoModelForSeq"):
        join(TransformerBody(str(tiny_body)), Fresh(), THREE, Seeds(0), "AutoModelForSequenceClasification")


def test_a_longer_tokenizer_is_refused_or_gets_rows(tiny_body):
    rows = stored(tiny_body)["embeddings.word_embeddings.weight"].shape[0]
    with pytest.raises(WeightsError, match=rf"found {rows + 2} tokens and {rows} rows; .*body\.resize_embeddings=true"):
        swap(tiny_body, vocabulary_size=rows + 2)
    model, ledger = swap(tiny_body, vocabulary_size=rows + 2, resize_embeddings=True)
    random, _ = swap(tiny_body, vocabulary_size=rows + 2, resize_embeddings=True, init="random")
    weight = model.bert.embeddings.word_embeddings.weight
    assert torch.equal(weight[:rows], stored(tiny_body)["embeddings.word_embeddings.weight"])
    assert torch.equal(weight[rows:], random.bert.embeddings.word_embeddings.weight[rows:])
    assert torch.equal(model.classifier.weight, random.classifier.weight)
    resized = entry(ledger, "bert.embeddings.word_embeddings.weight")
    assert (resized.fate, resized.note) == ("resized", f"{rows} rows of the file and 2 new ones")
    assert model.config.vocab_size == rows + 2 and 0.99 < ledger.coverage < 1.0


def test_copies_of_a_tied_weight_that_differ_are_refused(tmp_path):
    from transformers import BartConfig, BartModel

    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    model = BartModel(BartConfig(vocab_size=50, d_model=16, encoder_ffn_dim=8, decoder_ffn_dim=8, **sizes))
    model.save_pretrained(tmp_path)
    shared = stored(tmp_path)["shared.weight"]
    for other in (shared.clone(), shared + 1):
        save_file(stored(tmp_path) | {"encoder.embed_tokens.weight": other}, tmp_path / "model.safetensors")
        if torch.equal(other, shared):
            _, ledger = swap(tmp_path)
            assert entry(ledger, "model.shared.weight").note == "also stored as encoder.embed_tokens.weight"
    with pytest.raises(WeightsError, match=r"ties two tensors that differ.*tie_word_embeddings: false"):
        swap(tmp_path)


def test_two_shards_with_the_same_tensor_are_refused(tiny_body, variant):
    folder = variant(tiny_body)
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    save_file(stored(folder), folder / shards[0])
    save_file({"pooler.dense.bias": torch.zeros(32)}, folder / shards[1])
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"embeddings.word_embeddings.weight": shards[0], "pooler.dense.bias": shards[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match=r"two shards hold the same tensor; found pooler\.dense\.bias"):
        swap(folder)
