"""Mixout: in every training pass a share of the body's linear weights is what it was pretrained as.

Lee, Cho and Kang (arXiv 1909.11299). With w the weight, u its pretrained value and M a random mask that is 1 with
probability p, a layer computes with (M u + (1 - M) w - p u) / (1 - p), which is w on average. It is dropout of the
difference w - u, and that is how it is written here: u + (1 - M) / (1 - p) (w - u).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

from headswap.errors import ConfigError
from headswap.phases import Phase, Rule

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

UNITS = ("neuron", "weight")


@dataclass(frozen=True)
class Mixout:
    """Train all weights; the body's linear layers compute with a mixture of their own and their pretrained weights.

    Args:
        probability: p, that a weight is its pretrained value; the paper tries 0.7, 0.8 and 0.9 on BERT-large.
        unit: what is mixed as one: `neuron`, all weights that read one input, as dropout of that input would drop
            them; or `weight`, each on its own (the paper's mixconnect).
    """

    probability: float = 0.7
    unit: str = "neuron"

    def __post_init__(self) -> None:
        if not 0 <= self.probability < 1:
            found = f"found {self.probability}; at 1 nothing would learn: use strategy=probe for a frozen body"
            raise ConfigError(f"strategy.probability: must be from 0 to below 1; {found}")
        if self.unit not in UNITS:
            raise ConfigError(f"strategy.unit: no such unit; found {self.unit!r}; choose {' or '.join(UNITS)}")

    def adapt(self, model: PreTrainedModel, heads: Collection[str]) -> Mixed:
        layers = _layers(model, heads)
        for layer in layers:
            layer.mixture = _Mixture(self.probability, self.unit, layer.weight.detach().clone())
            layer.forward = MethodType(_forward, layer)  # a bound method: a copy of the layer gets one of its own
        return Mixed(layers)

    def phases(self, names: Sequence[str]) -> list[Phase]:
        return [Phase("mixout", 1.0, (Rule("", 1.0),))]


@dataclass(frozen=True)
class Mixed:
    """Layers that mix while they train."""

    layers: Sequence[Any]

    def save(self, folder: Path) -> None:
        """Write nothing: the model's own weights are all that was learned."""

    def remove(self) -> None:
        for layer in self.layers:
            del layer.forward, layer.mixture


@dataclass
class _Mixture:
    """What a layer mixes. Neither parameter nor buffer: no name, file or exchange between processes knows of it."""

    probability: float
    unit: str
    pretrained: torch.Tensor

    def of(self, weight: torch.Tensor, inputs: int) -> torch.Tensor:
        """Return a mixture for one pass; `inputs` is the dimension of `weight` that counts them."""
        from torch.nn import functional

        self.pretrained = self.pretrained.to(weight.device)
        start = self.pretrained.to(weight.dtype)
        shape = list(weight.shape)
        if self.unit == "neuron":
            shape[1 - inputs] = 1
        kept = functional.dropout(weight.new_ones(shape), self.probability)
        return start + kept * (weight - start)


def _forward(layer: Any, values: torch.Tensor) -> torch.Tensor:
    """Compute as the layer would, in training with a mixture in the place of its weight."""
    from torch import nn
    from torch.nn import functional

    mixture: _Mixture = vars(layer)["mixture"]
    if not layer.training or not mixture.probability:
        return type(layer).forward(layer, values)
    if isinstance(layer, nn.Linear):
        return functional.linear(values, mixture.of(layer.weight, 1), layer.bias)
    return functional.linear(values, mixture.of(layer.weight, 0).t(), layer.bias)  # Conv1D: inputs x outputs


def _layers(model: PreTrainedModel, heads: Collection[str]) -> list[Any]:
    """Return the body's linear layers.

    Raises:
        ConfigError: the body has matrices that no linear layer and no table of embeddings holds.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = {id(weight) for name, weight in model.named_parameters() if name in heads}
    tables = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    layers: list[Any] = [
        layer
        for layer in model.modules()
        if type(layer) in (nn.Linear, Conv1D) and id(layer.weight) not in head | tables
    ]
    known = head | tables | {id(layer.weight) for layer in layers}
    others = _others(model, known)
    if others or not layers:
        found = f"{', '.join(list(others)[:2]) or 'no such layer'} in {type(model).__name__}"
        raise ConfigError(f"strategy: mixout mixes nn.Linear and Conv1D; found {found}; use another strategy or body")
    return layers


def _others(model: PreTrainedModel, known: Collection[int]) -> Mapping[str, nn.Parameter]:
    return {name: weight for name, weight in model.named_parameters() if weight.dim() > 1 and id(weight) not in known}
