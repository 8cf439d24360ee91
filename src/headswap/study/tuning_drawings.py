"""The report's part on tuning: chosen values, tuning curves, score against rate. Study chain: tuned, words -> this."""

from __future__ import annotations

from math import log10
from typing import Any

from headswap.search_space import value_of
from headswap.study.page import NONE, Figure, Plot, Table
from headswap.study.results import Comparison
from headswap.study.traces import DASHES, SYMBOLS, arm_index, band, layout_of, line, log_range, named, padded
from headswap.study.tuned import ArmTuning, Curve, Tuning
from headswap.study.tuning_words import ends_of
from headswap.study.units import Unit, count, percent, plural
from headswap.sweep.axes import brief, figure, linear_ticks

RATE = "train.learning_rate"


def tuning_table(comparison: Comparison) -> Table:
    """Return the chosen values with their ranges, whether they lie at an end, and how the trials ended."""
    tuning, unit = comparison.tuning, Unit(comparison.metric)
    columns = ("arm", "setting", "chosen", "tried", "at its end", comparison.words.rows)
    columns += ("trials", "pruned", "failed", f"best validation {unit.name}")
    rows = [
        (
            each.arm,
            key,
            brief(each.chosen[key]),
            ends_of(each, key),
            next((f"{edge.side} end" for edge in each.edges if edge.key == key), "no"),
            _labels(each.size),
            str(len(each.trials)),
            str(each.count("pruned")),
            str(each.count("fail")),
            _unit(tuning).score(each.score),
        )
        for each in (tuning.arms if tuning else ())
        for key in each.chosen
    ]
    title = "Tuned settings: chosen by validation, on seeds outside the study; 'all' stands for all rows"
    return Table(title, columns, tuple(rows), words=5)


def tuning_curves(comparison: Comparison) -> Figure | None:
    """One panel a tuned size: the score that the best of so many trials has, by arm."""
    tuning = comparison.tuning
    if tuning is None or not tuning.curves:
        return None
    unit, sizes = _unit(tuning), list(dict.fromkeys(curve.size for curve in tuning.curves))
    plots = tuple(_curves_at(size, tuning, comparison) for size in reversed(sizes))
    why = "; ".join(dict.fromkeys(curve.why for curve in tuning.curves if curve.why))
    banded = any(curve.low for curve in tuning.curves)
    share = percent(comparison.study.confidence)
    caption = f"Validation {unit.name} of the best of so many trials{_sense(comparison)}. " + (
        f"Line: the median best of so many random trials; band: {share} at all numbers of trials at once (opda, "
        "2311.09480), a failed trial counted as the worst; to the drawing's edge where nothing bounds it."
        if banded
        else "Line: the best so far."
    )
    caption += f" No band{' for some' if banded else ''}: {why}." if why else ""
    ends = [
        f"{curve.arm} at {_rows(curve.size, comparison)} ends at {_score(curve.middle[-1], unit)} after "
        f"{plural(len(curve.middle), 'trial')}"
        for curve in tuning.curves
    ]
    rows = tuple(
        (curve.arm, _labels(curve.size), str(place + 1), *_scores(curve, place, unit))
        for curve in tuning.curves
        for place in range(len(curve.middle))
    )
    columns = ("arm", comparison.words.rows, "trials", "best of them", f"{share} low", f"{share} high")
    table = Table("The best of so many trials, on validation", columns, rows)
    arms = tuple(dict.fromkeys(curve.arm for curve in tuning.curves))
    return Figure("tuning", "Tuning curves", caption, f"Tuning curves. {'; '.join(ends)}.", plots, table, arms)


def rates(comparison: Comparison) -> Figure | None:
    """One panel a tuned size: every trial's validation score at its rate, by arm; None where no arm tried any."""
    tuning = comparison.tuning
    own = [each for each in (tuning.arms if tuning else ()) if RATE in each.space]
    if tuning is None or not own:
        return None
    unit, sizes = _unit(tuning), list(dict.fromkeys(each.size for each in own))
    plots = tuple(_rates_at([each for each in own if each.size == size], comparison) for size in reversed(sizes))
    best = [
        f"{each.arm} at {_rows(each.size, comparison)} {unit.score(each.score)} at {brief(each.chosen[RATE])}"
        for each in own
    ]
    rows = tuple(
        (
            each.arm,
            "chosen" if place == each.best else trial.state.replace("complete", "finished").replace("fail", "failed"),
            _labels(each.size),
            brief(trial.settings[RATE]),
            NONE if trial.score is None else unit.score(trial.score),
        )
        for each in own
        for place, trial in enumerate(each.trials)
        if RATE in trial.settings
    )
    columns = ("arm", "trial", comparison.words.rows, "learning rate", f"validation {unit.name}")
    caption = (
        f"Validation {unit.name} of every finished trial at its learning rate{_sense(comparison)}; the larger, ringed "
        "mark is the chosen one. A fair range has its best values inside, not at an end."
    )
    table = Table("Trials by learning rate", columns, rows, words=2)
    arms, description = tuple(dict.fromkeys(each.arm for each in own)), f"Best by learning rate: {'; '.join(best)}."
    return Figure("rates", "Score against the learning rate", caption, description, plots, table, arms)


def _curves_at(size: int | None, tuning: Tuning, comparison: Comparison) -> Plot:
    unit, curves = _unit(tuning), [curve for curve in tuning.curves if curve.size == size]
    scores = [each.score for arm in tuning.arms if arm.size == size for each in arm.trials if each.score is not None]
    low, high = padded(scores)
    traces: list[dict[str, Any]] = []
    for curve in curves:
        index, x = arm_index(curve.arm, comparison), list(range(1, len(curve.middle) + 1))
        if curve.low:
            bottom = [low if end is None else max(low, end) for end in curve.low]
            top = [high if end is None else min(high, end) for end in curve.high]
            traces.append(band(x, bottom, top, (index, unit)))
        y = [None if value is None else value * unit.scale for value in curve.middle]
        drawn = line(x, y, f"@arm{index}", 2.4, DASHES[index])
        traces.append(drawn | named(curve.arm, index, f"%{{x}} trials: {unit.hover()}"))
    layout = layout_of(300, "trials", f"validation {unit.title}")
    most = max(len(curve.middle) for curve in curves)
    ticks = [value for value in linear_ticks(1, most) if value == round(value)]
    layout["xaxis"] |= {"range": [0.6, most + 0.4], "tickvals": ticks, "ticktext": [count(value) for value in ticks]}
    layout["yaxis"] |= {"range": [low * unit.scale, high * unit.scale]}
    return Plot(_rows(size, comparison), traces, layout)


def _rates_at(arms: list[ArmTuning], comparison: Comparison) -> Plot:
    tuning = comparison.tuning
    assert tuning is not None
    unit, everything, traces = _unit(tuning), [], []
    for each in arms:
        index, trials = arm_index(each.arm, comparison), list(enumerate(each.trials))
        done = [(place, trial, trial.score) for place, trial in trials if trial.score is not None]
        points = sorted((_rate(trial), score * unit.scale, place == each.best) for place, trial, score in done)
        everything += points
        x, y = [point[0] for point in points], [point[1] for point in points]
        traces.append(line(x, y, f"@thin{index}", 1, DASHES[index]))
        chosen = [point[:2] for point in points if point[2]]
        traces += [_marks(each.arm, index, points, unit), _marks(each.arm, index, chosen, unit, ringed=True)]
    layout = layout_of(300, "learning rate", f"validation {unit.title}")
    ends = log_range([rate for rate, *_ in everything])
    ticks = [float(f"{size}e{power}") for power in range(-8, 2) for size in (1, 3)]
    shown = [tick for tick in ticks if ends[0] <= log10(tick) <= ends[1]]
    layout["xaxis"] |= {"type": "log", "range": ends, "tickvals": shown, "ticktext": list(map(figure, shown))}
    layout["yaxis"] |= {"range": padded([score for _, score, _ in everything])}
    return Plot(_rows(arms[0].size, comparison), traces, layout)


def _marks(arm: str, index: int, points: list, unit: Unit, ringed: bool = False) -> dict[str, Any]:
    """Return an arm's trials as marks, or the chosen one, larger and ringed."""
    x, y = [point[0] for point in points], [point[1] for point in points]
    marks = line(x, y, f"@arm{index}", 1, "solid") | named(arm, index, f"%{{x:.2e}}: {unit.hover()}")
    ring = {"line": {"width": 2, "color": "@ink"}} if ringed else {}
    marker = {"symbol": SYMBOLS[index], "size": 11 if ringed else 6, "color": f"@arm{index}"} | ring
    return marks | {"mode": "markers", "marker": marker}


def _rate(trial: Any) -> float:
    return float(value_of(trial.settings[RATE]))


def _scores(curve: Curve, place: int, unit: Unit) -> list[str]:
    """Return the curve and the ends of its band at a place, written."""
    return [_score(side[place] if side else None, unit) for side in (curve.middle, curve.low, curve.high)]


def _score(value: float | None, unit: Unit) -> str:
    return NONE if value is None else unit.score(value)


def _unit(tuning: Tuning | None) -> Unit:
    return Unit(tuning.objective if tuning else "accuracy")


def _labels(size: int | None) -> str:
    return "all" if size is None else count(size)


def _rows(size: int | None, comparison: Comparison) -> str:
    return f"all {comparison.words.rows}" if size is None else plural(size, comparison.words.row)


def _sense(comparison: Comparison) -> str:
    return "" if comparison.greater_is_better else " (less is better)"
