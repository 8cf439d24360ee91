"""A split as tokens: encoded once, kept in an Arrow cache, padded batch by batch. Floor 2.

    rows -> Task.encode -> Encoded (memory-mapped) -> collate(features) -> tensors

Nothing loops over tokens in Python.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from headswap.arrow_cache import cached
from headswap.contracts import SPLITS, Splits, Task
from headswap.errors import DataError
from headswap.losses import IGNORED
from headswap.rows import rows_hash

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CACHE_FORMAT = 2
_ROWS_AT_ONCE = 2000
_UNKNOWN_ROWS = 200
_OWN_COLUMNS = ("id", "example", "length", "truncated")


@dataclass(frozen=True)
class Padding:
    """What fills a batch: the value by column (0 where none is named), the side, and the width.

    Args:
        values: by column; a choice's column `input_ids/2` takes the value of `input_ids`.
        side: of the columns that go along with `input_ids`, token by token; the others are filled on the right.
        multiple: widths are rounded up to a multiple of it.
        width: a fixed width of `input_ids` instead of the longest row's; for benchmarks.
    """

    values: Mapping[str, int]
    side: str = "right"
    multiple: int = 1
    width: int | None = None


@dataclass(frozen=True)
class Encoded:
    """A tokenised split: examples, and the features that they were cut into; a feature is what a model is given.

    Args:
        ids: the examples' names.
        example: [features] the number of each feature's example, rising.
        lengths: [features] the tokens of the longest of its token columns.
        numbers: columns of one number a feature.
        columns: list columns; feature i holds `values[offsets[i]:offsets[i + 1]]` of `columns[name]`.
    """

    ids: tuple[str, ...]
    example: np.ndarray
    lengths: np.ndarray
    truncated: np.ndarray
    numbers: Mapping[str, np.ndarray]
    columns: Mapping[str, tuple[np.ndarray, np.ndarray]]
    padding: Padding

    def __len__(self) -> int:
        return len(self.example)

    @property
    def truncated_share(self) -> float:
        return float(self.truncated.mean())

    @functools.cached_property
    def input_tokens(self) -> np.ndarray:
        """Return [examples] the input tokens of each, after cutting: of all its features, and of all its choices."""
        widths = [np.diff(each[1]) for name, each in self.columns.items() if name.partition("/")[0] == "input_ids"]
        return np.bincount(self.example, np.sum(widths, axis=0), minlength=len(self.ids)).astype(np.int64)

    def column(self, name: str, feature: int) -> np.ndarray:
        """Return a list column of one feature as encode() gave it."""
        values, offsets = self.columns[name]
        return values[offsets[feature] : offsets[feature + 1]]

    def collate(self, features: np.ndarray) -> dict[str, torch.Tensor]:
        """Return features as tensors: numbers [features], list columns [features, width] padded to their longest.

        Each column named `input_ids` (or `input_ids/2`, a choice's) gives an `attention_mask` of its own.
        """
        batch = {name: torch.from_numpy(values[features]) for name, values in self.numbers.items()}
        for name, (values, offsets) in self.columns.items():
            lengths = offsets[features + 1] - offsets[features]
            kind, _, choice = name.partition("/")
            filled = self._filled(name, lengths)
            within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            width = np.float32 if values.dtype.kind == "f" else np.int64
            padded = np.full(filled.shape, self.padding.values.get(kind, 0), dtype=width)
            padded[filled] = values[np.repeat(offsets[features], lengths) + within]
            batch[name] = torch.from_numpy(padded)
            if kind == "input_ids":
                mask = f"attention_mask/{choice}" if choice else "attention_mask"
                batch[mask] = torch.from_numpy(filled.astype(np.int64))
        return batch

    def _filled(self, name: str, lengths: np.ndarray) -> np.ndarray:
        """Return a mask [features, width], True where a value stands."""
        along = name in self._along
        longest = int(lengths.max(initial=0))
        width = -(-longest // self.padding.multiple) * self.padding.multiple
        if along and self.padding.width is not None:
            width = self.padding.width
        return _filled_places(lengths, width, self.padding.side if along else "right")

    @functools.cached_property
    def _along(self) -> frozenset[str]:
        """The columns that go along with their `input_ids`, token by token."""
        return frozenset(
            name
            for name, (_, offsets) in self.columns.items()
            if np.array_equal(offsets, self.columns["/".join(["input_ids", *name.split("/")[1:]])][1])
        )


def _filled_places(lengths: np.ndarray, width: int, side: str) -> np.ndarray:
    """Return a mask [rows, width], True where a token stands."""
    if int(lengths.max(initial=0)) > width:
        raise DataError(f"data.max_length: a row is longer than the batch; found {lengths.max()} tokens for {width}")
    places = np.arange(width)
    return places >= (width - lengths)[:, None] if side == "left" else places < lengths[:, None]


def pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that fills batches: the tokenizer's own, or the end token for decoders that have none.

    The model's config must hold the same number: decoder classifiers find the last real token by it.
    """
    for found in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(found, int):
            return found
    raise DataError(
        f"body: the tokenizer can pad with nothing; found no pad and no end token in {type(tokenizer).__name__}; "
        f"save it with a pad_token, then name that folder in body.source"
    )


def tokenise(
    splits: Splits,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    cache: Path | None,
    known: str | None = None,
) -> dict[str, Encoded]:
    """Tokenise the three splits, or read them from the cache.

    Args:
        max_length: tokens a row is cut to, special tokens included.
        cache: folder of the Arrow files, None for none.
        known: the tokenizer's hash, where the caller has it.
    """
    padding = padding_of(tokenizer)
    how = f"{CACHE_FORMAT}/{known or tokenizer_hash(tokenizer)}/{max_length}/{task!r}"
    encoded = {}
    for split in SPLITS:
        rows = splits.of(split)
        make = functools.partial(_encode, rows, task, tokenizer, max_length)
        if cache is None:
            batch = make()
        else:
            key = hashlib.sha256(f"{how}/{rows_hash(rows)}".encode()).hexdigest()
            batch = cached(cache / f"{key[:32]}.arrow", make)
        encoded[split] = _from_arrow(batch, padding)
    return encoded


def padding_of(tokenizer: PreTrainedTokenizerBase) -> Padding:
    """Return what fills batches: the tokenizer's own, and -100 under labels, which no loss counts."""
    values = {"input_ids": pad_token_id(tokenizer), "token_type_ids": tokenizer.pad_token_type_id, "labels": IGNORED}
    return Padding(values, tokenizer.padding_side)


def encode_rows(rows: Mapping[str, Any], task: Task, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    """Tokenise rows that are in memory, without a cache: those of a prediction."""
    return _from_arrow(_encode(rows, task, tokenizer, max_length), padding_of(tokenizer))


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the sha256 of everything that decides how the tokenizer cuts text.

    A fast tokenizer's own text also holds the truncation and padding of its last call, which must not count.
    """
    about: list[Any] = [type(tokenizer).__qualname__, tokenizer.model_input_names, tokenizer.truncation_side]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        content = json.loads(backend.to_str())
        about.append({name: value for name, value in content.items() if name not in ("truncation", "padding")})
    else:
        about += [tokenizer.get_vocab(), tokenizer.special_tokens_map, tokenizer.init_kwargs]
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()


def _encode(rows: Any, task: Task, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.RecordBatch:
    """Return the features of a split: example, length, truncated and the task's columns; ids stand beside examples."""
    count = len(rows["id"])
    pieces: dict[str, list[Any]] = {}
    for start in range(0, count, _ROWS_AT_ONCE):
        found = task.encode(_part(rows, start, start + _ROWS_AT_ONCE), tokenizer, max_length)
        found["example"] = [start + number for number in found.get("example", range(len(found["truncated"])))]
        for name, values in found.items():
            pieces.setdefault(name, []).append(pa.array(values, _kind(values)))
    columns = {name: pa.concat_arrays(values) for name, values in pieces.items()}
    tokens = [np.diff(each.offsets.to_numpy()) for each in columns.values() if each.type == pa.large_list(pa.int32())]
    columns["length"] = pa.array(np.max(tokens, axis=0).astype(np.int32))
    batch = pa.RecordBatch.from_pydict(columns)
    return batch.replace_schema_metadata({"ids": json.dumps(list(rows["id"]))})


def _part(rows: Any, start: int, stop: int) -> Mapping[str, list]:
    if isinstance(rows, Mapping):
        return {name: list(values[start:stop]) for name, values in rows.items()}
    return rows[start:stop]


def _kind(values: list[Any]) -> pa.DataType:
    """Return the Arrow type of a column: numbers as models take them, tokens in 32 bits."""
    inside = next((item for value in values if isinstance(value, list | tuple) for item in value), None)
    if values and isinstance(values[0], list | tuple):
        return pa.large_list(pa.float32() if isinstance(inside, float) else pa.int32())
    first = values[0] if values else 0
    return pa.bool_() if isinstance(first, bool) else pa.float32() if isinstance(first, float) else pa.int64()


def _from_arrow(batch: pa.RecordBatch, padding: Padding) -> Encoded:
    column = {name: batch.column(name) for name in batch.schema.names}
    own = {name: values for name, values in column.items() if name not in _OWN_COLUMNS}
    lists = {name: values for name, values in own.items() if pa.types.is_large_list(values.type)}
    return Encoded(
        ids=tuple(json.loads(batch.schema.metadata[b"ids"])),
        example=column["example"].to_numpy(),
        lengths=column["length"].to_numpy(),
        truncated=column["truncated"].to_numpy(zero_copy_only=False),
        numbers={name: values.to_numpy() for name, values in own.items() if name not in lists},
        columns={name: (values.values.to_numpy(), values.offsets.to_numpy()) for name, values in lists.items()},
        padding=padding,
    )


def unknown_share(encoded: Encoded, tokenizer: PreTrainedTokenizerBase) -> float:
    """Return the share of unknown tokens in the first 200 features; 0 for tokenizers to which no text is unknown."""
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in (tokenizer.eos_token_id, tokenizer.pad_token_id):  # GPT-2 names its end so
        return 0.0
    parts = [each for name, each in encoded.columns.items() if name.partition("/")[0] == "input_ids"]
    tokens = np.concatenate([values[: offsets[min(_UNKNOWN_ROWS, len(encoded))]] for values, offsets in parts])
    return float((tokens == unknown).mean())
