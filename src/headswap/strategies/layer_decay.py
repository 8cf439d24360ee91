"""Layer-wise learning rates: the lower the layer, the slower it moves. Floor 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headswap.errors import ConfigError
from headswap.layers import layer_groups, pattern
from headswap.phases import Phase, Rule


@dataclass(frozen=True)
class LayerDecay:
    """The head moves at the learning rate, the top layer at `factor` times it, the next at `factor`^2 ...

    ULMFiT (1801.06146) calls it discriminative fine-tuning, with factor 1 / 2.6; Zhang et al. (2006.05987) take 0.95,
    ELECTRA's authors 0.8 for small models.

    Args:
        factor: from one layer to the next one below.
    """

    factor: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.factor <= 1:
            raise ConfigError(f"strategy.factor: must lie in (0, 1]; found {self.factor}; set a share such as 0.9")

    def phases(self, names: Sequence[str]) -> list[Phase]:
        groups = list(layer_groups(names).values())
        depths = range(len(groups) - 1, -1, -1)
        rules = [Rule(pattern(group), self.factor**depth) for group, depth in zip(groups, depths, strict=True)]
        return [Phase("layer_decay", 1.0, tuple(rules))]
