"""From checked rows to batches: which features stand together, in which order. Floor 2.

    Splits -> tokenise() (encoded.py) -> Batches: order per epoch, collate

The order of an epoch is a pure function of (seed, epoch).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headswap.contracts import Collator, Splits, Task
from headswap.encoded import Encoded, tokenise, tokenizer_hash, unknown_share
from headswap.errors import ConfigError
from headswap.seeds import Seeds
from headswap.spine import Config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_REMEDIES = {
    "truncated": "raise data.max_length",
    "target_truncated": "raise task.max_target_length",
    "target_altered": "take a body whose tokenizer keeps case, accents and signs of the targets",
    "unknown": "check body and task.encoding",
}


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
        unknown: split -> share of unknown tokens in its first 200 features.
        collator: what the task does to a padded batch.
        tokenizer: the hash of what the rows were encoded with.
    """

    encoded: Mapping[str, Encoded]
    batch_size: int
    evaluation_size: int
    seeds: Seeds
    bucket: bool = True
    unknown: Mapping[str, float] = field(default_factory=dict)
    collator: Collator | None = None
    tokenizer: str = ""
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

    @property
    def facts(self) -> dict[str, Any]:
        """What two runs of a pair share: hashes of the tokenizer, of each split's rows, and of their order.

        The first epoch's order stands for all: each is a function of the seed, the lengths and the epoch.
        """
        splits = {split: _sha256(*rows.ids) for split, rows in self.encoded.items()}
        order = _sha256(*(",".join(map(str, rows)) for rows in self.epoch(0)))
        return {"tokenizer": self.tokenizer, "splits": splits, "order": order}

    def evaluation(self, split: str) -> list[np.ndarray]:
        return evaluation_batches(self.of(split).lengths, self.evaluation_size)

    def collate(self, split: str, features: np.ndarray, epoch: int = 0) -> dict[str, torch.Tensor]:
        """Return a batch as the model and the loss read it."""
        batch = self.of(split).collate(features)
        return batch if self.collator is None else self.collator(batch, split, features, epoch)

    @property
    def notes(self) -> dict[str, Any]:
        """What encoding did: lengths, shares of cut rows and unknown tokens, and a warning for either above 5 %."""
        notes: dict[str, Any] = {"warnings": []}
        for split, rows in self.encoded.items():
            found = {"truncated_share": rows.truncated_share, "unknown_share": self.unknown.get(split, 0.0)}
            for name in (each for each in _REMEDIES if each in rows.numbers):
                found[f"{name}_share"] = float(rows.numbers[name].mean())
            notes[split] = {"tokens": int(rows.lengths.sum()), "longest": int(rows.lengths.max()), **found}
            for name, remedy in _REMEDIES.items():
                share = found.get(f"{name}_share", 0.0)
                if share > 0.05:
                    notes["warnings"].append(f"{split}: {name} share is {share:.1%}; {remedy}")
        return notes


def sample_texts(splits: Splits, inputs: Sequence[str], count: int = 200) -> list[Any]:
    """Return evenly drawn training inputs, as a tokenizer sees them: texts, or pairs of them where there are two."""
    places = sorted({round(place) for place in np.linspace(0, len(splits.train) - 1, count)})
    rows = splits.train.select(places)[:]
    columns = [[" ".join(each) if isinstance(each, list) else each for each in rows[name]] for name in inputs]
    return (
        list(zip(*columns, strict=True))
        if len(columns) == 2
        else [" ".join(texts) for texts in zip(*columns, strict=True)]
    )


def _sha256(*lines: str) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def make_batches(
    splits: Splits, task: Task, tokenizer: PreTrainedTokenizerBase, config: Config, seeds: Seeds
) -> Batches:
    """Return the batches of a run; the tokens are kept under `output.root`/.cache/tokens."""
    cache = Path(config.output.root) / ".cache" / "tokens"
    known = tokenizer_hash(tokenizer)
    encoded = tokenise(splits, task, tokenizer, config.data.max_length, cache, known)
    return Batches(
        encoded, config.train.batch_size, config.train.eval_batch_size, seeds, config.data.bucket,
        unknown={split: unknown_share(rows, tokenizer) for split, rows in encoded.items()},
        collator=task.collator(tokenizer, seeds),
        tokenizer=known,
    )  # fmt: skip


def check_positions(model: Any, tokenizer: Any, batches: Batches) -> None:
    """Refuse inputs longer than the body has positions for, before an index error in the middle of training does."""
    parts = [getattr(model.config, name, None) for name in ("encoder", "decoder")]  # of a warm-started pair
    known = [getattr(part, "max_position_embeddings", None) for part in (model.config.get_text_config(), *parts)]
    positions = min((found for found in known if isinstance(found, int)), default=None)
    if positions is None:
        return
    if 0 < positions - tokenizer.model_max_length <= 4:  # RoBERTa counts from its pad token: 514 positions hold 512
        positions = tokenizer.model_max_length
    longest = max(int(batches.of(split).lengths.max()) for split in ("train", "validation", "test"))
    if longest > positions:
        raise ConfigError(
            f"data.max_length: longer than this body's positions; found inputs of {longest} tokens for {positions} "
            f"positions; set data.max_length={positions} or less"
        )
