"""Check the labels of texts that have any number of them, from one column of lists or from columns of 0 and 1. Floor 0.

Rows hold them by name: `label` is a list of names a row, each once, empty for a text with none; see checks.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headswap.checks import name_counts, refuse, refuse_unlearned, sorted_names
from headswap.errors import DataError, nearest
from headswap.rows import Rows
from headswap.sources import Table, as_text
from headswap.words import json_list

_LEARN = "add training rows, or remove the label from these"
_FLAGS = {"1": True, "true": True, "0": False, "false": False}


@dataclass(frozen=True)
class LabelColumns:
    """Which columns are read and what they may hold; the fields mean what the task's own say."""

    label: Sequence[str]
    labels: Sequence[str] | None
    label_map: Mapping[str, str]
    separator: str

    def read(self, table: Table) -> list[list[str]]:
        """Return the labels of every row by name.

        Raises:
            DataError: a cell that is no list, a null, an unlisted label; or a flag that is neither 0 nor 1.
        """
        if len(self.label) > 1:
            flags = [_flags(table, column) for column in self.label]
            return [
                [name for name, flag in zip(self.label, row, strict=True) if flag] for row in zip(*flags, strict=True)
            ]
        column = self.label[0]
        found = [self._items(value) for value in table.columns[column]]
        remedy = (
            f'write a list; in csv a JSON list, or names with {self.separator!r} between; no label: [] or in csv ""'
        )
        refuse(table, column, [place for place, items in enumerate(found) if items is None], "no list", remedy)
        rows = [[self._name(item) for item in items or ()] for items in found]
        empty = [place for place, row in enumerate(rows) if not all(row)]
        refuse(table, column, empty, "a list with an empty label, with null or with a list in it", "name each label")
        self._refuse_unlisted(table, rows)
        return [list(dict.fromkeys(row)) for row in rows]

    def _items(self, value: Any) -> Sequence[Any] | None:
        if not isinstance(value, str):
            return value if isinstance(value, list | tuple) else None
        if not value.strip():
            return []
        if value.lstrip().startswith("["):  # Python's own way to write a list is no JSON, and no names either
            return json_list(value)
        return value.split(self.separator)

    def _name(self, item: Any) -> str:
        """Return the name of a label that may be a raw value, or the number of a listed name."""
        raw = (as_text(item) or "").strip() if isinstance(item, str | int | float) else ""
        name, listed = self.label_map.get(raw, raw), self.labels or ()
        return listed[int(name)] if name not in listed and name.isdecimal() and int(name) < len(listed) else name

    def _refuse_unlisted(self, table: Table, rows: Sequence[Sequence[str]]) -> None:
        known = set(self.labels or self.label_map.values())
        other = [place for place, row in enumerate(rows) if known and not known.issuperset(row)]
        if other:
            strange = _strange(rows, other, known)
            fault = f"unlisted label {', '.join(map(repr, strange[:5]))}{nearest(strange[0], known)}"
            remedy = f"correct task.labels or task.label_map (known: {', '.join(sorted(known))})"
            refuse(table, self.label[0], other, fault, remedy)


def _flags(table: Table, column: str) -> list[bool]:
    values = [_FLAGS.get((value or "").strip().lower()) for value in table.text(column)]
    wrong = [place for place, value in enumerate(values) if value is None]
    refuse(table, column, wrong, "neither 0 nor 1", "several columns in task.label hold 1 where the text has the label")
    return [bool(value) for value in values]


def list_names(parts: Mapping[str, Rows], listed: Sequence[str] | None, where: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the head's outputs, in order: `listed`, or the sorted names of training.

    Args:
        where: split -> the source as the user named it, for messages.
    """
    found = name_counts(parts["train"])
    if not found:
        raise DataError(
            f"{where['train']}: nothing to learn; found no label in any of {len(parts['train']['id'])} training rows; "
            f"correct task.label"
        )
    for name in listed or ():
        if name not in found:
            raise DataError(
                f"task.labels: no training row has the label {name!r}{nearest(name, found)}; found "
                f"{', '.join(sorted(found))} in {where['train']}; leave it out, or correct task.label_map"
            )
    for split in ("validation", "test"):
        refuse_unlearned(parts[split], split, found, where[split], _LEARN)
    return tuple(listed or sorted_names(found))


def _strange(rows: Sequence[Sequence[str]], places: Sequence[int], known: Collection[str]) -> list[str]:
    return sorted({name for place in places for name in rows[place]} - set(known))


def rarest(rows: Rows) -> list[str]:
    """Return each row's label that the fewest rows have, "" for none: what splits and subsets keep the shares of.

    The first rows of every stratum are training's, so that a label of a single row is learned rather than tested.
    """
    counts = name_counts(rows)
    return [min(names, key=lambda name: (counts[name], name), default="") for names in rows["label"]]
