"""The head swap over the architectures of transformers; transformers' own loading is the reference."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
)

from headswap import architecture
from headswap.bodies.transformer import TransformerBody
from headswap.contracts import Labels
from headswap.heads.fresh import Fresh
from headswap.model import join, save
from headswap.seeds import Seeds
from headswap.taskconfig import SpecialTokens


def swap(folder, **body):
    labels = Labels(("negative", "neutral", "positive"))
    task = "AutoModelForSequenceClassification"
    return join(TransformerBody(str(folder), **body), Fresh(), labels, Seeds(2), task, SpecialTokens(pad=1))


class NoTokenizer:
    def save_pretrained(self, folder):
        """Save nothing."""


WIDE = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}
LLAMA = WIDE | {"num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 1}
BART = {"vocab_size": 99, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 40,
        "decoder_ffn_dim": 40, "encoder_attention_heads": 4, "decoder_attention_heads": 4}  # fmt: skip
T5 = {
    "vocab_size": 99,
    "d_model": 32,
    "num_layers": 2,
    "num_heads": 4,
    "d_kv": 8,
    "d_ff": 40,
    "decoder_start_token_id": 0,
    "eos_token_id": 2,
}
ARCHITECTURES = {
    "roberta": WIDE | {"pad_token_id": 1},
    "xlm-roberta": WIDE | {"pad_token_id": 1},
    "distilbert": {"vocab_size": 99, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 40},
    "albert": WIDE | {"embedding_size": 16},
    "electra": WIDE | {"embedding_size": 16},
    "deberta-v2": WIDE | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "mpnet": WIDE | {"pad_token_id": 1},
    "xlnet": {"vocab_size": 99, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 40},
    "funnel": {"vocab_size": 99, "block_sizes": [1, 1], "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 40},
    "modernbert": WIDE
    | {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2},
    "longformer": WIDE | {"pad_token_id": 1, "attention_window": 8},
    "gpt2": {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "gpt_neox": WIDE,
    "bloom": {"vocab_size": 99, "hidden_size": 32, "n_layer": 2, "n_head": 4, "pad_token_id": 1},
    "opt": WIDE | {"ffn_dim": 40, "word_embed_proj_dim": 32, "max_position_embeddings": 64},
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA | {"tie_word_embeddings": True},
    "qwen3": LLAMA,
    "gemma": LLAMA,
    "gemma3_text": LLAMA,
    "phi3": LLAMA,
    "bart": BART,
    "t5": T5,
    "mixtral": LLAMA | {"num_local_experts": 4},
    "qwen3_moe": LLAMA | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
}
CONVERTED = {"mixtral", "qwen3_moe"}
INPUT = torch.tensor([[0, 5, 6, 7, 8, 9, 10, 2], [0, 15, 16, 17, 18, 2, 1, 1]])


def base_and_language_model(kind, folder):
    """Save both with non-zero biases and without transformers' help in naming."""
    config = CONFIG_MAPPING[kind](**ARCHITECTURES[kind])
    autos = (AutoModelForSeq2SeqLM, AutoModelForMaskedLM, AutoModelForCausalLM)
    language = next(auto for auto in autos if type(config) in auto._model_mapping)
    task = AutoModelForSequenceClassification._model_mapping[type(config)]
    # The base as the task builds it: without a pooler that the task does not use.
    models = {"base": task(copy.deepcopy(config)).base_model, "lm": language.from_config(copy.deepcopy(config))}
    for name, model in models.items():
        with torch.no_grad():
            for weight in model.parameters():
                weight.normal_(0, 0.05)
        model.save_pretrained(folder / name)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_architecture_gets_its_whole_body_from_base_and_language_models(kind, tmp_path):
    base_and_language_model(kind, tmp_path)
    for name in ("base", "lm"):
        allowed = {"allow_unexpected": ["decoder"] * (kind == "funnel")}
        model, ledger = swap(tmp_path / name, **allowed)
        random, _ = swap(tmp_path / name, init="random")
        heads = [each.name for each in ledger.entries if each.part == "head" and each.fate == "new"]
        twin = random.state_dict()
        assert heads and all(torch.equal(model.state_dict()[each], twin[each]) for each in heads)
        assert ledger.coverage == 1.0
        new = [each for each in ledger.entries if each.part == "body" and each.fate == "new"]
        assert bool(new) == ((kind, name) == ("albert", "lm")) and all(".pooler." in each.name for each in new)
        assert any("rearranged" in each.note for each in ledger.entries) == (kind in CONVERTED)
        # transformers' own loading of the same file is the reference for every body tensor
        plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / name, dtype=torch.float32, pad_token_id=1)
        kept = [each.name for each in ledger.entries if each.part == "body" and each.fate == "kept"]
        loaded = {each: plain.state_dict()[each] for each in kept}
        if kind == "funnel":  # transformers 5.23 zeroes the loaded pad row; the file is right
            source = next(
                each.source for each in ledger.entries if each.name == "funnel.embeddings.word_embeddings.weight"
            )
            pads = load_file(tmp_path / name / "model.safetensors")[source][1]
            loaded["funnel.embeddings.word_embeddings.weight"][1] = pads
        assert all(torch.equal(model.state_dict()[each], loaded[each]) for each in kept)
    save(model, NoTokenizer(), tmp_path / "saved", "")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        expected, found = (each(INPUT, attention_mask=(INPUT != 1).long()).logits for each in (model.eval(), again))
    assert expected.shape == (2, 3) and torch.equal(expected, found)


class RawHead(BertForSequenceClassification):
    """A head with weights of its own that `_init_weights` does not know: a constant, and a random one."""

    def __init__(self, config):
        super().__init__(config)
        self.scale = torch.nn.Parameter(torch.ones(3))
        self.mix = torch.nn.Parameter(torch.randn(3, 4))


@pytest.mark.parametrize("layers", [1, 2])
def test_raw_weights_of_a_head_do_not_depend_on_the_body(tiny_body, layers):
    config = BertConfig.from_pretrained(tiny_body, num_hidden_layers=layers, num_labels=3)
    models = [architecture.build(RawHead, config, seed) for seed in (1, 2)]
    for model in models:
        architecture.draw_head(model, Seeds(7))
    first, second = ({name: each for name, each in model.named_parameters() if "bert" not in name} for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(first["scale"], torch.ones(3)) and 0.005 < first["mix"].std() < 0.05
    reference = architecture.build(BertForSequenceClassification, config, 3)
    architecture.draw_head(reference, Seeds(7))
    assert torch.equal(reference.classifier.weight, first["classifier.weight"])
