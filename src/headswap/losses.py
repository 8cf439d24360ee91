"""Training losses that return (sum, sum of weights), so that the loop can divide over a whole window. Floor 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headswap.contracts import LossFunction
from headswap.errors import DataError

if TYPE_CHECKING:
    import torch


def class_weights(setting: Any, names: Sequence[str], targets: Sequence[int]) -> list[float] | None:
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
                f"task.class_weights: must name every label; found {', '.join(given)}; the labels are {', '.join(names)}"
            )
        return [given[name] for name in names]
    counts = [0] * len(names)
    for target in targets:
        counts[target] += 1
    return [len(targets) / (len(names) * count) if count else 0.0 for count in counts]


def cross_entropy(weights: Sequence[float] | None, smoothing: float = 0.0) -> LossFunction:
    """Return cross entropy whose ratio sum / weight sum is torch.nn.CrossEntropyLoss(weight, label_smoothing)."""
    placed: dict[tuple[torch.device, torch.dtype], torch.Tensor] = {}

    def loss(logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        import torch
        from torch.nn.functional import cross_entropy

        logits, labels = _widened(logits), batch["labels"]
        if weights is None:
            total = cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
            return total, logits.new_full((), labels.numel())
        place = (logits.device, logits.dtype)
        if place not in placed:
            placed[place] = torch.tensor(weights, device=logits.device, dtype=logits.dtype)
        total = cross_entropy(logits, labels, placed[place], reduction="sum", label_smoothing=smoothing)
        return total, placed[place][labels].sum()

    return loss


def squared_error(logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of squared errors of the only output, and the number of rows."""
    values = _widened(logits)[:, 0]
    return (values - batch["labels"].to(values.dtype)).square().sum(), values.new_full((), values.numel())


def _widened(logits: torch.Tensor) -> torch.Tensor:
    """Return half-precision logits in float32: a sum of losses over a window overflows and rounds in less."""
    import torch

    return logits.to(torch.promote_types(logits.dtype, torch.float32))
