"""Give a text, or a pair of texts, any number of labels. Floor 1; table_task.py reads and cuts the rows.

Each label is a yes or no of its own: binary cross entropy in training, and a threshold of its own for answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headswap import losses
from headswap.answers import Answers, Labels, Observed, Problem
from headswap.checks import Notes, name_counts, refuse_unlearned, text_rows
from headswap.contracts import SPLITS, LossFunction, Splits
from headswap.label_lists import LabelColumns, list_names, rarest
from headswap.results import MultiLabelled
from headswap.rows import Rows
from headswap.sources import Table
from headswap.table_task import UNKNOWN
from headswap.text_task import TextTask

if TYPE_CHECKING:
    import datasets
    import numpy as np

TUNED = "tuned"
EVEN = 0.5


@dataclass(frozen=True, kw_only=True)
class MultiLabel(TextTask):
    """Learn any number of labels a text, from one column of lists, or from a column of 0 and 1 a label.

    Args:
        label: the column of lists; or several columns, whose names are the labels.
        labels: names in the order of the head's outputs; None takes the sorted names of training. A number in a list
            that is no name itself counts these names from 0.
        label_map: raw value -> name, compared as text (1 and 1.0 both read "1").
        separator: what stands between the labels of a cell of text that is no JSON list.
        class_weights: what a present label weighs, the absent weighing 1: None, "balanced" (rows without it / rows
            with it, at most 100), or a weight for every label name.
        focal_gamma: None, or the gamma of a focal loss in place of the cross entropy.
        thresholds: the probability from which a label is given: one for all, or "tuned" for the one of each label
            that has the best F1 on validation.
    """

    label: list[str]
    labels: list[str] | None = None
    label_map: dict[str, str] | None = None
    separator: str = ","
    class_weights: Any = None
    focal_gamma: float | None = None
    thresholds: Any = TUNED

    @property
    def problem(self) -> Problem:
        return "multi_label_classification"

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(self.label)

    def faults(self) -> Iterator[str]:
        yield from self.text_faults()
        if not self.label:
            yield "label: must name one column of lists, or a column a label; found none; set task.label=[COLUMN]"
        if self.labels is not None and (not self.labels or len(set(self.labels)) != len(self.labels)):
            yield f"labels: must be different names; found {self.labels}; correct them, or set null"
        if len(self.label) > 1 and (self.labels or self.label_map):
            yield f"labels: belong to one column of lists; found {len(self.label)} columns, whose names are the labels"
        if not self.separator.strip() and self.separator not in (" ", "\t"):
            yield f"separator: must be text between labels; found {self.separator!r}; set one such as ';'"
        yield from losses.weighting_faults(self.class_weights, self.focal_gamma)
        chosen = self.thresholds
        if chosen != TUNED and not (isinstance(chosen, int | float) and 0 < chosen < 1):
            yield f"thresholds: must be tuned, or one number in (0, 1); found {chosen!r}; set one such as 0.5"

    def checked(self, tables: Sequence[Table], split: str, notes: Notes) -> Rows:
        rows = text_rows(tables, self.text, self.id, self.damaged, notes, split)
        mapping = {str(raw): name for raw, name in (self.label_map or {}).items()}  # YAML reads 0 as a number
        columns = LabelColumns(self.label, self.labels, mapping, self.separator)
        return {**rows, "label": [names for table in tables for names in columns.read(table)]}

    def strata(self, rows: Rows) -> Sequence[Any]:
        return rarest(rows)

    def meanings(self, rows: Rows) -> Sequence[Any]:
        return [", ".join(sorted(names)) for names in rows["label"]]

    def settled(self, parts: Mapping[str, Rows], where: Mapping[str, str]) -> Labels:
        listed = self.labels if len(self.label) == 1 else self.label
        names = list_names(parts, listed, where)
        losses.positive_weights(self.class_weights, names, [])  # a wrong name is told before the body is loaded
        return Labels(names, "multi_label_classification")

    def refuse_unknown(self, rows: Rows, labels: Labels, source: str) -> None:
        refuse_unlearned(rows, "the file", labels.names, source, UNKNOWN)

    def counted(self, parts: Mapping[str, Rows], labels: Labels) -> dict[str, Any]:
        counts = {split: name_counts(parts[split]) for split in SPLITS}
        return {
            "class_counts": {split: {name: counts[split][name] for name in labels.names} for split in SPLITS},
            "rows_without_label": {split: sum(not names for names in parts[split]["label"]) for split in SPLITS},
        }

    def dataset(self, rows: Rows, labels: Labels) -> datasets.Dataset:
        import datasets

        values = dict(rows)
        kinds: dict[str, Any] = {name: datasets.Value("string") for name in values}
        if "label" in values:
            values["label"] = [[float(name in names) for name in labels.names] for names in rows["label"]]
            kinds["label"] = datasets.List(datasets.Value("float32"))
        return datasets.Dataset.from_dict(values, features=datasets.Features(kinds))

    def loss(self, splits: Splits) -> LossFunction:
        rows = splits.train["label"] if self.class_weights == "balanced" else []
        weights = losses.positive_weights(self.class_weights, splits.labels.names, rows)
        return losses.BinaryCrossEntropy(weights, self.focal_gamma or 0.0)

    def calibrate(self, observed: Observed) -> dict[str, Any]:
        """Settle each label's threshold."""
        names = observed.labels.names
        if self.thresholds != TUNED:
            return {"thresholds": dict.fromkeys(names, float(self.thresholds))}
        columns = zip(names, _probabilities(observed).T, _truth(observed).T, strict=True)
        return {"thresholds": {name: best_threshold(scores, present) for name, scores, present in columns}}

    def answers(self, observed: Observed) -> Answers:
        given = _probabilities(observed) >= self._thresholds(observed)
        return Answers(given, _truth(observed), observed.labels, observed.outputs)

    def results(self, observed: Observed) -> list[MultiLabelled]:
        names, thresholds = observed.labels.names, self._thresholds(observed)
        made = []
        for row in _probabilities(observed):
            chosen = tuple(name for name, given in zip(names, row >= thresholds, strict=True) if given)
            made.append(MultiLabelled(chosen, dict(zip(names, row.tolist(), strict=True))))
        return made

    def _thresholds(self, observed: Observed) -> np.ndarray:
        """Return [labels], the probabilities from which labels are given."""
        import numpy as np

        if self.thresholds != TUNED:
            return np.full(observed.labels.count, float(self.thresholds))
        settled = observed.calibration.get("thresholds", {})
        return np.array([settled.get(name, EVEN) for name in observed.labels.names])


def best_threshold(scores: np.ndarray, present: np.ndarray) -> float:
    """Return the probability at which a label has its best F1, midway between two neighbouring scores.

    Every place where the answers change is tried. 0.5 is taken where it is as good as any, or where no row has the
    label; else the nearest to it of equally good places.

    Args:
        scores: [rows] probabilities of the label.
        present: [rows] whether a row has it.
    """
    import numpy as np

    if not present.any():
        return EVEN
    places, group = np.unique(-scores, return_inverse=True)
    falling = -places
    right = np.cumsum(np.bincount(group, weights=present))
    given = np.cumsum(np.bincount(group))
    f1 = 2 * right / (given + present.sum())
    thresholds = (falling + np.append(falling[1:], 0.0)) / 2
    best = f1 == f1.max()
    at_even = int((falling >= EVEN).sum())
    if at_even and best[at_even - 1]:
        return EVEN
    return float(min(thresholds[best], key=lambda threshold: abs(threshold - EVEN)))


def _probabilities(observed: Observed) -> np.ndarray:
    import numpy as np
    from scipy.special import expit

    return expit(np.stack(observed.outputs).astype(np.float64))


def _truth(observed: Observed) -> np.ndarray:
    import numpy as np

    return np.asarray(observed.rows["label"]) > EVEN
