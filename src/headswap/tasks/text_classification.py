"""Label a text, or a pair of texts: csv, tsv, jsonl, parquet or a hub id in, checked splits out. Floor 1.

load: tables -> checked rows -> repeats dropped -> missing splits cut -> labels -> nested subsets -> Splits
"""

from __future__ import annotations

import codecs
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from headswap import rows as cut
from headswap.checks import Columns, Notes, checked_rows, label_names
from headswap.contracts import SPLITS, DataRequest, Labels, LossFunction, Splits
from headswap.errors import ConfigError, DataError
from headswap.hub import Hub, read_hub
from headswap.losses import CrossEntropy, SquaredError, class_weights
from headswap.rows import Rows
from headswap.seeds import Seeds
from headswap.sources import Reading, Table, digest, is_hub_id, read

if TYPE_CHECKING:
    import datasets
    import numpy as np
    from transformers import PreTrainedTokenizerBase

_CHOICES = {
    "problem": ("single_label_classification", "regression"),
    "damaged": ("refuse", "keep", "remove"),
}

Whole = tuple[dict[str, Rows], Labels, dict[str, Any]]

# The rows last loaded, kept for the next run: a study's children inherit them from the warm server (warm.py).
_WHOLE: dict[tuple, Whole] = {}


@dataclass(frozen=True)
class TextClassification:
    """Learn `label` from one text column, or from two that form a pair.

    Args:
        text: the text column, or the two columns of a pair.
        label: the label column; numbers when `problem` is regression.
        id: a column of unique row names; None uses the row's number in its file.
        source: one path, glob, `package:<distribution>/<path>` or hub id; a file is cut by `validation_share` and
            `test_share`, stratified, seeded by data.split_seed; a hub id's own splits are used where it has them.
        train: path or glob of a given split; a validation or test that is not given is cut from train.
        hub_name: the configuration of a hub dataset, such as sst2 of glue; `revision` its commit or tag.
        hub_splits: split -> the hub's name for it, {validation: validation_matched}; an empty name: cut from train.
        labels: names in the order of the head's outputs; None takes the sorted names of training.
        label_map: raw value -> name, compared as text (1 and 1.0 both read "1").
        drop_other_labels: drop rows whose label is not listed, rather than stop.
        sha256: pin of the source's bytes.
        quotes: false where `"` is an ordinary character, as in GLUE's tsv files.
        damaged: control and replacement characters: refuse a file with more than 1 % of such rows, keep, or remove
            (each run of non-ASCII and control characters becomes a space: for what a wrong decoding has destroyed).
        class_weights: None, "balanced" (rows / (classes x rows of the class)), or a weight for every label name.
        label_smoothing: share of the target that is spread over all labels.
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
    hub_splits: dict[str, str] | None = None
    labels: list[str] | None = None
    label_map: dict[str, str] | None = None
    drop_other_labels: bool = False
    sha256: str | None = None
    encoding: str = "utf-8"
    delimiter: str | None = None
    quotes: bool = True
    damaged: str = "refuse"
    class_weights: Any = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        found = [*_source_faults(self), *_column_faults(self), *_loss_faults(self)]
        if found:
            raise ConfigError("\n".join(f"task.{fault}" for fault in found))

    @property
    def auto_class(self) -> str:
        return "AutoModelForSequenceClassification"

    def identity(self) -> dict[str, str]:
        if self.source and is_hub_id(self.source):
            return {self.source: self.revision or "unpinned"}
        return {source: digest(source) for source in sorted(set(self._given().values()))}

    def load(self, request: DataRequest, seeds: Seeds) -> Splits:
        key = (repr(self), request.split_seed, request.drop_duplicates, str(self.identity()))
        if key not in _WHOLE:
            whole = self._whole(request)
            _WHOLE.clear()
            _WHOLE[key] = whole
        parts, labels, told = _WHOLE[key]
        return self._splits(self._subsets(parts, request, seeds), labels, dict(told))

    def _whole(self, request: DataRequest) -> Whole:
        """Read, check and split all rows: what the runs of a study share, whatever their seed and size."""
        notes = Notes()
        columns = Columns(
            self.text, self.label, self.id, self.problem == "regression",
            self.labels, self.label_map or {}, self.drop_other_labels, self.damaged,
        )  # fmt: skip
        parts = {split: checked_rows(tables, split, columns, notes) for split, tables in self._tables().items()}
        parts, repeats = self._without_repeats(parts, request.drop_duplicates)
        told = {**asdict(notes), **repeats, "splits_cut_from_train": [split for split in SPLITS if split not in parts]}
        parts = self._cut_missing(parts, request.split_seed)
        return parts, self._labels(parts), told

    def encode(self, rows: Mapping[str, list], tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, list]:
        first, second = list(rows[self.text[0]]), list(rows[self.text[1]]) if len(self.text) == 2 else None
        types = second is not None and "token_type_ids" in tokenizer.model_input_names
        options: dict[str, Any] = {"return_attention_mask": False, "return_token_type_ids": types, "verbose": False}
        encoded = tokenizer(first, second, truncation=True, max_length=max_length, padding=False, **options)
        columns = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
        if encoded.encodings is not None:  # the Rust tokenizers keep what they cut off
            return {**columns, "truncated": [bool(item.overflowing) for item in encoded.encodings]}
        whole = tokenizer(first, second, truncation=False, **options)["input_ids"]
        cut_off = [len(full) > len(kept) for full, kept in zip(whole, columns["input_ids"], strict=True)]
        return {**columns, "truncated": cut_off}

    def loss(self, splits: Splits) -> LossFunction:
        if self.problem == "regression":
            return SquaredError()
        weights = class_weights(self.class_weights, splits.labels.names, splits.train["label"])
        return CrossEntropy(weights, self.label_smoothing)

    def predict(self, logits: np.ndarray) -> np.ndarray:
        return logits[:, 0] if self.problem == "regression" else logits.argmax(axis=-1)

    # ---- steps of load ----------------------------------------------------------------------------------------------
    def _given(self) -> dict[str, str]:
        """Return the configured sources by split; a single source stands as train."""
        given = {"train": self.source or self.train, "validation": self.validation, "test": self.test}
        return {split: source for split, source in given.items() if source}

    def _tables(self) -> dict[str, list[Table]]:
        wanted = (*self.text, self.label, *([self.id] if self.id else []))
        reading = Reading(wanted, self.encoding, self.delimiter, self.quotes)
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
        return {split: read(source, reading) for split, source in self._given().items()}

    def _keys(self, rows: Rows) -> list[str]:
        return cut.normalised([rows[column] for column in self.text])

    def _strata(self, rows: Rows) -> list[Any]:
        return [0] * len(rows["label"]) if self.problem == "regression" else rows["label"]

    def _without_repeats(self, parts: dict[str, Rows], drop: bool) -> tuple[dict[str, Rows], dict[str, Any]]:
        keys = {split: self._keys(parts[split]) if split in parts else [] for split in SPLITS}
        stay, counts = cut.find_repeats(keys)
        labels = [label for split in SPLITS if split in parts for label in parts[split]["label"]]
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
        pieces = cut.automatic_split(self._strata(train), self._keys(train), missing, generator)
        return {**parts, **{split: cut.take(train, positions) for split, positions in pieces.items()}}

    def _labels(self, parts: Mapping[str, Rows]) -> Labels:
        given = self._given()
        where = {split: given.get(split, given["train"]) for split in SPLITS}
        for split in SPLITS:
            if not parts[split]["label"]:
                raise DataError(
                    f"{where[split]}: no rows are left for {split}; found none after checks, repeats and cuts; give "
                    f"more rows, a larger task.{split}_share, or data.drop_duplicates=false"
                )
        if self.problem == "regression":
            return Labels((self.label,), "regression")
        names = label_names(parts, self.labels, where)
        class_weights(self.class_weights, names, [])  # a wrong name is told now, not after the body is loaded
        return Labels(names)

    def _subsets(self, parts: Mapping[str, Rows], request: DataRequest, seeds: Seeds) -> dict[str, Rows]:
        drawn_by = {"train": seeds, "validation": seeds, "test": Seeds(request.split_seed)}
        chosen = {}
        for split, rows in parts.items():
            count, generator = getattr(request, f"{split}_rows"), drawn_by[split].generator("subset", split)
            chosen[split] = cut.take(rows, cut.subset(self._strata(rows), count, generator, f"data.{split}_rows"))
        return chosen

    def _splits(self, parts: Mapping[str, Rows], labels: Labels, told: dict[str, Any]) -> Splits:
        made = {split: self._dataset(parts[split], labels) for split in SPLITS}
        told["rows_used"] = {split: len(made[split]) for split in SPLITS}
        if labels.problem != "regression":
            counts = {split: Counter(parts[split]["label"]) for split in SPLITS}
            told["class_counts"] = {split: {name: counts[split][name] for name in labels.names} for split in SPLITS}
        content = "/".join((*labels.names, *(cut.rows_hash(made[split]) for split in SPLITS)))
        return Splits(**made, labels=labels, fingerprint=hashlib.sha256(content.encode()).hexdigest(), notes=told)

    def _dataset(self, rows: Rows, labels: Labels) -> datasets.Dataset:
        import datasets

        text = datasets.Value("string")
        kind = datasets.Value("float32" if labels.problem == "regression" else "int64")
        values = dict(rows)
        if labels.problem != "regression":
            number = {name: index for index, name in enumerate(labels.names)}
            values["label"] = [number[name] for name in rows["label"]]
        features = datasets.Features({name: kind if name == "label" else text for name in values})
        return datasets.Dataset.from_dict(values, features=features)


def _source_faults(task: TextClassification) -> Iterator[str]:
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
    try:
        codecs.lookup(task.encoding)
    except LookupError:
        yield f"encoding: unknown; found {task.encoding!r}; use one such as utf-8, cp1252, latin-1"
    if task.delimiter is not None and len(task.delimiter) != 1:
        yield f"delimiter: must be one character; found {task.delimiter!r}; set one such as ';'"


def _column_faults(task: TextClassification) -> Iterator[str]:
    columns = [*task.text, task.label, *([task.id] if task.id else [])]
    if len(task.text) not in (1, 2):
        yield f"text: must name one column, or two of a pair; found {len(task.text)}; set task.text=[COLUMN]"
    if len(set(columns)) != len(columns) or not all(columns):
        yield f"text: text, label and id must be different columns; found {', '.join(map(repr, columns))}; correct them"
    if {"id", "label"} & set(task.text):
        yield "text: the names id and label are taken; found one of them among the texts; rename that column"
    if task.labels is not None and (len(task.labels) < 2 or len(set(task.labels)) != len(task.labels)):
        yield f"labels: must be two different names or more; found {task.labels}; correct them, or set null"
    if task.drop_other_labels and not (task.labels or task.label_map):
        yield "drop_other_labels: needs the labels to keep; found no task.labels; set task.labels=[...]"
    for key, choices in _CHOICES.items():
        if getattr(task, key) not in choices:
            yield f"{key}: unknown choice; found {getattr(task, key)!r}; choose one of {', '.join(choices)}"


def _loss_faults(task: TextClassification) -> Iterator[str]:
    if not 0 <= task.label_smoothing < 1:
        yield f"label_smoothing: must lie in [0, 1); found {task.label_smoothing}; set a share such as 0.1"
    weights = task.class_weights
    if not (weights in (None, "balanced") or (isinstance(weights, Mapping) and all(map(_positive, weights.values())))):
        yield f"class_weights: must be null, balanced or {{name: weight above 0}}; found {weights!r}; correct it"
    if task.problem == "regression" and (task.labels or task.label_map or weights or task.label_smoothing):
        yield "problem: regression has no classes; found labels, label_map, class_weights or label_smoothing; drop them"


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0
