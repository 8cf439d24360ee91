"""Pure arithmetic of a training: how many steps, at which rate, judged when, with which weights moving. Floor 3."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch

from headswap.errors import ConfigError
from headswap.phases import Phase, Rule, Schedule
from headswap.spine import TrainConfig


def total_steps(train: TrainConfig, steps_per_epoch: int) -> int:
    """Return the optimizer steps of the whole training, at least 1."""
    return train.max_steps or max(1, round(train.epochs * steps_per_epoch))


def evaluation_steps(train: TrainConfig, total: int) -> list[int]:
    """Return the steps after which validation is scored, ascending, the last step always among them.

    Log-spaced from 1, because learning curves are read on a log axis; or every `train.evaluate_every` steps. Marks that
    would fall on one step move up, so that a short run has as many chances as a long one, as far as it has steps.
    """
    if train.evaluate_every:
        marks = list(range(train.evaluate_every, total + 1, train.evaluate_every))
    else:
        spaced = (
            np.geomspace(1, total, train.evaluations).round().astype(int) if train.evaluations > 1 else np.array([])
        )
        numbers = np.arange(len(spaced))
        marks = (np.maximum.accumulate(spaced - numbers) + numbers).tolist()
    return sorted({*(mark for mark in marks if mark < total), total})


def spans(phases: Sequence[Phase], total: int) -> list[tuple[int, int]]:
    """Return each phase's first step and the step after its last; together they cover all steps."""
    shares = [phase.share for phase in phases]
    if not phases or abs(sum(shares) - 1) > 1e-6 or min(shares) <= 0:
        raise ConfigError(
            f"strategy: the phases' shares must be above 0 and sum to 1; found {shares}; correct the strategy"
        )
    ends = [round(total * edge) for edge in np.cumsum(shares)]
    ends[-1] = total
    return list(zip([0, *ends[:-1]], ends, strict=True))


def rate_factor(step: int, steps: int, schedule: Schedule) -> float:
    """Return the share of the peak learning rate at `step` (from 0) of a phase of `steps` steps.

    Linear warm-up that reaches 1 at its last step, then a decay that would reach the floor one step after the end: no
    step is wasted on a rate of 0, as transformers' schedule does with its first.
    """
    warmup = round(schedule.warmup_share * steps)
    if step < warmup:
        share = (step + 1) / warmup
    elif schedule.shape == "constant":
        share = 1.0
    else:
        share = (steps - step) / (steps - warmup)
        share = (1 - math.cos(math.pi * share)) / 2 if schedule.shape == "cosine" else share
    return schedule.floor + (1 - schedule.floor) * share


def schedule_of(phase: Phase, train: TrainConfig) -> Schedule:
    """Return the phase's own schedule, or the one that the configuration asks for."""
    return phase.schedule or Schedule(cast(Any, train.schedule), train.warmup_share)


def moving(phase: Phase, names: Sequence[str]) -> dict[str, Rule]:
    """Return role name -> rule of the weights that move in `phase`; the first matching rule decides.

    Raises:
        ConfigError: a weight no rule covers, a rule that matches nothing, or nothing left to train.
    """
    first = {name: next((rule for rule in phase.rules if re.search(rule.pattern, name)), None) for name in names}
    uncovered = [name for name, rule in first.items() if rule is None]
    if uncovered:
        raise ConfigError(
            f"strategy: phase {phase.name} has no rule for {len(uncovered)} weights; found {', '.join(uncovered[:3])}; "
            f"end the rules with one that matches all"
        )
    idle = [rule.pattern for rule in phase.rules if not any(re.search(rule.pattern, name) for name in names)]
    if idle:
        raise ConfigError(
            f"strategy: phase {phase.name} has a rule that matches no weight; found {idle[0]!r}; correct it"
        )
    found = {name: rule for name, rule in first.items() if isinstance(rule, Rule) and rule.factor is not None}
    if not found:
        raise ConfigError(f"strategy: phase {phase.name} freezes every weight; give one rule a factor")
    return found


def factor_of(name: str, rule: Rule, train: TrainConfig) -> float:
    """Return what a weight's learning rate is to `train.learning_rate`: its rule's factor, and the head's own rate."""
    own = train.head_learning_rate if name.startswith("head.") else None
    return (rule.factor or 0.0) * (1.0 if own is None else own / train.learning_rate)


def parameter_groups(
    weights: Mapping[str, torch.nn.Parameter], rules: Mapping[str, Rule], train: TrainConfig
) -> list[dict]:
    """Return AdamW groups, one a (factor, decay): biases, norms and other vectors are not decayed.

    Args:
        rules: role name -> rule of the weights that move.
    """
    groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
    for name, rule in rules.items():
        decayed = rule.decay and weights[name].ndim >= 2
        groups.setdefault((factor_of(name, rule, train), decayed), []).append(weights[name])
    return [
        {
            "params": members,
            "factor": factor,
            "lr": train.learning_rate * factor,
            "weight_decay": train.weight_decay if decayed else 0.0,
        }
        for (factor, decayed), members in groups.items()
    ]
