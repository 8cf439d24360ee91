"""The training loop, the only one: phases, steps, evaluation, best weights, saves and stops. Floor 3.

    fit() -> for each phase: train_phase() -> for each step: train_step() -> boundary() -> (at its marks) evaluate()

A boundary is the moment after an optimizer step. Only there is a state saved or a run stopped, and all processes
decide it together; an evaluation that the state has not seen yet is made up for when the run goes on.
"""

from __future__ import annotations

import math
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from headswap.afterstep import AfterStep, averaged, keep_average, remember
from headswap.architecture import body_modules
from headswap.checkpoint import State, fill_optimizer, load, optimizer_tensors
from headswap.errors import RunError, Stopped
from headswap.flops import told
from headswap.phases import Phase
from headswap.schedule import (
    evaluation_steps,
    moving,
    parameter_groups,
    rate_factor,
    schedule_of,
    spans,
    total_steps,
)
from headswap.sharding import at_rest, fill, gathered
from headswap.step import train_step
from headswap.training import Progress, Training


def fit(model: torch.nn.Module, training: Training) -> Progress:
    """Train `model` in place, through all phases; it ends with the weights that `train.keep` asks for.

    Raises:
        Diverged: the loss or the gradient became NaN or Inf; the weights are as before that step.
        Stopped: somebody asked for it; the state is saved.
    """
    train, keeper = training.train, training.keeper
    total = total_steps(train, training.batches.steps_per_epoch)
    progress, state = _start(model, training, total)
    marks = set(evaluation_steps(train, total))
    with keeper.stop.patiently():
        for phase, (first, last) in zip(training.phases, spans(training.phases, total), strict=True):
            due = progress.step in marks and progress.evaluated < progress.step == last
            if progress.step < last or due:
                with _served(model, training, total, (first, last)):
                    train_phase(model, (phase, first, last), training, (progress, marks), state)
            if progress.stopped_early:
                break
    if train.keep == "best" and progress.best_step != progress.step:
        fill(model, progress.best_weights)
    else:
        keep_average(model, progress)
    progress.best_weights = {}
    training.flops.settle(progress, training.hardware)
    return progress


def _served(
    model: torch.nn.Module, training: Training, total: int, span: tuple[int, int]
) -> AbstractContextManager[None]:
    """Let what does not move before a phase ends answer from what was computed of it once: the body, or its bottom."""
    (first, last), still, frozen = span, training.still_until(total), training.frozen
    splits, size = ("train", "validation"), training.train.batch_size
    if frozen is not None and last <= still:
        return frozen.serving(model, splits, still * size)
    if frozen is not None and (count := training.still_layers(last, total)):
        return frozen.below(count).serving(model, splits, (last - first) * size)
    return nullcontext()


def train_phase(
    model: torch.nn.Module,
    span: tuple[Phase, int, int],
    training: Training,
    going: tuple[Progress, set[int]],
    state: State | None = None,
) -> None:
    """Train one phase from where `progress` stands: its weights move, its schedule and its optimizer are its own."""
    (phase, first, last), (progress, marks) = span, going
    weights = {training.roles[name]: weight for name, weight in at_rest(model).items() if name in training.roles}
    rules, schedule = moving(phase, list(weights)), schedule_of(phase, training.train)
    for role, weight in weights.items():
        weight.requires_grad_(role in rules)
    training.flops.begin()
    progress.trainable = max(progress.trainable, sum(weights[role].numel() for role in rules))
    optimizer = torch.optim.AdamW(parameter_groups(weights, rules, training.train), fused=True)
    prepared, optimizer = training.hardware.prepare(model, optimizer)
    after_step = AfterStep(model, training, progress)
    if state is not None and first < state.step < last:
        fill_optimizer(optimizer, _names(model), state.optimizer)
    if progress.step in marks and progress.evaluated < progress.step:  # the state was saved before it was judged
        evaluate(model, optimizer, training, progress)
    body_moves = any(role.startswith("body.") for role in rules)
    for step in range(progress.step, last) if not progress.stopped_early else ():
        _train_mode(prepared, model, body_moves)
        factor = rate_factor(step - first, last - first, schedule)
        for group in optimizer.param_groups:
            group["lr"] = training.train.learning_rate * group["factor"] * factor
        train_step(prepared, optimizer, step, training, progress)
        after_step(optimizer)
        boundary(model, optimizer, training, progress)
        if progress.step in marks:
            evaluate(model, optimizer, training, progress)
            boundary(model, optimizer, training, progress)
            if progress.stopped_early:
                break
    training.hardware.plain(prepared)
    if len(training.phases) > 1:  # the next phase's optimizer needs the memory of this one's state
        training.hardware.release()


def boundary(model: torch.nn.Module, optimizer: Any, training: Training, progress: Progress) -> None:
    """Save if it is due, stop if any process was asked to; all processes decide alike.

    Raises:
        Stopped: with what became of the state.
    """
    keeper, hardware = training.keeper, training.hardware
    checkpoints = keeper.checkpoints
    timely = checkpoints is not None and progress.step < progress.total and checkpoints.due(progress.step)
    asked, due = hardware.any(keeper.stop.asked_after(progress.step), timely and hardware.first)
    if not asked and not due:
        return
    saved = save(model, optimizer, training, progress) if checkpoints is not None else False
    if asked:
        kept = "its state is saved: the same command goes on from there" if saved else "its state could not be saved"
        reason = next(filter(None, hardware.gather(keeper.stop.reason)), "a signal")
        raise Stopped(f"stopped by {reason} after step {progress.step} of {progress.total}; {kept}")


def save(model: torch.nn.Module, optimizer: Any, training: Training, progress: Progress) -> bool:
    """Write the state of this boundary, rank 0 alone; return whether it is on the disk."""
    keeper, hardware = training.keeper, training.hardware
    assert keeper.checkpoints is not None
    if hardware.from_first(keeper.checkpoints.last_step) == progress.step:
        return True
    weights = gathered(_moving(model, training), hardware.first)
    held = gathered(optimizer_tensors(optimizer, _names(model)), hardware.first)
    average = gathered(progress.average, hardware.first)
    training.flops.settle(progress, hardware)
    saved = True
    if hardware.first:
        try:
            lines, refused = keeper.settle(), ""
        except OSError as error:
            lines, refused = 0, str(error.strerror or error)
        facts = {"progress": progress.to_dict(), "scale": hardware.scale, "metrics_lines": lines, **keeper.facts}
        best = progress.best_weights, progress.best_step
        state = State(progress.step, facts, weights, held, *best, average)
        saved = keeper.checkpoints.save(state, refused)
    return hardware.from_first(saved)


def evaluate(model: torch.nn.Module, optimizer: Any, training: Training, progress: Progress) -> None:
    """Score validation; keep the weights if they are the best so far; say when patience is at its end.

    A tie in the metric goes to the lower validation loss: with few validation rows ties are common, and the first of
    them would be the least trained.
    """
    try:
        with averaged(model, progress):
            scores = training.score(model, "validation")
    except Stopped:  # asked while it scored: what is saved is the state before the evaluation
        boundary(model, optimizer, training, progress)
        raise
    by_loss = training.train.select_by == "loss"
    value = -scores.loss if by_loss else scores.values[training.metric.name]
    standing = _standing(value if by_loss or training.metric.greater_is_better else -value, scores.loss)
    progress.evaluated = progress.step
    improved = progress.best is None or standing > progress.best
    if improved:
        progress.best, progress.best_step, progress.since_best = standing, progress.step, 0
        if training.train.keep == "best" and progress.step < progress.total:
            with averaged(model, progress):
                held = gathered(_moving(model, training))
                progress.best_weights = {name: value.to("cpu", copy=True) for name, value in held.items()}
    else:
        # An earlier phase cannot use patience up: the next one lets other weights move.
        progress.since_best += progress.step > spans(training.phases, progress.total)[-1][0]
        progress.stopped_early = training.train.patience is not None and progress.since_best >= training.train.patience
    training.flops.settle(progress, training.hardware)
    training.report(
        {
            "kind": "validation",
            "step": progress.step,
            "total": progress.total,
            "examples": progress.examples,
            "seconds": round(progress.seconds, 4),
            **told(progress),
            "loss": scores.loss,
            **scores.values,
            "best": improved,
        }
    )


def _standing(value: float, loss: float) -> tuple[float, float]:
    """Return what evaluations are compared by, more is better; what is no number is the worst, and JSON can hold it."""
    worst = -sys.float_info.max
    return value if math.isfinite(value) else worst, -loss if math.isfinite(loss) else worst


def _start(model: torch.nn.Module, training: Training, total: int) -> tuple[Progress, State | None]:
    """Return the progress to start from, and put the weights of the saved state into the model if there is one."""
    path, fresh = training.keeper.resume, Progress(total)
    remember(model, training, fresh)
    if path is None:
        return fresh, None
    state = load(path)
    for key, value in training.keeper.facts.get("made_of", {}).items():
        found = state.facts["made_of"].get(key)
        if found != value:
            raise RunError(
                f"{path}: saved by another training; found {key} {found}, expected {value}; "
                f"remove the folder, or set output.reuse=false to start again"
            )
    saved = {"flops": None, **state.facts["progress"]}  # a state of an earlier release holds no count
    saved["best"] = saved["best"] and tuple(saved["best"])
    if saved["total"] != total:
        raise RunError(f"{path}: saved by another training; found {saved['total']} steps, expected {total}; remove it")
    if odd := sorted(state.weights.keys() ^ _moving(model, training).keys()):
        raise RunError(f"{path}: saved by another training; found other weights in it, such as {odd[0]}; remove it")
    fill(model, state.weights)
    training.hardware.set_scale(state.facts["scale"])
    progress = Progress(**saved, best_weights=dict(state.best))
    progress.average, progress.started = dict(state.average), fresh.started
    return progress, state


def _train_mode(prepared: torch.nn.Module, model: Any, body_moves: bool) -> None:
    """Training mode; a body that is frozen as a whole stays in evaluation mode, without dropout."""
    if not prepared.training or not model.training:
        prepared.train()
    for module in body_modules(model) if not body_moves else ():
        if module.training:
            module.eval()


def _names(model: torch.nn.Module) -> dict[torch.Tensor, str]:
    return {weight: name for name, weight in at_rest(model).items()}


def _moving(model: torch.nn.Module, training: Training) -> dict[str, torch.Tensor]:
    """Return what training changes, in pieces where the model is: all buffers, and the weights that move in any phase.

    A best step may lie in an early phase: what a later one moves must go back with it.
    """
    ever = training.ever_moving
    still = {name for name, role in training.roles.items() if role not in ever}
    return {name: value.detach() for name, value in model.state_dict().items() if name not in still}
