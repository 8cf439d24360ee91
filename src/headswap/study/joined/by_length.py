"""How often, and after how many steps, each arm learns a task at each length. Joined chain: reading -> this -> page.

For joined studies whose tasks have a length, such as `headswap compare -m experiment=length task.length=64,256` makes.
A run has learned the task when its test score is above 95 %. Nothing is extrapolated: where a run never got there, its
steps are not known, and a median that would need them is given as "not within the run".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from headswap.study.joined.reading import StudyRead
from headswap.study.page import NONE, Figure, Plot, Table
from headswap.study.speed import arrival_index
from headswap.study.traces import DASHES, SYMBOLS, layout_of, line, log_range, log_ticks, named
from headswap.study.units import Unit, count, percent, plural
from headswap.study.verdict import tuning

LEARNED = 0.95


@dataclass(frozen=True)
class AtLength:
    """One arm on one task at one length.

    Args:
        scores: seed -> test score.
        arrivals: seed -> the optimizer step from which the validation score stayed above 95 % for three evaluations or
            to the end; None where it did not.
        steps: of a run; `batch_size` texts in each.
    """

    task: str
    length: int
    arm: str
    scores: dict[int, float]
    arrivals: dict[int, float | None]
    steps: float
    batch_size: int
    device: str
    tuning: str

    @property
    def learned(self) -> int:
        return sum(score > LEARNED for score in self.scores.values())

    @property
    def share(self) -> float:
        return self.learned / len(self.scores)

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the exact binomial interval of the share (Clopper and Pearson)."""
        found = stats.binomtest(self.learned, len(self.scores)).proportion_ci(confidence, "exact")
        return float(found.low), float(found.high)

    @property
    def median_steps(self) -> float | None:
        """The median over seeds, those that never arrived counted as later than any; None where it is one of them."""
        found = float(np.median([math.inf if step is None else step for step in self.arrivals.values()] or [math.inf]))
        return found if math.isfinite(found) else None


def by_length(studies: Sequence[StudyRead]) -> list[AtLength]:
    """Return every arm of the studies whose tasks have a length, by task and length."""
    shares = [each for each in studies if Unit(each.comparison.metric).percent]
    known = [(each.task, length, each) for each in shares if (length := each.length) is not None]
    found = [_at(study, arm, length) for _, length, study in known for arm in study.comparison.arms]
    order = list(dict.fromkeys(task for task, _, _ in known))
    return sorted((each for each in found if each), key=lambda each: (order.index(each.task), each.length))


def _at(study: StudyRead, arm: str, length: int) -> AtLength | None:
    comparison, size = study.comparison, study.primary.size
    score = comparison.score_of(arm, size)
    if score is None:
        return None
    batch = study.config.train.batch_size
    curves = [curve for curve in comparison.curves if (curve.arm, curve.size) == (arm, size)]
    lines = curves[0].seeds if curves else {}
    arrivals = {seed: _arrival(points, batch) for seed, points in lines.items()}
    device = ", ".join(comparison.environment.get("device", ())) or "unknown device"
    return AtLength(
        study.task, length, arm, score.scores, arrivals, score.steps, batch, device, tuning(comparison)
    )  # fmt: skip


def _arrival(points: Sequence[tuple[float, float]], batch: int) -> float | None:
    place = arrival_index(np.array([score for _, score in points]), math.nextafter(LEARNED, 1))
    return None if place is None else math.ceil(points[place][0] / batch)


def sentences(found: Sequence[AtLength]) -> Iterator[str]:
    """Yield one sentence a task: at which lengths each arm learned it with every seed, with some, with none."""
    for task in dict.fromkeys(each.task for each in found):
        group = [each for each in found if each.task == task]
        arms = [_of_arm([each for each in group if each.arm == arm]) for arm in dict.fromkeys(e.arm for e in group)]
        first = group[0]
        seeds = plural(max(len(each.scores) for each in group), "seed")
        sizes = sorted({each.batch_size for each in group})
        texts = f"{count(sizes[0])}{f' to {count(sizes[-1])}' if len(sizes) > 1 else ''} texts"
        steps = count(max(each.steps for each in group))
        yield (
            f"{task} ({seeds}, {steps} steps of {texts}, {first.device}, tuning: {first.tuning}): learned, above "
            f"{percent(LEARNED)} of the test, by {'; by '.join(arms)}."
        )


def _of_arm(group: Sequence[AtLength]) -> str:
    """Return lstm at 64 tokens with every seed, at 256 with 1 of 3, at 1,024 with none."""
    words: dict[str, list[str]] = {}
    for each in group:
        seeds = len(each.scores)
        some = "every seed" if each.learned == seeds else f"{each.learned} of {seeds}" if each.learned else "no seed"
        words.setdefault(some, []).append(count(each.length))
    parts = [f"at {_listed(lengths)} tokens with {some}" for some, lengths in words.items()]
    return f"{group[0].arm} {', '.join(parts)}"


def figures(found: Sequence[AtLength], places: dict[str, int], confidence: float) -> list[Figure]:
    """Return the share of runs that learned the task, and the steps that it took, both against length."""
    if not found:
        return []
    share = percent(LEARNED)
    learned = (
        f"Share of the runs (seeds) whose test score is above {share}, against the length of the texts, logarithmic; "
        f"intervals at {percent(confidence)} (Clopper and Pearson) stand in the table."
    )
    needed = (
        f"Median over seeds of the optimizer steps until the validation score stayed above {share}, both axes "
        "logarithmic. Open triangles: more than half of the runs never got there; they stand at the run's last step."
    )
    return [
        _figure(found, places, ("lengths", "Learned, by length", learned), _shares),
        _figure(found, places, ("steps_to_learn", "Steps until learned, by length", needed), _steps),
    ]


def _figure(found: Sequence[AtLength], places: dict[str, int], about: tuple[str, str, str], panel: Any) -> Figure:
    name, title, caption = about
    tasks = dict.fromkeys(each.task for each in found)
    plots = tuple(Plot(task, *panel([each for each in found if each.task == task], places)) for task in tasks)
    for plot in plots:
        lengths = sorted({each.length for each in found if each.task == plot.title})
        plot.layout["xaxis"] |= {"type": "log", "range": log_range([lengths[0] * 0.85, lengths[-1] * 1.18])}
        plot.layout["xaxis"] |= {"tickvals": lengths, "ticktext": [count(each) for each in lengths]}
    said = "; ".join(f"{e.task}, {e.arm}, {count(e.length)} tokens: {_said(e)}" for e in found)
    arms = tuple(dict.fromkeys(each.arm for each in found))
    return Figure(name, title, caption, f"{title}. {said}.", plots, table(found), arms)


def _shares(group: Sequence[AtLength], places: dict[str, int]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    layout = layout_of(280, "tokens a text", f"runs above {percent(LEARNED)} (%)")
    layout["yaxis"] |= {"range": [-4, 104]}
    return [_line(mine, places, [100 * e.share for e in mine], "%{y:.0f} %") for mine in _arms(group)], layout


def _steps(group: Sequence[AtLength], places: dict[str, int]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    layout = layout_of(280, "tokens a text", "optimizer steps")
    traces, everything = [], []
    for mine in _arms(group):
        values = [each.steps if each.median_steps is None else each.median_steps for each in mine]
        trace = _line(mine, places, values, "%{y:,.0f} steps")
        own = trace["marker"]["symbol"]
        trace["marker"]["symbol"] = ["triangle-up-open" if each.median_steps is None else own for each in mine]
        traces.append(trace)
        everything += values
    layout["yaxis"] |= log_ticks([min(everything) / 2, max(everything) * 2])  # so that some tick stands on it
    return traces, layout


def _line(group: Sequence[AtLength], places: dict[str, int], values: list[float], unit: str) -> dict[str, Any]:
    index = places[group[0].arm] % len(SYMBOLS)
    drawn = line([each.length for each in group], values, f"@arm{index}", 2.4, DASHES[index])
    return drawn | named(group[0].arm, index, f"%{{x}} tokens: {unit}")


def _arms(group: Sequence[AtLength]) -> Iterator[list[AtLength]]:
    for arm in dict.fromkeys(each.arm for each in group):
        yield [each for each in group if each.arm == arm]


def table(found: Sequence[AtLength], confidence: float = 0.95) -> Table:
    """Return every arm at every length."""
    rows = tuple(
        (each.task, each.arm, count(each.length), f"{each.learned} of {len(each.scores)}",
         "{} to {}".format(*(percent(end) for end in each.interval(confidence))), _needed(each), count(each.steps),
         f"{100 * sum(each.scores.values()) / len(each.scores):.1f} %")
        for each in found
    )  # fmt: skip
    columns = (
        "task",
        "arm",
        "tokens",
        "learned",
        f"{percent(confidence)} CI",
        "median steps",
        "steps of a run",
        "mean",
    )
    return Table(f"Runs with a test score above {percent(LEARNED)}, by length", columns, rows, words=2)


def plain(found: Sequence[AtLength], confidence: float) -> list[dict[str, Any]]:
    """Return the same as plain values, for joined.json."""
    return [
        vars(each) | {"learned": each.learned, "interval": each.interval(confidence), "median_steps": each.median_steps}
        for each in found
    ]


def _needed(each: AtLength) -> str:
    if not each.arrivals:
        return NONE
    return "not within the run" if each.median_steps is None else count(each.median_steps)


def _said(each: AtLength) -> str:
    return f"{each.learned} of {len(each.scores)} learned it, median steps {_needed(each)}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
