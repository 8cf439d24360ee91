"""The checkpoint's own head, for a task with the same labels in the same order. Floor 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headswap.contracts import HeadTensor, Labels, SourceHead
from headswap.errors import WeightsError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Keep:
    """Go on with the head that lies in the checkpoint."""

    def place(
        self, model: PreTrainedModel, head: Mapping[str, torch.Tensor], source: SourceHead, labels: Labels
    ) -> list[HeadTensor]:
        """Copy every head tensor.

        Raises:
            WeightsError: the checkpoint has no head for this model, or other labels, or another order of them.
        """
        missing = [name for name in head if name not in source.tensors]
        if missing:
            raise WeightsError(
                f"head=keep: the checkpoint lacks the head of {type(model).__name__}; found no "
                f"{', '.join(missing[:3])}; use head=fresh"
            )
        if labels.names and tuple(source.labels) != labels.names:
            raise WeightsError(
                f"head=keep: the checkpoint's labels are not the task's; found {list(source.labels) or 'no names'} "
                f"there and {list(labels.names)} here; use head=by_label to keep those that share a name, or head=fresh"
            )
        other = [name for name, tensor in head.items() if tensor.shape != source.tensors[name].shape]
        if other:
            name = other[0]
            raise WeightsError(
                f"head=keep: the checkpoint's head has another shape; found {name} {list(source.tensors[name].shape)} "
                f"for {list(head[name].shape)}; use head=fresh"
            )
        for name, tensor in head.items():
            tensor.copy_(source.tensors[name])
        return [HeadTensor(name, "kept") for name in head]
