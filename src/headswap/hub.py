"""Read a dataset of the Hugging Face hub as tables. Floor 0; `datasets` is imported inside, remote code never runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headswap.contracts import SPLITS
from headswap.errors import DataError, nearest
from headswap.sources import Reading, Table, filled, require


@dataclass(frozen=True)
class Hub:
    """A dataset on the hub.

    Args:
        source: its id, `name` or `owner/name`.
        name: its configuration, such as sst2 of glue.
        revision: commit or tag.
        splits: our split -> the hub's name, where they differ; an empty name leaves the split out.
    """

    source: str
    name: str | None
    revision: str | None
    splits: Mapping[str, str]


def read_hub(hub: Hub, reading: Reading) -> dict[str, Table]:
    """Return our splits that the dataset has; named classes come as their names, hidden labels (-1) as None.

    Raises:
        DataError: the dataset cannot be loaded, or lacks a split or a column that was named.
    """
    import datasets

    try:
        found = dict(datasets.load_dataset(hub.source, hub.name, revision=hub.revision))
    except Exception as error:
        said = (str(error).splitlines() or [""])[0]
        raise DataError(
            f"{hub.source}: cannot be loaded from the hub, and no such file is here; found {type(error).__name__}: "
            f"{said}; correct task.source, task.hub_name or task.revision, or go online"
        ) from error
    tables = {}
    for split in SPLITS:
        name = hub.splits.get(split, split)
        if name in found:
            tables[split] = _table(f"{hub.source} ({name})", found[name], reading)
        elif name and (split in hub.splits or split == "train"):
            raise DataError(
                f"{hub.source}: no split {name!r}{nearest(name, map(str, found))}; found {', '.join(map(str, found))}; "
                f"set task.hub_splits={{{split}: ...}} to one of them"
            )
    return tables


def _table(name: str, rows: Any, reading: Reading) -> Table:
    require(name, reading.columns, list(rows.column_names), f"{reading.remedy} its columns")
    columns = rows.select_columns(list(reading.columns)).with_format(None)[:]
    for column in reading.columns:
        feature = rows.features[column]
        classes = getattr(getattr(feature, "feature", feature), "names", None)  # of a list: its items'
        if classes:
            columns[column] = [_named(value, classes) for value in columns[column]]
    return filled(Table(name, columns))


def _named(value: Any, classes: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_named(item, classes) for item in value]
    return None if value in (None, -1) else classes[value]
