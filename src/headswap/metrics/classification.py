"""Metrics of single-label classification. Each plug is light; its evaluate module (modules.py) loads when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import evaluate
    import numpy as np


@dataclass(frozen=True)
class Accuracy:
    """Share of examples whose predicted label is right (scikit-learn's accuracy_score)."""

    name: ClassVar[str] = "accuracy"
    greater_is_better: ClassVar[bool] = True
    per_example: ClassVar[bool] = True

    def module(self) -> evaluate.EvaluationModule:
        from headswap.metrics.modules import AccuracyModule

        return AccuracyModule(keep_in_memory=True)

    def compute(self, predictions: np.ndarray, references: np.ndarray, label_count: int) -> float:
        return _value(self.module().compute(predictions=predictions, references=references), self.name)


@dataclass(frozen=True)
class MacroF1:
    """Unweighted mean over all the task's labels of each label's F1; a label never predicted nor present counts 0."""

    name: ClassVar[str] = "macro_f1"
    greater_is_better: ClassVar[bool] = True
    per_example: ClassVar[bool] = False

    def module(self) -> evaluate.EvaluationModule:
        from headswap.metrics.modules import MacroF1Module

        return MacroF1Module(keep_in_memory=True)

    def compute(self, predictions: np.ndarray, references: np.ndarray, label_count: int) -> float:
        given = {"predictions": predictions, "references": references, "labels": list(range(label_count))}
        return _value(self.module().compute(**given), self.name)


@dataclass(frozen=True)
class Matthews:
    """Matthews correlation coefficient, multi-class form (scikit-learn's matthews_corrcoef)."""

    name: ClassVar[str] = "matthews"
    greater_is_better: ClassVar[bool] = True
    per_example: ClassVar[bool] = False

    def module(self) -> evaluate.EvaluationModule:
        from headswap.metrics.modules import MatthewsModule

        return MatthewsModule(keep_in_memory=True)

    def compute(self, predictions: np.ndarray, references: np.ndarray, label_count: int) -> float:
        return _value(self.module().compute(predictions=predictions, references=references), self.name)


def _value(result: dict | None, name: str) -> float:
    assert result is not None  # evaluate answers None only on a second process of its own distributed mode
    return float(result[name])
