"""A user's condition for a sweep's space."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OnlyFull:
    def applies(self, key, chosen):
        return key != "train.ema" or chosen["strategy"] == "full"
