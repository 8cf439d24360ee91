"""The bodies that are measured, built from their configurations: alone, or as the model that generates.

Measures chain: bodies (this) -> speed, gradients -> reports -> page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedConfig

from headswap import architecture
from headswap.answers import Labels
from headswap.bodyconfig import make_config, model_class
from headswap.bodyload import load_body
from headswap.config import build_plugs
from headswap.contracts import Body
from headswap.errors import ConfigError
from headswap.hardware import choose_precision
from headswap.layers import EMBEDDINGS, layer_groups
from headswap.seeds import Seeds
from headswap.spine import Config
from headswap.taskconfig import CAUSAL, SEQ2SEQ


@dataclass(frozen=True)
class Subject:
    """A body under measurement; `config` is its architecture's, with the overrides of the configuration."""

    name: str
    plug: Body
    config: PreTrainedConfig

    @property
    def at_random(self) -> bool:
        """Whether its weights are drawn under a seed."""
        return self.plug.init == "random"

    @property
    def positions(self) -> int | None:
        """How many tokens it takes, None for as many as one likes."""
        found = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        return found if isinstance(found, int) else None

    @property
    def generator(self) -> str | None:
        """The transformers class under which it writes token by token, None for a body that sees both sides."""
        if self.config.is_encoder_decoder:
            return SEQ2SEQ
        causal = type(self.config) in AutoModelForCausalLM._model_mapping
        both_sides = getattr(self.config, "bidirectional", type(self.config) in AutoModelForMaskedLM._model_mapping)
        return CAUSAL if causal and not both_sides else None

    def drawn(self, seed: int, auto_class: str = "AutoModel") -> Any:
        """Return the body with the random weights of a seed, in float32 on the CPU, in evaluation mode."""
        kind = model_class(self.config, auto_class, self.plug.locate(weights=False))
        return architecture.build(kind, self.config, Seeds(seed).stream("body")).eval()

    def encoder(self, seed: int) -> Any:
        """Return what reads a text: its own weights where it has some, else those of a seed."""
        if not self.at_random:
            return load_body(self.plug.locate())
        model = self.drawn(seed)
        return model.get_encoder() if model.config.is_encoder_decoder else model

    def tokens(self, rows: int, length: int, seed: int) -> Tensor:
        """Return random tokens [rows, length], the padding token not among them."""
        vocabulary = int(self.config.get_text_config().vocab_size)
        dice = Seeds(seed).generator("tokens")
        found = torch.from_numpy(dice.integers(0, vocabulary, (rows, length)))
        pad = self.config.pad_token_id
        return found if pad is None else torch.where(found == pad, (pad + 1) % vocabulary, found)


def subjects(configs: Mapping[str, Config]) -> list[Subject]:
    """Return what is to be measured, by the name that each body was given.

    Raises:
        ConfigError, WeightsError: a body that is not there, or that its settings do not fit.
    """
    made = []
    for name, config in configs.items():
        plug = build_plugs(config).body
        architecture_of, _ = make_config(plug, plug.locate(weights=False), Labels(()))
        made.append(Subject(name, plug, architecture_of))
    return made


def sizes(model: Any) -> tuple[int, int]:
    """Return the parameters of a body, and those without embeddings: without what lies below its first layer."""
    counts = {f"body.{name}": each.numel() for name, each in model.named_parameters()}
    total = sum(counts.values())
    return total, total - sum(counts[name] for name in layer_groups(list(counts)).get(EMBEDDINGS, ()))


def devices(asked: str) -> list[str]:
    """Return the devices to measure on: every one present for `auto`. Raises ConfigError for one that is not."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    present = [name for name, found in there.items() if found]
    if asked == "auto":
        return present
    if asked not in present:
        raise ConfigError(
            f"hardware.device: not on this machine; found {asked!r}; choose one of auto, {', '.join(present)}"
        )
    return [asked]


def device_name(device: str) -> str:
    """Return a device as people call it."""
    from headswap.hardware import cpu_name

    return torch.cuda.get_device_name() if device == "cuda" else cpu_name() if device == "cpu" else device


def precision(asked: str, device: str) -> str:
    """Return fp32 unless another is named: what `auto` takes hangs on the machine."""
    return "fp32" if asked == "auto" else choose_precision(asked, device).name
