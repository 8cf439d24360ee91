"""The training loop, the only one: phases, steps, accumulation, evaluation, best weights. Floor 3.

    fit() -> for each phase: train_phase() -> for each step: step() -> (at its marks) evaluate()

Every random number of a step comes from a stream keyed by (seed, step, micro-step, rank), so a step does not depend on
how the run got there. The loss of a step is the sum over its window divided by the window's weight, whatever the number
of micro-batches or processes: accelerate's `accumulate` divides by the nominal count even in a short last window.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headswap.contracts import LossFunction, Metric, Phase, Scores
from headswap.errors import RunError
from headswap.hardware import Hardware
from headswap.schedule import evaluation_steps, parameter_groups, rate_factor, spans, total_steps, trainable
from headswap.seeds import Seeds
from headswap.spine import TrainConfig

if TYPE_CHECKING:
    from headswap.data import Batches

Report = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Training:
    """What a training is made of, besides the model: the constants of `fit`.

    Args:
        roles: the model's parameter names -> role names (`body. ...`, `head. ...`).
        score: scores the model on a split.
        metric: the metric that selects the best weights; it knows its own direction.
        report: told of every logged step and evaluation.
    """

    phases: Sequence[Phase]
    roles: Mapping[str, str]
    batches: Batches
    loss: LossFunction
    score: Callable[[torch.nn.Module, str], Scores]
    metric: Metric
    hardware: Hardware
    train: TrainConfig
    seeds: Seeds
    report: Report


@dataclass
class Progress:
    """What changes while training. Seconds and examples count training only, not evaluation."""

    total: int
    step: int = 0
    examples: int = 0
    seconds: float = 0.0
    best_step: int = 0
    best: tuple[float, float] = (-math.inf, -math.inf)
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    since_best: int = 0
    trainable: int = 0
    stopped_early: bool = False


def fit(model: torch.nn.Module, training: Training) -> Progress:
    """Train `model` in place, through all phases; it ends with the weights that `train.keep` asks for.

    Raises:
        RunError: the loss or the gradient became NaN or Inf; the weights are as before that step.
    """
    train = training.train
    progress = Progress(total_steps(train, training.batches.steps_per_epoch))
    marks = set(evaluation_steps(train, progress.total))
    for phase, (first, last) in zip(training.phases, spans(training.phases, progress.total), strict=True):
        train_phase(model, phase, range(first, last), training, (progress, marks))
        if progress.stopped_early:
            break
    if train.keep == "best" and progress.best_step != progress.step:
        model.load_state_dict(progress.best_weights, strict=False)
    progress.best_weights = {}
    return progress


def train_phase(
    model: torch.nn.Module, phase: Phase, steps: range, training: Training, state: tuple[Progress, set[int]]
) -> None:
    """Train one phase: its weights move, its schedule starts anew, its optimizer is its own."""
    progress, marks = state
    weights = {training.roles[name]: weight for name, weight in model.named_parameters()}
    factors = trainable(phase, list(weights))
    for role, weight in weights.items():
        weight.requires_grad_(role in factors)
    progress.trainable = max(progress.trainable, sum(weights[role].numel() for role in factors))
    optimizer = torch.optim.AdamW(parameter_groups(weights, factors, training.train), fused=True)
    prepared, optimizer = training.hardware.prepare(model, optimizer)
    body_moves = any(role.startswith("body.") for role in factors)
    for step in steps:
        if not prepared.training or step == steps.start:
            _train_mode(prepared, model, body_moves)
        factor = rate_factor(step - steps.start, len(steps), training.train)
        for group in optimizer.param_groups:
            group["lr"] = training.train.learning_rate * group["factor"] * factor
        train_step(prepared, optimizer, step, training, progress)
        if progress.step in marks:
            evaluate(prepared, model, training, progress)
            if progress.stopped_early:
                break
    training.hardware.plain(prepared)
    if len(training.phases) > 1:  # the next phase's optimizer needs the memory of this one's state
        training.hardware.release()


def train_step(model: torch.nn.Module, optimizer: Any, step: int, training: Training, progress: Progress) -> None:
    """Take one optimizer step over one global batch, in micro-batches."""
    started = time.perf_counter()
    hardware, batches = training.hardware, training.batches
    epoch, position = divmod(step, batches.steps_per_epoch)
    rows = batches.epoch(epoch)[position]
    window = [hardware.move(batches.collate("train", part)) for part in micro_batches(rows, training)]
    weight = hardware.sum(
        sum((training.loss.weight(batch) for batch in window), torch.zeros((), device=hardware.device))
    )
    total = torch.zeros((), device=hardware.device)
    for micro, batch in enumerate(window):
        torch.manual_seed(training.seeds.stream("dropout", step, micro, hardware.rank))
        with hardware.last_micro_step(model, micro == len(window) - 1):
            inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
            summed = training.loss(model(**inputs).logits, batch)
            hardware.backward(summed * (hardware.world / weight))
            total += summed.detach()
    loss = float(hardware.sum(total) / weight)
    norm = float(hardware.clip(model.parameters(), training.train.max_grad_norm))
    scaled = hardware.precision.name == "fp16"  # an overflow there is the scaler's business: it skips the step
    if not math.isfinite(loss) or not (scaled or math.isfinite(norm)):
        ids = ", ".join(training.batches.of("train").ids[row] for row in rows[:5])
        raise RunError(
            f"step {step + 1}: the training diverged; found loss {loss}, gradient norm {norm} on examples {ids} ...; "
            f"lower train.learning_rate or set train.precision=fp32"
        )
    optimizer.step()
    optimizer.zero_grad()
    progress.step, progress.examples = step + 1, progress.examples + len(rows)
    progress.seconds += time.perf_counter() - started
    training.report(_step_line(progress, epoch, loss, (optimizer.param_groups[0]["lr"], norm)))


def micro_batches(rows: np.ndarray, training: Training) -> list[np.ndarray]:
    """Return this process's share of a step's rows, cut to `train.micro_batch_size`."""
    size = training.train.micro_batch_size or training.train.batch_size
    mine = rows[training.hardware.rank :: training.hardware.world]
    return [mine[start : start + size] for start in range(0, len(mine), size)]


def evaluate(prepared: torch.nn.Module, model: torch.nn.Module, training: Training, progress: Progress) -> None:
    """Score validation; keep the weights if they are the best so far; say when patience is at its end.

    A tie in the metric goes to the lower validation loss: with few validation rows ties are common, and the first of
    them would be the least trained.
    """
    scores = training.score(prepared, "validation")
    value = scores.values[training.metric.name]
    standing = (value if training.metric.greater_is_better else -value, -scores.loss)
    improved = standing > progress.best
    if improved:
        progress.best, progress.best_step, progress.since_best = standing, progress.step, 0
        if training.train.keep == "best" and progress.step < progress.total:
            progress.best_weights = _snapshot(model, training)
    else:
        progress.since_best += 1
        progress.stopped_early = training.train.patience is not None and progress.since_best >= training.train.patience
    training.report(
        {
            "kind": "validation",
            "step": progress.step,
            "examples": progress.examples,
            "seconds": round(progress.seconds, 4),
            "loss": scores.loss,
            **scores.values,
            "best": improved,
        }
    )


def _train_mode(prepared: torch.nn.Module, model: Any, body_moves: bool) -> None:
    """Training mode; a body that is frozen as a whole stays in evaluation mode, without dropout."""
    prepared.train()
    if not body_moves:
        model.base_model.eval()


def _snapshot(model: torch.nn.Module, training: Training) -> dict[str, torch.Tensor]:
    """Return copies, on the CPU, of what training changes: all buffers, and the weights that move in any phase.

    A best step may lie in an early phase: what a later one moves must go back with it.
    """
    moving = set().union(*(trainable(phase, list(training.roles.values())) for phase in training.phases))
    still = {name for name, role in training.roles.items() if role not in moving}
    return {
        name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items() if name not in still
    }


def _step_line(progress: Progress, epoch: int, loss: float, rate_and_norm: tuple[float, float]) -> dict[str, Any]:
    return {
        "kind": "train",
        "step": progress.step,
        "total": progress.total,
        "epoch": epoch,
        "loss": loss,
        "learning_rate": rate_and_norm[0],
        "gradient_norm": rate_and_norm[1],
        "examples": progress.examples,
        "seconds": round(progress.seconds, 4),
    }
