"""How an objective is called and written on the page: a score on validation, or a cost."""

from __future__ import annotations

from dataclasses import dataclass

from headswap.study.units import Unit, count, seconds
from headswap.sweep.search import COSTS, Objective

_COSTS = {"seconds": "seconds of training", "parameters": "parameters that learn"}


@dataclass(frozen=True)
class Measure:
    """One objective in words; `scale` turns its values into what is drawn."""

    objective: Objective

    @property
    def cost(self) -> bool:
        return self.objective.name in COSTS

    @property
    def name(self) -> str:
        return _COSTS[self.objective.name] if self.cost else f"validation {Unit(self.objective.name).name}"

    @property
    def title(self) -> str:
        return self.name if self.cost else f"validation {Unit(self.objective.name).title}"

    @property
    def short(self) -> str:
        return self.name if self.cost else Unit(self.objective.name).title

    @property
    def scale(self) -> float:
        return 1.0 if self.cost else Unit(self.objective.name).scale

    @property
    def sign(self) -> int:
        """1 where more is better, else -1: what turns a value into one of which more is better."""
        return 1 if self.objective.greater_is_better else -1

    def text(self, value: float) -> str:
        if self.cost:
            return count(value) if self.objective.name == "parameters" else seconds(value)
        return Unit(self.objective.name).score(value)

    def spread(self, value: float) -> str:
        """Return an unsigned difference, such as a standard deviation."""
        return self.text(value) if self.cost else Unit(self.objective.name).gap(abs(value))

    def change(self, value: float) -> str:
        """Return a difference with its sign."""
        if self.cost:
            return f"{'−' if value < 0 else '+'}{self.text(abs(value))}"
        return Unit(self.objective.name).difference(value)
