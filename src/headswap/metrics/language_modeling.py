"""Metrics of predicted tokens, from each example's loss sum, right ones and count of targets.

Masked tokens, next ones, or those of a text to write: each of these given the true ones before it (teacher forcing).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from headswap.answers import Answers, Problem
from headswap.errors import DataError
from headswap.metrics.offline import Offline

if TYPE_CHECKING:
    import numpy as np


class Predicted(Offline):
    """What the metrics of predicted tokens share; long examples count more, so none is a mean over examples."""

    problems: ClassVar[tuple[Problem, ...]] = (
        "masked_language_modeling", "causal_language_modeling", "sequence_to_sequence",
    )  # fmt: skip
    form: ClassVar[str] = "sums"
    column: ClassVar[int] = 0

    def given(self, answers: Answers) -> dict[str, Any]:
        return {"predictions": _sums(answers)}

    def score(self, predictions: Any, references: Any = None) -> float:
        totals = self._columns(predictions).sum(axis=0)
        if totals[1] == 0:
            raise DataError(
                f"metric={self.name}: the split has no token to predict; found 0 targets; give it more text"
            )
        return self.of_sums(totals)

    def sums(self, answers: Answers) -> np.ndarray:
        """Return each example's loss, or right ones, and its targets."""
        return self._columns(_sums(answers))

    def of_sums(self, totals: np.ndarray) -> float:
        return float(totals[0] / totals[1]) if totals[1] else math.nan

    def _columns(self, outputs: Any) -> np.ndarray:
        import numpy as np

        return np.asarray(outputs, dtype=np.float64)[:, [self.column, 2]]


def _sums(answers: Answers) -> Any:
    """Return [examples, 3]; where the predictions are texts, the sums are the outputs."""
    return answers.outputs if answers.labels.problem == "sequence_to_sequence" else answers.predictions


@dataclass(frozen=True)
class Perplexity(Predicted):
    """exp of token_loss: how many tokens the model wavers between; comparable only within one tokenizer."""

    name: ClassVar[str] = "perplexity"
    library: ClassVar[str] = "exp of PyTorch cross_entropy over all targets"
    greater_is_better: ClassVar[bool] = False

    def of_sums(self, totals: np.ndarray) -> float:
        loss = super().of_sums(totals)
        return math.inf if loss >= 700 else math.exp(loss)


@dataclass(frozen=True)
class TokenLoss(Predicted):
    """Cross-entropy in nats a target token, over all targets of the split."""

    name: ClassVar[str] = "token_loss"
    library: ClassVar[str] = "PyTorch cross_entropy over all targets"
    greater_is_better: ClassVar[bool] = False


@dataclass(frozen=True)
class TargetAccuracy(Predicted):
    """Share of target tokens (the masked, or every next one) that the model ranks first."""

    name: ClassVar[str] = "target_accuracy"
    library: ClassVar[str] = "scikit-learn accuracy_score over all targets"
    column: ClassVar[int] = 1
