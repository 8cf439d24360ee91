"""One recurrent layer over a batch of sequences of different lengths, and what its weights start as.

A layer is a torch.nn.LSTM, GRU or RNN a direction, each with one layer of its own: so weights tell their depth by name,
and torch's fused kernels run. The real tokens of a row stand first, at the left; what stands after them never reaches
them: the second direction reads each row's own tokens from their end. That needs no packed sequence, which on a CPU is
computed token by token. Where the state after each row is asked for, a CPU goes from one row's end to the next at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import initialization as init

CELLS: dict[str, Callable[..., Any]] = {"lstm": nn.LSTM, "gru": nn.GRU, "tanh": nn.RNN}
INITIALISATIONS = {
    "default": tuple(CELLS),
    "orthogonal": tuple(CELLS),
    "chrono": ("lstm", "gru"),
    "forget_bias": ("lstm",),
}
"""What the weights of a cell may start as -> the cells that have such a gate."""


class RecurrentLayer(nn.Module):
    """Reads a batch from left to right, and where it is bidirectional from right to left as well.

    Args:
        cell: lstm, gru or tanh.
        input_size: width of what it reads.
        hidden_size: width of its outputs, both directions together.
        residual: what it reads is added to its outputs, where both have one width.
        dropout: of its outputs.
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        *,
        bidirectional: bool = False,
        layer_norm: bool = False,
        residual: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        width = hidden_size // 2 if bidirectional else hidden_size
        self.rnn = CELLS[cell](input_size, width, batch_first=True)
        self.reverse = CELLS[cell](input_size, width, batch_first=True) if bidirectional else None
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(hidden_size) if layer_norm else None
        self.residual = residual and input_size == hidden_size

    def forward(
        self, states: Tensor, lengths: Tensor | None = None, past: Tensor | None = None, final: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the outputs (batch, length, hidden_size) and, where `final` asks for it, the state after each row.

        Args:
            states: (batch, length, input_size), each row's real tokens at the left.
            lengths: how many of them are real, None for all. Outputs of the others mean nothing.
            past: the state that a direction from left to right begins with, as `final` gave it.

        Returns:
            The state as (batch, 2, hidden_size) for an LSTM, output and cell, or (batch, 1, hidden_size).
        """
        outputs, last = _read(self.rnn, states, lengths, past, final)
        if self.reverse is not None:
            back, first = _read(self.reverse, turned(states, lengths), lengths, None, final)
            outputs = torch.cat([outputs, turned(back, lengths)], -1)
            last = torch.cat([last, first], -1) if last is not None and first is not None else None
        outputs = self.dropout(outputs)
        outputs = outputs + states if self.residual else outputs
        return (outputs if self.norm is None else self.norm(outputs)), last


def turned(states: Tensor, lengths: Tensor | None) -> Tensor:
    """Return each row with its first `lengths` tokens in reverse order, the others where they were."""
    if lengths is None:
        return states.flip(1)
    places = torch.arange(states.shape[1], device=states.device)[None]
    backwards = lengths[:, None] - 1 - places
    return states.gather(1, torch.where(backwards >= 0, backwards, places)[..., None].expand_as(states))


def _read(
    rnn: Any, states: Tensor, lengths: Tensor | None, past: Tensor | None, final: bool
) -> tuple[Tensor, Tensor | None]:
    """Run one direction. torch tells the cell's state after the last token that a call reads, and after no other."""
    given = None if past is None else _unjoined(rnn, past)
    if not final:
        return rnn(states, given)[0], None
    if lengths is None or bool((lengths == states.shape[1]).all()):
        outputs, last = rnn(states, given)
        return outputs, _joined(last)
    counts = lengths.clamp(min=1).cpu()  # a row of padding alone counts as one token
    return (_in_pieces if states.device.type == "cpu" else _packed)(rnn, states, counts, given)


def _packed(rnn: Any, states: Tensor, lengths: Tensor, given: Any) -> tuple[Tensor, Tensor]:
    packed = pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False)
    outputs, last = rnn(packed, given)
    return pad_packed_sequence(outputs, batch_first=True, total_length=states.shape[1])[0], _joined(last)


def _in_pieces(rnn: Any, states: Tensor, lengths: Tensor, given: Any) -> tuple[Tensor, Tensor]:
    """Run one direction from each row's end to the next, over the rows that go on: no token of padding is read.

    Every piece is one call of torch's kernels; a packed sequence would cost one a token.
    """
    order = lengths.argsort(descending=True, stable=True)
    back, ends = order.argsort(), lengths[order]
    states, state = states[order], None if given is None else _joined(given)[order]
    pieces, finals, start = [], [], 0
    for end in lengths.unique().tolist():
        rows, beyond = int((ends >= end).sum()), int((ends > end).sum())
        piece, last = rnn(states[:rows, start:end], None if state is None else _unjoined(rnn, state[:rows]))
        state, start = _joined(last), end
        pieces.append(nn.functional.pad(piece, (0, 0, 0, 0, 0, len(order) - rows)))
        finals.append(state[beyond:])
    outputs = nn.functional.pad(torch.cat(pieces, 1), (0, 0, 0, states.shape[1] - start))
    return outputs[back], torch.cat(finals[::-1])[back]


def _joined(state: Any) -> Tensor:
    """Return torch's state (1, batch, width), or a pair, as (batch, parts, width): rows first, as beams need."""
    return torch.cat(state if isinstance(state, tuple) else (state,)).transpose(0, 1)


def _unjoined(rnn: Any, state: Tensor) -> Any:
    parts = tuple(part.contiguous() for part in state.transpose(0, 1).split(1))
    return parts if isinstance(rnn, nn.LSTM) else parts[0]


@torch.no_grad()
def initialise(rnn: nn.RNNBase, how: str, chrono_length: int | None = None) -> None:
    """Draw the weights of a torch.nn.LSTM, GRU or RNN of one layer.

    default: torch's own, uniform within 1 / sqrt(width).
    orthogonal: each gate's recurrent matrix is orthogonal (Saxe et al. 1312.6120), its input matrix Glorot's uniform,
        biases are 0.
    forget_bias: default, but an LSTM's forget gate has the bias 1 (Jozefowicz et al. 2015, ICML, section 2.1).
    chrono: default, but gates remember as long as the data may need (Tallec and Ollivier, 1804.11188, eqs. 15 and 16):
        b_forget ~ log U(1, T - 1) and b_input = -b_forget; a GRU's gate that keeps what was has b_forget.

    torch adds two biases for every gate; what is said of a bias is true of their sum.
    """
    draw = _glorot_and_orthogonal if how == "orthogonal" else _uniform
    drawn = {name: draw(name, weight, rnn.hidden_size) for name, weight in rnn.named_parameters()}
    gates = {name: value.chunk(drawn["weight_ih_l0"].shape[0] // rnn.hidden_size) for name, value in drawn.items()}
    for place, value in _gate_biases(rnn, how, chrono_length).items():
        gates["bias_ih_l0"][place].copy_(value)
        gates["bias_hh_l0"][place].zero_()
    for name, weight in rnn.named_parameters():
        init.copy_(weight, drawn[name])  # transformers' own leaves alone what was loaded


def _gate_biases(rnn: nn.RNNBase, how: str, chrono_length: int | None) -> dict[int, Tensor]:
    """Return the biases that an initialisation sets, by the gate's place: torch has i, f, g, o and r, z, n."""
    blank = torch.empty_like(rnn.get_parameter("bias_ih_l0")[: rnn.hidden_size])
    if how == "forget_bias":
        return {1: torch.ones_like(blank)}
    if how == "chrono":
        kept = blank.uniform_(1, (chrono_length or 0) - 1).log()
        return {0: -kept, 1: kept} if isinstance(rnn, nn.LSTM) else {1: kept}
    return {}


def _uniform(name: str, weight: Tensor, width: int) -> Tensor:
    return torch.empty_like(weight).uniform_(-1 / math.sqrt(width), 1 / math.sqrt(width))


def _glorot_and_orthogonal(name: str, weight: Tensor, width: int) -> Tensor:
    if weight.dim() == 1:
        return torch.zeros_like(weight)
    fill = nn.init.orthogonal_ if name.startswith("weight_hh") else nn.init.xavier_uniform_
    return torch.cat([fill(torch.empty_like(gate)) for gate in weight.split(width)])
