"""Gradual unfreezing, ULMFiT's way: the head first, then one layer more after the other. Floor 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headswap.errors import ConfigError
from headswap.layers import layer_groups, pattern
from headswap.phases import Phase, Rule, Schedule


@dataclass(frozen=True)
class Gradual:
    """Howard and Ruder 2018 (1801.06146): gradual unfreezing, discriminative rates, slanted triangular schedule.

    Layer l moves at 1 / `decay` of the rate of layer l + 1. In each phase the rate climbs for `cut` of its steps from
    1 / `ratio` of the peak, and falls back to it: p = t / cut before, 1 - (t - cut) / (T - cut) after;
    rate = peak * (1 + p * (ratio - 1)) / ratio. They unfreeze one layer an epoch; few epochs are too few for that, so
    here the layers share `unfreezing_share` of the steps, and all of them move in the rest. As in their code, every
    phase has a triangle and an optimizer state of its own.

    Args:
        decay: between neighbouring layers; 1 for one rate.
        unfreezing_share: the share of the steps until all layers move.
    """

    decay: float = 2.6
    unfreezing_share: float = 0.5
    cut: float = 0.1
    ratio: float = 32.0

    def __post_init__(self) -> None:
        for name in ("unfreezing_share", "cut"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(
                    f"strategy.{name}: must lie between 0 and 1; found {getattr(self, name)}; set a share such as 0.1"
                )
        for name in ("decay", "ratio"):
            if getattr(self, name) < 1:
                raise ConfigError(f"strategy.{name}: must be 1 or more; found {getattr(self, name)}; leave it out")

    def phases(self, names: Sequence[str]) -> list[Phase]:
        groups = list(layer_groups(names).items())[::-1]
        moving = [Rule(pattern(members), self.decay**-depth) for depth, (_, members) in enumerate(groups)]
        frozen = [Rule(pattern(members), None) for _, members in groups]
        schedule = Schedule("linear", self.cut, 1 / self.ratio)
        stages = len(groups) - 1
        phases = [
            Phase(
                f"down to {groups[depth][0]}",
                self.unfreezing_share / stages,
                (*moving[: depth + 1], *frozen[depth + 1 :]),
                schedule,
            )
            for depth in range(stages)
        ]
        return [*phases, Phase("all", 1 - self.unfreezing_share * bool(phases), tuple(moving), schedule)]
