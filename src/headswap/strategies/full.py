"""Full fine-tuning: one phase in which every weight moves at the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headswap.phases import Phase, Rule


@dataclass(frozen=True)
class Full:
    """Train body and head together from the first step to the last."""

    def phases(self, names: Sequence[str]) -> list[Phase]:
        return [Phase("full", 1.0, (Rule("", 1.0),))]
