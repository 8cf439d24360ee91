"""Only biases and the head move (BitFit). Floor 1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from headswap.errors import ConfigError
from headswap.phases import Phase, Rule

_BIAS = r"^body\..*bias(_[ih]h_l\d+)?$"  # a recurrent cell has two: bias_ih_l0, bias_hh_l0


@dataclass(frozen=True)
class BiasOnly:
    """Ben Zaken et al. 2021 (2106.10199): tune the bias terms, those of norms among them, and the new head.

    Their rates are 10 to 20 times those of full fine-tuning (1e-4 to 1e-3); `train.learning_rate` sets it here.
    """

    def phases(self, names: Sequence[str]) -> list[Phase]:
        if not any(re.search(_BIAS, name) for name in names):
            raise ConfigError(
                "strategy: this body has no biases to tune; found none in its weights' names (T5, Llama and "
                "ModernBERT have none); use strategy=lora or strategy=probe"
            )
        return [Phase("bias_only", 1.0, (Rule(r"^head\.", 1.0), Rule(_BIAS, 1.0), Rule(r"^body\.", None)))]
