"""The top layers begin anew, the rest as pretrained. Floor 1."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from headswap.errors import ConfigError
from headswap.layers import above, layers
from headswap.phases import Phase, Rule


@dataclass(frozen=True)
class ReinitTop:
    """Zhang et al. 2020 (2006.05987): re-initialise the pooler and the top layers, then fine-tune all of it.

    The new values are those of the random twin of the same seed, so a sweep over `layers` from 0 to `all` goes from
    fine-tuning to training from scratch and changes nothing else.

    Args:
        layers: how many, counted from the top; all = the whole body, embeddings among it.
    """

    layers: int | Literal["all"] = 1

    def phases(self, names: Sequence[str]) -> list[Phase]:
        return [Phase("full", 1.0, (Rule("", 1.0),))]

    def starts_new(self, names: Sequence[str]) -> Collection[str]:
        if self.layers == "all":
            return [name for name in names if name.startswith("body.")]
        count = len(layers(names))
        if not 0 <= self.layers <= count:
            raise ConfigError(
                f"strategy.layers: the body has no such number of layers; found {self.layers} of {count}; set 0 to "
                f"{count}, or all"
            )
        return above(names, count - self.layers)
