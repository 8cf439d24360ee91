"""Training losses in two parts, sum and weight, so that the loop can divide over a whole window. Floor 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headswap.errors import DataError

if TYPE_CHECKING:
    import torch

    Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class CrossEntropy:
    """Cross entropy; sum / weight is the mean of torch.nn.CrossEntropyLoss(weight, label_smoothing).

    Args:
        class_weights: one weight a label, None for 1 each.
        smoothing: share of the target that is spread over all labels.
    """

    class_weights: tuple[float, ...] | None = None
    smoothing: float = 0.0

    def weight(self, batch: Batch) -> torch.Tensor:
        import torch

        labels = batch["labels"]
        if self.class_weights is None:
            return torch.full((), labels.numel(), dtype=torch.float32, device=labels.device)
        return torch.tensor(self.class_weights, device=labels.device)[labels].sum()

    def __call__(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        from torch.nn.functional import cross_entropy

        logits = _widened(logits)
        weights = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        return cross_entropy(logits, batch["labels"], weights, reduction="sum", label_smoothing=self.smoothing)


@dataclass(frozen=True)
class SquaredError:
    """The squared error of the only output; sum / weight is its mean."""

    def weight(self, batch: Batch) -> torch.Tensor:
        return CrossEntropy().weight(batch)

    def __call__(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        values = _widened(logits)[:, 0]
        return (values - batch["labels"].to(values.dtype)).square().sum()


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


def _widened(logits: torch.Tensor) -> torch.Tensor:
    """Return half-precision logits in float32: the sum over a batch overflows in fp16 and rounds in bf16."""
    import torch

    return logits.to(torch.promote_types(logits.dtype, torch.float32))
