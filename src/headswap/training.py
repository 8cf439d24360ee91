"""What a training is made of, what outlives its process, and what changes while it runs. Floor 3; loop.py uses it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from headswap.answers import Scores
from headswap.checkpoint import Checkpoints
from headswap.contracts import LossFunction, Metric
from headswap.flops import FlopCount
from headswap.frozen import Frozen
from headswap.hardware import Hardware
from headswap.layers import EMBEDDINGS, layer_groups, layers
from headswap.phases import Phase
from headswap.schedule import moving, spans
from headswap.seeds import Seeds
from headswap.spine import TrainConfig
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
        frozen: serves the body's outputs in phases before it first moves, None for nothing.
        correct: what the strategy does to a moving weight after a step (phases.Corrects), None for nothing.
        metric: the metric that selects the best weights; it knows its own direction.
        report: told of every logged step and evaluation.
        flops: counts what forward and backward passes compute.
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
    correct: Callable[[str, torch.Tensor, torch.Tensor, float], None] | None = None
    frozen: Frozen | None = None
    flops: FlopCount = field(default_factory=FlopCount)

    @property
    def ever_moving(self) -> set[str]:
        """The roles of the weights that move in any phase."""
        roles = list(self.roles.values())
        return set().union(*(moving(phase, roles) for phase in self.phases))

    def still_until(self, total: int) -> int:
        """Return the last step of the phases before the first in which a weight of the body moves; 0 for none."""
        roles, still = list(self.roles.values()), 0
        for phase, (_, last) in zip(self.phases, spans(self.phases, total), strict=True):
            if any(role.startswith("body.") for role in moving(phase, roles)):
                break
            still = last
        return still

    def still_layers(self, last: int, total: int) -> int:
        """Return how many lowest layers of the body no phase before step `last` moves; 0 where its embeddings move."""
        roles = list(self.roles.values())
        begun = [
            phase for phase, (first, _) in zip(self.phases, spans(self.phases, total), strict=True) if first < last
        ]
        moved = set().union(*(moving(phase, roles) for phase in begun))
        groups = layer_groups(roles)
        stay = [moved.isdisjoint(groups.get(name, ())) for name in (EMBEDDINGS, *layers(roles))]
        return stay.index(False) - 1 if stay[0] and False in stay else 0

    def frozen_to_the_end(self, total: int) -> Frozen | None:
        """Return what serves the body's outputs, where no weight of it ever moves."""
        return self.frozen if self.still_until(total) == total else None


@dataclass
class Progress:
    """What changes while training. Seconds and examples (features: what a batch is of) count training only.

    `flops` are those of all processes up to the last evaluation or save; None where they cannot be counted.
    `average` is the running mean of the weights that move, by name, where `train.ema` asks for one; `started` what
    they were before the first step, where a strategy pulls towards it.
    """

    total: int
    step: int = 0
    evaluated: int = 0
    examples: int = 0
    seconds: float = 0.0
    flops: int | None = 0
    best_step: int = 0
    best: tuple[float, float] | None = None
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    average: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    started: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    since_best: int = 0
    trainable: int = 0
    micro_batch_size: int | None = None
    stopped_early: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it without the weights, as JSON can hold it."""
        held = ("best_weights", "average", "started")
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name not in held}
