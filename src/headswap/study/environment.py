"""Where a study's runs computed, and what a reader should be warned of. Study chain: runs, contrasts -> results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from headswap.spine import StudyConfig
from headswap.study.contrasts import Contrast
from headswap.study.runs import FinishedRun, flatten
from headswap.study.summaries import ArmScore
from headswap.study.units import plural
from headswap.study.words import Words, words_of

PLANNED_SEEDS = 10
FEW_EXAMPLES = 100


def environment(runs: Sequence[FinishedRun]) -> dict[str, tuple[str, ...]]:
    """Return device, precision, threads and versions, each with the distinct values over all runs.

    Where a baseline computes is left out beside trained runs: it is one core whatever theirs is.
    """
    found: dict[str, set[str]] = {}
    trained = any(not run.is_baseline for run in runs)
    for run in runs:
        places = () if run.is_baseline and trained else ("device", "precision", "threads")
        values = {key: run.result.get(key) for key in places}
        for section in ("versions", "git"):
            values |= flatten(run.about.get(section) or {}, section)
        for key, value in values.items():
            if value not in (None, "", {}):
                found.setdefault(key.removeprefix("versions."), set()).add(str(value))
    return {key: tuple(sorted(values)) for key, values in found.items()}


def warnings_about(
    runs: Sequence[FinishedRun], scores: Sequence[ArmScore], contrasts: Sequence[Contrast], study: StudyConfig
) -> Iterator[str]:
    """Yield one sentence for everything that weakens the comparison."""
    main = [each for each in contrasts if (each.treatment, each.control) == (study.treatment, study.control)]
    words = words_of(runs[0].problem)
    yield from _about_design(main, runs[0])
    others = sum(each.q is not None for each in contrasts)
    if others > 1:
        yield (
            "One comparison was declared beforehand, the one at the largest size; the intervals of the other "
            f"{others} are not corrected for there being several, their q (Benjamini-Hochberg) is."
        )
    if fallen := [each for each in scores if each.collapsed]:
        told = "; ".join(f"{_where(each, words)}, {_fallen(each)}" for each in fallen)
        yield f"Collapsed runs {words.collapsed}; they count in the means: {told}."
    for score in scores:
        if score.failed:
            where = _where(score, words)
            yield f"Failed: {plural(score.failed, 'run')} of {where}. The means are over the runs that finished."
    for key, values in environment(runs).items():
        if len(values) > 1 and not key.startswith("git"):
            yield f"Mixed {key}: the runs differ ({_listed(values)})."


def _where(score: ArmScore, words: Words) -> str:
    return f"{score.arm} at {plural(score.labels, words.row)}"


def _fallen(score: ArmScore) -> str:
    seeds = "seed" if len(score.collapsed) == 1 else "seeds"
    return f"{len(score.collapsed)} of {plural(score.runs, 'run')} ({seeds} {_listed(score.collapsed)})"


def _about_design(main: Sequence[Contrast], run: FinishedRun) -> Iterator[str]:
    if not main:
        return
    seeds, examples = len(main[-1].pairs), main[-1].test_examples
    if 1 < seeds <= 3:
        yield f"Few seeds: with {seeds}, a nominal 95 % interval covered 92 to 94 % in our simulations."
    if examples < FEW_EXAMPLES:
        right_or_wrong = run.values is not None and bool(np.isin(run.values, (0, 1)).all())
        taken = "takes 0/1 scores as continuous" if right_or_wrong else "is an approximation"
        text = f"the interval {taken}, which is fine from 100 rows"
        yield f"Small test split: {plural(examples, 'row')}; {text}."


def _listed(values: Sequence) -> str:
    return ", ".join(str(value) for value in values)
