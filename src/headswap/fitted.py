"""What a baseline must offer, and what it gives: a cheap model of the rows themselves. Floor 0, imports nothing heavy.

A study sets the pretrained body beside it: what little work buys is known before what much work buys is praised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from headswap.answers import Labels

if TYPE_CHECKING:
    import numpy as np

Columns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Fitted:
    """A baseline that has learned from the training rows.

    Args:
        outputs: a split's columns -> [rows, outputs], in the form of the task's own logits (the table of Answers).
        parameters: how many numbers it learned.
        settings: what it was fitted with, as result.json tells it; JSON.
    """

    outputs: Callable[[Columns], np.ndarray]
    parameters: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Baseline(Protocol):
    """A model that needs neither body nor tokenizer. `imports`, as a strategy's, may name slow packages."""

    @property
    def problems(self) -> Sequence[str]:
        """The problems (Labels.problem) that it serves."""
        ...

    def fits(self, rows: Columns, inputs: Sequence[str], labels: Labels) -> Iterator[Fitted]:
        """Yield a model of the training rows for each of its settings; one yields none twice alike.

        Validation chooses by the run's first metric, of equal ones the first. It must draw nothing at random.

        Args:
            rows: the columns of Splits; `label` holds the targets.
            inputs: the columns to predict from.
        """
        ...


def refused(baseline: Baseline, name: str, problem: str) -> str:
    """Return what is wrong with asking `baseline` for a problem, empty where it serves it."""
    if problem in baseline.problems:
        return ""
    served = ", ".join(baseline.problems)
    return (
        f"baseline: {name} cannot serve this task; found {problem}, it serves {served}; set baseline=none, or leave "
        "its arm out of the study"
    )


def shares(counts: np.ndarray, rows: int) -> np.ndarray:
    """Return counts as shares of `rows`; half a row stands for none, and all but half a row for all."""
    import numpy as np

    return np.clip(counts / rows, 0.5 / rows, 1 - 0.5 / rows)
