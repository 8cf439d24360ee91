"""The sweep page's figures of scores, as plain plotly dictionaries. Sweep chain: findings, history -> this -> page.

Colours are tokens that the page replaces (study/traces.py); colour never says anything alone: marks and dashes differ.
"""

from __future__ import annotations

from typing import Any

from headswap.study.page import NONE, Figure, Plot, Table
from headswap.study.traces import FONT, layout_of, padded, safe
from headswap.study.units import plural
from headswap.sweep import history
from headswap.sweep.axes import brief
from headswap.sweep.findings import Findings, Tried
from headswap.sweep.measure import Measure

Trace = dict[str, Any]
PRUNED = {"symbol": "triangle-down-open", "size": 8, "color": "@arm1", "line": {"width": 1.5}}
FAILED = {"symbol": "x-thin", "size": 8, "color": "@ink", "line": {"width": 1.8, "color": "@ink"}}
DONE = {"symbol": "circle", "size": 7, "color": "@arm0", "opacity": 0.75}


def marks(name: str, x: list, y: list, marker: Trace, text: list[str]) -> Trace:
    """Return one kind of trial as marks; `text` is what hovering says."""
    trace = {"type": "scatter", "mode": "markers", "name": name, "x": x, "y": y, "marker": marker}
    return trace | {"text": text, "hoverinfo": "text", "showlegend": True}


def path(name: str, x: list, y: list, look: Trace, **more: Any) -> Trace:
    trace = {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": look}
    return trace | {"hoverinfo": "skip", "showlegend": True} | more


def sheet(height: int, x: str, y: str) -> Trace:
    """Return a layout with its legend above the drawing."""
    layout = layout_of(height, x, y)
    legend = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "itemclick": False}
    legend |= {"itemdoubleclick": False, "font": {"color": "@ink", "family": FONT, "size": 13}}
    return layout | {"showlegend": True, "legend": legend}


def said(trial: Tried, measures: list[Measure]) -> str:
    """Return what hovering over a trial says."""
    lines = [f"trial {trial.number}"]
    if trial.state == "complete":
        lines += [f"{each.name} {each.text(value)}" for each, value in zip(measures, trial.values, strict=True)]
    else:
        lines.append(f"{trial.state if trial.state != 'fail' else 'failed'}: {trial.reason[:80]}")
    lines += [f"{key} = {brief(word)}" for key, word in trial.settings.items()]
    return "<br>".join(map(safe, lines))


def history_figure(found: Findings) -> Figure | None:
    """Every trial's value by number, the best so far, and what chance alone allows."""
    if not found.finished:
        return None
    plots = tuple(_history(found, place) for place in range(len(found.objectives)))
    rows = []
    so_far = [dict(zip(_numbers(found), history.best_so_far(found, place)[1], strict=True)) for place in _places(found)]
    for trial in sorted(found.counted, key=lambda trial: trial.number):
        cells = [trial.values[place] if trial.state == "complete" else None for place in _places(found)]
        best = [so_far[place].get(trial.number) for place in _places(found)]
        shown = [
            NONE if value is None else measure.text(value)
            for pair, measure in zip(zip(cells, best, strict=True), found.measures, strict=True)
            for value in pair
        ]
        rows.append((str(trial.number), _state(trial), *shown))
    columns = [name for each in found.measures for name in (each.name, "best so far")]
    table = Table("Trials by number", ("trial", "state", *columns), tuple(rows), words=2)
    best = "; ".join(
        f"best {each.name} {each.text(history.best_so_far(found, place)[1][-1])}"
        for place, each in enumerate(found.measures)
    )
    description = f"Score by trial number: {plural(len(found.finished), 'finished trial')}, {best}."
    return Figure("history", "History", _history_caption(found), description, plots, table)


def _history(found: Findings, place: int) -> Plot:
    measure, band = found.measures[place], history.band(found, place)
    scale = measure.scale
    done, best = history.best_so_far(found, place)
    pruned = [trial for trial in found.of("pruned") if trial.scores and not place]
    last = [trial.scores[max(trial.scores)] * scale for trial in pruned]
    everything = [*(trial.values[place] * scale for trial in done), *last]
    low, high = padded(everything)
    traces = _band(band, scale, (low, high) if measure.sign > 0 else (high, low)) if band else []
    look = {"color": "@arm0", "width": 2.4, "shape": "hv"}
    traces.append(path("best so far", [trial.number for trial in done], [value * scale for value in best], look))
    hover = [said(trial, found.measures) for trial in done]
    y = [trial.values[place] * scale for trial in done]
    traces.append(marks("finished", [trial.number for trial in done], y, DONE, hover))
    if pruned:
        hover = [said(trial, found.measures) for trial in pruned]
        traces.append(marks("pruned, at its last score", [trial.number for trial in pruned], last, PRUNED, hover))
    if failed := found.of("fail"):
        hover = [said(trial, found.measures) for trial in failed]
        numbers = [trial.number for trial in failed]
        traces.append(marks("failed, no score", numbers, [low] * len(failed), FAILED, hover))
    layout = sheet(400, "trial", measure.title)
    room = 0.02 * (high - low)
    layout["yaxis"] |= {"range": [low - room, high + room]}
    numbers = [trial.number for trial in found.counted]
    layout["xaxis"] |= {"range": [min(numbers) - 0.6, max(numbers) + 0.6], "tickformat": "d"}
    title = measure.name if len(found.objectives) > 1 else ""
    return Plot(title, traces, layout)


def _band(band: history.Band, scale: float, ends: tuple[float, float]) -> list[Trace]:
    """Return the band as one area; where an end is not known it goes to the edge of the drawing."""
    worst, best = ends
    low = [worst if value is None else value * scale for value in band.low]
    high = [best if value is None else value * scale for value in band.high]
    x = [*band.numbers, *reversed(band.numbers)]
    y = [*low, *reversed(high)]
    name = "middle half of the trials so far" if band.kind == "quartiles" else "95 % band of the median best"
    fill = {"fill": "toself", "fillcolor": "@margin" if band.kind == "quartiles" else "@band0"}
    return [path(name, x, y, {"color": "rgba(0,0,0,0)", "width": 0}, **fill)]


def _history_caption(found: Findings) -> str:
    caption = "Each trial's value by its number; the line is the best so far."
    band = history.band(found)
    if band is None:
        return f"{caption} No band: fewer than four trials finished."
    if band.kind == "luck":
        return (
            f"{caption} Band: where the median best of so many random trials lies (half of such sweeps do better), "
            "with 95 % confidence at each number: exact, from the ranks of all trials, failed ones as the worst. Where "
            "the band runs to the edge, so few trials say nothing about how good the best of that many can be."
        )
    why = (
        "a pruned trial has no final score"
        if found.sampler == "random"
        else "each trial was chosen, not drawn at random"
    )
    return (
        f"{caption} Band: the middle half (quartiles) of the finished trials so far. It is no confidence band: there "
        f"is none here, because {why}."
    )


def curves_figure(found: Findings) -> Figure | None:
    """The scores on the way of every trial that has some, pruned ones to where they ended."""
    shown = [trial for trial in found.counted if trial.scores and trial.state in ("complete", "pruned")]
    if not shown:
        return None
    measure = found.measures[0]
    best = {trial.number for trial in found.best()[:1]}
    kinds = {
        "finished": ([trial for trial in shown if trial.state == "complete" and trial.number not in best], "solid"),
        "pruned": ([trial for trial in shown if trial.state == "pruned"], "3px,3px"),
        "best": ([trial for trial in shown if trial.number in best], "solid"),
    }
    colours = {"finished": ("@thin0", 1.2), "pruned": ("@arm1", 1.3), "best": ("@ink", 2.6)}
    traces = []
    for name, (trials, dash) in kinds.items():
        if trials:
            colour, width = colours[name]
            traces.append(_ways(name, trials, measure, {"color": colour, "width": width, "dash": dash}))
    ended = kinds["pruned"][0]
    if ended:
        x, y = [max(trial.scores) for trial in ended], [_last(trial) * measure.scale for trial in ended]
        hover = [said(trial, found.measures) for trial in ended]
        traces.append(marks("where it ended", x, y, PRUNED, hover))
    layout = sheet(360, "share of the trial's own steps (%)", measure.title)
    layout["xaxis"] |= {"range": [0, 102]}
    rows = tuple(
        (str(trial.number), _state(trial), f"{share:g} %", measure.text(score))
        for trial in shown
        for share, score in sorted(trial.scores.items())
    )
    table = Table("Scores on the way", ("trial", "state", "of its steps", measure.name), rows, words=2)
    caption = (
        f"{measure.name.capitalize()} at each trial's own evaluations, in percent of its own steps, as the pruner saw "
        "them; a dashed line ends where its trial was pruned. The last point of a finished trial is its last "
        "evaluation; its value in the other figures is that of the weights it kept."
    )
    description = f"Learning curves of {plural(len(shown), 'trial')}, {len(ended)} of them pruned."
    return Figure("curves", "Scores on the way", caption, description, (Plot("", traces, layout),), table)


def _ways(name: str, trials: list[Tried], measure: Measure, look: Trace) -> Trace:
    """Return many lines as one trace, with gaps between them."""
    x: list[float | None] = []
    y: list[float | None] = []
    for trial in trials:
        points = sorted(trial.scores.items())
        x += [*(share for share, _ in points), None]
        y += [*(score * measure.scale for _, score in points), None]
    return path(name, x, y, look, connectgaps=False)


def _places(found: Findings) -> range:
    return range(len(found.objectives))


def _numbers(found: Findings) -> list[int]:
    return sorted(trial.number for trial in found.finished)


def _state(trial: Tried) -> str:
    return {"complete": "finished", "fail": "failed"}.get(trial.state, trial.state)


def _last(trial: Tried) -> float:
    return trial.scores[max(trial.scores)]
