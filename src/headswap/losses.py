"""Training losses in two parts, sum and weight, so that the loop can divide over a whole window. Floor 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headswap.errors import DataError

if TYPE_CHECKING:
    import torch

    Batch = Mapping[str, torch.Tensor]

IGNORED = -100
"""The label of what is not to be learned: special tokens, padding, the rest of a word."""


@dataclass(frozen=True)
class CrossEntropy:
    """Cross entropy; sum / weight is the mean of torch.nn.CrossEntropyLoss(weight, label_smoothing).

    It serves one label an example and one a token; places whose label is -100 count for nothing.

    Args:
        class_weights: one weight a label, None for 1 each.
        smoothing: share of the target that is spread over all labels.
    """

    class_weights: tuple[float, ...] | None = None
    smoothing: float = 0.0

    def weight(self, batch: Batch) -> torch.Tensor:
        import torch

        labels = batch["labels"]
        known = labels != IGNORED
        if self.class_weights is None:
            return known.sum().to(torch.float32)
        return torch.tensor(self.class_weights, device=labels.device)[labels[known]].sum()

    def __call__(self, output: Any, batch: Batch) -> torch.Tensor:
        from torch.nn.functional import cross_entropy

        logits, labels = widened(output.logits).flatten(0, -2), batch["labels"].flatten()
        weights = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        return cross_entropy(
            logits, labels, weights, ignore_index=IGNORED, reduction="sum", label_smoothing=self.smoothing
        )


@dataclass(frozen=True)
class SquaredError:
    """The squared error, averaged over the outputs of an example; sum / weight is torch.nn.MSELoss."""

    def weight(self, batch: Batch) -> torch.Tensor:
        labels = batch["labels"]
        return labels.new_tensor(len(labels))

    def __call__(self, output: Any, batch: Batch) -> torch.Tensor:
        values = widened(output.logits)
        return (values - batch["labels"].to(values.dtype)).square().mean(dim=-1).sum()


def class_weights(setting: Any, names: Sequence[str], targets: Sequence[int]) -> tuple[float, ...] | None:
    """Return one weight a label.

    Args:
        setting: None, "balanced" (rows / (classes x rows of the class), as in scikit-learn), or name -> weight.
        targets: the output index of every training row.
    """
    if setting is None:
        return None
    if isinstance(setting, Mapping):
        given = {str(name): float(weight) for name, weight in setting.items()}
        if set(given) != set(names):
            raise DataError(
                f"task.class_weights: must name every label; found {', '.join(given)}; the labels are "
                f"{', '.join(names)}"
            )
        return tuple(given[name] for name in names)
    counts = [0] * len(names)
    for target in targets:
        counts[target] += 1
    return tuple(len(targets) / (len(names) * count) if count else 0.0 for count in counts)


def widened(logits: torch.Tensor) -> torch.Tensor:
    """Return half-precision logits in float32: the sum over a batch overflows in fp16 and rounds in bf16."""
    import torch

    return logits.to(torch.promote_types(logits.dtype, torch.float32))


@dataclass(frozen=True)
class SpanCrossEntropy:
    """Mean cross entropy of start and end over the tokens of a feature, transformers' own loss of an unpadded batch.

    Padding takes no part: transformers lets its logits compete, so that its loss of a row depends on the others' width.
    Places outside the feature count for nothing. A place is counted in the feature; padding on the left moves it.
    """

    def weight(self, batch: Batch) -> torch.Tensor:
        import torch

        return (_span_places(batch) != IGNORED).sum().to(torch.float32) / 2

    def __call__(self, output: Any, batch: Batch) -> torch.Tensor:
        import torch
        from torch.nn.functional import cross_entropy

        logits = widened(torch.stack([output.start_logits, output.end_logits], dim=1))
        logits = logits.masked_fill(batch["attention_mask"][:, None, :] == 0, torch.finfo(logits.dtype).min)
        places = _span_places(batch).flatten()
        return cross_entropy(logits.flatten(0, 1), places, ignore_index=IGNORED, reduction="sum") / 2


def _span_places(batch: Batch) -> torch.Tensor:
    """Return the targets [features, 2] as places of the padded row, IGNORED where they lie outside the feature."""
    import torch

    mask = batch["attention_mask"]
    places = torch.stack([batch["target_start"], batch["target_end"]], dim=1)
    inside = (places >= 0) & (places < mask.sum(dim=1, keepdim=True))
    return torch.where(inside, places + mask.argmax(dim=1, keepdim=True), IGNORED)
