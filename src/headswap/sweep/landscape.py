"""The sweep page's figures of settings against scores. Sweep chain: findings, axes -> this -> page.

Parallel coordinates are drawn as plain lines: plotly's own need WebGL, which not every machine and no printer has, and
tell trials apart by colour alone.
"""

from __future__ import annotations

import itertools
import re

from headswap.study.page import NONE, Figure, Plot, Table
from headswap.study.traces import layout_of, padded, safe
from headswap.study.units import number, plural
from headswap.sweep.axes import Axis, brief, figure, linear_ticks
from headswap.sweep.drawings import DONE, FAILED, PRUNED, Trace, marks, path, said, sheet
from headswap.sweep.findings import Findings, Tried
from headswap.sweep.lists import words_of
from headswap.sweep.measure import Measure

MOST_AXES, AXIS_WIDTH, LINE = 9, 122, 15
FEW = 20
ROOM, GOLDEN = 34, 0.618034


def parallel_figure(found: Findings) -> Figure | None:
    """Each finished trial as a line over its settings to its score, the best ones thick."""
    keys = _shared_keys(found)
    trials = [trial for trial in found.best() if all(key in trial.settings for key in keys)]
    others = [trial for trial in found.finished if trial not in trials and all(key in trial.settings for key in keys)]
    if not keys or len(trials) + len(others) < 2:
        return None
    kinds = _kinds(found, trials, others)
    axes = [Axis(key, found.space[key]) for key in keys]
    scores = [_Scores(measure, [trial.values[place] for trial in trials + others])
              for place, measure in enumerate(found.measures)]  # fmt: skip
    traces = []
    for name, (group, look) in kinds.items():
        if group:
            traces += _lines(name, group, axes, scores, look, found)
    layout = _parallel_layout(axes, scores)
    caption = _parallel_caption(found, keys, len(found.finished) - len(trials) - len(others))
    rows = tuple(
        (str(trial.number), *(brief(trial.settings[key]) for key in keys), *_values(trial, found.measures))
        for trial in trials + others
    )
    columns = ("trial", *keys, *(each.name for each in found.measures))
    table = Table("Finished trials, the best first", columns, rows, words=1 + len(keys))
    top = (trials + others)[0]
    words = ", ".join(f"{key} {brief(top.settings[key])}" for key in keys)
    description = f"Parallel coordinates of {plural(len(trials + others), 'trial')}. Best, trial {top.number}: {words}."
    width = AXIS_WIDTH * (len(axes) + len(scores))
    return Figure("parallel", "All settings at once", caption, description, (Plot("", traces, layout, width),), table)


def _parallel_caption(found: Findings, keys: list[str], left: int) -> str:
    caption = (
        f"One line a finished trial, from its settings to {_joined(found)} on the right; pruned and failed trials are "
        f"not drawn. {_sense(found)}"
    )
    if left:
        caption += f" {plural(left, 'trial')} without all of these settings {'is' if left == 1 else 'are'} left out."
    if hidden := [key for key in found.space if key not in keys]:
        caption += f" Not shown: {', '.join(hidden)}."
    return caption


class _Scores:
    """An objective as the last axis."""

    def __init__(self, measure: Measure, values: list[float]) -> None:
        self.measure = measure
        self.low, self.high = padded([value * measure.scale for value in values])

    def place(self, value: float) -> float:
        return (value * self.measure.scale - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        found = linear_ticks(self.low, self.high)
        return [((value - self.low) / (self.high - self.low), figure(value)) for value in found]


def _shared_keys(found: Findings) -> list[str]:
    """Return the keys that most finished trials have, the most important first choice where there are too many."""
    done = found.finished
    keys = [key for key in found.space if sum(key in trial.settings for trial in done) * 2 > len(done)]
    ranked = sorted(keys, key=lambda key: -found.importances.get(key, 0.0))[:MOST_AXES]
    return [key for key in keys if key in ranked]


def _kinds(found: Findings, trials: list[Tried], others: list[Tried]) -> dict[str, tuple[list[Tried], Trace]]:
    """Return name -> trials and how their lines look, the best first."""
    thick, thin = {"color": "@arm0", "width": 2.4}, {"color": "@muted", "width": 0.8}
    if len(found.objectives) > 1:
        return {"on the Pareto front": (trials, thick), "others": (others, thin)}
    best, worst = max(1, len(trials) // 10), len(trials) // 5
    middle = trials[best : len(trials) - worst]
    return {
        "best tenth": (trials[:best], thick),
        "between": (middle, thin),
        "worst fifth": (trials[len(trials) - worst :], {"color": "@arm1", "width": 1.1, "dash": "2px,3px"}),
    }


def _lines(name: str, group: list[Tried], axes: list[Axis], scores: list, look: Trace, found: Findings) -> list[Trace]:
    x: list[float | None] = []
    y: list[float | None] = []
    hover: list[str] = []
    for trial in group:
        places = [axis.place(trial.settings[axis.key]) + _jitter(axis, trial, 0.2) for axis in axes]
        places += [score.place(value) for score, value in zip(scores, trial.values, strict=True)]
        x += [*range(len(places)), None]
        y += [*places, None]
        hover += [said(trial, found.measures)] * (len(places) + 1)
    drawn = path(name, x, y, look, connectgaps=False)
    dots = marks(name, x, y, {"symbol": "circle", "size": 4.5, "color": look["color"]}, hover)
    return [drawn, dots | {"showlegend": False}]


def _jitter(axis: Axis, trial: Tried, width: float) -> float:
    """Return a shift of a choice, so that equal ones do not hide one another: the same whenever the page is made."""
    slots = len(axis.words)
    return width / slots * ((trial.number * GOLDEN) % 1 - 0.5) if slots else 0.0


def _parallel_layout(axes: list[Axis], scores: list[_Scores]) -> Trace:
    names = [*(axis.key for axis in axes), *(score.measure.title for score in scores)]
    ticks = [*(axis.ticks() for axis in axes), *(score.ticks() for score in scores)]
    layout = sheet(460, "", "")
    hidden = {"visible": False, "fixedrange": True}
    layout["xaxis"] = hidden | {"range": [-0.12, len(names) - 0.45]}
    layout["yaxis"] = hidden | {"range": [-0.04, 1.16]}
    layout["margin"] = {"l": 8, "r": 8, "t": 34, "b": 8}
    bar = {"type": "line", "y0": 0, "y1": 1, "line": {"color": "@muted", "width": 1}, "layer": "below"}
    layout["shapes"] = [bar | {"x0": place, "x1": place} for place in range(len(names))]
    title = {"showarrow": False, "xanchor": "left", "xshift": -8, "yanchor": "bottom", "y": 1.045, "align": "left"}
    title |= {"font": {"size": 12.5, "color": "@ink"}}
    texts = [title | {"x": place, "text": f"<b>{_folded(name)}</b>"} for place, name in enumerate(names)]
    tick = {"showarrow": False, "xanchor": "left", "xshift": 6, "bgcolor": "@paper", "borderpad": 1}
    tick |= {"font": {"size": 11.5, "color": "@muted"}, "opacity": 0.88}
    for place, each in enumerate(ticks):
        texts += [tick | {"x": place, "y": height, "text": safe(word)} for height, word in each]
    layout["annotations"] = texts
    return layout


def _folded(key: str) -> str:
    """Return a key in lines short enough for the distance of two axes: broken at dots and spaces, long parts at _."""
    lines = [""]
    for part in re.split(r"(?<=[. ])", key):
        for piece in re.split(r"(?<=_)", part) if len(part) > LINE else [part]:
            if lines[-1] and len(lines[-1]) + len(piece) > LINE:
                lines.append("")
            lines[-1] += piece
    return "<br>".join(map(safe, lines))


def slices_figure(found: Findings) -> Figure | None:
    """The first objective against each setting, one panel a key, on a shared scale."""
    if not found.finished:
        return None
    measure = found.measures[0]
    low, high = padded([trial.values[0] * measure.scale for trial in found.finished])
    span = high - low
    floor = low - 0.05 * span
    plots = []
    for key, dimension in found.space.items():
        axis = Axis(key, dimension)
        ticks = axis.ticks()
        crowded = axis.words and sum(len(word) + 2 for _, word in ticks) > ROOM
        layout = layout_of(310 if crowded else 240, "", measure.short)
        layout["xaxis"] |= {"tickangle": -35 if crowded else 0}
        layout["yaxis"]["title"] |= {"font": {"size": 12}}
        layout["xaxis"] |= {"range": [-0.04, 1.04], "tickvals": [place for place, _ in ticks]}
        layout["xaxis"] |= {"ticktext": [safe(word) for _, word in ticks], "showgrid": not axis.words}
        layout["yaxis"] |= {"range": [floor - 0.05 * span, high]}
        plots.append(Plot(key, _slice(found, axis, floor), layout))
    kinds = [name for name, state in (("triangles pruned", "pruned"), ("crosses failed", "fail")) if found.of(state)]
    caption = f"{measure.name.capitalize()} of the finished trials against each setting, on one scale."
    if any(getattr(dimension, "log", False) for dimension in found.space.values()):
        caption += " Settings that were drawn on a log scale are shown on one."
    if kinds:
        caption += f" At the bottom, without a final score: {' and '.join(kinds)} trials."
    if len(found.objectives) > 1:
        caption += " The other objectives stand in the figures above."
    rows = tuple(
        (str(trial.number), key, brief(trial.settings.get(key, NONE)), _values(trial, [measure])[0])
        for key in found.space
        for trial in found.best() + [each for each in found.finished if each not in found.best()]
    )
    table = Table("Score against each setting", ("trial", "setting", "value", measure.name), rows, words=3)
    description = f"{measure.name.capitalize()} against {', '.join(found.space)}, one panel each."
    return Figure("slices", "Score against each setting", caption, description, tuple(plots), table)


def _slice(found: Findings, axis: Axis, floor: float) -> list[Trace]:
    traces, scale = [], found.measures[0].scale
    for name, state, marker in (
        ("finished", "complete", DONE),
        ("pruned", "pruned", PRUNED),
        ("failed", "fail", FAILED),
    ):
        trials = [trial for trial in found.of(state) if axis.key in trial.settings]
        if not trials:
            continue
        x = [axis.place(trial.settings[axis.key]) + _jitter(axis, trial, 0.6) for trial in trials]
        y = [trial.values[0] * scale if state == "complete" else floor for trial in trials]
        traces.append(marks(name, x, y, marker, [said(trial, found.measures) for trial in trials]))
    return traces


def importances_figure(found: Findings) -> Figure | None:
    """How much of the scores' variance each setting explains."""
    if not found.importances:
        return None
    ranked = sorted(found.importances.items(), key=lambda each: each[1])
    bars = {"type": "bar", "orientation": "h", "x": [100 * share for _, share in ranked]}
    bars |= {"y": [safe(key) for key, _ in ranked], "marker": {"color": "@arm0"}, "hoverinfo": "skip"}
    bars |= {"text": [f"{100 * share:.0f} %" for _, share in ranked], "textposition": "outside", "cliponaxis": False}
    bars |= {"width": 0.62, "textfont": {"color": "@ink"}}
    layout = layout_of(90 + 34 * len(ranked), "variance (%)", "")
    layout["xaxis"] |= {"range": [0, 112 * max(share for _, share in ranked) + 2]}
    layout["yaxis"] |= {"showgrid": False, "type": "category", "tickfont": {"color": "@ink", "size": 13}}
    done = len(found.finished)
    caption = (
        "Share of the variance of the scores over the space that each setting explains alone and with others: fANOVA "
        f"(Hutter et al. 2014, Optuna's) from {plural(done, 'finished trial')}."
    )
    if done < FEW:
        caption += f" With fewer than {FEW} trials the order may well be chance."
    if hidden := [key for key in found.space if key not in found.importances]:
        caption += f" Not every trial has {', '.join(hidden)}: no share."
    rows = tuple((key, f"{number(100 * share, 1)} %") for key, share in reversed(ranked))
    table = Table("Importance of each setting", ("setting", "share of the variance"), rows)
    description = "Importances: " + ", ".join(f"{key} {share}" for key, share in rows) + "."
    return Figure("importances", "Which settings mattered", caption, description, (Plot("", [bars], layout),), table)


def pareto_figure(found: Findings) -> Figure | None:
    """Objectives against one another, with the trials that no other beats in all of them."""
    if len(found.objectives) < 2 or not found.finished:
        return None
    front = found.best()
    others = [trial for trial in found.finished if trial not in front]
    plots = []
    for first, second in itertools.combinations(range(len(found.objectives)), 2):
        across, up = found.measures[second], found.measures[first]
        layout = sheet(380, across.title, up.title)
        traces = []
        look = {"symbol": "circle-open", "size": 7, "color": "@muted", "line": {"width": 1.4}}
        for name, trials, marker in (("others", others, look), ("Pareto front", front, DONE | {"size": 10})):
            if trials:
                group = sorted(trials, key=lambda trial: trial.values[second])
                x, y = (
                    [trial.values[place] * found.measures[place].scale for trial in group] for place in (second, first)
                )
                traces.append(marks(name, x, y, marker, [said(trial, found.measures) for trial in group]))
        if len(found.objectives) == 2:
            shape = "vh" if found.objectives[1].greater_is_better else "hv"
            look = {"color": "@arm0", "width": 1.6, "dash": "2px,3px", "shape": shape}
            traces[-1] |= {"mode": "lines+markers", "line": look}
        plots.append(Plot("" if len(found.objectives) == 2 else f"{up.name} against {across.name}", traces, layout))
    rows = tuple((str(trial.number), words_of(trial.settings), *_values(trial, found.measures)) for trial in front)
    columns = ("trial", "settings", *(each.name for each in found.measures))
    table = Table("Trials on the Pareto front", columns, rows, words=2)
    caption = (
        f"Filled: the {plural(len(front), 'trial')} that no other beats in one objective without losing in another. "
        f"{_sense(found)}"
    )
    description = f"Pareto front of {_joined(found)}: trials {', '.join(str(trial.number) for trial in front)}."
    return Figure("pareto", "What one objective costs in another", caption, description, tuple(plots), table)


def _values(trial: Tried, measures: list[Measure]) -> list[str]:
    return [each.text(value) for each, value in zip(measures, trial.values, strict=False)]


def _joined(found: Findings) -> str:
    return " and ".join(each.name for each in found.measures)


def _sense(found: Findings) -> str:
    said = [f"{'more' if each.sign > 0 else 'less'} {each.name} is better" for each in found.measures]
    return f"{'; '.join(said).capitalize()}."
