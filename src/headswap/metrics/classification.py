"""Metrics of one label an example: accuracy, macro F1, Matthews correlation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from headswap.answers import Answers, Problem
from headswap.metrics import counts
from headswap.metrics.offline import Offline

if TYPE_CHECKING:
    import numpy as np

_SINGLE_LABEL: tuple[Problem, ...] = ("single_label_classification",)


@dataclass(frozen=True)
class Accuracy(Offline):
    """Share of examples whose predicted label or choice is right."""

    name: ClassVar[str] = "accuracy"
    problems: ClassVar[tuple[Problem, ...]] = (*_SINGLE_LABEL, "multiple_choice")
    form: ClassVar[str] = "labels"
    library: ClassVar[str] = "scikit-learn accuracy_score"
    per_example: ClassVar[bool] = True

    def each(self, predictions: Any, references: Any) -> np.ndarray:
        import numpy as np

        return (np.asarray(predictions) == np.asarray(references)).astype(np.float64)


class Counted(Offline):
    """What the metrics share that hang on each label's counts alone."""

    problems: ClassVar[tuple[Problem, ...]] = _SINGLE_LABEL
    form: ClassVar[str] = "labels"

    def sums(self, answers: Answers) -> np.ndarray:
        """Return whether an example is right, predicted and actual of each label."""
        return counts.of_labels(answers.predictions, answers.references, answers.labels.count)


@dataclass(frozen=True)
class MacroF1(Counted):
    """Unweighted mean over all the task's labels of each label's F1; a label never predicted nor present counts 0."""

    name: ClassVar[str] = "macro_f1"
    library: ClassVar[str] = "scikit-learn f1_score(average='macro', zero_division=0)"

    def given(self, answers: Answers) -> dict[str, Any]:
        return {**super().given(answers), "labels": list(range(answers.labels.count))}

    def score(self, predictions: Any, references: Any, labels: Any = None) -> float:
        from sklearn.metrics import f1_score

        return float(f1_score(references, predictions, labels=labels, average="macro", zero_division=0))  # type: ignore[arg-type]

    def of_sums(self, totals: np.ndarray) -> float:
        return float(counts.f1(totals.reshape(3, -1)).mean())


@dataclass(frozen=True)
class Matthews(Counted):
    """Matthews correlation coefficient, multi-class form: 0 is chance, 1 is perfect."""

    name: ClassVar[str] = "matthews"
    library: ClassVar[str] = "scikit-learn matthews_corrcoef"

    def score(self, predictions: Any, references: Any) -> float:
        from sklearn.metrics import matthews_corrcoef

        if len({*references, *predictions}) == 1:  # scikit-learn answers 0 too, with a warning
            return 0.0
        return float(matthews_corrcoef(references, predictions))

    def of_sums(self, totals: np.ndarray) -> float:
        import numpy as np

        right, predicted, actual = totals.reshape(3, -1)
        examples = actual.sum()
        below = (examples**2 - predicted @ predicted) * (examples**2 - actual @ actual)
        return float((right.sum() * examples - actual @ predicted) / np.sqrt(below)) if below > 0 else 0.0
