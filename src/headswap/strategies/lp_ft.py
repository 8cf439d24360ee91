"""Linear probing, then fine-tuning (LP-FT): the head learns first, so that it does not distort the body. Floor 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headswap.errors import ConfigError
from headswap.phases import Phase, Rule


@dataclass(frozen=True)
class LpFt:
    """Kumar et al. 2022 (2202.10054): fit a linear probe, then start fine-tuning from that head.

    They fit the probe to its optimum and pick it by validation; here it has a share of the steps, at a rate of its own.

    Args:
        probe_share: the share of all steps in which the head alone moves.
        probe_factor: the probe's learning rate over `train.learning_rate`: a head on a frozen body takes far more.
    """

    probe_share: float = 0.3
    probe_factor: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.probe_share < 1:
            raise ConfigError(
                f"strategy.probe_share: must lie between 0 and 1; found {self.probe_share}; set a share such as 0.3"
            )

    def phases(self, names: Sequence[str]) -> list[Phase]:
        probe = (Rule(r"^head\.", self.probe_factor), Rule(r"^body\.", None))
        return [Phase("probe", self.probe_share, probe), Phase("finetune", 1 - self.probe_share, (Rule("", 1.0),))]
