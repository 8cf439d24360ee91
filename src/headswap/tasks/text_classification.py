"""Label a text, or a pair of texts, with one of several labels. Floor 1; table_task.py reads and cuts the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headswap import losses
from headswap.answers import Answers, Labels, Observed, Problem
from headswap.checks import Columns, Notes, checked_rows, label_names, refuse_unlearned
from headswap.contracts import SPLITS, LossFunction, Splits
from headswap.results import Labelled
from headswap.rows import Rows
from headswap.sources import Table
from headswap.table_task import UNKNOWN
from headswap.text_task import TextTask

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True, kw_only=True)
class TextClassification(TextTask):
    """Learn `label`, one of several, from one text column, or from two that form a pair.

    Args:
        label: the label column.
        labels: names in the order of the head's outputs; None takes the sorted names of training.
        label_map: raw value -> name, compared as text (1 and 1.0 both read "1").
        drop_other_labels: drop rows whose label is not listed, rather than stop.
        class_weights: None, "balanced" (rows / (classes x rows of the class)), or a weight for every label name.
        label_smoothing: share of the target that is spread over all labels.
        focal_gamma: None, or the gamma of a focal loss in place of the cross entropy; its alpha are the class weights.
    """

    label: str = "label"
    labels: list[str] | None = None
    label_map: dict[str, str] | None = None
    drop_other_labels: bool = False
    class_weights: Any = None
    label_smoothing: float = 0.0
    focal_gamma: float | None = None

    @property
    def problem(self) -> Problem:
        return "single_label_classification"

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.label,)

    def faults(self) -> Iterator[str]:
        yield from self.text_faults()
        if self.labels is not None and (len(self.labels) < 2 or len(set(self.labels)) != len(self.labels)):
            yield f"labels: must be two different names or more; found {self.labels}; correct them, or set null"
        if self.drop_other_labels and not (self.labels or self.label_map):
            yield "drop_other_labels: needs the labels to keep; found no task.labels; set task.labels=[...]"
        if not 0 <= self.label_smoothing < 1:
            yield f"label_smoothing: must lie in [0, 1); found {self.label_smoothing}; set a share such as 0.1"
        if self.label_smoothing and self.focal_gamma is not None:
            yield "focal_gamma: focal loss and label_smoothing exclude one another; found both; drop one of the two"
        yield from losses.weighting_faults(self.class_weights, self.focal_gamma)

    def checked(self, tables: Sequence[Table], split: str, notes: Notes) -> Rows:
        columns = Columns(
            self.text, self.label, self.id, self.labels, self.label_map or {}, self.drop_other_labels, self.damaged
        )
        return checked_rows(tables, split, columns, notes)

    def strata(self, rows: Rows) -> Sequence[Any]:
        return rows["label"]

    def settled(self, parts: Mapping[str, Rows], where: Mapping[str, str]) -> Labels:
        names = label_names(parts, self.labels, where)
        losses.class_weights(self.class_weights, names, [])  # a wrong name is told now, not after the body is loaded
        return Labels(names)

    def refuse_unknown(self, rows: Rows, labels: Labels, source: str) -> None:
        refuse_unlearned(rows, "the file", labels.names, source, UNKNOWN)

    def counted(self, parts: Mapping[str, Rows], labels: Labels) -> dict[str, Any]:
        counts = {split: Counter(parts[split]["label"]) for split in SPLITS}
        return {"class_counts": {split: {name: counts[split][name] for name in labels.names} for split in SPLITS}}

    def dataset(self, rows: Rows, labels: Labels) -> datasets.Dataset:
        import datasets

        values = dict(rows)
        kinds = {name: datasets.Value("string") for name in values}
        if "label" in values:
            number = {name: index for index, name in enumerate(labels.names)}
            values["label"] = [number[name] for name in rows["label"]]
            kinds["label"] = datasets.Value("int64")
        return datasets.Dataset.from_dict(values, features=datasets.Features(kinds))

    def loss(self, splits: Splits) -> LossFunction:
        weights = losses.class_weights(self.class_weights, splits.labels.names, splits.train["label"])
        if self.focal_gamma is not None:
            return losses.FocalLoss(self.focal_gamma, weights)
        return losses.CrossEntropy(weights, self.label_smoothing)

    def answers(self, observed: Observed) -> Answers:
        import numpy as np

        predictions = np.stack(observed.outputs).argmax(axis=-1)
        return Answers(predictions, np.asarray(observed.rows["label"]), observed.labels, observed.outputs)

    def results(self, observed: Observed) -> list[Labelled]:
        import numpy as np
        from scipy.special import softmax

        names = observed.labels.names
        rows = softmax(np.stack(observed.outputs).astype(np.float64), axis=-1).tolist()
        best = [max(range(len(names)), key=row.__getitem__) for row in rows]
        return [
            Labelled(names[number], row[number], dict(zip(names, row, strict=True)))
            for number, row in zip(best, rows, strict=True)
        ]
