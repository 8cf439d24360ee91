"""Some weights stay as they are, all others move. Floor 1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from headswap.errors import ConfigError
from headswap.phases import Phase, Rule


@dataclass(frozen=True)
class Freeze:
    """Freeze by name.

    Args:
        frozen: regexes (searched) on role names, such as `body.embeddings` or `body.encoder.layer.[0-2]`.
    """

    frozen: list[str] = field(default_factory=lambda: ["^body.embeddings"])

    def __post_init__(self) -> None:
        for pattern in self.frozen:
            try:
                re.compile(pattern)
            except re.error as fault:
                raise ConfigError(
                    f"strategy.frozen: not a regex; found {pattern!r} ({fault}); mend or remove it"
                ) from None

    def phases(self, names: Sequence[str]) -> list[Phase]:
        return [Phase("freeze", 1.0, (*(Rule(pattern, None) for pattern in self.frozen), Rule("", 1.0)))]
