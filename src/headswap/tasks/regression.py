"""Give a text, or a pair of texts, one number or several. Floor 1; table_task.py reads and cuts the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headswap.answers import Answers, Labels, Observed, Problem
from headswap.checks import Notes, row_numbers, text_rows
from headswap.contracts import LossFunction, Splits
from headswap.losses import SquaredError
from headswap.results import Valued
from headswap.rows import Rows
from headswap.sources import Table
from headswap.text_task import TextTask

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True, kw_only=True)
class Regression(TextTask):
    """Learn one column of numbers, or several, from one text column, or from two that form a pair.

    Args:
        label: the columns of numbers; each is one output of the head.
    """

    label: list[str]

    @property
    def problem(self) -> Problem:
        return "regression"

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(self.label)

    def faults(self) -> Iterator[str]:
        yield from self.text_faults()
        if not self.label:
            yield "label: must name one column of numbers or more; found none; set task.label=[COLUMN]"

    def checked(self, tables: Sequence[Table], split: str, notes: Notes) -> Rows:
        rows = text_rows(tables, self.text, self.id, self.damaged, notes, split)
        columns = [[value for table in tables for value in row_numbers(table, name)] for name in self.label]
        return {**rows, "label": [list(values) for values in zip(*columns, strict=True)]}

    def settled(self, parts: Mapping[str, Rows], where: Mapping[str, str]) -> Labels:
        return Labels(tuple(self.label), "regression")

    def dataset(self, rows: Rows, labels: Labels) -> datasets.Dataset:
        import datasets

        kinds: dict[str, Any] = {name: datasets.Value("string") for name in rows}
        if "label" in rows:
            kinds["label"] = datasets.List(datasets.Value("float32"))
        return datasets.Dataset.from_dict(dict(rows), features=datasets.Features(kinds))

    def loss(self, splits: Splits) -> LossFunction:
        return SquaredError()

    def answers(self, observed: Observed) -> Answers:
        import numpy as np

        found, true = np.stack(observed.outputs), np.asarray(observed.rows["label"], dtype=np.float32)
        if len(self.label) == 1:
            found, true = found[:, 0], true[:, 0]
        return Answers(found, true, observed.labels, observed.outputs)

    def results(self, observed: Observed) -> list[Valued]:
        names = observed.labels.names
        return [Valued(dict(zip(names, row.tolist(), strict=True))) for row in observed.outputs]
