"""Texts whose own tokens are the targets: chunks that cut nothing off, the loss, what is kept of it. Floor 0.

    texts -> chunks of at most max_length tokens -> labels (masking.py, or next_tokens here) -> loss, sums a feature

tasks/language_modeling.py asks here. Torch and NumPy are imported inside the functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headswap.answers import Observed
from headswap.errors import ConfigError, DataError, WeightsError
from headswap.losses import IGNORED, widened

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedTokenizerBase

    Batch = Mapping[str, torch.Tensor]

_PROBE = "a 1"


@dataclass(frozen=True)
class Chunk:
    """A stretch of a row: its tokens, those of `frame` around them where chunks have any, and their words from 1."""

    example: int
    tokens: list[int]
    words: list[int]


def framed_chunks(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int, words: bool = False
) -> Iterator[Chunk]:
    """Yield stretches of every text that do not overlap, each between the special tokens of a whole text.

    Args:
        max_length: tokens of a chunk, special ones included.
        words: tell of each token which word it belongs to; 0 for special ones.
    """
    before, after = _frame(tokenizer)
    room = max_length - before - after
    if room < 1:
        raise ConfigError(f"data.max_length: no room for a token; found {max_length}; set 8 or more")
    if words and not tokenizer.is_fast:
        raise ConfigError(
            f"task.whole_word: needs a tokenizer that knows its words; found {type(tokenizer).__name__}, a slow one; "
            f"set task.whole_word=false, or use a body with a tokenizer.json"
        )
    encoded = _encoded(texts, tokenizer)
    for example, ids in enumerate(encoded["input_ids"]):
        of = [0 if word is None else word + 1 for word in encoded.word_ids(example)] if words else []
        last = len(ids) - after
        for start in range(before, max(before + 1, last), room):
            stop = min(start + room, last)
            yield Chunk(example, *([*each[:before], *each[start:stop], *each[last:]] for each in (ids, of)))


def running_chunks(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int, end: int | None
) -> Iterator[Chunk]:
    """Yield stretches of every text that share one token, so that each token but a text's first is predicted once.

    Special tokens stand where the tokenizer writes them in a whole text: at its start and its end, not around chunks.

    Args:
        end: what a text ends with; added where the tokenizer has not written it, None for nothing.
    """
    if max_length < 2:
        raise ConfigError(f"data.max_length: no room for a token and the next; found {max_length}; set 8 or more")
    for example, ids in enumerate(_encoded(texts, tokenizer)["input_ids"]):
        whole = ids if end is None or ids[-1:] == [end] else [*ids, end]
        for start in range(0, max(1, len(whole) - 1), max_length - 1):
            yield Chunk(example, whole[start : start + max_length], [])


def _encoded(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, **options: Any) -> Any:
    return tokenizer(
        list(texts), truncation=False, padding=False, return_attention_mask=False, return_token_type_ids=False,
        verbose=False, **options,
    )  # fmt: skip


def _frame(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return how many special tokens stand before a text, and how many after it."""
    whole, bare = (
        _encoded([_PROBE], tokenizer, add_special_tokens=special)["input_ids"][0] for special in (True, False)
    )
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return start, len(whole) - start - len(bare)
    raise WeightsError(
        f"body: the tokenizer writes a text otherwise where special tokens stand around it; found {whole} and {bare} "
        f"for {_PROBE!r} in {type(tokenizer).__name__}; use another body"
    )


def refuse_empty(chunks: Sequence[Chunk], empty: Sequence[bool], rows: Mapping[str, Any]) -> None:
    """Refuse rows of which nothing can be predicted.

    Raises:
        DataError: with the ids of the rows.
    """
    found = [rows["id"][chunk.example] for chunk, nothing in zip(chunks, empty, strict=True) if nothing]
    if found:
        shown = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if found[3:] else "")
        raise DataError(
            f"task.text: the tokenizer leaves nothing of a text that could be predicted; found it in rows with id "
            f"{shown}; remove these rows, or, of a causal model, set task.append_end=true"
        )


def next_tokens(batch: dict[str, torch.Tensor], split: str, features: np.ndarray, epoch: int) -> dict:
    """Make each real token but the first the label of its own place, as transformers' causal models take labels.

    What a batch is filled with goes to the right: many decoders count positions from the left, so that a loss would
    hang on the neighbours' lengths.
    """
    mask = batch["attention_mask"]
    if bool((mask[:, 0] == 0).any()):
        order = (mask == 0).int().argsort(dim=1, stable=True)
        batch = {name: each.gather(1, order) if each.shape == order.shape else each for name, each in batch.items()}
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
    labels[:, 0] = IGNORED
    return {**batch, "labels": labels}


@dataclass(frozen=True)
class TokenCrossEntropy:
    """Cross entropy over the places that have a label; sum / weight is transformers' own loss.

    Args:
        ahead: whether a label belongs to the output of the place before it, as in causal models.
    """

    ahead: bool = False

    def weight(self, batch: Batch) -> torch.Tensor:
        import torch

        return (batch["labels"] != IGNORED).sum().to(torch.float32)

    def __call__(self, output: Any, batch: Batch) -> torch.Tensor:
        from torch.nn.functional import cross_entropy

        logits, labels = self._pairs(output.logits, batch["labels"])
        return cross_entropy(widened(logits), labels, ignore_index=IGNORED, reduction="sum")

    def sums(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return [features, 3]: the sum of losses, how many are right, and how many there are."""
        import torch
        from torch.nn.functional import cross_entropy

        chosen, wanted = self._pairs(logits, labels)
        losses = cross_entropy(widened(chosen), wanted, ignore_index=IGNORED, reduction="none")
        found = torch.stack([losses, chosen.argmax(dim=-1) == wanted, wanted != IGNORED], dim=-1)
        if self.ahead:
            return found.view(*labels.shape, 3).sum(dim=1)
        whole = found.new_zeros(*labels.shape, 3)
        whole[labels != IGNORED] = found
        return whole.sum(dim=1)

    def _pairs(self, logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return outputs [places, vocabulary] and their labels; of masked ones no others, which saves most memory."""
        from torch.nn.functional import pad

        if self.ahead:
            return logits.flatten(0, 1), pad(labels[:, 1:], (0, 1), value=IGNORED).flatten()
        return logits[labels != IGNORED], labels[labels != IGNORED]


def example_sums(observed: Observed) -> np.ndarray:
    """Return [examples, 3] in float64: the sums of TokenCrossEntropy.sums over all features of each example."""
    import numpy as np

    totals = np.zeros((len(observed.features.ids), 3))
    np.add.at(totals, observed.features.example, np.stack(observed.outputs).astype(np.float64))
    return totals
