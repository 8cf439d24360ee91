"""The pieces that the report's figures are drawn from: colours, lines, bands, axes. Plain plotly dictionaries."""

from __future__ import annotations

import math
from math import log10
from typing import TYPE_CHECKING, Any

from headswap.study.statistics import Interval
from headswap.study.units import Unit

if TYPE_CHECKING:
    from headswap.study.results import Comparison

FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
ARM_COLOURS = {
    "light": ("#0b62a6", "#bf4a06", "#2b7a4b", "#7a4ba0", "#86690a", "#5a5a5a", "#a8215c", "#0a7478"),
    "dark": ("#6db7f7", "#ff9e5e", "#71d09a", "#c9a2f2", "#e2c457", "#b4b4b4", "#ff9cc4", "#5cd3d6"),
}
INKS = {
    "light": {"ink": "#1d1c1a", "muted": "#5d5951", "grid": "#e7e3da", "paper": "#fffefb", "margin": "#00000010"},
    "dark": {"ink": "#eceae5", "muted": "#aaa69d", "grid": "#34363c", "paper": "#1d1f23", "margin": "#ffffff14"},
}
HEAT = {"light": 0.55, "dark": 0.45}
"""How much of an arm's colour the fullest cell of a heatmap has: ink can still be read on it."""
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star", "triangle-down", "x")
DASHES = ("solid", "7px,4px", "2px,3px", "9px,3px,2px,3px", "12px,4px", "4px,2px", "9px,3px,2px,3px,2px,3px", "2px,6px")


def palettes() -> dict[str, dict[str, str]]:
    """Return the colour of every token, by theme."""
    filled: dict[str, dict[str, str]] = {}
    for theme, inks in INKS.items():
        tokens = {f"@{name}": colour for name, colour in inks.items()}
        for index, colour in enumerate(ARM_COLOURS[theme]):
            tokens |= {f"@arm{index}": colour, f"@band{index}": f"{colour}2b", f"@thin{index}": f"{colour}66"}
            tokens[f"@heat{index}"] = _mixed(colour, inks["paper"], HEAT[theme])
        filled[theme] = tokens
    return filled


def arm_index(arm: str, comparison: Comparison) -> int:
    """Return the arm's place among the colours: the treatment is 0 and the control 1 in every study."""
    names = [comparison.study.treatment, comparison.study.control]
    names += [each for each in comparison.arms if each not in names]
    return names.index(arm) % len(SYMBOLS)


def safe(text: str) -> str:
    """Return words of the data for plotly, which reads some markup, and for the page, which reads @ as a colour."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    return f"\N{ZERO WIDTH SPACE}{escaped}" if escaped.startswith("@") else escaped


def _mixed(colour: str, paper: str, share: float) -> str:
    pairs = zip(bytes.fromhex(colour[1:]), bytes.fromhex(paper[1:]), strict=True)
    return "#" + "".join(f"{round(share * first + (1 - share) * second):02x}" for first, second in pairs)


def line(x: list, y: list, colour: str, width: float, dash: str) -> dict[str, Any]:
    look = {"color": colour, "width": width, "dash": dash}
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": look, "hoverinfo": "skip", "showlegend": False}


def band(x: list, low: list, high: list, look: tuple[int, Unit]) -> dict[str, Any]:
    index, unit = look
    edge = [value * unit.scale for value in [*low, *reversed(high)]]
    fill = {"fill": "toself", "fillcolor": f"@band{index}"}
    return line([*x, *reversed(x)], edge, "rgba(0,0,0,0)", 0, "solid") | fill


def named(arm: str, index: int, hover: str) -> dict[str, Any]:
    marker = {"symbol": SYMBOLS[index], "size": 6.5, "color": f"@arm{index}"}
    label = safe(arm)
    return {"mode": "lines+markers", "marker": marker, "hoverinfo": "x+y", "name": label} | {
        "hovertemplate": f"{label}, {hover}<extra></extra>"
    }


def layout_of(height: int, x: str, y: str) -> dict[str, Any]:
    axis = {"gridcolor": "@grid", "linecolor": "@muted", "tickcolor": "@muted", "ticks": "outside", "ticklen": 4}
    axis |= {"fixedrange": True, "zeroline": False, "automargin": True, "showline": True}
    return {
        "height": height,
        "font": {"family": FONT, "size": 12.5, "color": "@muted"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 48, "r": 10, "t": 12, "b": 44},
        "hoverlabel": {"bgcolor": "@paper", "bordercolor": "@muted", "font": {"color": "@ink", "family": FONT}},
        "hovermode": "closest",
        "dragmode": False,
        "showlegend": False,
        "xaxis": axis | {"title": {"text": x, "standoff": 8}},
        "yaxis": axis | {"title": {"text": y, "standoff": 8}, "showline": False, "ticks": ""},
    }


def margin_band(half: float) -> dict[str, Any]:
    edges = {"xref": "paper", "x0": 0, "x1": 1, "y0": -half, "y1": half}
    return {"type": "rect", "fillcolor": "@margin", "line": {"width": 0}, "layer": "below"} | edges


def interval_row(place: int, interval: Interval, unit: Unit, marker: dict[str, Any]) -> dict[str, Any]:
    """Return one row of a list of differences: its mean as a mark, its interval as a bar."""
    mark = line([interval.mean * unit.scale], [place], "@ink", 2, "solid") | {"mode": "markers", "marker": marker}
    hover = unit.hover(signed=True).replace("%{y", "%{x", 1)
    mark |= {"hoverinfo": "x", "hovertemplate": f"{hover}<extra></extra>"}
    if interval.high is not None:
        half = (interval.high - interval.mean) * unit.scale
        mark["error_x"] = {"type": "data", "array": [half], "color": marker["color"], "thickness": 2, "width": 6}
    return mark


def list_layout(names: list[str], title: str, margin: float, row: int = 34) -> dict[str, Any]:
    """Return a layout with one row a name, from the top, a line at zero and the margin behind.

    Args:
        names: what stands beside the rows; words of the data made safe.
        margin: the difference that matters, as drawn; 0 for none.
        row: its height in pixels.
    """
    layout = layout_of(64 + row * len(names), title, "")
    layout["xaxis"] |= {"zeroline": True, "zerolinecolor": "@ink", "zerolinewidth": 1.5}
    layout["yaxis"] |= {"range": [len(names) - 0.5, -0.5], "tickvals": list(range(len(names))), "ticktext": names}
    layout["yaxis"] |= {"showgrid": False, "tickfont": {"color": "@ink", "size": 12.5}, "ticklabelstandoff": 6}
    edges = {"yref": "paper", "y0": 0, "y1": 1, "x0": -margin, "x1": margin}
    shade = {"type": "rect", "fillcolor": "@margin", "line": {"width": 0}, "layer": "below"} | edges
    layout["shapes"] = [shade] if margin else []
    return layout


def log_ticks(values: list[float]) -> dict[str, Any]:
    """Return range and ticks of a logarithmic axis: decades, or 1, 2 and 5 of each where there are few."""
    low, high = log_range(values)
    sizes = (1,) if high - low > 2 else (1, 2, 5)
    powers = range(math.floor(low), math.ceil(high) + 1)
    shown = [size * 10.0**power for power in powers for size in sizes if low <= log10(size) + power <= high]
    return {"type": "log", "range": [low, high], "tickvals": shown, "ticktext": [f"{each:,g}" for each in shown]}


def padded(values: list[float]) -> list[float]:
    room = 0.06 * (max(values) - min(values) or 1.0)
    return [min(values) - room, max(values) + room]


def log_range(values: list[float]) -> list[float]:
    low, high = log10(min(values)), log10(max(values))
    room = 0.03 * (high - low or 1.0)
    return [low - room, high + room]
