"""Vectors of texts from a body that stays as it is, and their cache on disk. Floor 2. embed.py and probes read them.

    Encoded -> extract(): states of one layer -> pool(): one vector a feature        vectors(): the same, kept on disk

Batches are padded on the right, whatever the tokenizer says: then a decoder's first token stands at position 0, and a
vector does not hang on its neighbours.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from headswap.arrow_cache import cached
from headswap.data import evaluation_batches
from headswap.encoded import Encoded
from headswap.errors import ConfigError, nearest

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

CACHE_FORMAT = 1
POOLINGS = ("mean", "cls", "last", "max")
_COLUMNS = ("input_ids", "token_type_ids")

Tell = Callable[[int], None]


@dataclass(frozen=True)
class Extraction:
    """Which states of a body, and how those of a text become one vector.

    Args:
        pooling: over the real tokens, special ones among them: `mean`, their `max` in each dimension, the first
            (`cls`) or the `last` one, which is the only one that a decoder has shown the whole text.
        layer: -1 is what the body gives, after its last norm where it has one; 0 the embeddings, 1 the first layer.
    """

    pooling: str = "mean"
    layer: int = -1

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            choices = f"choose {', '.join(POOLINGS)}{nearest(self.pooling, POOLINGS)}"
            raise ConfigError(f"pooling: no such way; found {self.pooling!r}; {choices}")


def vectors(cache: Path | None, about: Mapping[str, Any], make: Callable[[], np.ndarray]) -> np.ndarray:
    """Return vectors [rows, width] in float32 from the cache, made and put there where they are not in it.

    Args:
        cache: folder of the Arrow files, None for none.
        about: all that the vectors hang on (weights, tokenizer, texts, extraction, length); JSON. Its hash is the key.
    """
    if cache is None:
        return make()
    key = hashlib.sha256(json.dumps([CACHE_FORMAT, about], sort_keys=True).encode()).hexdigest()
    column = cached(cache / f"{key[:32]}.arrow", lambda: _to_arrow(make())).column(0)
    return column.values.to_numpy().reshape(len(column), column.type.list_size)


def _to_arrow(made: np.ndarray) -> pa.RecordBatch:
    flat = pa.array(np.ascontiguousarray(made, dtype=np.float32).reshape(-1))
    return pa.RecordBatch.from_pydict({"vector": pa.FixedSizeListArray.from_arrays(flat, made.shape[1])})


def extract(
    body: PreTrainedModel, encoded: Encoded, how: Extraction, batch_size: int = 64, tell: Tell | None = None
) -> np.ndarray:
    """Return one vector a feature, float32 [features, width], in their order; the body is not changed.

    Args:
        body: gives `last_hidden_state`, such as a model's `base_model` or an encoder; in evaluation mode.
        tell: is told how many features are done.

    Raises:
        ConfigError: the body has no such layer.
    """
    right = dataclasses.replace(encoded, padding=dataclasses.replace(encoded.padding, side="right"))
    found, done = np.empty((len(right), 0), dtype=np.float32), 0
    for places, pooled in _pooled(body, right, how, batch_size):
        if not found.size:
            found = np.empty((len(right), pooled.shape[1]), dtype=np.float32)
        found[places] = pooled
        done += len(places)
        if tell is not None:
            tell(done)
    return found


@torch.inference_mode()
def _pooled(
    body: PreTrainedModel, encoded: Encoded, how: Extraction, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for places in evaluation_batches(encoded.lengths, batch_size):
        batch = encoded.collate(places)
        given = {name: batch[name].to(body.device) for name in (*_COLUMNS, "attention_mask") if name in batch}
        states = _states(body, given, how.layer).float()
        yield places, pool(states, given["attention_mask"], how.pooling).cpu().numpy()


def _states(body: PreTrainedModel, given: Mapping[str, Tensor], layer: int) -> Tensor:
    if layer == -1:
        return body(**given).last_hidden_state
    output = body(**given, output_hidden_states=True)
    count = len(output.hidden_states)
    if not -count <= layer < count:
        raise ConfigError(
            f"layer: no such layer; found {layer} in a body of {count - 1}; give 0 (the embeddings) to {count - 1}, "
            "or -1 for the last"
        )
    # Some bodies list the last layer before its norm, others after it: here it is always after.
    return output.last_hidden_state if layer == count - 1 else output.hidden_states[layer]


def pool(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Return one vector a row [rows, width].

    Args:
        states: [rows, tokens, width]; `mask` [rows, tokens] is 1 where a token is real, once a row at least.
    """
    real = mask.bool()[:, :, None]
    if pooling == "mean":
        return (states * real).sum(dim=1) / real.sum(dim=1)
    if pooling == "max":
        return states.masked_fill(~real, -torch.inf).amax(dim=1)
    places = torch.arange(mask.shape[1], device=mask.device) * mask
    chosen = mask.argmax(dim=1) if pooling == "cls" else places.argmax(dim=1)
    return states[torch.arange(len(states), device=states.device), chosen]
