"""Metrics of predicted tokens, masked or next, from each example's loss sum, right ones and count of targets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from headswap.answers import Answers, Problem
from headswap.errors import DataError
from headswap.metrics.offline import Offline


class Predicted(Offline):
    """What the metrics of predicted tokens share; long examples count more, so none is a mean over examples."""

    problems: ClassVar[tuple[Problem, ...]] = ("masked_language_modeling", "causal_language_modeling")
    form: ClassVar[str] = "sums"

    def given(self, answers: Answers) -> dict[str, Any]:
        return {"predictions": answers.predictions}


@dataclass(frozen=True)
class Perplexity(Predicted):
    """exp of token_loss: how many tokens the model wavers between; comparable only within one tokenizer."""

    name: ClassVar[str] = "perplexity"
    library: ClassVar[str] = "exp of PyTorch cross_entropy over all targets"
    greater_is_better: ClassVar[bool] = False

    def score(self, predictions: Any, references: Any = None) -> float:
        loss = _share(predictions, 0, self.name)
        return math.exp(loss) if loss < 700 else math.inf


@dataclass(frozen=True)
class TokenLoss(Predicted):
    """Cross-entropy in nats a target token, over all targets of the split."""

    name: ClassVar[str] = "token_loss"
    library: ClassVar[str] = "PyTorch cross_entropy over all targets"
    greater_is_better: ClassVar[bool] = False

    def score(self, predictions: Any, references: Any = None) -> float:
        return _share(predictions, 0, self.name)


@dataclass(frozen=True)
class TargetAccuracy(Predicted):
    """Share of target tokens (the masked, or every next one) that the model ranks first."""

    name: ClassVar[str] = "target_accuracy"
    library: ClassVar[str] = "scikit-learn accuracy_score over all targets"

    def score(self, predictions: Any, references: Any = None) -> float:
        return _share(predictions, 1, self.name)


def _share(sums: Any, column: int, metric: str) -> float:
    import numpy as np

    totals = np.asarray(sums, dtype=np.float64).sum(axis=0)
    if totals[2] == 0:
        raise DataError(f"metric={metric}: the split has no token to predict; found 0 targets; give it more text")
    return float(totals[column] / totals[2])
