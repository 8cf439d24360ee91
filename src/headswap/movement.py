"""What a strategy comes to for one model: phase x weight group x learning rate x parameters. Floor 3, arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headswap.layers import HEAD, layer_groups
from headswap.phases import Phase
from headswap.schedule import factor_of, moving, spans
from headswap.spine import TrainConfig

Rates = tuple[tuple[float | None, int], ...]


@dataclass(frozen=True)
class Movement:
    """One line: in steps `first` to `last` (from 1) `parameters` of these weights move at `rate`; None: they stay."""

    phase: str
    first: int
    last: int
    weights: str
    rate: float | None
    parameters: int


def movements(phases: Sequence[Phase], sizes: Mapping[str, int], train: TrainConfig, total: int) -> Iterator[Movement]:
    """Yield the lines of every phase, neighbouring layers that move alike in one; rates are the peaks.

    Args:
        sizes: role name -> elements, in the model's order.
        total: optimizer steps.
    """
    groups = layer_groups(list(sizes))
    for phase, (first, last) in zip(phases, spans(phases, total), strict=True):
        rules = moving(phase, list(sizes))
        found: dict[str, Rates] = {}
        for group, names in groups.items():
            counts: dict[float | None, int] = {}
            for name in names:
                rate = factor_of(name, rules[name], train) * train.learning_rate if name in rules else None
                counts[rate] = counts.get(rate, 0) + sizes[name]
            found[group] = tuple(counts.items())
        for weights, rates in _merged(found):
            for rate, parameters in rates:
                yield Movement(phase.name, first + 1, last, weights, rate, parameters)


def _merged(found: Mapping[str, Rates]) -> Iterator[tuple[str, Rates]]:
    """Yield stretches of groups that move at the same rates; the head stands alone."""
    stretch: list[str] = []
    body = [group for group in found if group != HEAD]
    for group in [*body, None]:
        if stretch and (group is None or _rates(found[group]) != _rates(found[stretch[0]])):
            ends = "body" if stretch == body else stretch[0] if len(stretch) == 1 else f"{stretch[0]} to {stretch[-1]}"
            totals: dict[float | None, int] = {}
            for rate, count in (pair for each in stretch for pair in found[each]):
                totals[rate] = totals.get(rate, 0) + count
            yield ends, tuple(totals.items())
            stretch = []
        stretch += [group] if group is not None else []
    if HEAD in found:
        yield HEAD, found[HEAD]


def _rates(rates: Rates) -> set[float | None]:
    return {rate for rate, _ in rates}
