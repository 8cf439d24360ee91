"""A head drawn anew, from the seed's `head` stream. Floor 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headswap.contracts import HeadTensor, Labels, SourceHead

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Fresh:
    """Leave the head as join() drew it."""

    def place(
        self, model: PreTrainedModel, head: Mapping[str, torch.Tensor], source: SourceHead, labels: Labels
    ) -> list[HeadTensor]:
        """Do nothing: the head is drawn already."""
        return [HeadTensor(name, "new") for name in head]
