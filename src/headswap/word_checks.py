"""Check columns that hold lists: words with a tag each, choices. Floor 0, imports nothing heavy; see checks.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headswap.checks import (
    Notes,
    name_counts,
    refuse,
    refuse_repeated_ids,
    refuse_unlearned,
    row_ids,
    row_texts,
    sorted_names,
)
from headswap.errors import DataError, nearest
from headswap.rows import Rows
from headswap.sources import Table, as_text
from headswap.words import json_list

_LEARN = (
    "add training rows, name them by task.label_map={{{0}: O}}, or list all tags in task.labels to have them scored as "
    "missed"
)


@dataclass(frozen=True)
class TagColumns:
    """Which columns are read and what they may hold; the fields mean what the task's own say."""

    tokens: str
    label: str
    id: str | None
    labels: Sequence[str] | None
    label_map: Mapping[str, str]
    damaged: str


def tagged_rows(tables: Sequence[Table], split: str, columns: TagColumns, notes: Notes) -> Rows:
    """Return the rows of one split: id, the words, label (their tags by name).

    Raises:
        DataError: not lists of words and tags, of one length, or a tag that is not listed.
    """
    rows: Rows = {name: [] for name in ("id", columns.tokens, "label")}
    for table in tables:
        words = _words(table, columns, notes)
        tags = [_names(row, columns) for row in list_items(table, columns.label)]
        uneven = [place for place, row in enumerate(words) if len(row) != len(tags[place])]
        if uneven:
            place = uneven[0]
            fault = f"not one tag a word (found {len(tags[place])} tags for {len(words[place])} words)"
            remedy = f"give {columns.tokens!r} and {columns.label!r} equal lengths: in csv, JSON lists hold any word"
            refuse(table, columns.label, uneven, fault, remedy)
        _refuse_unlisted(table, tags, columns)
        rows["id"] += row_ids(table, columns.id, len(tables) > 1)
        rows[columns.tokens] += words
        rows["label"] += tags
    notes.rows_read[split] = sum(table.row_count for table in tables)
    refuse_repeated_ids(rows["id"], tables[0].name)
    return rows


def list_items(table: Table, column: str, spaced: bool = True) -> list[list[str]]:
    """Return a column of lists as texts: lists, JSON lists, or (`spaced`) text that white space cuts.

    Raises:
        DataError: a cell is no such list, or an item of one is null or a list.
    """
    found = [_items(value, spaced) for value in table.columns[column]]
    remedy = 'write a list, in csv a JSON list such as ["one", "two"]' + (
        " or items with spaces between" if spaced else ""
    )
    refuse(table, column, [place for place, items in enumerate(found) if not items], "no list, or an empty one", remedy)
    texts = [
        [as_text(item) if isinstance(item, str | int | float) else None for item in items or ()] for items in found
    ]
    odd = [place for place, items in enumerate(texts) if None in items]
    refuse(table, column, odd, "a list with null, or with a list in it", "give a text for each item")
    return [[item for item in items if item is not None] for items in texts]


def _items(value: Any, spaced: bool) -> Sequence[Any] | None:
    if not isinstance(value, str):
        return value if isinstance(value, list | tuple) else None
    listed = json_list(value)
    if listed is not None or not spaced:
        return listed
    # Python's own way to write a list is no JSON; cut at white space it would be words with commas and brackets.
    return None if value.lstrip().startswith("['") and value.rstrip().endswith("']") else value.split()


def _words(table: Table, columns: TagColumns, notes: Notes) -> list[list[str]]:
    """Return the words, mended as `damaged` says; all of them stay, even where nothing of one is left."""
    words = list_items(table, columns.tokens)
    joined = {columns.tokens: ["\n".join(word.replace("\n", " ") for word in row) for row in words]}
    lines = Table(table.name, joined, table.lines)
    texts = row_texts(lines, columns.tokens, range(table.row_count), columns.damaged, notes)
    return [text.split("\n") for text in texts] if columns.damaged == "remove" else words


def _names(tags: Sequence[str], columns: TagColumns) -> list[str]:
    mapping = {str(raw): name for raw, name in columns.label_map.items()}
    return [_name(mapping.get(tag.strip(), tag.strip()), columns.labels or ()) for tag in tags]


def _name(tag: str, labels: Sequence[str]) -> str:
    """Return the name of a tag that may be the number of one."""
    return labels[int(tag)] if tag not in labels and tag.isdecimal() and int(tag) < len(labels) else tag


def _refuse_unlisted(table: Table, tags: Sequence[Sequence[str]], columns: TagColumns) -> None:
    refuse(table, columns.label, [place for place, row in enumerate(tags) if "" in row], "empty tag", "name it")
    known = columns.labels
    if known:
        other = [place for place, row in enumerate(tags) if not set(row) <= set(known)]
        strange = sorted({tag for place in other for tag in tags[place]} - set(known))
        said = ", ".join(map(repr, strange[:5])) + (nearest(strange[0], known) if strange else "")
        remedy = f"correct task.labels ({', '.join(known)}), or name it by task.label_map={{TAG: O}}"
        refuse(table, columns.label, other, f"unlisted tag {said}", remedy)


def tag_names(parts: Mapping[str, Rows], listed: Sequence[str] | None, where: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the head's outputs, in order: `listed`, or the sorted names of training.

    Args:
        where: split -> the source as the user named it, for messages.
    """
    found = name_counts(parts["train"])
    if len(found) == 1:
        raise DataError(
            f"{where['train']}: one tag only; found {next(iter(found))!r} at all {found.total()} training words; give "
            f"sentences with two tags or more, or correct task.label"
        )
    if listed:
        return tuple(listed)
    for split in ("validation", "test"):
        refuse_unlearned(parts[split], split, found, where[split], _LEARN, what="tags")
    return tuple(sorted_names(found))


def choice_texts(table: Table, columns: Sequence[str], damaged: str, notes: Notes) -> list[list[str]]:
    """Return each row's choices, from one column of lists or from one column a choice.

    Raises:
        DataError: another number of choices than the first row has, fewer than two, an empty one.
    """
    whole = range(table.row_count)
    if len(columns) > 1:
        texts = [row_texts(table, column, whole, damaged, notes) for column in columns]
        return [list(row) for row in zip(*texts, strict=True)]
    column = columns[0]
    rows = list_items(table, column, spaced=False)
    count = len(rows[0])
    other = [place for place, row in enumerate(rows) if len(row) != count]
    found = f"found {len(rows[other[0]])} where row 1 has {count}" if other else ""
    refuse(table, column, other, f"another number of choices ({found})", "give all rows equally many")
    refuse(table, column, [0] if count < 2 else [], "fewer than two choices", "give the wrong ones too")
    lists = [Table(table.name, {column: [row[number] for row in rows]}, table.lines) for number in range(count)]
    texts = [row_texts(each, column, whole, damaged, notes) for each in lists]
    return [list(row) for row in zip(*texts, strict=True)]


def choice_numbers(table: Table, column: str, choices: Sequence[Sequence[str]]) -> list[int]:
    """Return the number of the right choice, from its number in the file (from 0) or from its text."""
    values = [(value or "").strip() for value in table.text(column)]
    count = len(choices[0])
    empty = [place for place, value in enumerate(values) if not value]
    refuse(table, column, empty, "empty or null label", "say which choice is right, or remove these rows")
    texts = [[text.strip() for text in row] for row in choices]
    no_number = [place for place, value in enumerate(values) if not (value.isdecimal() and int(value) < count)]
    no_text = [place for place, value in enumerate(values) if texts[place].count(value) != 1]
    by_number = len(no_number) <= len(no_text)
    other = no_number if by_number else no_text
    said = ", ".join(sorted({repr(values[place]) for place in other})[:3])
    remedy = f"give numbers from 0 to {count - 1} in all rows, or the text of one choice in each"
    refuse(table, column, other, f"neither the number nor the text of a choice {said}", remedy)
    return [int(value) if by_number else texts[place].index(value) for place, value in enumerate(values)]
