"""Do a study's intervals cover what they say? Simulated studies of known truth, as Markdown tables.

    OMP_NUM_THREADS=1 python bench/coverage.py [--studies 2000]

Every draw is a whole study: its own test examples, its own seeds. The statistics are the product's (headswap.study);
docs/comparing.md holds what this prints, tests/test_coverage.py asserts the limits on fewer studies.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from headswap.study import curves
from headswap.study.statistics import crossed_error, mcnemar, sign_flip_p
from simulated import (
    Design,
    Runs,
    family,
    found_by,
    labels_curves,
    macro_f1_runs,
    pearson_runs,
    pigeonhole_errors,
    right_and_wrong,
    shares,
    table,
)

MARGIN = 0.01
BLOCK = 100
Drawing = Callable[[Design, int, np.random.Generator], Runs]
CROSSED = [Design(3, 500, 0.01), Design(5, 500, 0.01), Design(5, 2000, 0.03), Design(10, 500, 0.03)]
CHANCE = [Design(5, 500, 0.0, lean=0.0), Design(10, 2000, 0.0, lean=0.0)]


@dataclass(frozen=True)
class Estimates:
    """One mean, standard error and degrees of freedom a study."""

    mean: NDArray
    error: NDArray
    freedom: NDArray

    def ends(self, confidence: float = 0.95) -> tuple[NDArray, NDArray]:
        half = stats.t.ppf((1 + confidence) / 2, self.freedom) * self.error
        return self.mean - half, self.mean + half

    def covered(self, truth: float) -> float:
        low, high = self.ends()
        return float(np.mean((low <= truth) & (truth <= high)))

    def sides(self, truth: float = 0.0) -> tuple[float, float]:
        """Return how often the interval lies above and below the truth."""
        low, high = self.ends()
        return float(np.mean(low > truth)), float(np.mean(high < truth))

    def verdicts(self, margin: float = MARGIN) -> dict[str, float]:
        """Return the share of studies with each of the four verdicts (contrasts.outcome on arrays)."""
        (low, high), (inner_low, inner_high) = self.ends(), self.ends(0.9)
        better, worse = low > 0, high < 0
        same = ~better & ~worse & (inner_low > -margin) & (inner_high < margin)
        found = {"better": better, "worse": worse, "equivalent": same, "not settled": ~(better | worse | same)}
        return {name: float(each.mean()) for name, each in found.items()}


def crossed(differences: NDArray) -> Estimates:
    """Return the product's interval over seeds and examples of differences [studies, seeds, examples]."""
    blocks = np.array_split(differences, max(1, differences.size // 1_000_000))
    parts = [crossed_error(block.astype(float)) for block in blocks]
    error, freedom = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Estimates(differences.mean(axis=(1, 2), dtype=float), error, freedom)


def over_seeds(means: NDArray) -> Estimates:
    """Return Student's interval over seeds of means [studies, seeds]."""
    count, seeds = means.shape
    return Estimates(means.mean(axis=1), means.std(axis=1, ddof=1) / np.sqrt(seeds), np.full(count, seeds - 1.0))


def interval_rows(studies: int) -> Iterator[tuple[str, ...]]:
    for design in [*CROSSED, *CHANCE]:
        for truth in (0.0, 0.03):
            drawn = right_and_wrong(design, truth, studies)
            both, alone = crossed(drawn), over_seeds(drawn.mean(axis=2, dtype=float))
            sides = [f"{100 * side:.1f} %" for side in both.sides()] if truth == 0 else ["", ""]
            yield (
                str(design),
                f"{100 * truth:g} pp",
                percent(both.covered(truth)),
                percent(alone.covered(truth)),
                *sides,
            )


def verdict_rows(studies: int) -> Iterator[tuple[str, ...]]:
    cases = [
        ("no difference, small study", Design(5, 500, 0.01), 0.0),
        ("no difference, large study", Design(10, 10000, 0.002), 0.0),
        ("exactly the margin, large study", Design(10, 10000, 0.002), MARGIN),
        ("exactly the margin, small study", Design(5, 500, 0.01), MARGIN),
        ("a gain of 3 pp", Design(10, 2000, 0.01), 0.03),
        ("a loss of 3 pp", Design(10, 2000, 0.01), -0.03),
    ]
    for name, design, truth in cases:
        found = crossed(right_and_wrong(design, truth, studies)).verdicts()
        yield name, str(design), *(f"{100 * share:.1f} %" for share in found.values())


def whole_split_rows(studies: int) -> Iterator[tuple[str, ...]]:
    designs = Design(3, 500, 0.02), Design(5, 200, 0.02), Design(5, 1000, 0.02), Design(10, 200, 0.02)
    rare = functools.partial(macro_f1_runs, rarest=0.05)
    for name, runs in (("macro F1", macro_f1_runs), ("macro F1, 5 % rare", rare), ("Pearson", pearson_runs)):
        for design in (*designs, Design(10, 500, 0.05)):
            yield name, str(design), *(percent(each) for each in whole_split(runs, design, studies))


def whole_split(runs: Drawing, design: Design, studies: int) -> tuple[float, float, float, float, float]:
    """Return the coverage of jackknifed, pigeonhole and seeds-only intervals, and the first one's misses by side."""
    dice, found, errors, gaps = design.dice, [], [], []
    for start in range(0, studies, BLOCK):
        drawn = runs(design, min(BLOCK, studies - start), dice)
        found.append(crossed(shares(drawn)))
        errors.append(pigeonhole_errors(drawn))
        gaps.append(drawn.gaps)
    alone, truth = over_seeds(np.concatenate(gaps)), drawn.truth
    error, freedom = (np.concatenate([getattr(each, name) for each in found]) for name in ("error", "freedom"))
    both = Estimates(alone.mean, error, freedom)
    resampled = Estimates(alone.mean, np.concatenate(errors), alone.freedom)
    return both.covered(truth), resampled.covered(truth), alone.covered(truth), *both.sides(truth)


def family_rows(studies: int) -> Iterator[tuple[str, ...]]:
    for name, gains in (("none differs", (0.0, 0.0, 0.0)), ("one of three arms differs", (0.06, 0.0, 0.0))):
        p_values, null = family(Design(5, 500, 0.01), gains, studies, lambda each: p_of(crossed(each)))
        raw, kept = p_values <= 0.05, stats.false_discovery_control(p_values, axis=1) <= 0.05
        cells = [percent(float((found & null).any(axis=1).mean())) for found in (raw, kept)] + [
            percent(float(np.mean((kept & null).sum(axis=1) / np.maximum(kept.sum(axis=1), 1))))
        ]
        power = percent(float(kept[:, ~null].mean())) if (~null).any() else ""
        yield name, str(p_values.shape[1]), *cells, power


def p_of(found: Estimates) -> NDArray:
    return 2 * stats.t.sf(np.abs(found.mean) / found.error, found.freedom)


def test_rows(studies: int) -> Iterator[tuple[str, ...]]:
    for seeds in (6, 10):
        drawn = right_and_wrong(Design(seeds, 500, 0.01), 0.0, studies).mean(axis=2, dtype=float)
        given = np.random.default_rng(seeds).normal(0, 0.01, (studies, seeds))
        for name, means in (("test rows taken as given", given), ("test rows a sample too", drawn)):
            share = float(np.mean([sign_flip_p(each) <= 0.05 for each in means]))  # pyright: ignore[reportOptionalOperand]
            yield f"sign flip, {seeds} seeds", name, percent(share)
    pairs = found_by(Design(1, 500, 0.0), studies)
    share = float(np.mean([mcnemar(first, second).p_value <= 0.05 for first, second in pairs]))
    yield "exact McNemar, one pair", "two checkpoints that are alike", percent(share)


def label_rows(studies: int) -> Iterator[tuple[str, ...]]:
    curves.RESAMPLES = 400  # 2,000 in the product; the share of 5 % is found well enough
    for saving in (2.0, 8.0, 32.0):
        told: dict[int, list[curves.LabelsSaved]] = {}
        for first, second, sizes in labels_curves(saving, studies):
            for each in curves.labels_saved(first, second, sizes):
                told.setdefault(each.labels, []).append(each)
        for labels, found in told.items():
            points = [each for each in found if each.ratio is not None]
            inside = sum((each.low or 0) <= saving <= (each.high or 0) for each in points)
            bounds = [each for each in found if each.ratio is None]
            held = sum(bound_holds(each, saving) for each in bounds)
            pointed = sum(each.censored_share >= curves.CENSORED_LIMIT for each in points)
            yield (
                f"{saving:g}× at {labels} labels", share_of(inside, len(points)), share_of(held, len(bounds)),
                percent((inside + held) / len(found)), str(pointed),
            )  # fmt: skip


def bound_holds(each: curves.LabelsSaved, saving: float) -> bool:
    if each.bound is None:
        return True
    return each.bound <= saving if each.bound_kind == "at least" else each.bound >= saving


def share_of(part: int, whole: int) -> str:
    return f"{percent(part / whole)} of {whole:,}" if whole else "none"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description="the coverage of a study's intervals in simulated studies")
    parser.add_argument("--studies", type=int, default=2000)
    studies, start = parser.parse_args().studies, time.perf_counter()
    design = "seeds × test rows, SD between seeds"
    table((design, "truth", "crossed", "t over seeds", "false better", "false worse"), interval_rows(studies))
    table(("truth", design, "better", "worse", "equivalent", "not settled"), verdict_rows(studies))
    sides = ("above the truth", "below it")
    table(("metric", design, "jackknifed", "pigeonhole", "t over seeds", *sides), whole_split_rows(studies))
    columns = ("three arms × three sizes", "comparisons", "any false, p", "any false, q", "false share, q", "found, q")
    table(columns, family_rows(studies))
    table(("test at 0.05", "no difference", "false alarms"), test_rows(studies))
    columns = ("true ratio", "interval holds it", "bound holds", "what is said holds", "points where censored")
    table(columns, label_rows(studies))
    print(f"{studies:,} studies a line; {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
