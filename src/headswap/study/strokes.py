"""Plotly traces drawn by matplotlib: the kinds and keys that the pages' figures use, and no others. Floor 5.

What stands in a figure and is not known here is an error, so that no drawing leaves out in silence what the page shows.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from typing import Any

from headswap.study.traces import palettes

POINT = 0.75
"""Points a pixel: the pages count in pixels of 1/96 inch, matplotlib in points."""
COLOURS = palettes()["light"]
SHAPES = {"circle": "o", "diamond": "D", "square": "s", "cross": "P", "star": "*", "x": "X", "x-thin": "x"}
SHAPES |= {f"triangle-{way}": sign for way, sign in {"up": "^", "down": "v", "left": "<", "right": ">"}.items()}
SHAPES |= {"line-ns": "|"}
_HOVER = {"type", "name", "text", "hoverinfo", "hovertemplate", "showlegend", "connectgaps", "cliponaxis"}
_KNOWN = {
    "scatter": {"x", "y", "mode", "line", "marker", "fill", "fillcolor", "error_x", "error_y"},
    "bar": {"x", "y", "orientation", "marker", "width", "textposition", "textfont", "error_x", "error_y"},
    "heatmap": {"x", "y", "z", "colorscale", "zmin", "zmax", "showscale", "xgap", "ygap", "texttemplate", "textfont"},
}
_STEPS = {"linear": "default", "hv": "steps-post", "vh": "steps-pre"}
Node = Mapping[str, Any]


def refuse(what: str, found: object) -> None:
    raise ValueError(f"static drawing: {what} is not drawn here; found {found!r}; teach it to study/strokes.py")


def only(node: Node, known: set[str], what: str) -> None:
    """Refuse keys that would be left out."""
    if strange := node.keys() - known:
        refuse(f"a key of {what}", sorted(strange))


def colour(token: str) -> str:
    """Return a plotly colour or a token of the page as matplotlib reads it."""
    return "none" if token == "rgba(0,0,0,0)" else COLOURS.get(token, token)


def words(text: str) -> str:
    """Return the words of plotly's markup, in lines."""
    plain = html.unescape(re.sub(r"</?b>", "", re.sub(r"<br ?/?>", "\n", text)))
    return printable(plain)


def printable(text: str) -> str:
    """Return a text without what an SVG may not hold."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f\u200b\ud800-\udfff\ufffe\uffff]", "", text)


def weight(text: str) -> str:
    return "bold" if text.startswith("<b>") else "normal"


def stroke(axes: Any, trace: Node) -> None:
    """Draw one trace into matplotlib's axes. Raises ValueError for a kind, or a key, that is not known."""
    kind = trace.get("type", "scatter")
    if kind not in _KNOWN:
        refuse("a kind of trace", kind)
    only(trace, _KNOWN[kind] | _HOVER, f"a {kind}")
    _DRAWN[kind](axes, trace)


def dashes(dash: str) -> Any:
    if dash == "solid":
        return "-"
    if not re.fullmatch(r"\d+(\.\d+)?px(,\d+(\.\d+)?px)+", dash):
        refuse("a dash", dash)
    return 0, tuple(float(part.removesuffix("px")) * POINT for part in dash.split(","))


def _scatter(axes: Any, trace: Node) -> None:
    mode = trace.get("mode", "lines")
    if mode not in ("lines", "markers", "lines+markers"):
        refuse("a mode", mode)
    x, y = _places(axes.xaxis, trace["x"]), _places(axes.yaxis, trace["y"])
    label = words(trace.get("name", "")) if trace.get("showlegend") else None
    if fill := trace.get("fill"):
        if fill != "toself":
            refuse("a fill", fill)
        axes.fill(x, y, facecolor=colour(trace["fillcolor"]), edgecolor="none", linewidth=0, label=label)
        label = None
    line = trace.get("line", {})
    if "lines" in mode and colour(line.get("color", "@ink")) != "none":
        only(line, {"color", "width", "dash", "shape"}, "a line")
        look = {"color": colour(line.get("color", "@ink")), "linewidth": line.get("width", 2) * POINT}
        look |= {"linestyle": dashes(line.get("dash", "solid")), "drawstyle": _STEPS[line.get("shape", "linear")]}
        axes.plot(x, y, label=label if "markers" not in mode else None, **look)
    _errors(axes, trace, x, y)
    if "markers" in mode:
        _markers(axes, trace, x, y, label)


def _markers(axes: Any, trace: Node, x: list[float], y: list[float], label: str | None) -> None:
    marker = trace.get("marker", {})
    only(marker, {"symbol", "size", "color", "opacity", "line"}, "a marker")
    total = len(x)
    symbols, sizes = (_each(marker.get(key, usual), total) for key, usual in (("symbol", "circle"), ("size", 6)))
    shade = colour(marker.get("color", "@ink"))
    edge = marker.get("line", {})
    for symbol in dict.fromkeys(symbols):
        mine = [place for place in range(total) if symbols[place] == symbol]
        shape, opened = symbol.removesuffix("-open"), symbol.endswith("-open")
        if shape not in SHAPES:
            refuse("a symbol", symbol)
        thin = SHAPES[shape] in "x|"
        look = {"c" if thin else "facecolors": "none" if opened else shade}
        look |= {} if thin else {"edgecolors": shade if opened else colour(edge.get("color", shade))}
        axes.scatter(
            [x[place] for place in mine], [y[place] for place in mine],
            s=[(sizes[place] * POINT) ** 2 for place in mine], marker=SHAPES[shape], alpha=marker.get("opacity"),
            linewidths=edge.get("width", 1.2 if opened else 0) * POINT, zorder=3, label=label, **look,
        )  # fmt: skip
        label = None


def _errors(axes: Any, trace: Node, x: list[float], y: list[float]) -> None:
    for name in ("error_x", "error_y"):
        if not (error := trace.get(name)):
            continue
        only(error, {"type", "array", "arrayminus", "symmetric", "color", "thickness", "width"}, "an error bar")
        length = [error.get("arrayminus", error["array"]), error["array"]]
        look = {"ecolor": colour(error["color"]), "elinewidth": error.get("thickness", 2) * POINT}
        look |= {"capsize": error.get("width", 4) * POINT / 2, "fmt": "none"}
        axes.errorbar(x, y, **{f"{name[-1]}err": length}, **look)


def _bar(axes: Any, trace: Node) -> None:
    across = trace.get("orientation") == "h"
    values, names = (trace["x"], trace["y"]) if across else (trace["y"], trace["x"])
    places = _places(axes.yaxis if across else axes.xaxis, names)
    only(trace.get("marker", {}), {"color", "opacity"}, "a bar's marker")
    marker = trace.get("marker", {})
    look = {"color": colour(marker.get("color", "@arm0")), "alpha": marker.get("opacity")}
    label = words(trace.get("name", "")) if trace.get("showlegend") else None
    drawn = (axes.barh if across else axes.bar)(places, values, trace.get("width", 0.7), label=label, **look)
    _errors(axes, trace, *((values, places) if across else (places, values)))
    if trace.get("text"):
        axes.bar_label(drawn, [words(text) for text in trace["text"]], padding=3, color=COLOURS["@ink"])


def _heatmap(axes: Any, trace: Node) -> None:
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    if trace.get("showscale", True):
        refuse("a heatmap's scale", "showscale")
    scale = [(place, colour(token)) for place, token in trace["colorscale"]]
    shades, size = LinearSegmentedColormap.from_list("page", scale), Normalize(trace["zmin"], trace["zmax"])
    x, y = _places(axes.xaxis, trace["x"]), _places(axes.yaxis, trace["y"])
    edges = {"edgecolors": COLOURS["@paper"], "linewidth": trace.get("xgap", 0) * POINT}
    axes.pcolormesh(x, y, trace["z"], cmap=shades, norm=size, **edges)
    if trace.get("texttemplate", "%{text}") != "%{text}":
        refuse("a text in cells", trace["texttemplate"])
    for row, texts in enumerate(trace["text"] if "texttemplate" in trace else []):
        for column, text in enumerate(texts):
            axes.text(
                x[column], y[row], words(text), ha="center", va="center", color=colour(trace["textfont"]["color"])
            )


def _places(axis: Any, values: list) -> list[float]:
    """Return where values stand; words stand one after the other, as the axis has met them."""
    if not any(isinstance(value, str) for value in values):
        return [float("nan") if value is None else value for value in values]
    met: dict[str, int] = axis.__dict__.setdefault("headswap_words", {})
    for value in values:
        met.setdefault(value, len(met))
    axis.set_ticks(list(met.values()), [words(value) for value in met])
    return [met[value] for value in values]


def _each(value: Any, total: int) -> list:
    return list(value) if isinstance(value, list | tuple) else [value] * total


_DRAWN: dict[str, Callable[[Any, Node], None]] = {"scatter": _scatter, "bar": _bar, "heatmap": _heatmap}
