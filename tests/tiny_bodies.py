"""One minuscule body of each family, with labels in its config that no other task may inherit."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoModel

WIDE = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20}
WIDE |= {"max_position_embeddings": 32, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
HALVES = {
    "vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 20, "pad_token_id": 1,
    "decoder_ffn_dim": 20, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip
SETTINGS = {
    "bert": WIDE,
    "roberta": WIDE,
    "distilbert": {"vocab_size": 40, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 20, "pad_token_id": 1},
    "albert": WIDE | {"embedding_size": 8},
    "deberta-v2": WIDE | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "electra": WIDE | {"embedding_size": 8},
    "mpnet": WIDE,
    "modernbert": WIDE | {"cls_token_id": 0, "sep_token_id": 2},
    "gpt2": {"vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "pad_token_id": 1},
    "llama": WIDE | {"num_key_value_heads": 1},
    "t5": {"vocab_size": 40, "d_model": 16, "num_layers": 1, "num_heads": 2, "d_kv": 8, "d_ff": 20, "pad_token_id": 1}
    | {"decoder_start_token_id": 1, "eos_token_id": 2},
    "bart": HALVES | {"decoder_start_token_id": 2, "eos_token_id": 2},
    "marian": HALVES | {"decoder_start_token_id": 1, "eos_token_id": 0},
    "xlnet": {"vocab_size": 40, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 20, "pad_token_id": 1},
}
STALE = {"id2label": {str(row): f"old{row}" for row in range(5)}, "label2id": {f"old{row}": row for row in range(5)}}


def saved(kind: str, folder: Path, auto=AutoModel, **settings) -> Path:
    """Save a body, or a language model of another `auto` class, without one tensor as an initialiser makes it."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(9)
        auto.from_config(CONFIG_MAPPING[kind](**SETTINGS[kind], **settings)).save_pretrained(folder)
        file = load_file(folder / "model.safetensors")
        fixed = {name for name in file if "embed_positions" in name and kind == "marian"}  # a formula
        moved = {name: value + torch.randn(value.shape) * 0.05 for name, value in file.items() if name not in fixed}
    save_file(file | moved, folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | STALE | {"problem_type": "regression"}))
    return folder


class NoTokenizer:
    def save_pretrained(self, folder):
        """Save nothing."""
