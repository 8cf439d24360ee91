"""What is done to rows between reading and tokenising: repeats, automatic splits, nested subsets, hashes. Floor 0.

Every choice is a pure function of the rows and of a generator; positions are 0-based row numbers of one split. NumPy
and pyarrow are imported inside the functions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headswap.errors import DataError

if TYPE_CHECKING:
    import datasets
    import numpy as np

Rows = dict[str, list[Any]]
"""Columns of one split by name."""


def take(rows: Rows, positions: Sequence[int] | np.ndarray) -> Rows:
    """Return the rows at `positions`, in that order."""
    chosen = [int(position) for position in positions]
    return {name: [values[position] for position in chosen] for name, values in rows.items()}


def normalised(columns: Sequence[Sequence[str]]) -> list[str]:
    """Return one key a row: lower case, white space collapsed, the columns joined."""
    parts = [[" ".join(text.lower().split()) for text in column] for column in columns]
    return ["\x1f".join(row) for row in zip(*parts, strict=True)]


def find_repeats(keys: Mapping[str, Sequence[str]]) -> tuple[dict[str, list[int]], dict[str, int]]:
    """Find inputs that stand in a later split, or again inside training.

    Args:
        keys: normalised inputs of train, validation and test (an absent split is an empty list).

    Returns:
        The positions of each split that stay when repeats are dropped (from training, then from validation; the first
        occurrence inside training stays), and counts by kind.
    """
    validation, test = set(keys["validation"]), set(keys["test"])
    seen: set[str] = set()
    stay: dict[str, list[int]] = {"train": [], "validation": [], "test": list(range(len(keys["test"])))}
    for position, key in enumerate(keys["train"]):
        if not (key in seen or key in validation or key in test):
            stay["train"].append(position)
        seen.add(key)
    stay["validation"] = [position for position, key in enumerate(keys["validation"]) if key not in test]
    return stay, {
        "inside_train": len(keys["train"]) - len(seen),
        "train_in_validation": sum(key in validation for key in keys["train"]),
        "train_in_test": sum(key in test for key in keys["train"]),
        "validation_in_test": len(keys["validation"]) - len(stay["validation"]),
    }


def count_conflicts(keys: Sequence[str], labels: Sequence[Any]) -> int:
    """Return how many different inputs carry more than one label."""
    first: dict[str, Any] = {}
    conflicting = {key for key, label in zip(keys, labels, strict=True) if first.setdefault(key, label) != label}
    return len(conflicting)


def stratified_order(labels: Sequence[Any], generator: np.random.Generator) -> np.ndarray:
    """Return all positions in a random order whose every prefix has the classes in nearly their true shares.

    Each class is shuffled and its j-th item placed at (j + 0.5) / size; the first items of all classes come first, so
    that no prefix with room for every class lacks one.
    """
    import numpy as np

    _, classes = np.unique(np.asarray(labels), return_inverse=True)
    rank = np.empty(len(classes))
    for index in range(classes.max() + 1 if len(classes) else 0):
        members = generator.permutation(np.flatnonzero(classes == index))
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
        rank[members[0]] -= 1.0
    return np.lexsort((generator.random(len(classes)), rank))


def automatic_split(
    labels: Sequence[Any], keys: Sequence[str], shares: Mapping[str, float], generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Cut one file into train and the splits of `shares`, stratified; rows of one key never part.

    Training takes the front of the stratified order: a class of a single row is learned rather than tested.
    """
    import numpy as np

    first = {key: position for position, key in reversed(list(enumerate(keys)))}
    heads = sorted(first.values())
    order = stratified_order([labels[position] for position in heads], generator)
    cuts = [round(share * len(heads)) for share in shares.values()]
    bounds = np.cumsum([len(heads) - sum(cuts), *cuts])[:-1]
    group_of = {keys[position]: number for number, position in enumerate(heads)}
    groups = np.asarray([group_of[key] for key in keys], dtype=np.int64)
    parts = np.split(order, bounds)
    return {name: np.flatnonzero(np.isin(groups, part)) for name, part in zip(("train", *shares), parts, strict=True)}


def subset(labels: Sequence[Any], count: int | None, generator: np.random.Generator, key: str) -> np.ndarray:
    """Return `count` positions, in file order: the first of one stratified order, so that subsets of one stream nest.

    Args:
        count: rows that are wanted, None for all.
        key: the configuration key that asked, for messages.
    """
    import numpy as np

    if count is None:
        return np.arange(len(labels))
    classes = len(set(labels))
    if count > len(labels):
        raise DataError(
            f"{key}: more rows asked than there are; asked {count}, found {len(labels)} after checks and splits; "
            f"set {len(labels)} or fewer, or null for all"
        )
    if count < classes:
        raise DataError(f"{key}: too few rows for {classes} labels; asked {count}; set {classes} or more")
    return np.sort(stratified_order(labels, generator)[:count])


def rows_hash(dataset: datasets.Dataset) -> str:
    """Return the sha256 of a dataset's columns and values, whatever file or indices it comes from."""
    import pyarrow as pa

    rows: Any = dataset.with_format("arrow")[:]
    table = rows.replace_schema_metadata(None).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return hashlib.sha256(sink.getvalue()).hexdigest()
