"""From checked rows to batches: tokenise once, keep it in an Arrow cache, pad each batch to its longest row. Floor 2.

    Splits -> tokenise() -> Encoded per split (memory-mapped) -> Batches: order per epoch, collate

The order of an epoch is a pure function of (seed, epoch). Nothing loops over tokens in Python.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from headswap.arrow_cache import cached
from headswap.contracts import SPLITS, Splits, Task
from headswap.errors import DataError
from headswap.rows import rows_hash
from headswap.seeds import Seeds
from headswap.spine import Config

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

CACHE_FORMAT = 1
_ROWS_AT_ONCE = 2000
_UNKNOWN_ROWS = 200
_ROW_COLUMNS = ("id", "label", "length", "truncated")


@dataclass(frozen=True)
class Padding:
    """What fills a batch: the value by column (0 where none is named), the side, and the width.

    Args:
        multiple: widths are rounded up to a multiple of it.
        width: a fixed width instead of the longest row's; for benchmarks.
    """

    values: Mapping[str, int]
    side: str = "right"
    multiple: int = 1
    width: int | None = None


@dataclass(frozen=True)
class Encoded:
    """A tokenised split. Column `name` of row i is `values[offsets[i]:offsets[i + 1]]` of `columns[name]`."""

    ids: tuple[str, ...]
    labels: np.ndarray
    lengths: np.ndarray
    truncated: np.ndarray
    columns: Mapping[str, tuple[np.ndarray, np.ndarray]]
    padding: Padding

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def truncated_share(self) -> float:
        return float(self.truncated.mean())

    def collate(self, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the rows as tensors [rows, width]: the list columns padded, `attention_mask`, and `labels` [rows]."""
        lengths = self.lengths[indices].astype(np.int64)
        filled = _filled_places(lengths, self._width(int(lengths.max())), self.padding.side)
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        batch = {}
        for name, (values, offsets) in self.columns.items():
            padded = np.full(filled.shape, self.padding.values.get(name, 0), dtype=np.int64)
            padded[filled] = values[np.repeat(offsets[indices], lengths) + within]
            batch[name] = torch.from_numpy(padded)
        batch["attention_mask"] = torch.from_numpy(filled.astype(np.int64))
        batch["labels"] = torch.from_numpy(self.labels[indices])
        return batch

    def _width(self, longest: int) -> int:
        if self.padding.width is not None:
            return self.padding.width
        return -(-longest // self.padding.multiple) * self.padding.multiple


def _filled_places(lengths: np.ndarray, width: int, side: str) -> np.ndarray:
    """Return a mask [rows, width], True where a token stands."""
    if int(lengths.max()) > width:
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
    splits: Splits, task: Task, tokenizer: PreTrainedTokenizerBase, max_length: int, cache: Path | None
) -> dict[str, Encoded]:
    """Tokenise the three splits, or read them from the cache.

    Args:
        max_length: tokens a row is cut to, special tokens included.
        cache: folder of the Arrow files, None for none.
    """
    padding = Padding(
        {"input_ids": pad_token_id(tokenizer), "token_type_ids": tokenizer.pad_token_type_id}, tokenizer.padding_side
    )
    how = (
        f"{CACHE_FORMAT}/{tokenizer_hash(tokenizer)}/{max_length}/{type(task).__qualname__}/{getattr(task, 'text', '')}"
    )
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


def _encode(rows: datasets.Dataset, task: Task, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.RecordBatch:
    """Return id, label, length, truncated and the list columns of a split."""
    pieces: dict[str, list[Any]] = {}
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        for name, values in task.encode(rows[start : start + _ROWS_AT_ONCE], tokenizer, max_length).items():
            kind = pa.bool_() if name == "truncated" else pa.large_list(pa.int32())
            pieces.setdefault(name, []).append(pa.array(values, kind))
    columns = {name: pa.concat_arrays(values) for name, values in pieces.items()}
    labels = np.asarray(rows["label"])
    columns |= {
        "id": pa.array(rows["id"], pa.large_string()),
        "label": pa.array(labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64)),
        "length": pa.array(np.diff(columns["input_ids"].offsets.to_numpy()).astype(np.int32)),
    }
    return pa.RecordBatch.from_pydict(columns)


def _from_arrow(batch: pa.RecordBatch, padding: Padding) -> Encoded:
    column = {name: batch.column(name) for name in batch.schema.names}
    lists = {
        name: (values.values.to_numpy(), values.offsets.to_numpy())
        for name, values in column.items()
        if name not in _ROW_COLUMNS
    }
    return Encoded(
        ids=tuple(column["id"].to_pylist()),
        labels=column["label"].to_numpy(),
        lengths=column["length"].to_numpy(),
        truncated=column["truncated"].to_numpy(zero_copy_only=False),
        columns=lists,
        padding=padding,
    )


def order(
    lengths: np.ndarray, batch_size: int, generator: np.random.Generator, bucket: bool = True
) -> list[np.ndarray]:
    """Return the batches of one epoch, one an optimizer step; every index stands in exactly one.

    Args:
        batch_size: rows of a batch; the one that is left over is shorter.
        bucket: sort by length inside stretches of up to 50 batches, so that a batch holds rows of like length. A small
            set has at least 4 stretches: sorted as one, its epochs would all hold nearly the same batches.
    """
    shuffled = generator.permutation(len(lengths))
    if not bucket:
        return _cut(shuffled, batch_size)
    batches = []
    stretch_size = batch_size * max(1, min(50, len(lengths) // (4 * batch_size)))
    for stretch in _cut(shuffled, stretch_size):
        batches += _cut(stretch[np.argsort(-lengths[stretch], kind="stable")], batch_size)
    return [batches[position] for position in generator.permutation(len(batches))]


def evaluation_batches(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Return all indices once, longest rows first: memory runs out at once or never."""
    return _cut(np.argsort(-lengths, kind="stable"), batch_size)


def _cut(indices: np.ndarray, size: int) -> list[np.ndarray]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


@dataclass(frozen=True)
class Batches:
    """The encoded splits and the order they are served in.

    Args:
        batch_size: rows of an optimizer step; `evaluation_size` those of a forward pass in evaluation.
        seeds: gives the stream `order` of each epoch.
        unknown: split -> share of unknown tokens in its first 200 rows.
    """

    encoded: Mapping[str, Encoded]
    batch_size: int
    evaluation_size: int
    seeds: Seeds
    bucket: bool = True
    unknown: Mapping[str, float] = field(default_factory=dict)
    _epochs: dict[int, list[np.ndarray]] = field(default_factory=dict, repr=False, compare=False)

    def of(self, split: str) -> Encoded:
        return self.encoded[split]

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.of("train")) // self.batch_size)

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """Return the batches of an epoch; the last one asked for is kept, since the loop asks at every step."""
        if epoch not in self._epochs:
            generator = self.seeds.generator("order", epoch)
            self._epochs.clear()
            self._epochs[epoch] = order(self.of("train").lengths, self.batch_size, generator, self.bucket)
        return self._epochs[epoch]

    def evaluation(self, split: str) -> list[np.ndarray]:
        return evaluation_batches(self.of(split).lengths, self.evaluation_size)

    def collate(self, split: str, indices: np.ndarray) -> dict[str, torch.Tensor]:
        return self.of(split).collate(indices)

    @property
    def notes(self) -> dict[str, Any]:
        """What encoding did: lengths, shares of cut rows and unknown tokens, and a warning for either above 5 %."""
        notes: dict[str, Any] = {"warnings": []}
        for split, rows in self.encoded.items():
            found = {"truncated_share": rows.truncated_share, "unknown_share": self.unknown.get(split, 0.0)}
            notes[split] = {"tokens": int(rows.lengths.sum()), "longest": int(rows.lengths.max()), **found}
            for name, remedy in (("truncated", "raise data.max_length"), ("unknown", "check body and task.encoding")):
                share = found[f"{name}_share"]
                if share > 0.05:
                    notes["warnings"].append(f"{split}: {name} share is {share:.1%}; {remedy}")
        return notes


def unknown_share(encoded: Encoded, tokenizer: PreTrainedTokenizerBase) -> float:
    """Return the share of unknown tokens in the first 200 rows; 0 for tokenizers to which no text is unknown."""
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in (tokenizer.eos_token_id, tokenizer.pad_token_id):  # GPT-2 names its end so
        return 0.0
    values, offsets = encoded.columns["input_ids"]
    tokens = values[: offsets[min(_UNKNOWN_ROWS, len(encoded))]]
    return float((tokens == unknown).mean())


def make_batches(
    splits: Splits, task: Task, tokenizer: PreTrainedTokenizerBase, config: Config, seeds: Seeds
) -> Batches:
    """Return the batches of a run; the tokens are kept under `output.root`/.cache/tokens."""
    cache = Path(config.output.root) / ".cache" / "tokens"
    encoded = tokenise(splits, task, tokenizer, config.data.max_length, cache)
    return Batches(
        encoded, config.train.batch_size, config.train.eval_batch_size, seeds, config.data.bucket,
        unknown={split: unknown_share(rows, tokenizer) for split, rows in encoded.items()},
    )  # fmt: skip
