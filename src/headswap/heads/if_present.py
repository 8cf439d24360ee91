"""What the checkpoint has of the head, which was pretrained with the body, as in language modelling. Floor 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headswap.contracts import HeadTensor, Labels, SourceHead
from headswap.errors import WeightsError
from headswap.heads.by_label import output_tensors

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class IfPresent:
    """Go on with the head tensors that lie in the checkpoint, draw the others; draw all for a random body."""

    def place(
        self, model: PreTrainedModel, head: Mapping[str, torch.Tensor], source: SourceHead, labels: Labels
    ) -> list[HeadTensor]:
        """Copy what is there.

        Raises:
            WeightsError: a head tensor of the checkpoint has another shape, or its rows are other labels.
        """
        if source.init != "pretrained":  # it would read a body that is not there
            return [HeadTensor(name, "new") for name in head]
        present = {name: source.tensors[name] for name in head if name in source.tensors}
        for name, values in present.items():
            if values.shape != head[name].shape:
                raise WeightsError(
                    f"head=if_present: the checkpoint's head has another shape; found {name} {list(values.shape)} for "
                    f"{list(head[name].shape)}; use head=fresh"
                )
        named = output_tensors(model, head, labels.count) & present.keys() if labels.names else ()
        if named and source.labels != labels.names:
            found = list(source.labels) or "no names"
            raise WeightsError(
                f"head=if_present: the checkpoint's labels are not the task's; found {found} there and "
                f"{list(labels.names)} here; use head=by_label to keep those that share a name, or head=fresh"
            )
        for name, values in present.items():
            head[name].copy_(values)
        return [HeadTensor(name, "kept" if name in present else "new") for name in head]
