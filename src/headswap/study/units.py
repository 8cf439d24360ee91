"""How a metric's numbers are written, and which difference matters where nothing is said.

Shares of examples stand in percent and percentage points; F1s, correlations and ROUGE as plain numbers in [-1, 1]; BLEU
and chrF in points of 100; what has a unit of its own (perplexity, errors, losses, a stranger's metric) with four digits
that mean something.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from headswap.study.statistics import Interval

MINUS = "\N{MINUS SIGN}"
_SHARES = ("accuracy", "exact_match", "exact_labels", "squad_f1")
_POINTS = ("bleu", "chrf")
_BOUNDED = ("pearson", "spearman", "precision", "recall", "matthews", "rouge", "mean_average_precision")
_SIGNED = ("pearson", "spearman", "matthews")
_NAMES = {"bleu": "BLEU", "chrf": "chrF", "rmse": "RMSE", "mae": "MAE", "squad_f1": "SQuAD F1"}
_NAMES |= {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougel": "ROUGE-L", "rougelsum": "ROUGE-Lsum"}
_MARGINS = {"percent": 0.01, "bounded": 0.01, "points": 1.0, "own": 0.0}

Kind = Literal["percent", "points", "bounded", "own"]


@dataclass(frozen=True)
class Unit:
    """The unit of one metric; `scale` turns its values into what is shown and drawn."""

    metric: str

    @property
    def kind(self) -> Kind:
        if self.metric in _SHARES or self.metric.endswith("_accuracy"):
            return "percent"
        if self.metric in _POINTS:
            return "points"
        inside = self.metric.startswith(_BOUNDED) or self.metric.endswith((*_BOUNDED, "f1"))
        return "bounded" if inside else "own"

    @property
    def percent(self) -> bool:
        return self.kind == "percent"

    @property
    def share(self) -> bool:
        """Return whether the values lie in [0, 1], as those of a metric of one's own may or may not."""
        return self.percent or (self.kind == "bounded" and not self.metric.startswith(_SIGNED))

    @property
    def scale(self) -> float:
        return 100.0 if self.percent else 1.0

    @property
    def name(self) -> str:
        return _NAMES.get(self.metric, self.metric.replace("_", " ").replace("f1", "F1"))

    @property
    def title(self) -> str:
        return f"{self.name} (%)" if self.percent else self.name

    @property
    def difference_title(self) -> str:
        return f"{self.name} difference (pp)" if self.percent else f"{self.name} difference"

    @property
    def gap_title(self) -> str:
        """Return the title of an axis that may be short, where the caption names the metric."""
        return "difference (pp)" if self.percent else "difference"

    @property
    def best(self) -> float | None:
        """Return the best value of a metric of which more is better, None where it is not known."""
        return {"percent": 1.0, "bounded": 1.0, "points": 100.0}.get(self.kind)

    @property
    def usual_margin(self) -> float:
        """Return the difference that matters where study.margin says nothing; 0 where there is no usual one."""
        return _MARGINS[self.kind]

    def score(self, value: float) -> str:
        """Return 84.2 % or 0.842, 27.3, 18.34."""
        return f"{number(value * self.scale, self._digits(value, 4))}{' %' if self.percent else ''}"

    def deviation(self, value: float) -> str:
        return self.gap(abs(value)).removeprefix("+")

    def difference(self, value: float) -> str:
        """Return +13.2 pp or +0.132, always with its sign."""
        return f"{self.signed(value)}{' pp' if self.percent else ''}"

    def gap(self, value: float) -> str:
        """Return an unsigned difference: 2.4 pp or 0.024."""
        return f"{number(value * self.scale, self._digits(value, 3))}{' pp' if self.percent else ''}"

    def signed(self, value: float) -> str:
        text = number(value * self.scale, self._digits(value, 3))
        return text if text.startswith(MINUS) or not text.strip("0.") else f"+{text}"

    def margin(self, value: float) -> str:
        """Return a margin without idle digits: 1 pp."""
        return f"{round(value * self.scale, 6):g}{' pp' if self.percent else ''}"

    def hover(self, signed: bool = False) -> str:
        """Return the d3 format of a drawn value."""
        digits = {"bounded": ".3f", "own": ".4~r"}.get(self.kind, ".1f")
        unit = (" pp" if signed else " %") if self.percent else ""
        return f"%{{y:{'+' if signed else ''}{digits}}}{unit}"

    def _digits(self, value: float, significant: int) -> int:
        """Return the decimals to write: fixed where the metric has a fixed range, else by the number's own size."""
        if self.kind != "own":
            return 3 if self.kind == "bounded" else 1
        if value == 0 or not math.isfinite(value):
            return significant - 1
        return min(12, max(0, significant - 1 - math.floor(math.log10(abs(value)))))


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


def percent(share: float) -> str:
    return f"{round(100 * share, 1):g} %"


def bracket(interval: Interval, unit: Unit) -> str:
    """Return (95 % CI +1.9 to +4.3), empty where there is no interval."""
    if interval.low is None or interval.high is None:
        return ""
    return f"({percent(interval.confidence)} CI {unit.signed(interval.low)} to {unit.signed(interval.high)})"


def p_text(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else number(value, 3)


def seconds(value: float) -> str:
    if value < 100:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 6000 else f"{value / 3600:.1f} h"


def flops(value: float) -> str:
    """Return floating-point operations with their prefix: 34 GFLOP."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{rough(value / size)} {prefix}FLOP"
    return f"{rough(value)} FLOP"


def plural(amount: int, word: str) -> str:
    return f"{count(amount)} {word}{'' if amount == 1 else 's'}"
