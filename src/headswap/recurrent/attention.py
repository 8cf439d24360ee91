"""How a decoder looks back at its source: one score a source token, softmax over the real ones, their mean.

Both kinds take all steps of a target at once; a step hangs on its own query alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DotAttention(nn.Module):
    """Luong et al. 2015 (1508.04025), eq. 8, dot: score(h_t, s) = h_t . s; it has no weights."""

    def forward(self, queries: Tensor, source: Tensor, real: Tensor | None = None) -> Tensor:
        """Return what each step reads of the source, (batch, steps, width).

        Args:
            queries: the decoder's states, (batch, steps, width).
            source: the encoder's, (batch, length, width).
            real: (batch, length), false or 0 at padding; None where there is none.
        """
        return _read(queries @ source.transpose(1, 2), source, real)


class AdditiveAttention(nn.Module):
    """Bahdanau et al. 2015 (1409.0473), appendix A.1.2: score(h_t, s) = v . tanh(W h_t + U s + b)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, queries: Tensor, source: Tensor, real: Tensor | None = None) -> Tensor:
        """See DotAttention."""
        mixed = torch.tanh(self.query(queries)[:, :, None] + self.key(source)[:, None])
        return _read(self.score(mixed)[..., 0], source, real)


def _read(scores: Tensor, source: Tensor, real: Tensor | None) -> Tensor:
    if real is not None:
        scores = scores.masked_fill(~real.bool()[:, None], torch.finfo(scores.dtype).min)
    return scores.softmax(-1) @ source


ATTENTIONS = {"dot": lambda width: DotAttention(), "additive": AdditiveAttention, "none": lambda width: None}
"""What `attention` may be -> its module, given the width of the states."""
