"""What a sweep may try: keys with the values that Hydra's override grammar spells out. Floor 0.

    train.learning_rate: tag(log, interval(1e-5, 1e-3))     strategy: choice(full, lp_ft)     train.epochs: range(2, 6)

The grammar is Hydra's own, so that what stands after `-m` may stand here: choice, range, interval, int(), tag(log,
...), and values with commas between them. hydra is imported inside functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from headswap.errors import ConfigError

GRAMMAR = "write choice(a,b), range(1,5), interval(0,1), int(interval(1,64)) or tag(log,interval(1e-5,1e-3))"


@dataclass(frozen=True)
class Choice:
    """One of some values, as override words spell them."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Span:
    """A number between `low` and `high`, both among them.

    Args:
        step: the distance of the numbers that count, None for all.
        log: even on a log scale.
        whole: whole numbers alone.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False
    whole: bool = False

    @property
    def count(self) -> int | None:
        """How many numbers there are; None for no end of them."""
        step = self.step or (1 if self.whole else None)
        return None if step is None or self.log else math.floor((self.high - self.low) / step + 1e-9) + 1

    def words(self) -> list[str]:
        """Return the numbers as override words. Only for a span that has a count."""
        step, count = self.step or 1, self.count
        assert count is not None
        return [spelled(self.low + place * step, self.whole) for place in range(count)]


Dimension = Choice | Span


@runtime_checkable
class Conditions(Protocol):
    """Which keys of the space a trial has: a plug, `sweep.conditions._target_`."""

    def applies(self, key: str, chosen: Mapping[str, str]) -> bool:
        """Say whether `key` is part of a trial.

        Args:
            chosen: the words of the keys that stand above it in the space and are part of the trial.
        """
        ...


def parse(space: Mapping[str, Any], where: str = "sweep.space") -> dict[str, Dimension]:
    """Return dotted key -> what may be tried, in the order of `space`, whose keys may be nested or dotted.

    Raises:
        ConfigError: a value is none of Hydra's sweeps, or an empty one; `where` says whose.
    """
    return {key: _dimension(key, str(value), f"{where}.{key}") for key, value in _flat(space)}


def value_of(word: str) -> Any:
    """Return what an override word stands for: 1e-4 a number, null nothing, [a,b] a list."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(f"key={word}").value()


def swept(overrides: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the overrides with one value, and those with several as key -> text. Raises ConfigError."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    fixed, space = [], {}
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(f"overrides: not in Hydra's grammar; {' '.join(str(error).split())}; {GRAMMAR}") from error
    for override, text in zip(parsed, overrides, strict=True):
        if override.is_sweep_override():
            space[override.get_key_element().lstrip("+")] = text.partition("=")[2]
        else:
            fixed.append(text)
    return fixed, space


def spelled(value: float, whole: bool = False) -> str:
    """Return a number as an override word; nine digits tell any two settings apart that a person would."""
    return str(round(value)) if whole else f"{value:.9g}"


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _dimension(key: str, text: str, where: str) -> Dimension:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(f"{key}={text}")
        value: Any = override.value()
    except (HydraException, ValueError) as error:
        raise ConfigError(f"{where}: not in Hydra's grammar; found {text!r}; {GRAMMAR}") from error
    if isinstance(value, ChoiceSweep):
        words = tuple(dict.fromkeys(override.sweep_string_iterator()))
        if value.tags:
            raise ConfigError(f"{where}: a choice has no scale; found tags {', '.join(value.tags)}; leave them out")
        return Choice(words)
    if isinstance(value, RangeSweep):
        return _range(where, text, value)
    if isinstance(value, IntervalSweep):
        return _interval(where, text, value)
    raise ConfigError(f"{where}: nothing to choose from; found {text!r}; {GRAMMAR}, or set {key} itself")


def _range(where: str, text: str, value: Any) -> Span:
    whole = all(isinstance(part, int) for part in (value.start, value.stop, value.step))
    count = math.ceil((value.stop - value.start) / value.step - 1e-9) if value.step else 0
    if count < 1 or value.step < 0:
        raise ConfigError(f"{where}: an empty range; found {text!r}; its end is not part of it: range(1,5) is 1 to 4")
    if "log" in value.tags:
        raise ConfigError(f"{where}: steps are even on one scale; found {text!r}; write tag(log,interval(low,high))")
    return Span(value.start, value.start + (count - 1) * value.step, value.step, whole=whole)


def _interval(where: str, text: str, value: Any) -> Span:
    low, high, log = value.start, value.end, "log" in value.tags
    if odd := value.tags - {"log", "int"}:
        raise ConfigError(f"{where}: unknown tags; found {', '.join(sorted(odd))}; served: log, int")
    if not low < high:
        raise ConfigError(f"{where}: an interval rises; found {text!r}; write interval(low,high)")
    if log and low <= 0:
        raise ConfigError(f"{where}: a log scale begins above 0; found {text!r}; raise the lower end")
    whole = "int" in value.tags or (isinstance(low, int) and isinstance(high, int) and "int(" in text.replace(" ", ""))
    return Span(low, high, log=log, whole=whole)
