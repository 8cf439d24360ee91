"""Metrics of extractive question answering as SQuAD defines them; headswap.squad says how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from headswap import squad
from headswap.answers import Problem
from headswap.metrics.offline import Offline

if TYPE_CHECKING:
    import numpy as np


class Spans(Offline):
    """What the metrics of answered questions share."""

    problems: ClassVar[tuple[Problem, ...]] = ("question_answering",)
    form: ClassVar[str] = "texts"
    library: ClassVar[str] = "SQuAD 2.0 evaluation script"
    per_example: ClassVar[bool] = True


@dataclass(frozen=True)
class ExactMatch(Spans):
    """Share of questions whose normalised answer equals one of the references."""

    name: ClassVar[str] = "exact_match"

    def each(self, predictions: Any, references: Any) -> np.ndarray:
        return squad.exact(predictions, references)


@dataclass(frozen=True)
class SquadF1(Spans):
    """F1 of the words that answer and reference share, the best of the references, mean over questions."""

    name: ClassVar[str] = "squad_f1"

    def each(self, predictions: Any, references: Any) -> np.ndarray:
        return squad.f1(predictions, references)
