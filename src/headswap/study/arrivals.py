"""How long each arm takes to the control's own final score, drawn by seed. Study chain: runs -> this -> figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headswap.spine import StudyConfig
from headswap.study.page import NONE, Figure, Plot, Table
from headswap.study.runs import FinishedRun, LearningCurve
from headswap.study.speed import HITS, arrival_index
from headswap.study.summaries import upward
from headswap.study.traces import SYMBOLS, arm_index, layout_of, line, log_ticks, safe
from headswap.study.units import Unit, count, plural

if TYPE_CHECKING:
    from headswap.study.results import Comparison
    from headswap.study.summaries import Groups


@dataclass(frozen=True)
class Arrived:
    """When one run first held the control's own final validation score of its size and seed.

    Args:
        examples: seen until then; None when the run ended without.
        trained: examples seen at its last evaluation.
        at_first_evaluation: it was there when first looked at, so `examples` is an upper bound.
    """

    arm: str
    size: int | None
    labels: int
    seed: int
    target: float
    examples: float | None
    trained: float
    at_first_evaluation: bool

    @property
    def order(self) -> float:
        return float("inf") if self.examples is None else self.examples


def arrivals(groups: Groups, study: StudyConfig) -> tuple[Arrived, ...]:
    """Return the arrival of every run whose control of the same size and seed has a curve, as has the run itself."""
    found = []
    for (_, size), runs in groups.items():
        controls = {run.seed: run for run in groups.get((study.control, size), [])}
        found += [_arrived(run, controls[run.seed]) for run in runs if run.seed in controls]
    return tuple(each for each in found if each is not None)


def _arrived(run: FinishedRun, control: FinishedRun) -> Arrived | None:
    own, other = _seen(run), _seen(control)
    if not own.scores.size or not other.scores.size:
        return None
    target = float(other.scores[-1])
    place = arrival_index(own.scores, target)
    examples = None if place is None else float(own.examples[place])
    sign = 1.0 if run.greater_is_better else -1.0
    where = run.arm, run.record.size, run.labelled_rows, run.seed
    return Arrived(*where, sign * target, examples, float(own.examples[-1]), place == 0)


def _seen(run: FinishedRun) -> LearningCurve:
    """Return a run's curve from its first step on, turned so that more is better."""
    curve = upward(run)
    kept = curve.examples > 0
    return LearningCurve(*(getattr(curve, field.name)[kept] for field in dataclasses.fields(curve)))


def middle(runs: Sequence[Arrived]) -> Arrived:
    """Return the run in the middle by time, those that did not get there last: it may be one of them."""
    return sorted(runs, key=lambda each: (each.order, each.trained))[len(runs) // 2]


def arrivals_figure(comparison: Comparison) -> Figure | None:
    """One panel a size, one row an arm: a mark a seed, open with an arrow where the run ended before."""
    found, words = comparison.arrivals, comparison.words
    arms = [arm for arm in comparison.arms if any(each.arm == arm for each in found)]
    if len(arms) < 2:
        return None
    ends = [value for each in found for value in (each.examples or each.trained, each.trained)]
    ticks = log_ticks([0.9 * min(ends), 1.12 * max(ends)])
    sizes = sorted({(each.labels, each.size) for each in found}, key=lambda each: each[0])
    plots = []
    for labels, size in sizes:
        layout = layout_of(76 + 48 * len(arms), f"{words.seen}s until then", "")
        layout["xaxis"] |= ticks
        layout["yaxis"] |= {"range": [len(arms) - 0.45, -0.55], "tickvals": list(range(len(arms)))}
        layout["yaxis"] |= {"ticktext": [safe(arm) for arm in arms], "showgrid": False}
        layout["yaxis"] |= {"tickfont": {"color": "@ink", "size": 13}, "ticklabelstandoff": 6}
        traces = []
        for place, arm in enumerate(arms):
            runs = [each for each in found if (each.arm, each.size) == (arm, size)]
            traces += _row(place, runs, arm_index(arm, comparison)) if runs else []
        plots.append(Plot(plural(labels, words.row), traces, layout))
    return Figure(
        "arrivals", "Time to the control's final score", _caption(comparison), _described(comparison, arms, sizes),
        tuple(plots), _table(comparison),
    )  # fmt: skip


def _row(place: int, runs: list[Arrived], index: int) -> list[dict[str, Any]]:
    """Return one arm's seeds as small marks and the one in the middle as a large one."""
    total = len(runs)
    heights = [place - 0.17 + (0.26 * (seed / (total - 1) - 0.5) if total > 1 else 0) for seed in range(total)]
    x, shapes = [each.examples or each.trained for each in runs], [_shape(each, index) for each in runs]
    colour = {"color": f"@arm{index}", "line": {"width": 1.6, "color": f"@arm{index}"}}
    seeds = line(x, heights, "@muted", 1, "solid") | {"mode": "markers", "hoverinfo": "text"}
    seeds |= {"marker": {"symbol": [f"{shape.removesuffix('-open')}-open" for shape in shapes], "size": 8} | colour}
    seeds |= {"text": [f"seed {each.seed}: {_time(each)}" for each in runs]}
    half = middle(runs)
    large = line([half.examples or half.trained], [place + 0.24], "@ink", 1, "solid") | {"mode": "markers"}
    large |= {"marker": {"symbol": _shape(half, index), "size": 14} | colour}
    return [seeds, large | {"hoverinfo": "text", "text": [f"middle seed: {_time(half)}"]}]


def _shape(each: Arrived, index: int) -> str:
    if each.examples is None:
        return "triangle-right-open"
    return "triangle-left" if each.at_first_evaluation else SYMBOLS[index]


def _time(each: Arrived) -> str:
    if each.examples is None:
        return f"> {count(each.trained)}"
    return f"{'≤ ' if each.at_first_evaluation else ''}{count(each.examples)}"


def _caption(comparison: Comparison) -> str:
    words, unit = comparison.words, Unit(comparison.metric)
    caption = (
        f"Training {words.seen}s, logarithmic, until a run held the final validation {unit.name} of "
        f"{comparison.study.control} with the same seed for {HITS} evaluations, or to its end. Small marks: the seeds; "
        f"large: the one in the middle."
    )
    if any(each.examples is None for each in comparison.arrivals):
        caption += " An open triangle to the right: not within the run, which ended there."
    if any(each.at_first_evaluation for each in comparison.arrivals):
        caption += " A triangle to the left: there already when first looked at."
    return f"{caption}{words.note}"


def _described(comparison: Comparison, arms: list[str], sizes: list[tuple[int, int | None]]) -> str:
    words, said = comparison.words, []
    for labels, size in sizes:
        for arm in arms:
            runs = [each for each in comparison.arrivals if (each.arm, each.size) == (arm, size)]
            if runs:
                got = sum(each.examples is not None for each in runs)
                middles = _time(middle(runs))
                said.append(f"{arm} with {plural(labels, words.row)} {middles} ({got} of {len(runs)} seeds got there)")
    return f"{words.seen.capitalize()}s to the control's final score, middle seed: {'; '.join(said)}."


def _table(comparison: Comparison) -> Table:
    words, unit = comparison.words, Unit(comparison.metric)
    rows = tuple(
        (each.arm, count(each.labels), str(each.seed), unit.score(each.target),
         "" if each.examples is None else count(each.examples), count(each.trained), _note(each))
        for each in comparison.arrivals
    )  # fmt: skip
    rows = tuple(tuple(cell or NONE for cell in row) for row in rows)
    columns = ("arm", words.rows, "seed", "score to hold", f"{words.seen}s needed", f"{words.seen}s trained", "note")
    return Table(f"{words.seen.capitalize()}s to the control's final score, by run", columns, rows)


def _note(each: Arrived) -> str:
    if each.examples is None:
        return "not within the run"
    return "at its first evaluation: at most" if each.at_first_evaluation else ""
