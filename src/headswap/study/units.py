"""How a metric's numbers are written: accuracy in percent and percentage points, everything else as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Unit:
    """The unit of one metric; `scale` turns its values into what is shown and drawn."""

    metric: str

    @property
    def percent(self) -> bool:
        return self.metric == "accuracy" or self.metric.endswith("_accuracy")

    @property
    def scale(self) -> float:
        return 100.0 if self.percent else 1.0

    @property
    def title(self) -> str:
        name = self.metric.replace("_", " ")
        return f"{name} (%)" if self.percent else name

    @property
    def difference_title(self) -> str:
        name = self.metric.replace("_", " ")
        return f"{name} difference (pp)" if self.percent else f"{name} difference"

    def score(self, value: float) -> str:
        """Return 84.2 % or 0.842."""
        return f"{number(value * 100, 1)} %" if self.percent else number(value, 3)

    def deviation(self, value: float) -> str:
        return self.gap(abs(value)).removeprefix("+")

    def difference(self, value: float) -> str:
        """Return +13.2 pp or +0.132, always with its sign."""
        return f"{self.signed(value)}{' pp' if self.percent else ''}"

    def gap(self, value: float) -> str:
        """Return an unsigned difference: 2.4 pp or 0.024."""
        return f"{number(value * self.scale, 1 if self.percent else 3)}{' pp' if self.percent else ''}"

    def signed(self, value: float) -> str:
        digits = 1 if self.percent else 3
        text = number(value * self.scale, digits)
        return text if text.startswith(MINUS) or not text.strip("0.") else f"+{text}"

    def margin(self, value: float) -> str:
        """Return a margin without idle digits: 1 pp."""
        return f"{round(value * self.scale, 6):g}{' pp' if self.percent else ''}"


def number(value: float, digits: int) -> str:
    """Return a number with thousands separated and a true minus sign; a rounded zero has no sign."""
    text = f"{value:,.{digits}f}"
    if not text.strip("-0."):
        text = text.removeprefix("-")
    return text.replace("-", MINUS)


def count(value: float) -> str:
    return number(value, 0)


def rough(value: float) -> str:
    """Return two significant digits, so that an estimate does not look finer than it is: 830, 1,400, 8.3."""
    if value <= 0:
        return "0"
    rounded = float(f"{value:.2g}")
    return count(rounded) if rounded >= 10 else f"{rounded:g}"


def times(value: float) -> str:
    return f"{rough(value)}\N{MULTIPLICATION SIGN}"


def seconds(value: float) -> str:
    if value < 100:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 6000 else f"{value / 3600:.1f} h"


def plural(amount: int, word: str) -> str:
    return f"{count(amount)} {word}{'' if amount == 1 else 's'}"
