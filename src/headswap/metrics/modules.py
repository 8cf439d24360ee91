"""Our metrics as `evaluate.Metric`s: they need no network and combine with `evaluate.combine`.

evaluate's wheel ships no metric (evaluate.load("accuracy") fetches a script), so the ones we select by live here. The
plugs stay light; this module holds what is heavy.
"""

from __future__ import annotations

import datasets
import evaluate

from headswap.metrics.offline import Offline

_WHOLE, _NUMBER, _TEXT = datasets.Value("int64"), datasets.Value("float64"), datasets.Value("string")


def _pair(predictions: object, references: object) -> datasets.Features:
    return datasets.Features({"predictions": predictions, "references": references})


FORMS = {
    "labels": _pair(_WHOLE, _WHOLE),
    "label lists": _pair(datasets.List(_WHOLE), datasets.List(_WHOLE)),
    "logits": _pair(datasets.List(_NUMBER), datasets.List(_WHOLE)),
    "numbers": [_pair(_NUMBER, _NUMBER), _pair(datasets.List(_NUMBER), datasets.List(_NUMBER))],
    "tags": _pair(datasets.List(_TEXT), datasets.List(_TEXT)),
    "texts": _pair(_TEXT, datasets.List(_TEXT)),
    "sums": datasets.Features({"predictions": datasets.List(_NUMBER)}),
}


class OfflineModule(evaluate.Metric):
    """`{name: score}` of one of our metrics; keeps its data in memory and makes no cache folder."""

    def __init__(self, metric: Offline) -> None:
        self._metric = metric
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        about = type(self._metric).__doc__ or ""
        return evaluate.MetricInfo(
            description=about,
            citation=self._metric.library,
            inputs_description=about,
            features=FORMS[self._metric.form],  # type: ignore[arg-type]
        )

    def _build_data_dir(self) -> str:
        return self._data_dir_root

    def _compute(self, predictions, references=None, **options):
        return {self._metric.name: self._metric.score(predictions, references, **options)}
