"""Self-pretraining: learn from the very texts of another task, its labels unseen, before that task is learned. Floor 1.

Krishna et al. 2022 (2209.14389) and Amos et al. 2023 (2310.02980): without this arm, "transfer" mixes up what the
objective gives with what the outside text gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headswap.answers import Labels
from headswap.config import build
from headswap.contracts import SPLITS, DataRequest, Splits, Task
from headswap.errors import ConfigError
from headswap.seeds import Seeds
from headswap.table_task import TableTask
from headswap.tasks.language_modeling import CausalLanguageModeling, MaskedLanguageModeling

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True, kw_only=True)
class _OwnTexts(TableTask):
    """Reads, splits and cuts rows as the other task does, so that no text is learned from that it tests on.

    Args:
        of: the other task, as its node in a configuration; a chain of stages fills in what its last stage learns.
        of_plugins: packages besides headswap that `of` may name a class of.
    """

    text: list[str] = field(default_factory=lambda: ["text"])
    of: dict[str, Any] | None = None
    of_plugins: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if found := list(self.faults()):
            raise ConfigError("\n".join(f"task.{fault}" for fault in found))

    def identity(self) -> dict[str, str]:
        return self._other().identity()

    def load(self, request: DataRequest, seeds: Seeds) -> Splits:
        """Return the other task's rows, each as one text: its inputs in a row."""
        splits = self._other().load(request, seeds)
        parts = {split: self._texts(splits.of(split)) for split in SPLITS}
        notes = {key: value for key, value in splits.notes.items() if key != "class_counts"}
        labels = self.settled({}, {})
        return Splits(**parts, labels=labels, fingerprint=splits.fingerprint, notes=notes)

    def _other(self) -> Task:
        if self.of is None:
            raise ConfigError(
                "task.of: no task whose texts to learn from; found null; use it as a stage of a chain, as "
                "experiment=self_pretrain does"
            )
        return build(self.of, "task.of", Task, self.of_plugins)

    def _texts(self, rows: datasets.Dataset) -> datasets.Dataset:
        columns = [list(map(_flat, rows[name])) for name in self._other().inputs]
        texts = [" ".join(parts) for parts in zip(*columns, strict=True)]
        return self.dataset({"id": list(rows["id"]), self.text[0]: texts}, Labels(()))


def _flat(cell: Any) -> str:
    """Return a cell as one text: words and choices are lists of such."""
    return " ".join(map(_flat, cell)) if isinstance(cell, list) else str(cell)


@dataclass(frozen=True, kw_only=True)
class OwnTextsMasked(_OwnTexts, MaskedLanguageModeling):
    """Guess hidden tokens of the other task's texts."""

    def faults(self) -> Iterator[str]:
        yield from MaskedLanguageModeling.faults(self)


@dataclass(frozen=True, kw_only=True)
class OwnTextsCausal(_OwnTexts, CausalLanguageModeling):
    """Guess every next token of the other task's texts."""

    def faults(self) -> Iterator[str]:
        yield from CausalLanguageModeling.faults(self)
