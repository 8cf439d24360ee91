"""How often the intervals over several tasks hold the truth: IQM, its difference, P(treatment > control).

    python bench/joined_coverage.py [--studies 2000] [--only NAME]

Each line is one case: tasks of known levels, seeds drawn anew for every simulated set of studies. The truth is that of
20,000 seeds a task, which is what other seeds on the same tasks would tend to. Nominal: 95 %. In brackets: the same
without the stretch for few seeds. An interval that cannot be given counts as one that misses.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headswap.study.joined.aggregates import (
    Sample,
    improvement,
    improvement_in,
    interquartile,
    interquartile_mean,
    stretch,
)
from headswap.study.statistics import Interval

LEVELS = {
    4: (0.92, 0.84, 0.72, 0.60),
    5: (0.92, 0.86, 0.80, 0.70, 0.60),
    8: (0.95, 0.92, 0.88, 0.84, 0.78, 0.72, 0.65, 0.55),
}
MANY = 20_000


@dataclass(frozen=True)
class Case:
    """Accuracies of `tasks` tasks: levels of their own or one level; deviations between seeds; gains by task."""

    name: str
    tasks: int
    seeds: int
    apart: bool = True
    deviations: tuple[float, float] = (0.01, 0.01)
    gain: float = 0.03
    shared: float = 0.5
    collapsed: float = 0.0

    def draw(self, seeds: int, dice: np.random.Generator) -> list[Sample]:
        """Return the paired scores of every task; a collapsed control run scores 0.4."""
        levels = LEVELS[self.tasks] if self.apart else (0.8,) * self.tasks
        gains = np.linspace(0.0, self.gain, self.tasks)
        spreads = np.geomspace(*self.deviations, self.tasks)
        return [self._task(*row, seeds, dice) for row in zip(levels, gains, spreads, strict=True)]

    def _task(self, level: float, gain: float, spread: float, seeds: int, dice: np.random.Generator) -> Sample:
        common, first, second = dice.normal(size=(3, seeds)) * spread
        own, both = np.sqrt(1 - self.shared), np.sqrt(self.shared)
        control = level + both * common + own * second
        fallen = np.where(dice.random(seeds) < self.collapsed, 0.4, control)
        return level + gain + both * common + own * first, fallen


CASES = (
    *(Case("levels apart", tasks, seeds) for tasks in (4, 8) for seeds in (3, 5, 10)),
    *(Case("one level", tasks, 5, apart=False, gain=0.015) for tasks in (4, 8)),
    Case("unlike spreads", 5, 5, deviations=(0.03, 0.004)),
    Case("no difference, unpaired", 5, 5, gain=0.0, shared=0.0),
    *(Case("large gains", 5, seeds, gain=0.1) for seeds in (5, 10)),
    Case("10 % of scratch collapsed", 5, 5, collapsed=0.1),
)


def truth(case: Case) -> tuple[float, float, float]:
    samples = case.draw(MANY, np.random.default_rng(7))
    first, second = (float(interquartile_mean(*(sample[arm] for sample in samples))) for arm in (0, 1))
    return first, first - second, float(np.mean([improvement_in(*sample) for sample in samples]))


def intervals(samples: list[Sample]) -> tuple[Interval, Interval, Interval]:
    means, odds = interquartile(samples, 0.95), improvement(samples, 0.95)
    assert means is not None and odds is not None
    return means.treatment, means.difference, odds


def covered(case: Case, studies: int) -> NDArray[np.floating]:
    """Return the shares of simulated sets of studies whose intervals hold the truth: those printed, in their order."""
    dice, goal = np.random.default_rng(1), truth(case)
    wide = stretch([case.seeds] * case.tasks, 0.95)
    hits = np.zeros((studies, 6))
    for row in hits:
        found = intervals(case.draw(case.seeds, dice))
        row[:3] = [holds(interval, value) for interval, value in zip(found, goal, strict=True)]
        row[3:5] = [holds(narrowed(interval, wide), value) for interval, value in zip(found[:2], goal, strict=False)]
        row[5] = not found[2].known
    return hits.mean(axis=0)


def narrowed(interval: Interval, wide: float) -> Interval:
    """Return what the interval would be without the stretch."""
    if interval.low is None or interval.high is None:
        return interval
    low, high = (interval.mean + (end - interval.mean) / wide for end in (interval.low, interval.high))
    return replace(interval, low=low, high=high)


def holds(interval: Interval, value: float) -> bool:
    if interval.low is None or interval.high is None:
        return False
    return interval.low - 1e-12 <= value <= interval.high + 1e-12


def main() -> None:
    parser = argparse.ArgumentParser(description="coverage of the intervals over several tasks")
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--only", default="")
    flags = parser.parse_args()
    print("case, tasks x seeds | IQM | IQM difference | P(improvement) | P without interval")
    for case in CASES:
        if case.name.startswith(flags.only):
            mean, difference, odds, plain_mean, plain_difference, none = 100 * covered(case, flags.studies)
            cells = f"{mean:.1f} % ({plain_mean:.1f}) | {difference:.1f} % ({plain_difference:.1f}) | {odds:.1f} %"
            print(f"{case.name}, {case.tasks} x {case.seeds} | {cells} | {none:.1f} %", flush=True)


if __name__ == "__main__":
    main()
