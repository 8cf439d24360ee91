"""A checkpoint of an architecture that transformers lacks: its code lies in the folder, and says when it runs."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

CONFIGURATION = """
from pathlib import Path
from transformers import PreTrainedConfig

Path({marker!r}).write_text("the code ran")


class BagConfig(PreTrainedConfig):
    model_type = "bag_of_words"

    def __init__(self, vocab_size=128, hidden_size=8, **rest):
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        super().__init__(**rest)
"""
MODELING = """
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from .configuration_bag import BagConfig


class BagPreTrainedModel(PreTrainedModel):
    config_class = BagConfig
    base_model_prefix = "bag"

    def _init_weights(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


class BagModel(BagPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.mix = nn.Linear(config.hidden_size, config.hidden_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids, attention_mask=None, **_):
        mask = (torch.ones_like(input_ids) if attention_mask is None else attention_mask).unsqueeze(-1)
        return BaseModelOutput(last_hidden_state=torch.tanh(self.mix((self.words(input_ids) * mask).sum(1))))


class BagForSequenceClassification(BagPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.bag = BagModel(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, labels=None, **_):
        logits = self.score(self.bag(input_ids, attention_mask).last_hidden_state)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)
"""
AUTO_MAP = {
    "AutoConfig": "configuration_bag.BagConfig",
    "AutoModel": "modeling_bag.BagModel",
    "AutoModelForSequenceClassification": "modeling_bag.BagForSequenceClassification",
}


def bag_of_words(folder: Path, tokenizer_of: Path, marker: Path, **config) -> Path:
    """Write the checkpoint: weights, tokenizer, and Python files that write `marker` when they are imported."""
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_of / name, folder / name)
    (folder / "configuration_bag.py").write_text(CONFIGURATION.format(marker=str(marker)))
    (folder / "modeling_bag.py").write_text(MODELING)
    settings = {"model_type": "bag_of_words", "vocab_size": 128, "hidden_size": 8, "auto_map": AUTO_MAP, **config}
    (folder / "config.json").write_text(json.dumps(settings))
    dice = torch.Generator().manual_seed(3)
    shapes = {"words.weight": (128, 8), "mix.weight": (8, 8), "mix.bias": (8,)}
    save_file(
        {name: torch.randn(shape, generator=dice) for name, shape in shapes.items()}, folder / "model.safetensors"
    )
    return folder


def modules_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have transformers copy and import the code of checkpoints under `folder`, and forget it after the test."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(folder))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        monkeypatch.delitem(sys.modules, name)
