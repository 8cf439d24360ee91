"""A recurrent encoder as an ordinary transformers model: embeddings, then layers of LSTM, GRU or tanh cells.

heads.py puts a task's head on it. Weights are called `layers.3.rnn.weight_ih_l0`: the first number is the layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as transformers_init
from transformers.utils.generic import ModelOutput, can_return_tuple

from headswap.recurrent.cells import CELLS, INITIALISATIONS, RecurrentLayer, initialise

POOLINGS = ("mean", "max", "last")


@strict
class RecurrentConfig(PreTrainedConfig):
    """The architecture of a recurrent encoder.

    Args:
        cell: lstm, gru or tanh.
        embedding_size: width of a token's vector.
        hidden_size: width of each layer's outputs, both directions together.
        num_hidden_layers: how many layers stand on one another.
        bidirectional: half of each layer reads from right to left.
        dropout: of the embeddings, of what a layer hands to the next one, and of what a head reads.
        layer_norm: of the embeddings and of each layer's outputs (1607.06450), after the residual.
        residual: what a layer reads is added to its outputs where both have one width.
        initialisation: of the cells: default, orthogonal, forget_bias or chrono; cells.initialise says what they are.
        chrono_length: the T of chrono, the longest distance that matters, in tokens.
        pooling: what a head for whole texts reads: mean or max over the tokens (1705.02364 prefers max), or each
            direction's last state.
        type_vocab_size: kinds of segments whose vectors are added to the tokens'; 0 for none.
        embedding_std: standard deviation that the embeddings start with; `initializer_range` is the heads'.
        tie_word_embeddings: a language model writes with the embeddings that it reads with.
    """

    model_type = "recurrent"

    cell: str = "lstm"
    vocab_size: int = 30522
    embedding_size: int = 256
    hidden_size: int = 256
    num_hidden_layers: int = 2
    bidirectional: bool = True
    dropout: float | int = 0.1
    layer_norm: bool = False
    residual: bool = False
    initialisation: str = "default"
    chrono_length: int | None = None
    pooling: str = "max"
    type_vocab_size: int = 0
    embedding_std: float | int = 0.1
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def validate_recurrence(self) -> None:
        """Raise ValueError for settings that make no recurrent model; transformers calls it."""
        check_recurrence(self)


def check_recurrence(config: Any) -> None:
    """Raise ValueError where a config's cells cannot be built.

    Args:
        config: has cell, initialisation, chrono_length, bidirectional, hidden_size and pooling.
    """
    choices = {"cell": tuple(CELLS), "initialisation": tuple(INITIALISATIONS), "pooling": POOLINGS}
    for name, known in choices.items():
        if hasattr(config, name) and getattr(config, name) not in known:
            raise ValueError(f"{name}={getattr(config, name)!r}: choose {', '.join(known)}")
    if config.cell not in INITIALISATIONS[config.initialisation]:
        able = " or ".join(INITIALISATIONS[config.initialisation])
        raise ValueError(f"initialisation={config.initialisation}: sets a gate that cell={config.cell} lacks: {able}")
    if (config.initialisation == "chrono") != (config.chrono_length is not None):
        found = f"chrono_length={config.chrono_length} with initialisation={config.initialisation}"
        raise ValueError(f"{found}: chrono needs the length, and nothing else reads it")
    if config.chrono_length is not None and config.chrono_length < 3:
        raise ValueError(f"chrono_length={config.chrono_length}: must be 3 or more, log U(1, length - 1) is drawn")
    if config.bidirectional and config.hidden_size % 2:
        raise ValueError(f"hidden_size={config.hidden_size}: two directions share it: give an even number")
    if min(config.hidden_size, config.embedding_size, config.num_hidden_layers) < 1:
        raise ValueError("hidden_size, embedding_size and num_hidden_layers: must be 1 or more")


@dataclass
class RecurrentOutput(ModelOutput):
    """What a recurrent encoder gives.

    Args:
        last_hidden_state: (batch, length, hidden_size), 0 at padding.
        hidden_states: the embeddings' and each layer's, where asked for.
        state: each layer's state after the last token, (batch, parts, hidden_size), where `use_cache` asks for it.
    """

    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    state: tuple[Tensor, ...] | None = None


@dataclass
class RecurrentLanguageOutput(ModelOutput):
    """What a recurrent language model gives: `logits` are (batch, length, vocab_size)."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    state: tuple[Tensor, ...] | None = None


class RecurrentPreTrainedModel(PreTrainedModel):
    """Draws the weights of recurrent models."""

    config: RecurrentConfig
    config_class = RecurrentConfig
    base_model_prefix = "recurrent"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.RNNBase):
            initialise(module, self.config.initialisation, self.config.chrono_length)
        elif isinstance(module, nn.Embedding):
            transformers_init.normal_(module.weight, std=self.config.embedding_std)
        else:
            super()._init_weights(module)


class RecurrentEmbeddings(nn.Module):
    """Tokens as vectors, with those of their segments."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size = config.embedding_size
        self.word_embeddings = nn.Embedding(config.vocab_size, size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size) if config.type_vocab_size else None
        self.norm = nn.LayerNorm(size) if config.layer_norm else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, vectors: Tensor, segments: Tensor | None) -> Tensor:
        """Return the vectors (batch, length, embedding_size) of tokens and segments, normalised."""
        if self.token_type_embeddings is not None:
            places = torch.zeros(vectors.shape[:2], dtype=torch.long, device=vectors.device)
            vectors = vectors + self.token_type_embeddings(places if segments is None else segments)
        return self.dropout(vectors if self.norm is None else self.norm(vectors))


class RecurrentModel(RecurrentPreTrainedModel):
    """The body: every token's state after what stands before it, and after it where the model is bidirectional.

    Padding may stand at either side, or between: a row's states are those of its real tokens alone.
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.embeddings = RecurrentEmbeddings(config)
        self.layers = nn.ModuleList(
            layer_of(config, place, bidirectional=config.bidirectional) for place in range(config.num_hidden_layers)
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: Any) -> None:
        self.embeddings.word_embeddings = value

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        *,
        state: tuple[Tensor, ...] | None = None,
        use_cache: bool = False,
        output_hidden_states: bool | None = None,
        **unused: Any,
    ) -> RecurrentOutput:
        """Return the states of all tokens.

        Args:
            attention_mask: (batch, length), 0 at padding; None for no padding.
            state: what an earlier pass over the tokens before these gave with `use_cache`.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give input_ids or inputs_embeds, and not both")
        vectors = self.embeddings.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if state is not None and self.config.bidirectional:
            raise ValueError("state: a bidirectional model cannot go on from it, its layers have read to the end")
        rows = Rows.of(attention_mask, vectors)
        states = rows.at_left(self.embeddings(vectors, token_type_ids))
        seen, last = [states], []
        for place, layer in enumerate(self.layers):
            states, after = layer(states, rows.lengths, None if state is None else state[place], final=use_cache)
            seen.append(states)
            last.append(after)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return RecurrentOutput(
            rows.in_place(states),
            tuple(rows.in_place(each) for each in seen) if wanted else None,
            tuple(last) if use_cache else None,
        )


def layer_of(config: Any, place: int, *, bidirectional: bool) -> RecurrentLayer:
    """Return the layer of a config at this place from below."""
    return RecurrentLayer(
        config.cell,
        config.hidden_size if place else config.embedding_size,
        config.hidden_size,
        bidirectional=bidirectional,
        layer_norm=config.layer_norm,
        residual=config.residual,
        dropout=config.dropout if place < config.num_hidden_layers - 1 else 0.0,
    )


@dataclass(frozen=True)
class Rows:
    """Where the real tokens of a batch stand.

    Args:
        lengths: real tokens of each row, None where all are.
        real: (batch, length), true where a token is real, None likewise.
        order: brings the real tokens to the left, None where they stand there; `back` is its inverse.
    """

    lengths: Tensor | None = None
    real: Tensor | None = None
    order: Tensor | None = None
    back: Tensor | None = None

    @classmethod
    def of(cls, mask: Tensor | None, vectors: Tensor) -> Rows:
        """Read an attention mask. Raises ValueError where it is not (batch, length) of `vectors`."""
        if mask is None:
            return cls()
        if mask.shape != vectors.shape[:2]:
            raise ValueError(f"attention_mask: must be (batch, length); found {tuple(mask.shape)}")
        real = mask.bool()
        if bool(real.all()):
            return cls()
        lengths, places = real.sum(1), torch.arange(real.shape[1], device=real.device)
        if torch.equal(real, places < lengths[:, None]):
            return cls(lengths, real)
        order = torch.where(real, places, places + len(places)).argsort(1)
        return cls(lengths, real, order, order.argsort(1))

    def at_left(self, vectors: Tensor) -> Tensor:
        """Return (batch, length, width) with the real tokens of each row first."""
        return vectors if self.order is None else vectors.gather(1, self.order[..., None].expand_as(vectors))

    def in_place(self, states: Tensor) -> Tensor:
        """Return states where their tokens stand, 0 at padding."""
        if self.back is not None:
            states = states.gather(1, self.back[..., None].expand_as(states))
        return states if self.real is None else states.masked_fill(~self.real[..., None], 0.0)
