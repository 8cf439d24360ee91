"""One optimizer step over one global batch: micro-batches, one gradient, a proof that it is finite. Floor 3.

Every random number of a step comes from a stream keyed by (seed, step, micro-step, rank), so a step does not depend on
how the run got there. The loss of a step is the sum over its window divided by the window's weight, whatever the number
of micro-batches or processes: accelerate's `accumulate` divides by the nominal count even in a short last window.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headswap.errors import Diverged, OutOfMemory
from headswap.hardware import first_line, is_out_of_memory

if TYPE_CHECKING:
    from headswap.training import Progress, Training

LEAST_SCALE = 2.0**-10


def train_step(model: torch.nn.Module, optimizer: Any, step: int, training: Training, progress: Progress) -> None:
    """Take one optimizer step; out of memory, take it again in smaller micro-batches when that is allowed.

    Raises:
        Diverged: the loss or the gradient is NaN or infinite; the weights are as before the step.
        OutOfMemory: with the micro-batch that did not fit, and the remedy.
    """
    started = time.perf_counter()
    epoch, position = divmod(step, training.batches.steps_per_epoch)
    rows = training.batches.epoch(epoch)[position]
    while True:
        try:
            loss, norm = _gradient(model, rows, step, training, progress)
            break
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            said = first_line(error)
        # Outside the except block, whose error holds on to the tensors of the failed pass.
        _smaller(training, progress, len(rows), said)
        training.flops.drop()
        optimizer.zero_grad()
        training.hardware.free_cache()
    _refuse_divergence(model, optimizer, (step, rows), (loss, norm), (training, progress))
    optimizer.step()
    optimizer.zero_grad()
    training.flops.keep()
    progress.step, progress.examples = step + 1, progress.examples + len(rows)
    progress.seconds += time.perf_counter() - started
    training.report(_line(progress, epoch, (loss, norm), optimizer, training))


def micro_batches(rows: np.ndarray, training: Training, size: int) -> list[tuple[np.ndarray, bool]]:
    """Return this process's share of a step's rows in micro-batches of `size`, and whether each counts.

    Every process gets the same number: where one has no rows left it computes on a row that counts for nothing, because
    the exchange of gradients needs all of them.
    """
    world, rank = training.hardware.world, training.hardware.rank
    mine = rows[rank::world]
    count = -(-len(rows[::world]) // size)
    parts = [mine[number * size : (number + 1) * size] for number in range(count)]
    return [(part, True) if len(part) else (rows[:1], False) for part in parts]


def micro_batch_size(training: Training, progress: Progress) -> int:
    """Return the examples of one forward pass: as configured, or what memory has left of it."""
    share = max(1, training.train.batch_size // training.hardware.world)
    return progress.micro_batch_size or training.train.micro_batch_size or share


def _gradient(
    model: torch.nn.Module, rows: np.ndarray, step: int, training: Training, progress: Progress
) -> tuple[float, float]:
    """Leave the step's clipped gradient in the weights; return its loss and its norm before clipping."""
    loss = float(_backward(model, rows, step, training, progress))
    return loss, float(training.hardware.clip(model.parameters(), training.train.max_grad_norm))


def _backward(
    model: torch.nn.Module, rows: np.ndarray, step: int, training: Training, progress: Progress
) -> torch.Tensor:
    """Add the step's gradient to that in the weights; return its loss."""
    hardware, epoch = training.hardware, step // training.batches.steps_per_epoch
    window = [
        (hardware.move(training.batches.collate("train", part, epoch)), counts)
        for part, counts in micro_batches(rows, training, micro_batch_size(training, progress))
    ]
    nothing = torch.zeros((), device=hardware.device)
    weights = (training.loss.weight(batch) * float(counts) for batch, counts in window)  # one dtype on all processes
    weight = hardware.sum(sum(weights, nothing))
    weight = torch.where(
        weight == 0, torch.ones_like(weight), weight
    )  # nothing to learn in these rows: a gradient of 0
    total = nothing
    for micro, (batch, counts) in enumerate(window):
        hardware.seed(training.seeds.stream("dropout", step, micro, hardware.rank))
        with hardware.last_micro_step(model, micro == len(window) - 1), training.flops.counted(batch):
            summed = training.loss(training.forward(model, batch), batch) * float(counts)
            hardware.backward(summed * (hardware.world / weight))
            total = total + summed.detach()  # in the loss's own precision
    return hardware.sum(total) / weight


def _smaller(training: Training, progress: Progress, rows: int, said: str) -> None:
    """Halve the micro-batch; the rows of the step, its loss and its weight stay what they are."""
    size = min(micro_batch_size(training, progress), rows)
    if not training.train.find_batch_size or training.hardware.world > 1 or size == 1:
        remedy = "set train.find_batch_size=true" if size > 1 else "take a smaller body or data.max_length"
        raise OutOfMemory(
            f"train.micro_batch_size: does not fit into memory; found {size} examples a pass ({said}); {remedy}"
        )
    progress.micro_batch_size = size // 2
    training.report(
        {"kind": "out_of_memory", "step": progress.step, "micro_batch_size": progress.micro_batch_size, "said": said}
    )


def _refuse_divergence(
    model: torch.nn.Module,
    optimizer: Any,
    where: tuple[int, np.ndarray],
    found: tuple[float, float],
    of: tuple[Training, Progress],
) -> None:
    (step, rows), (loss, norm), (training, progress) = where, found, of
    scale = training.hardware.scale  # fp16: an overflow is the scaler's business, it skips the step and scales less
    too_small = scale is not None and scale["scale"] < LEAST_SCALE
    if math.isfinite(loss) and (math.isfinite(norm) or scale is not None) and not too_small:
        return
    encoded = training.batches.of("train")
    examples = encoded.example[rows]
    ids = [encoded.ids[example] for example in examples]
    optimizer.zero_grad()
    _backward(model, rows, step, training, progress)  # again: clipping has spread one NaN over all gradients
    broken = [
        name for name, weight in model.named_parameters() if weight.grad is not None and not _finite(weight.grad)
    ]  # fmt: skip
    facts = {
        "step": step + 1,
        "loss": str(loss),
        "gradient_norm": str(norm),
        "loss_scale": scale and scale["scale"],
        "learning_rate": optimizer.param_groups[0]["lr"],
        "rows": [int(example) for example in examples],
        "ids": ids,
        "weights_with_broken_gradients": broken,
    }
    raise Diverged(
        f"step {step + 1}: the training diverged; found loss {loss}, gradient norm {norm} on examples "
        f"{', '.join(ids[:5])} ...; lower train.learning_rate or set train.precision=fp32",
        facts,
    )


def _finite(tensor: torch.Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _line(
    progress: Progress, epoch: int, found: tuple[float, float], optimizer: Any, training: Training
) -> dict[str, Any]:
    line = {
        "kind": "train",
        "step": progress.step,
        "total": progress.total,
        "epoch": epoch,
        "loss": found[0],
        "learning_rate": optimizer.param_groups[0]["lr"],
        "gradient_norm": found[1],
        "examples": progress.examples,
        "seconds": round(progress.seconds, 4),
    }
    if not math.isfinite(found[1]):  # fp16 overflow: JSON has no infinity, and the step was not taken
        line |= {"gradient_norm": None, "skipped": True, "loss_scale": (training.hardware.scale or {}).get("scale")}
    return line
