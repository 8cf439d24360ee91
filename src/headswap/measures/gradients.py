"""How far a gradient reaches back: the norm of d h_T / d e_(T-k), T the last token of a text, against the distance k.

Measures chain: bodies -> gradients (this) -> gradient_report -> page. All in float64, and norms as logarithms: a tanh
RNN's at a distance of 512 lies below what float32 can write. e are the token embeddings, h the states that the body
gives. The norm is Frobenius's; of wide bodies it is estimated, without bias in its square, along some orthonormal
directions of h_T, the same at every distance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headswap.errors import RunError
from headswap.measures.bodies import Subject, sizes
from headswap.seeds import Seeds

ROWS = 8
"""Directions at once: each is a copy of the text."""
NEAR = 8
"""Distances in the window that a fall is measured from and to; nearer than that lies the word itself."""


@dataclass(frozen=True)
class Reach:
    """One body's curves.

    Args:
        start: `random` weights of each seed, or the body's own (`loaded`), which only the texts' seeds vary.
        width: of a state; `directions` of them were followed.
        curves: seed -> log10 of the norm at distance 0, 1, 2 ...; -inf where float64 holds nothing of it.
    """

    name: str
    start: str
    architecture: str
    parameters: int
    without_embeddings: int
    width: int
    directions: int
    curves: dict[int, NDArray[np.floating]]

    @property
    def relative(self) -> NDArray[np.floating]:
        """Return log10 of the norm over that at distance 0, the mean over seeds."""
        return np.mean([curve - curve[0] for curve in self.curves.values()], axis=0)

    @property
    def fall(self) -> float:
        """Return how many orders of magnitude it falls from a distance of 8 to the first token; inf for all of it."""
        near, far = (float(part.mean()) for part in (self.relative[NEAR : 2 * NEAR], self.relative[-NEAR:]))
        return math.inf if math.isinf(far) else near - far


def reaches(
    measured: Sequence[Subject], length: int, seeds: Sequence[int], directions: int, device: str,
    tell: Callable[[str], None] = lambda name: None,
) -> list[Reach]:  # fmt: skip
    """Return every body's curves; the same random tokens for all that have as many."""
    made = []
    for subject in measured:
        tell(subject.name)
        curves = {}
        for seed in seeds:
            body = subject.encoder(seed).to(device, torch.float64).requires_grad_(False)
            tokens = subject.tokens(1, length, seed).to(device)
            curves[seed] = norms(body, tokens, _directions(body.config.hidden_size, directions, seed))
        width, (total, rest) = body.config.hidden_size, sizes(body)
        start = "random" if subject.at_random else "loaded"
        kind = type(body).__name__
        made.append(Reach(subject.name, start, kind, total, rest, width, min(width, directions), curves))
    return made


def norms(body: Any, tokens: Tensor, directions: Tensor) -> NDArray[np.floating]:
    """Return log10 of the norm of d h_T / d e_(T-k) for k = 0, 1, ... tokens - 1.

    Args:
        body: in float64 and evaluation mode.
        tokens: [1, length].
        directions: [some, width], orthonormal; with all of them the norm is exact.
    """
    parts = [_squares(body, tokens, some.to(tokens.device)) for some in directions.split(ROWS)]
    width = directions.shape[1]
    highest = np.max([scale for scale, _ in parts], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # the logarithm of nothing at all
        total = sum(sums * np.where(scale > 0, scale / highest, 0.0) ** 2 for scale, sums in parts)
        found = np.log10(highest) + 0.5 * np.log10(total * width / len(directions))
    return np.where(highest > 0, found, -math.inf)[::-1]


def _squares(body: Any, tokens: Tensor, directions: Tensor) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return for each token the largest entry of its gradients, and the sum of squares in units of that."""
    embedded: list[Tensor] = []

    def cut(module: torch.nn.Module, given: object, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    hook = body.get_input_embeddings().register_forward_hook(cut)
    rows = tokens.expand(len(directions), -1)
    try:
        states = body(input_ids=rows, attention_mask=torch.ones_like(rows)).last_hidden_state
    finally:
        hook.remove()
    if len(embedded) != 1 or embedded[0].shape[:2] != rows.shape:
        raise RunError(
            f"body: its token embeddings are not read once for each token; found {len(embedded)} readings in "
            f"{type(body).__name__}; this gradient cannot be measured: leave the body out"
        )
    (gradient,) = torch.autograd.grad((states[:, -1] * directions).sum(), embedded[0])
    largest = gradient.abs().amax(dim=(0, 2))
    shares = gradient / torch.where(largest > 0, largest, torch.ones_like(largest))[:, None]
    return largest.cpu().numpy(), shares.square().sum(dim=(0, 2)).cpu().numpy()


def _directions(width: int, count: int, seed: int) -> Tensor:
    """Return orthonormal rows [count, width]: all of them where there are no more."""
    if count >= width:
        return torch.eye(width, dtype=torch.float64)
    drawn = Seeds(seed).generator("directions").normal(size=(width, count))
    return torch.from_numpy(np.linalg.qr(drawn)[0].T.copy())


def shown_distances(length: int) -> list[int]:
    """Return about 60 distances, near ones each and far ones sparsely, the farthest among them."""
    spread = np.unique(np.geomspace(1, length - 1, 60).round().astype(int)).tolist()
    return [0, *spread]
