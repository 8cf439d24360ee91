"""Adapters through PEFT: the formulas by hand, the files by PEFT itself, and a plain model at the end."""

import copy
import importlib.util
import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForQuestionAnswering,
    BertForTokenClassification,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from adapting import IDS, adapted, by_peft, foreign, heads, logits, moved, seeded, tied
from headswap.config import compose
from headswap.errors import ConfigError
from headswap.launch import folder_of
from headswap.model import role_names
from headswap.records import read_json
from headswap.seeds import Seeds
from headswap.strategies.lora import Lora
from swapping import swap
from tiny_families import FAMILIES, config_of
from tiny_runs import ran, reviews, tiny

QUERY = "bert.encoder.layer.0.attention.self.query"


@pytest.fixture
def model(tiny_body):
    return swap(tiny_body, pad_token_id=0)[0]


def of_family(name):
    tokenizer = FAMILIES[name].tokenizer()
    config = config_of(name, tokenizer, num_labels=3, eos_token_id=2, bos_token_id=0, pad_token_id=1)
    return seeded(AutoModelForSequenceClassification, config)


def dense(**settings):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20}
    return BertConfig(vocab_size=40, max_position_embeddings=32, pad_token_id=0, **sizes, **settings)


def pair():
    """Return a model whose head lies inside a child that is a whole model itself."""
    config = EncoderDecoderConfig.from_encoder_decoder_configs(
        dense(), dense(is_decoder=True, add_cross_attention=True, tie_word_embeddings=False)
    )
    config.decoder_start_token_id, config.pad_token_id = 2, 0
    return seeded(EncoderDecoderModel, config)


def test_the_adapted_model_starts_as_the_plain_one_and_the_same_seed_draws_the_same_adapters(model):
    plain, twin = copy.deepcopy(model), copy.deepcopy(model)
    adapted(Lora(), model, seed=4)
    assert torch.equal(logits(model), logits(plain))  # B starts at 0
    adapted(Lora(), twin, seed=4)
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in model.state_dict().items())
    other = copy.deepcopy(plain)
    adapted(Lora(), other, seed=5)
    name = f"{QUERY}.lora_A.default.weight"
    assert not torch.equal(other.state_dict()[name], model.state_dict()[name])


def test_adapters_and_the_head_move_and_all_else_is_frozen(model):
    adapted(Lora(), model)
    roles = role_names(model)
    (phase,) = Lora().phases(list(roles.values()))
    factors = {rule.pattern: rule.factor for rule in phase.rules}
    assert factors[r"^head\."] == 1.0 and factors[r"^body\."] is None
    assert roles[f"{QUERY}.base_layer.weight"] == "body.encoder.layer.0.attention.self.query.base_layer.weight"
    expected = {f"bert.encoder.layer.{number}.attention.self.{end}.lora_{part}.default.weight"
                for number in (0, 1) for end in ("query", "value") for part in "AB"}  # fmt: skip
    assert set(moved(Lora(), model)) == expected | {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    ("keys", "scale"), [({}, 2.0), ({"alpha": 3, "rank": 6}, 0.5), ({"rslora": True}, 16 / math.sqrt(8))]
)
def test_merging_adds_b_times_a_scaled_as_the_paper_says(model, keys, scale):
    strategy = Lora(**keys)
    start = model.state_dict()[f"{QUERY}.weight"].clone()
    adaptation = adapted(strategy, model)
    moved(strategy, model)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    update = state[f"{QUERY}.lora_B.default.weight"] @ state[f"{QUERY}.lora_A.default.weight"]
    adaptation.remove()
    torch.testing.assert_close(model.state_dict()[f"{QUERY}.weight"], start + scale * update, rtol=0, atol=1e-6)


def test_dora_gives_each_output_its_learned_length(model):
    strategy = Lora(dora=True)
    start = model.state_dict()[f"{QUERY}.weight"].clone()
    adaptation = adapted(strategy, model)
    assert f"{QUERY}.lora_magnitude_vector.default.weight" in moved(strategy, model)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    adaptation.remove()
    merged = model.state_dict()[f"{QUERY}.weight"]
    lengths = state[f"{QUERY}.lora_magnitude_vector.default.weight"]
    direction = start + 2.0 * state[f"{QUERY}.lora_B.default.weight"] @ state[f"{QUERY}.lora_A.default.weight"]
    torch.testing.assert_close(merged.norm(dim=1), lengths.abs(), rtol=0, atol=1e-5)
    expected = direction * (lengths / direction.norm(dim=1))[:, None]
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-5)


def test_conv1d_is_merged_the_other_way_round():
    model = of_family("GPT-2")
    name = "transformer.h.1.attn.c_attn"
    start = model.state_dict()[f"{name}.weight"].clone()
    adaptation = adapted(Lora(), model)
    moved(Lora(), model)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    update = state[f"{name}.lora_B.default.weight"] @ state[f"{name}.lora_A.default.weight"]
    adaptation.remove()
    torch.testing.assert_close(model.state_dict()[f"{name}.weight"], start + 2.0 * update.t(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "strategy",
    [
        Lora(),
        Lora(dora=True, rslora=True),
        Lora(adapter="loha", rank=4),
        Lora(adapter="lokr", target_modules="all-linear"),
    ],
    ids=["lora", "dora", "loha", "lokr"],
)
def test_peft_and_the_merged_model_say_what_the_trained_one_said(model, strategy, tmp_path):
    check(model, strategy, tmp_path)


@pytest.mark.parametrize("name", ["DistilBERT", "ALBERT", "DeBERTa-v2", "ModernBERT", "GPT-2", "Llama", "T5", "BART"])
def test_every_family_goes_through_peft_and_back(name, tmp_path):
    check(of_family(name), Lora(target_modules="all-linear"), tmp_path)


@pytest.mark.parametrize(
    ("make", "modules", "inputs"),
    [
        (lambda: seeded(BertForTokenClassification, dense(num_labels=5)), ["classifier"], {}),
        (lambda: seeded(BertForQuestionAnswering, dense()), ["qa_outputs"], {}),
        (tied, ["cls.predictions"], {}),
        (lambda: tied(decoder=True), ["cls.predictions"], {}),
        (lambda: seeded(GPT2LMHeadModel, GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2)), [], {}),
        (lambda: seeded(LlamaForCausalLM, LlamaConfig(vocab_size=40, hidden_size=16, intermediate_size=20,
         num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)), ["lm_head"], {}),
        (pair, ["decoder.cls"], {"decoder_input_ids": IDS}),
    ],
    ids=["tokens", "questions", "masked words, tied", "next words, tied", "no head", "untied", "a model in a model"],
)  # fmt: skip
def test_heads_of_every_form_go_through_peft_and_back(make, modules, inputs, tmp_path):
    assert check(make(), Lora(target_modules="all-linear"), tmp_path, **inputs)["modules_to_save"] == (modules or None)


def check(model, strategy, tmp_path, **inputs):
    """Train by a random step, save, merge; compare with PEFT's reading and with the model of before; return the config."""
    plain = copy.deepcopy(model)
    embeddings = model.get_input_embeddings().weight
    for number, weight in enumerate(model.parameters()):
        weight.requires_grad_(number != 1)
    wanted = {name: weight.requires_grad for name, weight in model.named_parameters()}
    adaptation = adapted(strategy, model)
    names = moved(strategy, model)
    assert heads(plain) <= set(names) and not any(name.endswith("embeddings.weight") for name in names)
    said = logits(model, **inputs)
    assert (said - logits(plain, **inputs)).abs().max() > 1e-3
    adaptation.save(tmp_path / "adapter")
    torch.testing.assert_close(logits(by_peft(plain, tmp_path / "adapter"), **inputs), said, rtol=0, atol=1e-6)
    adaptation.remove()
    torch.testing.assert_close(logits(model, **inputs), said, rtol=0, atol=1e-5)
    assert {name: weight.requires_grad for name, weight in model.named_parameters()} == wanted
    assert model.get_input_embeddings().weight is embeddings
    for (name, module), (other, before) in zip(model.named_modules(), plain.named_modules(), strict=True):
        assert (name, type(module), vars(module).keys()) == (other, type(before), vars(before).keys())
    saved(model, plain, tmp_path / "model")
    return read_json(tmp_path / "adapter" / "adapter_config.json")


def saved(model, plain, folder):
    """transformers writes the merged model as it writes one that never had adapters."""
    for each, name in ((model, "merged"), (plain, "plain")):
        each.save_pretrained(folder / name)
    merged, before = (load_file(folder / name / "model.safetensors") for name in ("merged", "plain"))
    assert {name: value.shape for name, value in merged.items()} == {
        name: value.shape for name, value in before.items()
    }
    assert (folder / "merged" / "config.json").read_text() == (folder / "plain" / "config.json").read_text()
    assert not list((folder / "merged").glob("adapter*"))


def test_the_folder_is_what_peft_writes_of_the_same_model(model, tmp_path):
    import peft

    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"], modules_to_save=["classifier"])
    with foreign():
        theirs = peft.get_peft_model(copy.deepcopy(model), config)
    theirs.save_pretrained(tmp_path / "theirs")
    adapted(Lora(), model).save(tmp_path / "ours")
    ours, theirs = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("ours", "theirs"))
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}
    assert "base_model.model.classifier.weight" in ours
    config, expected = (read_json(tmp_path / name / "adapter_config.json") for name in ("ours", "theirs"))
    assert sorted(config.pop("target_modules")) == sorted(
        f"bert.encoder.layer.{number}.attention.self.{end}" for number in (0, 1) for end in ("query", "value")
    )
    expected.pop("target_modules")
    assert config == expected


def test_a_copy_of_the_model_and_its_adaptation_merges_alone(model, tmp_path):
    adaptation = adapted(Lora(), model)
    moved(Lora(), model)
    said = logits(model)
    twin, its = copy.deepcopy((model, adaptation))
    its.remove()
    torch.testing.assert_close(logits(twin), said, rtol=0, atol=1e-5)
    assert f"{QUERY}.lora_A.default.weight" in model.state_dict() and torch.equal(logits(model), said)


def test_what_does_not_fit_is_refused_with_the_remedy(model, monkeypatch):
    with pytest.raises(
        ConfigError,
        match=r"strategy.target_modules: no linear layer of the body ends so; found 'qery' \(did you mean query\?\); set strategy.target_modules=all-linear or a list of query, key, value, dense",
    ):
        adapted(Lora(target_modules=["value", "qery"]), model)
    with pytest.raises(
        ConfigError,
        match=r"PEFT knows no layers of this body; found DistilBertForSequenceClassification \(distilbert\); set strategy.target_modules=all-linear or a list of q_lin, ",
    ):
        adapted(Lora(), of_family("DistilBERT"))
    with pytest.raises(ConfigError, match="no linear layer of the body ends so; found 'classifier'"):
        adapted(Lora(target_modules=["classifier"]), model)
    with pytest.raises(ConfigError, match=r"strategy.adapter: loha is for nn.Linear; found Conv1D in GPT2"):
        adapted(Lora(adapter="loha"), of_family("GPT-2"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'found no peft; pip install "headswap\[peft\]"'):
        adapted(Lora(), model)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("strategy.adapter=lore", r"strategy.adapter: no such adapter; found 'lore'; choose lora, loha, lokr"),
        ("strategy.rank=0", "rank and alpha must be above 0; found rank=0"),
        ("strategy.dropout=1.0", "strategy.dropout: must be from 0 to below 1; found 1.0"),
        ("strategy.target_modules=query", r"found 'query'; give all-linear or a list, such as \[query\]"),
        ("strategy.target_modules=3", "strategy.target_modules: must be .* or text or null; found 3"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_at_once(key, message):
    with pytest.raises(ConfigError, match=message):
        compose(["strategy=lora", key])
    with pytest.raises(ConfigError, match=r"strategy.adapter: lokr has no dropout, dora; found both"):
        Lora(adapter="lokr", dropout=0.1, dora=True)


def test_a_run_leaves_an_adapter_for_peft_and_a_plain_model(tiny_body, tmp_path):
    config = tiny(
        reviews(tmp_path / "reviews.csv"), tiny_body, tmp_path, "strategy=lora", "strategy.dropout=0.1",
        "train.learning_rate=1e-2", "train.max_steps=6",
    )  # fmt: skip
    folder = folder_of(config).path
    assert ran(folder, config)["kind"] == "finished"
    merged = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    start = AutoModelForSequenceClassification.from_pretrained(tiny_body, num_labels=2)
    said = logits(merged)
    torch.testing.assert_close(logits(by_peft(start, folder / "adapter")), said, rtol=0, atol=1e-5)
    body = {
        name: torch.equal(value, start.state_dict()[name])
        for name, value in merged.bert.state_dict(prefix="bert.").items()
    }
    assert {name for name, same in body.items() if not same} == {
        f"bert.encoder.layer.{number}.attention.self.{end}.weight" for number in (0, 1) for end in ("query", "value")
    }
    assert json.loads((folder / "model" / "config.json").read_text())["architectures"] == [
        "BertForSequenceClassification"
    ]


def test_a_stopped_run_goes_on_to_the_same_bits(tiny_body, tmp_path):
    config = tiny(reviews(tmp_path / "reviews.csv"), tiny_body, tmp_path, "strategy=lora", "strategy.dropout=0.1")
    assert ran(tmp_path / "straight", config)["kind"] == "finished"
    assert ran(tmp_path / "stopped", config, stop_at=2)["status"] == "stopped"
    assert ran(tmp_path / "stopped", config)["kind"] == "finished"
    for name in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "model/model.safetensors"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes(), name
    assert Seeds(config.seed).stream("adapter") != Seeds(config.seed).stream("head")
