"""A setting as an axis: where each of its values stands between 0 and 1, and which ticks name it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from headswap.search_space import Choice, Dimension, Span

LONGEST = 18


@dataclass(frozen=True)
class Axis:
    """The axis of one key of the space; numbers on the scale on which they were drawn, choices at even distances."""

    key: str
    dimension: Dimension

    @property
    def ordered(self) -> bool:
        """Whether distances along the axis mean something: not those between words."""
        return not isinstance(self.dimension, Choice) or all(map(_number, self.dimension.words))

    @property
    def words(self) -> tuple[str, ...]:
        """The choices in the order of the axis: numbers rise, words stand as they were written."""
        words = self.dimension.words if isinstance(self.dimension, Choice) else ()
        return tuple(sorted(words, key=float)) if self.ordered else words

    def place(self, word: str) -> float:
        if isinstance(self.dimension, Choice):
            words = self.words
            return (words.index(word) + 0.5) / len(words)
        low, high = _scaled(self.dimension.low, self.dimension), _scaled(self.dimension.high, self.dimension)
        return (_scaled(float(word), self.dimension) - low) / (high - low or 1.0)

    def ticks(self) -> list[tuple[float, str]]:
        """Return places with their words."""
        if isinstance(self.dimension, Choice):
            return [(self.place(word), shortened(word)) for word in self.words]
        numbers = _log_ticks(self.dimension) if self.dimension.log else linear_ticks(*_ends(self.dimension))
        if self.dimension.whole:
            numbers = [value for value in numbers if value == round(value)]
        return [(self.place(str(value)), figure(value)) for value in numbers]


def _number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def shortened(word: str, longest: int = LONGEST) -> str:
    """Return a word with its middle left out where it is too long to stand beside a tick."""
    if len(word) <= longest:
        return word
    kept = longest - 1
    return f"{word[: (kept + 1) // 2]}…{word[-(kept // 2) :]}"


def figure(value: float) -> str:
    """Return a number as people write settings, in four digits: 1e-5, 0.3, 64."""
    if value and abs(value) < 1e-3:
        power = math.floor(math.log10(abs(value)))
        return f"{value / 10.0**power:.4g}e{power}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:g}".replace("e+0", "e")


def brief(word: str) -> str:
    """Return a setting's word for a table: a number with idle digits in four of them."""
    try:
        return figure(float(word)) if len(word) > 7 else word
    except ValueError:
        return word


def linear_ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers between two others."""
    if high <= low:
        return [low]
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * size for size in (1, 2, 5, 10) if power * size >= raw * 0.9999)
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 12) for place in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(span: Span) -> list[float]:
    low, high = span.low, span.high
    if span.whole and high / low <= 256:
        return [2**power for power in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)]
    decades = math.log10(high / low)
    sizes = (1,) if decades >= 3 else (1, 3) if decades >= 1.2 else (1, 2, 5)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [float(f"{size}e{power}") for power in powers for size in sizes]
    inside = [value for value in found if low * 0.9999 <= value <= high * 1.0001]
    return inside[:: max(1, math.ceil(len(inside) / 7))] if len(inside) > 1 else [low, high]


def _ends(span: Span) -> tuple[float, float]:
    return span.low, span.high


def _scaled(value: float, span: Span) -> float:
    return math.log(value) if span.log else value
