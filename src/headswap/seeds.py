"""One seed becomes independent streams, one per role. Floor 0.

Every random choice of a run has a stream with a name, so that changing one (another head, one evaluation more) never
moves the dice of another. That is what makes a pretrained run and its random-init twin differ in the body alone.
A stream is a pure function of (seed, role, numbers): nothing has a position that a resume would have to restore.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Seeds:
    """The tree of streams under one root seed.

    Roles in use: `body` and `head` (initial weights), `order` (batches of an epoch), `subset` (which rows are used),
    `rows` (those of tasks that draw them), `document` (where a text stands in its long document), `split` (automatic
    splits), `mask` (which tokens are hidden), `dropout` (per optimizer step, micro-step and rank), `tokens` and
    `directions` (of measured gradients).
    """

    root: int

    def stream(self, role: str, *numbers: int | str) -> int:
        """Return a seed in [0, 2**63) for `role` at the position given by `numbers`."""
        text = "/".join(str(part) for part in (self.root, role, *numbers))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def generator(self, role: str, *numbers: int | str) -> np.random.Generator:
        """Return a NumPy generator for `role` at the position given by `numbers`."""
        import numpy as np

        return np.random.default_rng(self.stream(role, *numbers))
