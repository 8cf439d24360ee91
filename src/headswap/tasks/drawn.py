"""What tasks share whose rows are drawn from a seed rather than read; synthetic.py has the tasks. Floor 1."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from headswap import rows as cut
from headswap.answers import Answers, Collator, Labels, Observed, Problem
from headswap.contracts import SPLITS, DataRequest, LossFunction, Splits
from headswap.errors import ConfigError, DataError
from headswap.rows import Rows
from headswap.seeds import Seeds

if TYPE_CHECKING:
    import datasets
    import numpy as np
    import torch
    from transformers import PreTrainedTokenizerBase

    from headswap.tasks.text_classification import TextClassification
    from headswap.tasks.token_classification import TokenClassification

SHORTEST = 8
VERSION = "1"
"""Of the way in which rows are drawn; a change of it makes other runs."""


@dataclass(frozen=True, kw_only=True)
class DrawnTask:
    """What the tasks share: rows from a seed, and everything else from the ordinary task that they are `like`.

    Args:
        length: tokens of a text.
        rows: training rows that there are. With as many as the steps take, no row is seen twice.
        held_out: rows of validation, and as many of test.
    """

    processor: ClassVar[str] = "AutoTokenizer"
    length: int = 64
    rows: int = 4800
    held_out: int = 200

    def __post_init__(self) -> None:
        if found := list(self.faults()):
            raise ConfigError("\n".join(f"task.{fault}" for fault in found))

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with the fields, each as `field: fault; found; remedy`."""
        if self.length < SHORTEST:
            yield f"length: must be {SHORTEST} tokens or more; found {self.length}; raise it"
        for name in ("rows", "held_out"):
            if getattr(self, name) < 1:
                yield f"{name}: must be 1 or more; found {getattr(self, name)}; raise it"

    @functools.cached_property
    def like(self) -> TextClassification | TokenClassification:
        """The ordinary task that these rows could be read for."""
        raise NotImplementedError

    @property
    def names(self) -> tuple[str, ...]:
        """The labels, in the order of the head's outputs."""
        raise NotImplementedError

    def drawn(self, dice: np.random.Generator, count: int) -> Rows:
        """Return the inputs and the labels of so many rows."""
        raise NotImplementedError

    def load(self, request: DataRequest, seeds: Seeds) -> Splits:
        """Draw the rows: training and validation by the run's seed, test by data.split_seed."""
        roots = {"train": seeds, "validation": seeds, "test": Seeds(request.split_seed)}
        parts = {split: self._part(roots[split], split) for split in SPLITS}
        stay, repeats = cut.find_repeats({split: self.like.keys(part) for split, part in parts.items()})
        if request.drop_duplicates:
            parts = {split: cut.take(part, stay[split]) for split, part in parts.items()}
        parts = {split: _first(part, getattr(request, f"{split}_rows"), split) for split, part in parts.items()}
        labels = Labels(self.names, self.problem)
        made = {split: self.like.dataset(part, labels) for split, part in parts.items()}
        told = {"drawn_from": {split: root.root for split, root in roots.items()}, "repeats": repeats}
        told |= {"rows_used": {split: len(made[split]) for split in SPLITS}, **self.like.counted(parts, labels)}
        content = "/".join((*labels.names, *(cut.rows_hash(made[split]) for split in SPLITS)))
        return Splits(**made, labels=labels, fingerprint=hashlib.sha256(content.encode()).hexdigest(), notes=told)

    def _part(self, root: Seeds, split: str) -> Rows:
        count = self.rows if split == "train" else self.held_out
        found = self.drawn(root.generator("rows", split), count)
        return {"id": [f"{split}-{number}" for number in range(count)], **found}

    def identity(self) -> dict[str, str]:
        return {"drawn": VERSION}

    def encode(self, rows: Mapping[str, list], tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, list]:
        if max_length < self.length:
            raise ConfigError(
                f"data.max_length: shorter than the task's texts, whose beginning or end is what is asked for; found "
                f"{max_length} for {self.length} tokens; set data.max_length={self.length} or more"
            )
        return self.like.encode(rows, tokenizer, max_length)

    def answers(self, observed: Observed) -> Answers:
        return self.like.answers(observed)

    def results(self, observed: Observed) -> list[Any]:
        return self.like.results(observed)

    # The rest is the ordinary task's, as it stands.
    @property
    def auto_class(self) -> str:
        return self.like.auto_class

    @property
    def problem(self) -> Problem:
        return self.like.problem

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.like.inputs

    def cell(self, column: str, value: Any) -> Any:
        return self.like.cell(column, value)

    def file_cell(self, column: str, value: Any) -> Any:
        return self.like.file_cell(column, value)

    def read(self, source: str, labels: Labels) -> datasets.Dataset:
        return self.like.read(source, labels)

    def collator(self, tokenizer: PreTrainedTokenizerBase, seeds: Seeds) -> Collator | None:
        return self.like.collator(tokenizer, seeds)

    def forward(self, model: Any, batch: Mapping[str, torch.Tensor]) -> Any:
        return self.like.forward(model, batch)

    def loss(self, splits: Splits) -> LossFunction:
        return self.like.loss(splits)

    def observe(self, model: Any, batch: Mapping[str, torch.Tensor], output: Any) -> list[np.ndarray]:
        return self.like.observe(model, batch, output)

    def calibrate(self, observed: Observed) -> dict[str, Any]:
        return self.like.calibrate(observed)


def _first(rows: Rows, count: int | None, split: str) -> Rows:
    """Return the first rows, so that 100 lie inside 400."""
    there = len(rows["id"])
    if count is not None and count > there:
        key = "task.rows" if split == "train" else "task.held_out"
        raise DataError(f"data.{split}_rows: more than there are; found {count} of {there}; raise {key}, or lower it")
    return rows if count is None else cut.take(rows, range(count))
