"""Training losses in two parts, sum and weight, so that the loop can divide over a whole window. Floor 0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
        return _label_weight(batch["labels"], self.class_weights)

    def __call__(self, output: Any, batch: Batch) -> torch.Tensor:
        from torch.nn.functional import cross_entropy

        logits, labels = widened(output.logits).flatten(0, -2), batch["labels"].flatten()
        weights = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        return cross_entropy(
            logits, labels, weights, ignore_index=IGNORED, reduction="sum", label_smoothing=self.smoothing
        )


@dataclass(frozen=True)
class FocalLoss:
    """The focal loss FL = -alpha_t (1 - p_t)^gamma log p_t (arXiv 1708.02002, eq. 5); gamma 0 is cross entropy.

    alpha_t are the class weights, and the sum is divided by theirs, as in CrossEntropy; the paper divides by the
    number of anchors that hold an object, which texts have none of.

    Args:
        gamma: how much the well classified are discounted; the paper's best is 2.
        class_weights: one weight a label, None for 1 each.
    """

    gamma: float
    class_weights: tuple[float, ...] | None = None

    def weight(self, batch: Batch) -> torch.Tensor:
        return _label_weight(batch["labels"], self.class_weights)

    def __call__(self, output: Any, batch: Batch) -> torch.Tensor:
        labels = batch["labels"].flatten()
        known = labels != IGNORED
        logs = widened(output.logits).flatten(0, -2)[known].log_softmax(dim=-1)
        log_right = logs.gather(-1, labels[known, None])[:, 0]
        losses = -_discount(log_right, self.gamma) * log_right
        if self.class_weights is not None:
            losses = losses * losses.new_tensor(self.class_weights)[labels[known]]
        return losses.sum()


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """A yes or no for every label, averaged over an example's labels; sum / weight is torch.nn.BCEWithLogitsLoss.

    With gamma above 0 it is the focal loss of each yes or no (arXiv 1708.02002, eq. 5).

    Args:
        positive_weights: what a present label weighs, the absent weighing 1; None for 1 each.
        gamma: how much the well classified are discounted.
    """

    positive_weights: tuple[float, ...] | None = None
    gamma: float = 0.0

    def weight(self, batch: Batch) -> torch.Tensor:
        labels = batch["labels"]
        return labels.new_tensor(len(labels))

    def __call__(self, output: Any, batch: Batch) -> torch.Tensor:
        from torch.nn.functional import logsigmoid

        logits = widened(output.logits)
        targets = batch["labels"].to(logits.dtype)
        log_yes, log_no = logsigmoid(logits), logsigmoid(-logits)
        yes, no = -targets * log_yes, -(1 - targets) * log_no
        if self.positive_weights is not None:
            yes = yes * logits.new_tensor(self.positive_weights)
        if self.gamma:
            yes, no = yes * _discount(log_yes, self.gamma), no * _discount(log_no, self.gamma)
        return (yes + no).mean(dim=-1).sum()


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


def positive_weights(setting: Any, names: Sequence[str], rows: Sequence[Sequence[float]]) -> tuple[float, ...] | None:
    """Return what each label weighs where it is present.

    Args:
        setting: None, "balanced" (rows without the label / rows with it, at most 100: a label of a few rows in
            thousands would rule every batch that holds one of them), or name -> weight.
        rows: 1 or 0 for every label, of every training row.
    """
    if setting is None or isinstance(setting, Mapping):
        return class_weights(setting, names, [])
    present = [sum(column) for column in zip(*rows, strict=True)] or [0.0] * len(names)
    return tuple(min((len(rows) - count) / count, 100.0) if count else 1.0 for count in present)


def weighting_faults(weights: Any, gamma: float | None) -> Iterator[str]:
    """Yield what is wrong with a task's class_weights and focal_gamma."""
    each_positive = isinstance(weights, Mapping) and all(map(_positive, weights.values()))
    if not (weights in (None, "balanced") or each_positive):
        yield f"class_weights: must be null, balanced or {{name: weight above 0}}; found {weights!r}; correct it"
    if gamma is not None and not 0 <= gamma < float("inf"):
        yield f"focal_gamma: must be null, or 0 or more; found {gamma}; set one such as 2.0"


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0


def widened(logits: torch.Tensor) -> torch.Tensor:
    """Return half-precision logits in float32: the sum over a batch overflows in fp16 and rounds in bf16."""
    import torch

    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _label_weight(labels: torch.Tensor, class_weights: tuple[float, ...] | None) -> torch.Tensor:
    """Return the number of labels that count, or the sum of their class weights."""
    import torch

    known = labels != IGNORED
    if class_weights is None:
        return known.sum().to(torch.float32)
    return torch.tensor(class_weights, device=labels.device)[labels[known]].sum()


def _discount(log_probability: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return (1 - p)^gamma. Zero is kept off: there, the gradient of a power below 1 is infinite."""
    import torch

    rest = -torch.expm1(log_probability)
    return rest.clamp(min=torch.finfo(rest.dtype).tiny) ** gamma


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
