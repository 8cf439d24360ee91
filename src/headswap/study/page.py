"""What every page of headswap is made of: tables, figures, and the frame that opens offline. Floor 5.

Everything that comes from data is escaped by jinja2; plotly.js is inlined once and the page's content security policy
forbids every request, so that the page shows the same in ten years. A study's report and a sweep's stand on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from headswap.study.traces import ARM_COLOURS, DASHES, palettes

HERE = Path(__file__).parent
NONE = "–"


@dataclass(frozen=True)
class Table:
    """A table of the page; the first `words` columns hold words, the others numbers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1


@dataclass(frozen=True)
class Plot:
    """One plotly drawing.

    Args:
        title: stands above it.
        width: pixels below which it scrolls sideways in its card; 0 for one that fits a phone.
    """

    title: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    width: int = 0


@dataclass(frozen=True)
class Figure:
    """One or several plots under one heading."""

    name: str
    title: str
    caption: str
    description: str
    plots: tuple[Plot, ...]
    table: Table
    arms: tuple[str, ...] = ()
    """The arms of the legend, empty for none."""


def render_page(template: Path, figures: Sequence[Figure], **values: Any) -> str:
    """Return the page of a template that extends page.html.j2; `values` is what it names besides the figures."""
    loader = jinja2.FileSystemLoader([template.parent, HERE])
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    plots = {f"{figure.name}-{place}": plot for figure in figures for place, plot in enumerate(figure.plots)}
    drawn = {name: {"data": plot.data, "layout": plot.layout} for name, plot in plots.items()}
    payload = {"palettes": palettes(), "plots": drawn}
    given = {"figures": figures, "payload": payload, "arm_colours": ARM_COLOURS, "plotly": _plotly()}
    return environment.get_template(template.name).render(**given, **values)


def legends(figures: Sequence[Figure], places: Mapping[str, int]) -> dict[str, list[dict[str, Any]]]:
    """Return figure -> what its legend shows of each arm.

    Args:
        places: arm -> its place among the colours and dashes.
    """
    return {figure.name: [_legend_entry(arm, places[arm]) for arm in figure.arms] for figure in figures}


def _legend_entry(arm: str, place: int) -> dict[str, Any]:
    dash = DASHES[place]
    return {"arm": arm, "index": place, "dash": "none" if dash == "solid" else dash.replace("px", "")}


def without_empty_columns(table: Table) -> Table:
    """Leave out the columns in which no row has anything."""
    kept = [place for place in range(len(table.columns)) if any(row[place] != NONE for row in table.rows)]
    rows = tuple(tuple(row[place] for place in kept) for row in table.rows)
    words = sum(place < table.words for place in kept)
    return Table(table.caption, tuple(table.columns[place] for place in kept), rows, words)


def _plotly() -> Markup:
    """Return plotly.js; a closing tag inside it could end the page's script element, so there is none."""
    from plotly.offline import get_plotlyjs

    return Markup(re.sub(r"</(script)", r"<\\/\1", get_plotlyjs(), flags=re.IGNORECASE))
