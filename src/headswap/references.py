"""Read the references of questions, and hold each to its place in the context. Floor 0, imports nothing heavy.

Two forms: a column of texts with one of places, or SQuAD's own, {text: [...], answer_start: [...]}, in one column.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from headswap.checks import refuse
from headswap.sources import Table, as_text

_PLACES = (
    "places count characters of the context from 0, not bytes or tokens: correct them, or set task.mend_offsets=true "
    "to search for the texts"
)
WRONG = -1
_FORM = "{text: [...], answer_start: [...]}"


class References(NamedTuple):
    """What counts as the answer of one question; nothing where it has none. `starts` are None where not given."""

    texts: list[str]
    starts: list[Any]
    mended: bool = False


@dataclass(frozen=True)
class ReferenceColumns:
    """Where the references stand; the fields mean what the task's own say."""

    text: str
    start: str
    both: str | None
    may_lack: bool
    mend: bool

    @property
    def names(self) -> tuple[str, ...]:
        return (self.both,) if self.both else (self.text, self.start)

    def read(self, table: Table, contexts: Sequence[str]) -> list[References]:
        """Return the references of every row of a table.

        Raises:
            DataError: a question lacks an answer, a place is no number, a text does not stand at its place.
        """
        found = self._squads(table) if self.both else self._flat(table)
        if not self.may_lack:
            lacking = _rows(not each.texts for each in found)
            remedy = "fill or remove these rows, or set task.no_answer=true to learn that there is none"
            refuse(table, self.names[0], lacking, "no answer", remedy)
        return self._moved(table, contexts, found) if self.mend else self._exact(table, contexts, found)

    def _flat(self, table: Table) -> list[References]:
        """Return the one reference of each row, or none; a place beside an empty text says nothing."""
        texts = [text or "" for text in table.text(self.text)]
        starts = [_start(value) for value in table.text(self.start)]
        pairs = zip(texts, starts, strict=True)
        found = [References([text], [start]) if text.strip() else References([], []) for text, start in pairs]
        return self._with_numbers(table, found)

    def _squads(self, table: Table) -> list[References]:
        found = [_in_squads_form(value) for value in table.columns[self.names[0]]]
        wrong = [row for row, each in enumerate(found) if each is None]
        refuse(table, self.names[0], wrong, f"not of the form {_FORM}", "correct these rows")
        whole = [each for each in found if each is not None]
        empty = _rows(any(not text.strip() for text in each.texts) for each in whole)
        refuse(table, self.names[0], empty, "an empty text among the answers", "remove it; no answer is an empty list")
        return self._with_numbers(table, whole)

    def _with_numbers(self, table: Table, found: list[References]) -> list[References]:
        """Return the references with their places as numbers; one may lack only where it is searched for."""
        wrong = _rows(WRONG in each.starts or (None in each.starts and not self.mend) for each in found)
        refuse(table, self.names[-1], wrong, "a place that is no whole number from 0", _PLACES)
        return found

    def _exact(self, table: Table, contexts: Sequence[str], found: list[References]) -> list[References]:
        wrong = [
            (row, context[start : start + len(text)], text)
            for row, (context, each) in enumerate(zip(contexts, found, strict=True))
            for text, start in zip(each.texts, each.starts, strict=True)
            if not context.startswith(text, start)
        ]
        if wrong:
            _, stands, text = wrong[0]
            fault = f"answers that do not stand at their place (found {_short(stands)} where {_short(text)} should be)"
            refuse(table, self.names[-1], sorted({row for row, _, _ in wrong}), fault, _PLACES)
        return found

    def _moved(self, table: Table, contexts: Sequence[str], found: list[References]) -> list[References]:
        """Return the references, each at the nearest place where its text stands."""
        pairs = list(zip(contexts, found, strict=True))
        absent = _rows(any(text not in context for text in each.texts) for context, each in pairs)
        remedy = "the texts must stand there to the letter: correct them, or remove these rows"
        refuse(table, self.names[0], absent, "answers that do not stand in their context", remedy)
        moved = []
        for context, each in pairs:
            near = [_nearest(context, text, start or 0) for text, start in zip(each.texts, each.starts, strict=True)]
            moved.append(References(each.texts, near, near != each.starts))
        return moved


def _start(value: Any) -> int | None:
    """Return a place (17, 17.0 and "17" are one), None where there is none, WRONG where it is no whole number."""
    text = (as_text(value) or "").strip() if isinstance(value, str | int | float | None) else "?"
    return None if not text else int(text) if text.isdecimal() else WRONG


def _in_squads_form(value: Any) -> References | None:
    """Return the references of one cell, None where it has another form; null means no answer."""
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):  # SQuAD's own files
        value = {name: [each.get(name) for each in value] for name in ("text", "answer_start")}
    if value is None:
        return References([], [])
    if not isinstance(value, dict):
        return None
    texts, starts = value.get("text"), value.get("answer_start")
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        return None
    if not all(isinstance(text, str) for text in texts):
        return None
    return References(texts, [_start(start) for start in starts])


def _nearest(context: str, text: str, start: int) -> int:
    """Return the place of `text` nearest to `start`; of two as near, the earlier."""
    before = context.rfind(text, 0, start + len(text))
    after = context.find(text, start)
    return min((place for place in (before, after) if place >= 0), key=lambda place: abs(place - start))


def _rows(faults: Iterable[bool]) -> list[int]:
    return [row for row, fault in enumerate(faults) if fault]


def _short(text: str) -> str:
    said = repr(text)
    return said if len(said) <= 40 else f"{said[:37]}..."
