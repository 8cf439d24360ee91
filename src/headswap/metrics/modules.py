"""Our metrics as `evaluate.Metric` subclasses: they need no network and combine with `evaluate.combine`.

evaluate's wheel ships no metric (evaluate.load("accuracy") fetches a script), so the ones we select by live here. The
numbers are scikit-learn's.
"""

from __future__ import annotations

import datasets
import evaluate
from sklearn import metrics as sklearn_metrics

_FEATURES = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
_CITATION = "Pedregosa et al. 2011, Scikit-learn: Machine Learning in Python, JMLR 12"


class OfflineMetric(evaluate.Metric):
    """An evaluate metric that keeps its data in memory and makes no cache folder."""

    about = ""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.about, citation=_CITATION, inputs_description=self.about, features=_FEATURES
        )

    def _build_data_dir(self) -> str:
        return self._data_dir_root


class AccuracyModule(OfflineMetric):
    """`{"accuracy": share of predictions equal to their reference}`."""

    about = "Share of predictions that equal their reference."

    def _compute(self, predictions, references):
        return {"accuracy": float(sklearn_metrics.accuracy_score(references, predictions))}


class MacroF1Module(OfflineMetric):
    """`{"macro_f1": mean of the labels' F1}`; `labels` lists all outputs, so that an absent label counts 0."""

    about = "Mean over labels of the harmonic mean of precision and recall."

    def _compute(self, predictions, references, labels=None):
        value = sklearn_metrics.f1_score(references, predictions, labels=labels, average="macro", zero_division=0)  # type: ignore[arg-type]
        return {"macro_f1": float(value)}


class MatthewsModule(OfflineMetric):
    """`{"matthews": correlation in [-1, 1]}`."""

    about = "Matthews correlation of predictions and references."

    def _compute(self, predictions, references):
        if len({*references, *predictions}) == 1:  # scikit-learn answers 0 too, with a warning
            return {"matthews": 0.0}
        return {"matthews": float(sklearn_metrics.matthews_corrcoef(references, predictions))}
