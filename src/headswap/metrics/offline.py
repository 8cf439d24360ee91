"""What our metrics share: one function gives the number, to `compute` and to the evaluate module alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from headswap.answers import Answers, Problem

if TYPE_CHECKING:
    import evaluate
    import numpy as np


class Offline:
    """A metric that needs no network. A plug gives `score`, or `each` where the score is a mean over examples.

    form: how a prediction and its reference look to evaluate, a key of modules.FORMS.
    library: whose definition it is.
    """

    name: ClassVar[str]
    problems: ClassVar[tuple[Problem, ...]]
    form: ClassVar[str]
    library: ClassVar[str]
    greater_is_better: ClassVar[bool] = True
    per_example: ClassVar[bool] = False

    def module(self) -> evaluate.EvaluationModule:
        from headswap.metrics.modules import OfflineModule

        return OfflineModule(self)

    def compute(self, answers: Answers) -> float:
        return float(self.score(**self.given(answers)))

    def values(self, answers: Answers) -> np.ndarray | None:
        return self.each(**self.given(answers)) if self.per_example else None

    def given(self, answers: Answers) -> dict[str, Any]:
        """Return the keyword arguments of the evaluate module's compute()."""
        return {"predictions": answers.predictions, "references": answers.references}

    def score(self, predictions: Any, references: Any, **options: Any) -> float:
        return float(self.each(predictions, references).mean())

    def each(self, predictions: Any, references: Any) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} gives neither score nor each")
