"""Check the tables of a labelled-text task and turn them into rows. Floor 0, imports nothing heavy.

Every fault is told with file, column, the first row numbers, their count and a remedy, before any model loads.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from headswap.errors import DataError, nearest
from headswap.rows import Rows
from headswap.sources import Table

_REMOVED = re.compile(r"[^\x20-\x7e\t\n]+")
_DAMAGE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")
_TOLERATED_SHARE = 0.01  # MRPC and CoLA hold a few control characters; a wrong encoding spoils far more rows
_EVEN_RATIO = 3
_FAIR_METRICS = {
    "single_label_classification": "macro_f1,matthews",
    "multi_label_classification": "multi_label_macro_f1,mean_average_precision",
}
_LEARN = "add training rows, or set task.labels with task.drop_other_labels=true"
_LARGEST = 3.4e38  # a float32 holds no more
_NULL_WORDS = {"na", "n/a", "nan", "null", "none", "<na>"}


@dataclass
class Notes:
    """What the checks counted and did not refuse."""

    rows_read: dict[str, int] = field(default_factory=dict)
    rows_with_damage: int = 0
    rows_with_other_labels: int = 0
    texts_that_read_like_null: int = 0


@dataclass(frozen=True)
class Columns:
    """Which columns are read and what they may hold; the fields mean what the task's own say."""

    text: Sequence[str]
    label: str
    id: str | None
    labels: Sequence[str] | None
    label_map: Mapping[str, str]
    drop_other_labels: bool
    damaged: str


def checked_rows(tables: Sequence[Table], split: str, columns: Columns, notes: Notes) -> Rows:
    """Return the rows of one split: id, the texts, label (a name).

    Raises:
        DataError: empty or damaged text, null or unlisted label, an id that stands twice.
    """
    rows: Rows = {name: [] for name in ("id", *columns.text, "label")}
    for table in tables:
        labels = _names(table, columns)
        keep = [position for position, label in enumerate(labels) if label is not None]
        rows["label"] += [labels[position] for position in keep]
        ids = row_ids(table, columns.id, len(tables) > 1)
        rows["id"] += [ids[position] for position in keep]
        for column in columns.text:
            rows[column] += row_texts(table, column, keep, columns.damaged, notes)
        notes.rows_with_other_labels += table.row_count - len(keep)
    notes.rows_read[split] = sum(table.row_count for table in tables)
    refuse_repeated_ids(rows["id"], tables[0].name)
    return rows


def refuse(table: Table, column: str, positions: Sequence[int], fault: str, remedy: str) -> None:
    """Raise DataError if there are positions (0-based row numbers) at which `column` has the fault."""
    if positions:
        raise DataError(f"{table.name}: {fault} in column {column!r}; {table.place(positions)}; {remedy}")


def row_ids(table: Table, column: str | None, many: bool) -> list[str]:
    """Return the names of the rows: a column's, or row numbers, with the file's name where there are `many` files."""
    if column is None:
        prefix = f"{table.name}:" if many else ""
        return [f"{prefix}{position + 1}" for position in range(table.row_count)]
    values = [value or "" for value in table.text(column)]
    empty = [position for position, value in enumerate(values) if not value]
    refuse(table, column, empty, "empty id", "fill them, or set task.id=null for row numbers")
    return values


def refuse_repeated_ids(ids: Sequence[str], source: str) -> None:
    """Raise DataError if a name stands twice."""
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        raise DataError(
            f"{source}: ids stand more than once; found {len(repeated)}, such as {repeated[0]!r}; name a unique column "
            f"in task.id, or set task.id=null for row numbers"
        )


def _names(table: Table, columns: Columns) -> list[str | None]:
    """Return the label name of every row, None for one to drop."""
    values = [(value or "").strip() for value in table.text(columns.label)]
    empty = [position for position, value in enumerate(values) if not value]
    remedy = "label or remove these rows (a hub's unlabelled test: task.hub_splits={test: ''} cuts one from train)"
    refuse(table, columns.label, empty, "empty or null label", remedy)
    mapping = {str(raw): name for raw, name in columns.label_map.items()}
    names: list[str | None] = [mapping.get(value, value) for value in values]
    known = set(columns.labels or mapping.values())
    other = [position for position, name in enumerate(names) if known and name not in known]
    if not columns.drop_other_labels:
        said = ", ".join(sorted({repr(values[position]) for position in other})[:5])
        remedy = f"correct task.labels or task.label_map (known: {', '.join(sorted(known))}), or set "
        refuse(table, columns.label, other, f"unlisted label {said}", remedy + "task.drop_other_labels=true")
    for position in other:
        names[position] = None
    return names


def row_numbers(table: Table, column: str) -> list[float]:
    """Return a column of finite numbers."""
    numbers = [_number(value) for value in table.text(column)]
    wrong = [position for position, number in enumerate(numbers) if not abs(number) <= _LARGEST]
    refuse(table, column, wrong, "no finite number", "correct or remove these rows")
    return numbers


def _number(value: str | None) -> float:
    try:
        return float(value or "nan")
    except ValueError:
        return float("nan")


def label_names(parts: Mapping[str, Rows], listed: Sequence[str] | None, where: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the head's outputs, in order: `listed`, or the sorted names of training.

    Args:
        where: split -> the source as the user named it, for messages.
    """
    found = Counter(parts["train"]["label"])
    names = listed or sorted_names(found)
    if len(found) == 1:
        raise DataError(
            f"{where['train']}: one class only; found {next(iter(found))!r} in all {found.total()} training rows; give "
            f"rows of two labels or more, or correct task.label"
        )
    for name in names:
        if name not in found:
            raise DataError(
                f"task.labels: no training row has the label {name!r}{nearest(name, found)}; found "
                f"{', '.join(sorted(found))} in {where['train']}; correct task.labels or task.label_map"
            )
    for split in ("validation", "test"):
        refuse_unlearned(parts[split], split, found, where[split], _LEARN)
    return tuple(names)


def sorted_names(names: Iterable[str]) -> list[str]:
    """Return names in alphabetical order, numbers first and by value."""
    return sorted(names, key=lambda name: (not name.isdecimal(), name.zfill(20) if name.isdecimal() else name))


def imbalance(problem: str, counts: Mapping[str, int]) -> str | None:
    """Return a sentence about training labels of which one stands more than three times as often as another.

    Args:
        problem: the kind of learning (answers.Problem); of tags and choices nothing is said.
        counts: training rows that have each label.
    """
    metrics = _FAIR_METRICS.get(problem)
    if metrics is None or not counts:
        return None
    most, least = (pick(counts, key=lambda name: counts[name]) for pick in (max, min))
    if counts[most] <= _EVEN_RATIO * counts[least]:
        return None
    total, one_each = sum(counts.values()), problem == "single_label_classification"
    share = f" of {total:,} rows ({counts[most] / total:.0%}: so often {most} alone is right)" if one_each else " rows"
    return (
        f"training labels are uneven: {most} has {counts[most]:,}{share}, {least} {counts[least]:,}; score them with "
        f"metric=[{metrics}], weigh them with task.class_weights=balanced"
    )


def text_rows(
    tables: Sequence[Table], columns: Sequence[str], id: str | None, damaged: str, notes: Notes, split: str
) -> Rows:
    """Return `id` and text columns of all rows; a task adds its targets."""
    rows: Rows = {name: [] for name in ("id", *columns)}
    for table in tables:
        rows["id"] += row_ids(table, id, len(tables) > 1)
        for column in columns:
            rows[column] += row_texts(table, column, range(table.row_count), damaged, notes)
    notes.rows_read[split] = sum(table.row_count for table in tables)
    refuse_repeated_ids(rows["id"], tables[0].name)
    return rows


def refuse_unlearned(
    rows: Rows, split: str, known: Collection[str], source: str, remedy: str, *, what: str = "labels"
) -> None:
    """Refuse labels that training lacks: a head has no output for them.

    Args:
        rows: `label` holds a name a row, or a list of names.
        remedy: `{0}` in it stands for the first such label.
    """
    found = [{label} if isinstance(label, str) else set(label) for label in rows["label"]]
    other = [place for place, names in enumerate(found) if not names.issubset(known)]
    if other:
        strange = sorted(set().union(*(found[place] for place in other)).difference(known))
        ids = ", ".join(rows["id"][place] for place in other[:3])
        raise DataError(
            f"{source}: {split} has {what} that training lacks; found {', '.join(map(repr, strange[:5]))} in "
            f"{len(other)} rows (ids {ids}{' ...' if len(other) > 3 else ''}); {remedy.format(strange[0])}"
        )


def name_counts(rows: Rows) -> Counter[str]:
    """Return how often each name stands in rows whose `label` is a list of names."""
    return Counter(name for names in rows["label"] for name in names)


def row_texts(table: Table, column: str, keep: Sequence[int], damaged: str, notes: Notes) -> list[str]:
    """Return the texts at the positions `keep`, mended as `damaged` says; none may be empty."""
    values = table.text(column)
    pattern = _REMOVED if damaged == "remove" else _DAMAGE
    hurt = [position for position in keep if pattern.search(values[position] or "")]
    if damaged == "refuse" and len(hurt) > _TOLERATED_SHARE * len(keep):
        remedy = "mend them (a wrong task.encoding is the usual cause), or set task.damaged=keep or task.damaged=remove"
        refuse(table, column, hurt, "control or replacement characters", remedy)
    notes.rows_with_damage += len(hurt)
    texts = [values[position] or "" for position in keep]
    if damaged == "remove":
        texts = [_REMOVED.sub(" ", text) for text in texts]
    empty = [position for position, text in zip(keep, texts, strict=True) if not text.strip()]
    refuse(table, column, empty, "empty text", "fill or remove these rows")
    notes.texts_that_read_like_null += sum(text.strip().lower() in _NULL_WORDS for text in texts)
    return texts
