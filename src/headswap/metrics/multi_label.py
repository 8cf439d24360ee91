"""Metrics of examples that have any number of labels; predictions and references are indicator rows [labels]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from headswap.answers import Answers, Problem
from headswap.metrics import counts
from headswap.metrics.offline import Offline

if TYPE_CHECKING:
    import numpy as np


class MultiLabel(Offline):
    """What the metrics of indicator rows share."""

    problems: ClassVar[tuple[Problem, ...]] = ("multi_label_classification",)
    form: ClassVar[str] = "label lists"

    def given(self, answers: Answers) -> dict[str, Any]:
        import numpy as np

        rows = super().given(answers)
        return {name: np.asarray(row, dtype=np.int64) for name, row in rows.items()}


class MultiLabelF1(MultiLabel):
    """What the F1s share: they hang on each label's counts alone."""

    def sums(self, answers: Answers) -> np.ndarray:
        """Return whether an example is right, predicted and actual of each label."""
        return counts.of_rows(*self.given(answers).values())


@dataclass(frozen=True)
class MultiLabelMicroF1(MultiLabelF1):
    """F1 over all (example, label) pairs at once: common labels count most."""

    name: ClassVar[str] = "multi_label_micro_f1"
    library: ClassVar[str] = "scikit-learn f1_score(average='micro', zero_division=0)"

    def score(self, predictions: Any, references: Any) -> float:
        return _f1(predictions, references, "micro")

    def of_sums(self, totals: np.ndarray) -> float:
        return float(counts.f1(totals.reshape(3, -1).sum(axis=1, keepdims=True))[0])


@dataclass(frozen=True)
class MultiLabelMacroF1(MultiLabelF1):
    """Unweighted mean of each label's F1; a label never predicted nor present counts 0."""

    name: ClassVar[str] = "multi_label_macro_f1"
    library: ClassVar[str] = "scikit-learn f1_score(average='macro', zero_division=0)"

    def score(self, predictions: Any, references: Any) -> float:
        return _f1(predictions, references, "macro")

    def of_sums(self, totals: np.ndarray) -> float:
        return float(counts.f1(totals.reshape(3, -1)).mean())


def _f1(predictions: Any, references: Any, average: str) -> float:
    import numpy as np
    from sklearn.metrics import f1_score

    given = np.asarray(references), np.asarray(predictions)
    if given[0].shape[1] == 1:  # scikit-learn would take one column for two classes, and count the zeros too
        return float(f1_score(*(rows[:, 0] for rows in given), zero_division=0))  # type: ignore[arg-type]
    return float(f1_score(*given, average=average, zero_division=0))  # type: ignore[arg-type]


@dataclass(frozen=True)
class MeanAveragePrecision(MultiLabel):
    """Mean over labels of the average precision of the examples ranked by that label's logit; needs no threshold.

    A label that no example of the split has is left out, since its ranking has nothing to find; 0 if all are.
    """

    name: ClassVar[str] = "mean_average_precision"
    form: ClassVar[str] = "logits"
    library: ClassVar[str] = "scikit-learn average_precision_score, mean over the labels present"

    def given(self, answers: Answers) -> dict[str, Any]:
        import numpy as np

        logits = np.asarray(answers.outputs, dtype=np.float64)
        return {"predictions": logits, "references": np.asarray(answers.references, dtype=np.int64)}

    def score(self, predictions: Any, references: Any) -> float:
        import numpy as np
        from sklearn.metrics import average_precision_score

        logits, truth = np.asarray(predictions), np.asarray(references)
        present = np.flatnonzero(truth.any(axis=0))
        found = [average_precision_score(truth[:, label], logits[:, label]) for label in present]
        return float(np.mean(found)) if found else 0.0


@dataclass(frozen=True)
class ExactLabels(MultiLabel):
    """Share of examples whose whole set of labels is right (subset accuracy)."""

    name: ClassVar[str] = "exact_labels"
    library: ClassVar[str] = "scikit-learn accuracy_score on indicator rows"
    per_example: ClassVar[bool] = True

    def each(self, predictions: Any, references: Any) -> np.ndarray:
        import numpy as np

        return (np.asarray(predictions) == np.asarray(references)).all(axis=1).astype(np.float64)
