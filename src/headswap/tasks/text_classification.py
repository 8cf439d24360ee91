"""Label a text, or a pair of texts: csv, tsv, jsonl, parquet or a hub id in, checked splits out. Floor 1.

    load: tables -> checked rows -> repeats dropped -> automatic splits -> labels -> nested subsets -> Splits
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headswap import rows as cut
from headswap.contracts import SPLITS, DataRequest, Labels, LossFunction, Splits
from headswap.errors import ConfigError, DataError, nearest
from headswap.rows import Rows
from headswap.seeds import Seeds
from headswap.sources import Reading, Table, digest, is_hub_id, read, read_hub
from headswap.tasks.text_classification_fields import faults

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

_REMOVED = re.compile(r"[^\x20-\x7e\t\n]+")
_DAMAGE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")
_NULL_WORDS = {"na", "n/a", "nan", "null", "none"}


@dataclass(frozen=True)
class TextClassification:
    """Learn `label` from one text column, or from two that form a pair.

    Args:
        text: the text column, or the two columns of a pair.
        label: the label column; numbers when `problem` is regression.
        problem: single_label_classification or regression.
        id: a column of unique names of the rows; None uses the row's number in its file.
        source: one path, glob, `package:<distribution>/<path>` or hub id; a file is split by `validation_share` and
            `test_share`, stratified, seeded by data.split_seed; a hub id's own splits are used where it has them.
        train: paths or globs of given splits; a validation or test that is not given is cut from train.
        hub_name: configuration of the hub's dataset, such as sst2 of glue.
        revision: commit or tag of the hub's dataset.
        hub_splits: our split -> the hub's, such as {validation: validation_matched}; an empty name cuts it from train.
        labels: names in the order of the head's outputs; None sorts the names that training holds.
        label_map: raw value -> name, compared as text (1 and 1.0 both read "1").
        drop_other_labels: drop rows whose label is not among `labels`, rather than stop.
        sha256: pin of the source.
        quotes: false when `"` is an ordinary character, as in GLUE's tsv files.
        damaged: what to do about control and replacement characters: refuse, keep, or remove (every run of non-ASCII
            and control characters becomes a space: for text that a wrong decoding has destroyed).
        class_weights: None, balanced (rows / (classes x rows of the class)), or a weight for every label name.
        label_smoothing: share of the target spread over all labels.
    """

    text: list[str]
    label: str = "label"
    problem: str = "single_label_classification"
    id: str | None = None
    source: str | None = None
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    validation_share: float = 0.1
    test_share: float = 0.1
    hub_name: str | None = None
    revision: str | None = None
    hub_splits: dict[str, str] = field(default_factory=dict)
    labels: list[str] | None = None
    label_map: dict[str, str] = field(default_factory=dict)
    drop_other_labels: bool = False
    sha256: str | None = None
    encoding: str = "utf-8"
    delimiter: str | None = None
    quotes: bool = True
    damaged: str = "refuse"
    class_weights: Any = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        found = list(faults(self))
        if found:
            raise ConfigError("\n".join(found))

    @property
    def auto_class(self) -> str:
        return "AutoModelForSequenceClassification"

    @property
    def regression(self) -> bool:
        return self.problem == "regression"

    def identity(self) -> dict[str, str]:
        if self.source and is_hub_id(self.source):
            return {self.source: self.revision or "unpinned"}
        return {source: digest(source) for source in sorted(set(self._given().values()))}

    # ---- load -------------------------------------------------------------------------------------------------------
    def load(self, request: DataRequest, seeds: Seeds) -> Splits:
        notes: dict[str, Any] = {"rows_read": {}, "rows_with_damage": 0, "texts_that_read_like_null": 0}
        parts = {split: self._checked(tables, split, notes) for split, tables in self._tables().items()}
        parts = self._cut(self._without_repeats(parts, request, notes), request, notes)
        labels = self._labels(parts)
        streams = {
            "train": seeds.generator("subset", "train"),
            "validation": seeds.generator("subset", "validation"),
            "test": Seeds(request.split_seed).generator("subset", "test"),
        }
        for split in SPLITS:
            count, strata = getattr(request, f"{split}_rows"), self._strata(parts[split])
            chosen = cut.subset(strata, count, streams[split], f"data.{split}_rows")
            parts[split] = cut.take(parts[split], chosen)
        return self._splits(parts, labels, notes)

    def _given(self) -> dict[str, str]:
        """Return the configured sources by split; a single source stands as train."""
        given = {"train": self.source or self.train, "validation": self.validation, "test": self.test}
        return {split: source for split, source in given.items() if source}

    def _tables(self) -> dict[str, list[Table]]:
        reading = Reading(
            (*self.text, self.label, *([self.id] if self.id else [])), self.encoding, self.delimiter, self.quotes
        )
        if self.source and is_hub_id(self.source):
            return self._hub_tables(reading)
        if self.sha256 and self.source and digest(self.source) != self.sha256:
            raise DataError(
                f"{self.source}: not the pinned content; found sha256 {digest(self.source)}, expected {self.sha256}; "
                f"fetch the file again, or correct task.sha256"
            )
        return {split: read(source, reading) for split, source in self._given().items()}

    def _hub_tables(self, reading: Reading) -> dict[str, list[Table]]:
        found = read_hub(str(self.source), self.hub_name, self.revision, reading)
        for split, name in {"train": "train", **self.hub_splits}.items():
            if name and name not in found:
                raise DataError(
                    f"{self.source}: no split {name!r}{nearest(name, found)}; found {', '.join(found)}; "
                    f"set task.hub_splits={{{split}: ...}}"
                )
        names = {split: self.hub_splits.get(split, split) for split in SPLITS}
        return {split: [found[name]] for split, name in names.items() if name in found}

    # ---- rows -------------------------------------------------------------------------------------------------------
    def _checked(self, tables: Sequence[Table], split: str, notes: dict[str, Any]) -> Rows:
        """Return the rows of one split: id, texts, label (name, or number for regression)."""
        rows: Rows = {name: [] for name in ("id", *self.text, "label")}
        for table in tables:
            labels, keep = self._numbers(table) if self.regression else self._names(table)
            rows["label"] += [labels[position] for position in keep]
            for column in self.text:
                rows[column] += self._texts(table, column, keep, notes)
            names = self._ids(table)
            prefix = f"{table.name}:" if len(tables) > 1 and not self.id else ""
            rows["id"] += [prefix + names[position] for position in keep]
        notes["rows_read"][split] = sum(table.row_count for table in tables)
        repeated = [name for name, count in Counter(rows["id"]).items() if count > 1]
        if repeated:
            raise DataError(
                f"{tables[0].name}: ids are not unique in {self.id!r}; found {len(repeated)} repeated, such as "
                f"{repeated[0]!r}; name a unique column in task.id, or set task.id=null for row numbers"
            )
        return rows

    def _ids(self, table: Table) -> list[str]:
        if self.id is None:
            return [str(position + 1) for position in range(table.row_count)]
        values = table.text(self.id)
        _refuse(table, self.id, [n for n, value in enumerate(values) if not value], "empty id", "set task.id=null")
        return [str(value) for value in values]

    def _names(self, table: Table) -> tuple[list[str], list[int]]:
        """Return the label names of a table, and the positions of the rows to keep."""
        values = [(value or "").strip() for value in table.text(self.label)]
        empty = [position for position, value in enumerate(values) if not value]
        _refuse(
            table, self.label, empty, "empty or null label", "label or remove these rows (a hub's hidden test: set "
            "task.hub_splits={test: ''} to cut one from train)",
        )  # fmt: skip
        mapping = {str(raw): name for raw, name in self.label_map.items()}
        names = [mapping.get(value, value) for value in values]
        known = set(self.labels or mapping.values()) or set(names)
        other = [position for position, name in enumerate(names) if name not in known]
        if not self.drop_other_labels:
            said = ", ".join(sorted({repr(names[position]) for position in other})[:5])
            remedy = f"labels are {', '.join(sorted(known))}: correct task.labels or task.label_map, or set "
            _refuse(table, self.label, other, f"unlisted label {said}", remedy + "task.drop_other_labels=true")
        dropped = set(other)
        return names, [position for position in range(len(names)) if position not in dropped]

    def _numbers(self, table: Table) -> tuple[list[float], list[int]]:
        numbers, wrong = [], []
        for position, value in enumerate(table.text(self.label)):
            try:
                numbers.append(float(value or "nan"))
            except ValueError:
                numbers.append(float("nan"))
            if not abs(numbers[-1]) < float("inf"):
                wrong.append(position)
        _refuse(table, self.label, wrong, "not a number", "correct or remove these rows")
        return numbers, list(range(len(numbers)))

    def _texts(self, table: Table, column: str, keep: Sequence[int], notes: dict[str, Any]) -> list[str]:
        values = table.text(column)
        if self.damaged == "refuse":
            hurt = [position for position in keep if _DAMAGE.search(values[position] or "")]
            remedy = "mend them (a wrong task.encoding is the usual cause), or set task.damaged=keep or remove"
            _refuse(table, column, hurt, "control or replacement characters", remedy)
        pattern = _REMOVED if self.damaged == "remove" else _DAMAGE
        notes["rows_with_damage"] += sum(bool(pattern.search(values[position] or "")) for position in keep)
        if self.damaged == "remove":
            values = [_REMOVED.sub(" ", value or "") for value in values]
        empty = [position for position in keep if not (values[position] or "").strip()]
        _refuse(table, column, empty, "empty text", "fill or remove these rows")
        texts = [str(values[position]) for position in keep]
        notes["texts_that_read_like_null"] += sum(text.strip().lower() in _NULL_WORDS for text in texts)
        return texts

    def _strata(self, rows: Rows) -> list[Any]:
        return [0] * len(rows["label"]) if self.regression else rows["label"]

    # ---- splits -----------------------------------------------------------------------------------------------------
    def _without_repeats(self, parts: dict[str, Rows], request: DataRequest, notes: dict[str, Any]) -> dict[str, Rows]:
        keys = {split: self._keys(parts[split]) if split in parts else [] for split in SPLITS}
        stay, counts = cut.find_repeats(keys)
        together = [label for split in SPLITS if split in parts for label in parts[split]["label"]]
        notes["repeats"] = counts
        notes["texts_with_conflicting_labels"] = cut.count_conflicts(sum(keys.values(), []), together)
        notes["rows_dropped_as_repeats"] = dict.fromkeys(parts, 0)
        if not request.drop_duplicates:
            return parts
        for split in parts:
            notes["rows_dropped_as_repeats"][split] = len(keys[split]) - len(stay[split])
        return {split: cut.take(rows, stay[split]) for split, rows in parts.items()}

    def _keys(self, rows: Rows) -> list[str]:
        return cut.normalised([rows[column] for column in self.text])

    def _cut(self, parts: dict[str, Rows], request: DataRequest, notes: dict[str, Any]) -> dict[str, Rows]:
        """Cut the splits that are not given from train."""
        shares = {"validation": self.validation_share, "test": self.test_share}
        missing = {split: share for split, share in shares.items() if split not in parts}
        notes["splits_cut_from_train"] = list(missing)
        if not missing:
            return parts
        train, generator = parts["train"], Seeds(request.split_seed).generator("split")
        pieces = cut.automatic_split(self._strata(train), self._keys(train), missing, generator)
        return {**parts, **{split: cut.take(train, positions) for split, positions in pieces.items()}}

    def _labels(self, parts: Mapping[str, Rows]) -> Labels:
        where = self._given()
        for split in SPLITS:
            if not parts[split]["label"]:
                raise DataError(
                    f"{where.get(split, where['train'])}: no rows are left for {split}; found none after checks and "
                    f"repeats; give more rows, or set data.drop_duplicates=false"
                )
        if self.regression:
            return Labels((self.label,), "regression")
        found = Counter(parts["train"]["label"])
        names = self.labels or sorted(found, key=lambda name: (not name.isdecimal(), name.zfill(20), name))
        if len(found) == 1:
            raise DataError(
                f"{where['train']}: one class only; found {next(iter(found))!r} in all {found.total()} training rows; "
                f"give rows of at least two labels, or check task.label"
            )
        for name in names:
            if name not in found:
                raise DataError(
                    f"task.labels: no training row has the label {name!r}{nearest(name, found)}; found "
                    f"{', '.join(sorted(found))}; correct task.labels or task.label_map"
                )
        for split in ("validation", "test"):
            self._refuse_unlearned(where.get(split, where["train"]), split, parts[split], found)
        return Labels(tuple(names))

    def _refuse_unlearned(self, source: str, split: str, rows: Rows, known: Mapping[str, int]) -> None:
        other = [position for position, name in enumerate(rows["label"]) if name not in known]
        if other:
            said = ", ".join(sorted({repr(rows["label"][position]) for position in other})[:5])
            raise DataError(
                f"{source}: {split} has labels in column {self.label!r} that training lacks; found {said} in "
                f"{len(other)} rows (ids {', '.join(rows['id'][position] for position in other[:3])}); add training "
                f"rows, or set task.labels with task.drop_other_labels=true"
            )

    def _splits(self, parts: Mapping[str, Rows], labels: Labels, notes: dict[str, Any]) -> Splits:
        import hashlib

        import datasets
