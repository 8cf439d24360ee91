"""What every task over tables shares: sources, splits, repeats, subsets, and the plain ways of a batch. Floor 0.

    load: tables -> checked() -> repeats dropped -> missing splits cut -> settled() -> nested subsets -> Splits

A task derives from `TableTask` (or `TextTask`, text_task.py), names its columns and says what a label is. Everything
else of the Task contract that most tasks do alike stands here, and a task that differs gives its own.
"""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from headswap import rows as cut
from headswap.answers import Labels, Observed
from headswap.checks import Notes
from headswap.contracts import SPLITS, Collator, DataRequest, Splits
from headswap.errors import ConfigError, DataError, shortly
from headswap.hub import Hub, read_hub
from headswap.rows import Rows
from headswap.seeds import Seeds
from headswap.sources import Reading, Table, digest, is_hub_id, read

if TYPE_CHECKING:
    import datasets
    import numpy as np
    import torch
    from transformers import PreTrainedTokenizerBase

UNKNOWN = "remove these rows, or correct their labels: the model has no output for them"
DAMAGED = ("refuse", "keep", "remove")

Whole = tuple[dict[str, Rows], Labels, dict[str, Any]]

# The rows last loaded, kept for the next run: a study's children inherit them from the warm server (warm.py).
_WHOLE: dict[tuple, Whole] = {}


@dataclass(frozen=True, kw_only=True)
class TableTask:
    """Labelled rows from one file, from given splits, or from the hub.

    Args:
        id: a column of unique row names; None uses the row's number in its file.
        source: one path, glob, `package:<distribution>/<path>` or hub id; a file is cut by `validation_share` and
            `test_share`, stratified, seeded by data.split_seed; a hub id's own splits are used where it has them.
        train: path or glob of a given split; a validation or test that is not given is cut from train.
        hub_name: the configuration of a hub dataset, such as sst2 of glue; `revision` its commit or tag.
        hub_splits: split -> the hub's name for it, {validation: validation_matched}; an empty name: cut from train.
        sha256: pin of the source's bytes.
        quotes: false where `"` is an ordinary character, as in GLUE's tsv files.
        damaged: control and replacement characters: refuse a file with more than 1 % of such rows, keep, or remove
            (each run of non-ASCII and control characters becomes a space: for what a wrong decoding has destroyed).
    """

    processor: ClassVar[str] = "AutoTokenizer"
    id: str | None = None
    source: str | None = None
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    validation_share: float = 0.1
    test_share: float = 0.1
    hub_name: str | None = None
    revision: str | None = None
    hub_splits: dict[str, str] | None = None
    sha256: str | None = None
    encoding: str = "utf-8"
    delimiter: str | None = None
    quotes: bool = True
    damaged: str = "refuse"

    def __post_init__(self) -> None:
        found = [*_source_faults(self), *_reading_faults(self), *self.faults()]
        if found:
            raise ConfigError("\n".join(f"task.{fault}" for fault in found))

    # What a task over tables must say.
    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that a prediction is made from."""
        raise NotImplementedError

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns that are learned."""
        raise NotImplementedError

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with the task's own fields, each as `field: fault; found; remedy`."""
        raise NotImplementedError

    def checked(self, tables: Sequence[Table], split: str, notes: Notes) -> Rows:
        """Return the rows of one split: `id`, the inputs and the targets under the names that encode() reads."""
        raise NotImplementedError

    def settled(self, parts: Mapping[str, Rows], where: Mapping[str, str]) -> Labels:
        """Return the labels, after comparing those of all splits; `where` is each split's source, for messages."""
        raise NotImplementedError

    def dataset(self, rows: Rows, labels: Labels) -> datasets.Dataset:
        """Return rows as Splits hold them: labels as output indices; `rows` may lack the targets."""
        raise NotImplementedError

    # What a task may say otherwise.
    def strata(self, rows: Rows) -> Sequence[Any]:
        """Return one value a row; splits and subsets keep their shares."""
        return [0] * len(rows["id"])

    def meanings(self, rows: Rows) -> Sequence[Any]:
        """Return what each row is labelled with: repeats of one text whose labels differ are counted."""
        return self.strata(rows)

    def keys(self, rows: Rows) -> list[str]:
        """Return one text a row by which repeats are found."""
        return cut.normalised([rows[column] for column in self.inputs])

    def cell(self, column: str, value: Any) -> Any:
        """Return an input of a prediction as encode() reads it.

        Raises:
            DataError: it is not what the column holds: here, text that is not empty.
        """
        if not isinstance(value, str):
            raise DataError(f"not a text; found {shortly(value)}; give a str")
        if not value.strip():
            raise DataError(f"empty text; found {shortly(value)}; fill or remove it")
        return value

    def file_cell(self, column: str, value: Any) -> Any:
        """Return a cell of a file likewise, cut as training cut it."""
        return self.cell(column, value)

    def counted(self, parts: Mapping[str, Rows], labels: Labels) -> dict[str, Any]:
        """Return notes about the rows that are used, such as class counts."""
        return {}

    def collator(self, tokenizer: PreTrainedTokenizerBase, seeds: Seeds) -> Collator | None:
        return None

    def forward(self, model: Any, batch: Mapping[str, torch.Tensor]) -> Any:
        return model(**model_inputs(batch))

    def observe(self, model: Any, batch: Mapping[str, torch.Tensor], output: Any) -> list[np.ndarray]:
        return list(output.logits.float().cpu().numpy())

    def calibrate(self, observed: Observed) -> dict[str, Any]:
        return {}

    # The rest is the same for all.
    def identity(self) -> dict[str, str]:
        if self.source and is_hub_id(self.source):
            return {self.source: self.revision or "unpinned"}
        return {source: digest(source) for source in sorted(set(self.given().values()))}

    def load(self, request: DataRequest, seeds: Seeds) -> Splits:
        key = (repr(self), request.split_seed, request.drop_duplicates, str(self.identity()))
        if key not in _WHOLE:
            whole = self._whole(request)
            _WHOLE.clear()
            _WHOLE[key] = whole
        parts, labels, told = _WHOLE[key]
        return self._splits(self._subsets(parts, request, seeds), labels, dict(told))

    def read(self, source: str, labels: Labels) -> datasets.Dataset:
        """Read new labelled rows for a model that knows `labels`; nothing is dropped or cut.

        Raises:
            DataError: a fault of the rows, or a label that the model does not know.
        """
        tables = read(source, self.reading())
        rows = self.checked(tables, "test", Notes())
        self.refuse_unknown(rows, labels, source)
        return self.dataset(rows, labels)

    def refuse_unknown(self, rows: Rows, labels: Labels, source: str) -> None:
        """Refuse labels that a trained model does not know."""

    def given(self) -> dict[str, str]:
        """Return the configured sources by split; a single source stands as train."""
        given = {"train": self.source or self.train, "validation": self.validation, "test": self.test}
        return {split: source for split, source in given.items() if source}

    def reading(self) -> Reading:
        """Return how the task's files are read."""
        wanted = (*self.inputs, *self.targets, *([self.id] if self.id else []))
        keys = tuple(f"task.{field.name}" for field in fields(self) if _names_any(getattr(self, field.name), wanted))
        keys = keys or ("the task's columns",)
        return Reading(tuple(dict.fromkeys(wanted)), self.encoding, self.delimiter, self.quotes, keys)

    def _whole(self, request: DataRequest) -> Whole:
        """Read, check and split all rows: what the runs of a study share, whatever their seed and size."""
        notes = Notes()
        parts = {split: self.checked(tables, split, notes) for split, tables in self._tables().items()}
        parts, repeats = self._without_repeats(parts, request.drop_duplicates)
        told = {**asdict(notes), **repeats, "splits_cut_from_train": [split for split in SPLITS if split not in parts]}
        parts = self._cut_missing(parts, request.split_seed)
        given = self.given()
        where = {split: given.get(split, given["train"]) for split in SPLITS}
        for split in SPLITS:
            if not parts[split]["id"]:
                raise DataError(
                    f"{where[split]}: no rows are left for {split}; found none after checks, repeats and cuts; give "
                    f"more rows, a larger task.{split}_share, or data.drop_duplicates=false"
                )
        return parts, self.settled(parts, where), told

    def _tables(self) -> dict[str, list[Table]]:
        reading = self.reading()
        if self.source and is_hub_id(self.source):
            hub = Hub(self.source, self.hub_name, self.revision, self.hub_splits or {})
            return {split: [table] for split, table in read_hub(hub, reading).items()}
        if self.source and self.sha256:
            found = digest(self.source)
            if found != self.sha256.lower():
                raise DataError(
                    f"{self.source}: not the pinned content; found sha256 {found}, expected {self.sha256}; fetch the "
                    f"file again, or set task.sha256 to what you trust"
                )
        return {split: read(source, reading) for split, source in self.given().items()}

    def _without_repeats(self, parts: dict[str, Rows], drop: bool) -> tuple[dict[str, Rows], dict[str, Any]]:
        keys = {split: self.keys(parts[split]) if split in parts else [] for split in SPLITS}
        stay, counts = cut.find_repeats(keys)
        labels = [str(label) for split in SPLITS if split in parts for label in self.meanings(parts[split])]
        conflicts = cut.count_conflicts([key for split in SPLITS for key in keys[split]], labels)
        dropped = {split: len(keys[split]) - len(stay[split]) if drop else 0 for split in parts}
        told = {"repeats": counts, "rows_dropped_as_repeats": dropped, "texts_with_conflicting_labels": conflicts}
        return ({split: cut.take(rows, stay[split]) for split, rows in parts.items()} if drop else parts), told

    def _cut_missing(self, parts: dict[str, Rows], split_seed: int) -> dict[str, Rows]:
        shares = {"validation": self.validation_share, "test": self.test_share}
        missing = {split: share for split, share in shares.items() if split not in parts}
        if not missing:
            return parts
        train, generator = parts["train"], Seeds(split_seed).generator("split")
        pieces = cut.automatic_split(self.strata(train), self.keys(train), missing, generator)
        return {**parts, **{split: cut.take(train, positions) for split, positions in pieces.items()}}

    def _subsets(self, parts: Mapping[str, Rows], request: DataRequest, seeds: Seeds) -> dict[str, Rows]:
        drawn_by = {"train": seeds, "validation": seeds, "test": Seeds(request.split_seed)}
        chosen = {}
        for split, rows in parts.items():
            count, generator = getattr(request, f"{split}_rows"), drawn_by[split].generator("subset", split)
            chosen[split] = cut.take(rows, cut.subset(self.strata(rows), count, generator, f"data.{split}_rows"))
        return chosen

    def _splits(self, parts: Mapping[str, Rows], labels: Labels, told: dict[str, Any]) -> Splits:
        made = {split: self.dataset(parts[split], labels) for split in SPLITS}
        told["rows_used"] = {split: len(made[split]) for split in SPLITS}
        told |= self.counted(parts, labels)
        content = "/".join((*labels.names, *(cut.rows_hash(made[split]) for split in SPLITS)))
        return Splits(**made, labels=labels, fingerprint=hashlib.sha256(content.encode()).hexdigest(), notes=told)


def model_inputs(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return what the model is given: all but the targets, whose names begin with `labels` or `target`."""
    return {name: tensor for name, tensor in batch.items() if not name.startswith(("labels", "target"))}


def _names_any(setting: Any, columns: Sequence[str]) -> bool:
    """Say whether a field's value is one of these columns, or a list with one of them."""
    return any(name in columns for name in (setting if isinstance(setting, list) else [setting]))


def _source_faults(task: TableTask) -> Iterator[str]:
    if not task.source and not task.train:
        yield "source: no data is named; found neither source nor train; set task.source=FILE, or task.train=FILE"
    for split in SPLITS:
        if task.source and getattr(task, split):
            yield f"source: source and given splits exclude one another; found {split} too; drop one of the two"
        if split != "train" and getattr(task, split) and not (task.train or task.source):
            yield f"{split}: needs a training split; found no train; set task.train"
        if split != "train" and not 0 < getattr(task, f"{split}_share") < 1:
            yield f"{split}_share: must lie in (0, 1); found {getattr(task, f'{split}_share')}; set a share such as 0.1"
    if task.validation_share + task.test_share >= 1:
        yield "validation_share: nothing is left for training; found shares that sum to 1 or more; lower them"
    if task.sha256 is not None and not (task.source and re.fullmatch(r"[0-9a-fA-F]{64}", task.sha256)):
        yield f"sha256: must be 64 hex digits of task.source; found {task.sha256!r}; see sha256sum FILE"
    if not task.source and (task.hub_name or task.revision or task.hub_splits):
        yield "hub_name: belongs to a hub id; found no task.source; set task.source=OWNER/NAME"
    for split in task.hub_splits or ():
        if split not in SPLITS:
            yield f"hub_splits: unknown split; found {split!r}; use {', '.join(SPLITS)}"


def _reading_faults(task: TableTask) -> Iterator[str]:
    try:
        codecs.lookup(task.encoding)
    except LookupError:
        yield f"encoding: unknown; found {task.encoding!r}; use one such as utf-8, cp1252, latin-1"
    if task.delimiter is not None and len(task.delimiter) != 1:
        yield f"delimiter: must be one character; found {task.delimiter!r}; set one such as ';'"
    if task.damaged not in DAMAGED:
        yield f"damaged: unknown choice; found {task.damaged!r}; choose one of {', '.join(DAMAGED)}"
