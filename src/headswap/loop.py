"""The training loop, the only one: phases, steps, evaluation, best weights, saves and stops. Floor 3.

    fit() -> for each phase: train_phase() -> for each step: train_step() -> boundary() -> (at its marks) evaluate()

A boundary is the moment after an optimizer step. Only there is a state saved or a run stopped, and all processes
decide it together; an evaluation that the state has not seen yet is made up for when the run goes on.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from headswap.answers import Scores
from headswap.architecture import body_modules
from headswap.checkpoint import Checkpoints, State, fill_optimizer, load, optimizer_tensors
from headswap.contracts import LossFunction, Metric
from headswap.errors import RunError, Stopped
from headswap.hardware import Hardware
from headswap.phases import Phase
from headswap.schedule import evaluation_steps, parameter_groups, rate_factor, spans, total_steps, trainable
from headswap.seeds import Seeds
from headswap.sharding import fill, gathered
from headswap.spine import TrainConfig
from headswap.step import train_step
from headswap.stopping import Stop
from headswap.table_task import model_inputs

if TYPE_CHECKING:
    from headswap.data import Batches

Report = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Keeper:
    """What outlives the process: where states go, who may ask for a stop, and the state to start from.

    Args:
        facts: what a state must agree with to be gone on from: the data's fingerprint, versions.
        settle: puts metrics.jsonl on the disk and returns how many lines it has.
        resume: a checkpoint folder, None to start afresh.
    """

    checkpoints: Checkpoints | None = None
    stop: Stop = field(default_factory=Stop)
    facts: Mapping[str, Any] = field(default_factory=dict)
    settle: Callable[[], int] = lambda: 0
    resume: Path | None = None


@dataclass(frozen=True)
class Training:
    """What a training is made of, besides the model: the constants of `fit`.

    Args:
        roles: the model's parameter names -> role names (`body. ...`, `head. ...`).
        score: scores the model on a split.
        forward: gives the model a batch: Task.forward.
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
    keeper: Keeper = field(default_factory=Keeper)
    forward: Callable[[Any, Mapping[str, torch.Tensor]], Any] = lambda model, batch: model(**model_inputs(batch))


@dataclass
class Progress:
    """What changes while training. Seconds and examples (features: what a batch is of) count training only."""

    total: int
    step: int = 0
    evaluated: int = 0
    examples: int = 0
    seconds: float = 0.0
    best_step: int = 0
    best: tuple[float, float] | None = None
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    since_best: int = 0
    trainable: int = 0
    micro_batch_size: int | None = None
    stopped_early: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it without the weights, as JSON can hold it."""
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "best_weights"}


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
                train_phase(model, (phase, first, last), training, (progress, marks), state)
            if progress.stopped_early:
                break
    if train.keep == "best" and progress.best_step != progress.step:
        fill(model, progress.best_weights)
    progress.best_weights = {}
    return progress


def train_phase(
    model: torch.nn.Module,
    span: tuple[Phase, int, int],
    training: Training,
    going: tuple[Progress, set[int]],
    state: State | None = None,
) -> None:
    """Train one phase from where `progress` stands: its weights move, its schedule and its optimizer are its own."""
    (phase, first, last), (progress, marks) = span, going
    weights = {training.roles[name]: weight for name, weight in model.named_parameters() if name in training.roles}
    factors = trainable(phase, list(weights))
    for role, weight in weights.items():
        weight.requires_grad_(role in factors)
    progress.trainable = max(progress.trainable, sum(weights[role].numel() for role in factors))
    optimizer = torch.optim.AdamW(parameter_groups(weights, factors, training.train), fused=True)
    prepared, optimizer = training.hardware.prepare(model, optimizer)
    if state is not None and first < state.step < last:
        fill_optimizer(optimizer, _names(model), state.optimizer)
    if progress.step in marks and progress.evaluated < progress.step:  # the state was saved before it was judged
        evaluate(model, optimizer, training, progress)
    body_moves = any(role.startswith("body.") for role in factors)
    for step in range(progress.step, last) if not progress.stopped_early else ():
        _train_mode(prepared, model, body_moves)
        factor = rate_factor(step - first, last - first, training.train)
        for group in optimizer.param_groups:
            group["lr"] = training.train.learning_rate * group["factor"] * factor
        train_step(prepared, optimizer, step, training, progress)
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
    moving = gathered(_moving(model, training), hardware.first)
    held = gathered(optimizer_tensors(optimizer, _names(model)), hardware.first)
    saved = True
    if hardware.first:
        try:
            lines, refused = keeper.settle(), ""
        except OSError as error:
            lines, refused = 0, str(error.strerror or error)
        facts = {"progress": progress.to_dict(), "scale": hardware.scale, "metrics_lines": lines, **keeper.facts}
        state = State(progress.step, facts, moving, held, progress.best_weights, progress.best_step)
        saved = keeper.checkpoints.save(state, refused)
    return hardware.from_first(saved)


def evaluate(model: torch.nn.Module, optimizer: Any, training: Training, progress: Progress) -> None:
    """Score validation; keep the weights if they are the best so far; say when patience is at its end.

    A tie in the metric goes to the lower validation loss: with few validation rows ties are common, and the first of
    them would be the least trained.
    """
    try:
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
            moving = gathered(_moving(model, training))
            progress.best_weights = {name: value.to("cpu", copy=True) for name, value in moving.items()}
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


def _standing(value: float, loss: float) -> tuple[float, float]:
    """Return what evaluations are compared by, more is better; what is no number is the worst, and JSON can hold it."""
    worst = -sys.float_info.max
    return value if math.isfinite(value) else worst, -loss if math.isfinite(loss) else worst


def _start(model: torch.nn.Module, training: Training, total: int) -> tuple[Progress, State | None]:
    """Return the progress to start from, and put the weights of the saved state into the model if there is one."""
    path = training.keeper.resume
    if path is None:
        return Progress(total), None
    state = load(path)
    for key, value in training.keeper.facts.get("made_of", {}).items():
        found = state.facts["made_of"].get(key)
        if found != value:
            raise RunError(
                f"{path}: saved by another training; found {key} {found}, expected {value}; "
                f"remove the folder, or set output.reuse=false to start again"
            )
    told = dict(state.facts["progress"])
    told["best"] = told["best"] and tuple(told["best"])
    if told["total"] != total:
        raise RunError(f"{path}: saved by another training; found {told['total']} steps, expected {total}; remove it")
    if odd := sorted(state.weights.keys() ^ _moving(model, training).keys()):
        raise RunError(f"{path}: saved by another training; found other weights in it, such as {odd[0]}; remove it")
    fill(model, state.weights)
    training.hardware.set_scale(state.facts["scale"])
    return Progress(**told, best_weights=dict(state.best)), state


def _train_mode(prepared: torch.nn.Module, model: Any, body_moves: bool) -> None:
    """Training mode; a body that is frozen as a whole stays in evaluation mode, without dropout."""
    if not prepared.training or not model.training:
        prepared.train()
    for module in body_modules(model) if not body_moves else ():
        if module.training:
            module.eval()


def _names(model: torch.nn.Module) -> dict[torch.Tensor, str]:
    return {weight: name for name, weight in model.named_parameters()}


def _moving(model: torch.nn.Module, training: Training) -> dict[str, torch.Tensor]:
    """Return what training changes, in pieces where the model is: all buffers, and the weights that move in any phase.

    A best step may lie in an early phase: what a later one moves must go back with it.
    """
    moving = set().union(*(trainable(phase, list(training.roles.values())) for phase in training.phases))
    still = {name for name, role in training.roles.items() if role not in moving}
    return {name: value.detach() for name, value in model.state_dict().items() if name not in still}
