"""How weights may move: what a strategy says, and the little it may do beyond it. Floor 0, imports nothing heavy.

A strategy gives phases; a phase is a share of all steps in which each weight moves at a factor of the learning rate or
not at all. Most strategies are that and nothing else. Three more things a strategy may offer, each a method of its own:
`starts_new` (weights of the body that begin as in the random twin), `correct` (a pull after each step) and `adapt`
(other layers while it trains). The loop asks for these three and knows no strategy by name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Rule:
    """Weights whose role name matches `pattern` move at `factor` x the learning rate; None freezes them.

    Role names begin with `body.` or `head.`: `body.encoder.layer.0.output.dense.weight`, `head.classifier.bias`.

    Args:
        decay: whether `train.weight_decay` pulls them to 0.
    """

    pattern: str
    factor: float | None
    decay: bool = True


@dataclass(frozen=True)
class Schedule:
    """The learning rate over a phase, in shares of its peak: a climb from `floor` to 1, then `shape` back to `floor`.

    Args:
        shape: `linear`, `cosine` (half a period), or `constant`: it stays at 1.
        warmup_share: the share of the phase's steps that climb.
        floor: the share of the peak at both ends; 0 at the start means that the first step has one step's worth.
    """

    shape: Literal["linear", "cosine", "constant"] = "linear"
    warmup_share: float = 0.1
    floor: float = 0.0


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one set of moving weights: `share` of all steps; the first matching rule decides.

    Args:
        schedule: the phase's own; None for that of train.schedule and train.warmup_share.
    """

    name: str
    share: float
    rules: tuple[Rule, ...]
    schedule: Schedule | None = None


@runtime_checkable
class Strategy(Protocol):
    """How weights may move, as a list of phases whose shares sum to 1.

    A class attribute `imports`, such as `("peft",)`, names slow packages: the children of a study inherit them.
    """

    def phases(self, names: Sequence[str]) -> list[Phase]:
        """Return the phases for a model whose weights have these role names, in the model's order."""
        ...


@runtime_checkable
class StartsNew(Protocol):
    """A strategy that does not begin with all of the pretrained body."""

    def starts_new(self, names: Sequence[str]) -> Collection[str]:
        """Return which of these body weights (role names) begin with the values of the random twin."""
        ...


@runtime_checkable
class Corrects(Protocol):
    """A strategy that pulls weights after each optimizer step. It must act element by element, and draw nothing."""

    def correct(self, name: str, weight: torch.Tensor, start: torch.Tensor, rate: float) -> None:
        """Change a moving weight in place.

        Args:
            name: its role name.
            start: its value before the first step of the run.
            rate: the learning rate of this step, this weight's factor included.
        """
        ...


class Adaptation(Protocol):
    """What stands in a model while it trains."""

    def save(self, folder: Path) -> None:
        """Write what training adds to the pretrained model into `folder`, where that has a form of its own."""
        ...

    def remove(self) -> None:
        """Leave a plain transformers model, with what was learned in its own weights."""
        ...


@runtime_checkable
class Adapts(Protocol):
    """A strategy that trains other layers than the model's own. Its phases see the role names of the adapted model."""

    def adapt(self, model: PreTrainedModel, heads: Collection[str]) -> Adaptation:
        """Put layers into the model, in place; new weights are drawn from torch's generator, which is seeded for it.

        Args:
            heads: names of the head's parameters, which train as they are and must stay what they are.

        Raises:
            ConfigError: the architecture has no place for them.
        """
        ...
