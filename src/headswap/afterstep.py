"""What happens to weights after an optimizer step: a strategy's pull, and the running mean of them. Floor 3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from headswap.sharding import at_rest, like
from headswap.training import Progress, Training


def remember(model: torch.nn.Module, training: Training, progress: Progress) -> None:
    """Keep the weights before the first step, where the strategy pulls towards them; `model` must hold them."""
    if training.correct is not None:
        progress.started = {name: weight.detach().clone() for name, weight in _moving(model, training).items()}


class AfterStep:
    """What a phase does after each of its steps; nothing, unless the strategy pulls or `train.ema` is set."""

    def __init__(self, model: torch.nn.Module, training: Training, progress: Progress) -> None:
        self.training, self.progress = training, progress
        self.asked = training.correct is not None or training.train.ema is not None
        self.weights = _moving(model, training) if self.asked else {}
        for held in (progress.started, progress.average):  # whole ones become pieces, where the weights are in pieces
            for name in held:
                if name in self.weights and type(held[name]) is not type(self.weights[name].data):
                    held[name] = like(held[name].to(self.weights[name].device), self.weights[name])

    @torch.no_grad()
    def __call__(self, optimizer: Any) -> None:
        if not self.asked or getattr(optimizer, "step_was_skipped", False):  # fp16: an overflow, nothing moved
            return
        if self.training.correct is not None:
            rates = {id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]}
            for name, weight in self.weights.items():
                if id(weight) in rates:
                    start = self.progress.started[name]
                    self.training.correct(self.training.roles[name], weight.data, start, rates[id(weight)])
        if self.training.train.ema is not None:
            self._average(self.training.train.ema)

    def _average(self, decay: float) -> None:
        """Move the mean by 1 - decay of the way; in the first steps by more, so that the start is soon forgotten."""
        mean, step = self.progress.average, self.progress.step
        for name, weight in self.weights.items():
            if name not in mean:
                mean[name] = weight.detach().clone()
        share = min(decay, step / (9 + step))
        values = [weight.detach() for weight in self.weights.values()]
        get_ema_multi_avg_fn(share)([mean[name] for name in self.weights], values, None)


@contextmanager
def averaged(model: torch.nn.Module, progress: Progress) -> Iterator[None]:
    """Put the running mean into the model inside, where there is one."""
    _swap(model, progress)
    try:
        yield
    finally:
        _swap(model, progress)


def keep_average(model: torch.nn.Module, progress: Progress) -> None:
    """Leave the running mean in the model, where there is one."""
    _swap(model, progress)
    progress.average = {}


@torch.no_grad()
def _swap(model: torch.nn.Module, progress: Progress) -> None:
    for name, weight in at_rest(model).items() if progress.average else ():
        if name in progress.average:
            held = weight.detach().clone()
            weight.copy_(progress.average[name])
            progress.average[name] = held


def _moving(model: torch.nn.Module, training: Training) -> dict[str, torch.nn.Parameter]:
    """Return the weights that move in any phase, by name."""
    ever = training.ever_moving
    return {name: weight for name, weight in at_rest(model).items() if training.roles.get(name) in ever}
