"""A head that takes over what the checkpoint knows of labels that share a name; new labels start anew. Floor 1."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headswap.contracts import HeadTensor, Labels, SourceHead
from headswap.errors import WeightsError, nearest

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class ByLabel:
    """Copy the output rows of labels that the checkpoint has too, and the layers before them whole.

    Args:
        rename: the checkpoint's label -> the task's, where they differ beyond upper and lower case.
    """

    rename: dict[str, str] = field(default_factory=dict)

    def place(
        self, model: PreTrainedModel, head: Mapping[str, torch.Tensor], source: SourceHead, labels: Labels
    ) -> list[HeadTensor]:
        """Copy rows and whole tensors.

        Raises:
            WeightsError: a task without labels, no head or no label names in the checkpoint, no label in common, or a
                head of another build.
        """
        if not labels.names:
            raise WeightsError(
                f"head=by_label: the outputs of this task are no labels; found {labels.problem}; use head=if_present, "
                "head=keep or head=fresh"
            )
        pairs = self._pairs(source.labels, labels.names)
        output = output_tensors(model, head, labels.count)
        missing = [name for name in output if name not in source.tensors]
        if missing:
            raise WeightsError(
                f"head=by_label: the checkpoint lacks the output layer of {type(model).__name__}; found no "
                f"{', '.join(missing[:3])}; use head=fresh"
            )
        done = []
        for name, tensor in head.items():
            values = source.tensors.get(name)
            if name in output and values is not None:
                _check_rows(name, values, tensor, len(source.labels))
                for old, new in pairs:
                    tensor[new].copy_(values[old])
                done.append(HeadTensor(name, "rows copied", pairs))
            elif values is not None and values.shape == tensor.shape:
                tensor.copy_(values)
                done.append(HeadTensor(name, "kept"))
            else:
                done.append(HeadTensor(name, "new"))
        return done

    def _pairs(self, old: tuple[str, ...], new: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
        """Return (row there, row here) of the labels that share a name, each row at most once."""
        lists = f"found {list(old) or 'no names'} in the checkpoint and {list(new)} in the task"
        for key, target in self.rename.items():
            if key not in old:
                raise WeightsError(
                    f"head.rename: the checkpoint has no label {key!r}; {lists}; correct it{nearest(key, old)}"
                )
            if target not in new:
                raise WeightsError(
                    f"head.rename: the task has no label {target!r}; {lists}; correct it{nearest(target, new)}"
                )
        if not old or (all(re.fullmatch(r"LABEL_\d+", name) for name in old) and not self.rename):
            raise WeightsError(
                f"head=by_label: the checkpoint does not name its labels; {lists}; say which is which, as in "
                f"head.rename={{LABEL_0: {new[0]}}}, or use head=fresh"
            )
        renamed = [self.rename.get(name, name) for name in old]
        pairs = tuple((row, _row_of(name, renamed, new)) for row, name in enumerate(renamed))
        pairs = tuple((row, there) for row, there in pairs if there is not None)
        if not pairs:
            raise WeightsError(
                f"head=by_label: no label in common; {lists}; give head.rename={{old: new}}, or use head=fresh"
            )
        if len({there for _, there in pairs}) < len(pairs):
            raise WeightsError(
                f"head=by_label: two labels of the checkpoint claim one of the task; {lists}; give head.rename"
            )
        return pairs


def _row_of(name: str, old: list[str], new: tuple[str, ...]) -> int | None:
    """Return the task's row for a label: the exact name, else the same but for case when no other has it exactly."""
    if name in new:
        return new.index(name)
    alike = [row for row, other in enumerate(new) if other.casefold() == name.casefold() and other not in old]
    return alike[0] if len(alike) == 1 else None


def output_tensors(model: PreTrainedModel, head: Mapping[str, torch.Tensor], label_count: int) -> set[str]:
    """Return the head tensors whose first dimension is the labels'.

    A hidden size may equal the label count by accident, so the same class is built once more, without memory, for one
    label more: the tensors that grow are the output layer.
    """
    import copy

    import torch

    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    for part in [config] if text is config else [config, text]:
        part.id2label = {row: str(row) for row in range(label_count + 1)}
        part.label2id = {str(row): row for row in range(label_count + 1)}
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        larger = dict(type(model)._from_config(config, dtype=torch.float32).named_parameters())
    output = {name for name, tensor in head.items() if larger[name].shape != tensor.shape}
    for name in output:
        if tuple(larger[name].shape) != (label_count + 1, *head[name].shape[1:]):
            raise WeightsError(
                f"head=by_label: the rows of {name} are not its labels; found {list(head[name].shape)}; use head=fresh"
            )
    return output


def _check_rows(name: str, values: torch.Tensor, tensor: torch.Tensor, label_count: int) -> None:
    if tuple(values.shape) != (label_count, *tensor.shape[1:]):
        raise WeightsError(
            f"head=by_label: the checkpoint's output layer does not fit; found {name} {list(values.shape)} for "
            f"{label_count} labels where the model has {list(tensor.shape)}; use head=fresh"
        )
