"""Linear probing: the body is frozen, in evaluation mode, and only the head learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headswap.phases import Phase, Rule


@dataclass(frozen=True)
class Probe:
    """Train the head alone: what the body's features already say about the task."""

    def phases(self, names: Sequence[str]) -> list[Phase]:
        return [Phase("probe", 1.0, (Rule(r"^head\.", 1.0), Rule(r"^body\.", None)))]
