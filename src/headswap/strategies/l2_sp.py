"""Weights are pulled towards their pretrained values instead of towards 0 (L2-SP). Floor 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headswap.errors import ConfigError
from headswap.phases import Phase, Rule

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class L2Sp:
    """Li et al. 2018 (1802.01483): the penalty alpha / 2 * ||w - w0||^2 on the body, plain weight decay on the head.

    They train with SGD, where a penalty is a pull of rate * alpha * (w - w0) a step. Adam would scale that gradient
    away, so the pull is taken after Adam's step, as AdamW does with weight decay (RecAdam, 2004.12651, argues it for
    exactly this penalty). With their alpha of 0.1 at a rate of 0.01 a weight goes back by 1/1000 of its way a step; at
    the rates of Adam, near 5e-5, that is alpha = 20.

    Args:
        alpha: how strongly the body is pulled back.
    """

    alpha: float = 20.0

    def __post_init__(self) -> None:
        if self.alpha < 0:
            raise ConfigError(f"strategy.alpha: must not be negative; found {self.alpha}; set 0 or more")

    def phases(self, names: Sequence[str]) -> list[Phase]:
        return [Phase("l2_sp", 1.0, (Rule(r"^head\.", 1.0), Rule(r"^body\.", 1.0, decay=False)))]

    def correct(self, name: str, weight: torch.Tensor, start: torch.Tensor, rate: float) -> None:
        if name.startswith("body."):
            weight.lerp_(start, min(1.0, rate * self.alpha))
