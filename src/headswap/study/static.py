"""A page's figures as files for papers and slides, drawn by matplotlib in the light theme: figures/NAME.svg and .png.

Every plotly dictionary of a figure is drawn again (strokes.py: traces; here: axes, shapes, notes, legend). The SVG
holds its words as text, and the same study gives the same bytes. matplotlib is imported inside: it takes a while.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headswap.durable import replace_file
from headswap.study.page import Figure, Plot
from headswap.study.strokes import (
    COLOURS,
    POINT,
    SHAPES,
    colour,
    dashes,
    only,
    printable,
    refuse,
    stroke,
    weight,
    words,
)
from headswap.study.traces import DASHES, SYMBOLS

FOLDER = "figures"
COLUMNS = 3
LOOK: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"], "font.size": 9.5, "svg.fonttype": "none", "svg.hashsalt": "headswap",
    "text.parse_math": False, "lines.scale_dashes": False, "axes.unicode_minus": True,
    "axes.formatter.useoffset": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "axes.axisbelow": True,
    "axes.edgecolor": COLOURS["@muted"], "axes.labelcolor": COLOURS["@muted"], "text.color": COLOURS["@ink"],
    "xtick.color": COLOURS["@muted"], "ytick.color": COLOURS["@muted"], "ytick.major.size": 0,
    "figure.facecolor": "white", "savefig.facecolor": "white", "grid.color": COLOURS["@grid"],
}  # fmt: skip
_LAYOUT = {"height", "font", "paper_bgcolor", "plot_bgcolor", "margin", "hoverlabel", "hovermode", "dragmode"}
_LAYOUT |= {"showlegend", "legend", "xaxis", "yaxis", "shapes", "annotations", "bargap"}
_AXIS = {"gridcolor", "linecolor", "tickcolor", "ticks", "ticklen", "fixedrange", "zeroline", "zerolinecolor"}
_AXIS |= {"zerolinewidth", "automargin", "showline", "title", "type", "range", "dtick", "exponentformat", "autorange"}
_AXIS |= {"separatethousands", "tickvals", "ticktext", "tickangle", "tickformat", "tickfont", "showgrid", "visible"}
_AXIS |= {"ticklabelstandoff", "nticks"}
_SHAPE = {"type", "x0", "x1", "y0", "y1", "xref", "yref", "line", "fillcolor", "layer"}
_NOTE = {"x", "y", "text", "showarrow", "xshift", "yshift", "xanchor", "yanchor", "font", "bgcolor", "borderpad"}
_NOTE |= {"opacity", "align", "xref", "yref"}


def write_drawings(figures: Sequence[Figure], places: Mapping[str, int], folder: Path) -> None:
    """Write figures/NAME.svg and figures/NAME.png for every figure into `folder`.

    Args:
        places: arm -> its place among the colours, for the legends.
    """
    for figure in figures:
        for form, content in drawn(figure, places).items():
            replace_file(folder / FOLDER / f"{figure.name}.{form}", content)


def drawn(figure: Figure, places: Mapping[str, int]) -> dict[str, bytes]:
    """Return a figure by file format. Raises ValueError for anything in it that is not known here."""
    import matplotlib
    from matplotlib.figure import Figure as Sheet

    with matplotlib.rc_context(LOOK), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)  # PNG has DejaVu's letters alone
        sheet = Sheet(figsize=_size(figure.plots), dpi=160, layout="constrained")
        columns = min(COLUMNS, len(figure.plots))
        grid = sheet.subplots(math.ceil(len(figure.plots) / columns), columns, squeeze=False)
        for axes in grid.flat[len(figure.plots) :]:
            axes.set_axis_off()
        for axes, plot in zip(grid.flat, figure.plots, strict=False):
            _draw(axes, plot)
        _legend(sheet, figure, places)
        sheet.draw_without_rendering()
        sheet.set_layout_engine("none")
        return _saved(sheet, figure)


def _saved(sheet: Any, figure: Figure) -> dict[str, bytes]:
    """Return the drawing by format; the canvases are asked directly, since savefig would draw everything twice."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    about = {"Title": figure.title, "Description": printable(figure.description)}
    vector, pixels = io.BytesIO(), io.BytesIO()
    FigureCanvasAgg(sheet).print_png(pixels, metadata=about)
    FigureCanvasSVG(sheet).print_svg(vector, metadata=about | {"Date": None})  # last: it leaves 72 dots an inch
    return {"svg": vector.getvalue(), "png": pixels.getvalue()}


def _size(plots: Sequence[Plot]) -> tuple[float, float]:
    columns = min(COLUMNS, len(plots))
    wide = max(plot.width for plot in plots) / 96
    width = max(wide, {1: 7.2, 2: 4.9}.get(columns, 3.9)) * columns
    height = max(plot.layout["height"] for plot in plots) / 96 * math.ceil(len(plots) / columns)
    return width, height + 0.5


def _draw(axes: Any, plot: Plot) -> None:
    layout = plot.layout
    only(layout, _LAYOUT, "a layout")
    for name in ("xaxis", "yaxis"):
        only(layout[name], _AXIS, "an axis")
        if layout[name].get("type") == "log":
            (axes.set_xscale if name == "xaxis" else axes.set_yscale)("log")
    for trace in plot.data:
        stroke(axes, trace)
    for name, axis in (("xaxis", axes.xaxis), ("yaxis", axes.yaxis)):
        _axis(axes, axis, layout[name])
    for shape in layout.get("shapes", ()):
        _shape(axes, shape)
    for note in layout.get("annotations", ()):
        _note(axes, note, layout)
    if plot.title:
        axes.set_title(printable(plot.title), loc="left", fontsize=10, fontweight="bold")


def _axis(axes: Any, axis: Any, node: Mapping[str, Any]) -> None:
    across = axis is axes.xaxis
    log = node.get("type") == "log"
    if node.get("visible") is False:
        axis.set_visible(False)
        axes.spines["bottom" if across else "left"].set_visible(False)
    elif node.get("showgrid", True) and node.get("type") != "category":
        axis.grid(True, linewidth=0.7)
    if title := node.get("title", {}).get("text"):
        axis.set_label_text(words(title))
    if "range" in node:
        (axes.set_xlim if across else axes.set_ylim)([10**end if log else end for end in node["range"]])
    if node.get("autorange") == "reversed":
        axis.set_inverted(True)
    if "tickvals" in node:
        axis.set_ticks(node["tickvals"], [words(text) for text in node.get("ticktext", map(str, node["tickvals"]))])
        for label, text in zip(axis.get_ticklabels(), node.get("ticktext", ()), strict=False):
            label.set_fontweight(weight(text.split("<br>")[0]))
        axis.set_minor_locator(_ticker().NullLocator())
    elif log:
        axis.set_major_formatter(_ticker().FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.set_minor_locator(_ticker().NullLocator())
    if angle := node.get("tickangle"):
        for label in axis.get_ticklabels():
            label.set(rotation=-angle, ha="right" if across else "center", rotation_mode="anchor")
    if node.get("zeroline"):
        look = {"color": colour(node["zerolinecolor"]), "linewidth": node.get("zerolinewidth", 1) * POINT, "zorder": 1}
        (axes.axvline if across else axes.axhline)(0, **look)


def _ticker() -> Any:
    from matplotlib import ticker

    return ticker


def _shape(axes: Any, shape: Mapping[str, Any]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle
    from matplotlib.transforms import blended_transform_factory

    only(shape, _SHAPE, "a shape")
    across, up = (axes.transAxes if shape.get(f"{name}ref") == "paper" else axes.transData for name in "xy")
    frame = {"transform": blended_transform_factory(across, up), "zorder": 0.5}
    x0, x1, y0, y1 = (shape[name] for name in ("x0", "x1", "y0", "y1"))
    line = shape.get("line", {})
    if shape["type"] == "rect":
        axes.add_patch(
            Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor=colour(shape["fillcolor"]), linewidth=0, **frame)
        )
    elif shape["type"] == "line":
        look = {"color": colour(line["color"]), "linewidth": line.get("width", 2) * POINT}
        axes.add_line(Line2D([x0, x1], [y0, y1], linestyle=dashes(line.get("dash", "solid")), **look, **frame))
    else:
        refuse("a shape", shape["type"])


def _note(axes: Any, note: Mapping[str, Any], layout: Mapping[str, Any]) -> None:
    only(note, _NOTE, "an annotation")
    if note.get("showarrow", True):
        refuse("an annotation's arrow", note.get("text"))
    where = [note[name] for name in "xy"]
    frames = ["axes fraction" if note.get(f"{name}ref") == "paper" else "data" for name in "xy"]
    for place, name in enumerate(("xaxis", "yaxis")):  # on a log axis plotly's annotations stand at the logarithm
        if layout[name].get("type") == "log" and frames[place] == "data":
            where[place] = 10 ** where[place]
    font, shade = note.get("font", {}), note.get("bgcolor")
    box = {"boxstyle": f"square,pad={note.get('borderpad', 1) / 10}", "linewidth": 0, "facecolor": "white"}
    shift = note.get("xshift", 0) * POINT, note.get("yshift", 0) * POINT
    axes.annotate(
        words(note["text"]), where, shift, (frames[0], frames[1]), "offset points",
        ha=note.get("xanchor", "center"), va=note.get("yanchor", "middle").replace("middle", "center"),
        fontsize=font.get("size", 12) * POINT, fontweight=weight(note["text"]),
        color=colour(font.get("color", "@muted")), bbox=box if shade else None, alpha=note.get("opacity"),
    )  # fmt: skip


def _legend(sheet: Any, figure: Figure, places: Mapping[str, int]) -> None:
    """Name the arms above the drawing, or what the traces are called where the page's own legend does."""
    from matplotlib.lines import Line2D

    handles: list[Any] = []
    for arm in figure.arms:
        index = places[arm]
        look = {"color": COLOURS[f"@arm{index}"], "linestyle": dashes(DASHES[index]), "linewidth": 2}
        handles.append(Line2D([], [], marker=SHAPES[SYMBOLS[index]], markersize=5, label=printable(arm), **look))
    if not handles and figure.plots[0].layout.get("showlegend"):
        every = [axes.get_legend_handles_labels() for axes in sheet.axes]
        found = {name: handle for pair in every for handle, name in zip(*pair, strict=True)}
        handles = list(found.values())
    if handles:
        sheet.legend(handles=handles, loc="outside upper left", ncols=min(4, len(handles)), frameon=False)
