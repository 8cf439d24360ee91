"""Write what was measured as JSON, as CSV, as one page that opens offline, and its drawings and tables as files.

Measures chain: speed_report, gradient_report -> page (end). The page stands on study/page.py, as all pages do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headswap.errors import ConfigError
from headswap.records import write_json, write_text
from headswap.study.page import Figure, Table, legends, render_page
from headswap.study.sheets import records_sheet, write_tables
from headswap.study.static import write_drawings

TEMPLATE = Path(__file__).with_name("measures.html.j2")


@dataclass(frozen=True)
class Report:
    """Everything that a page of measurements says.

    Args:
        name: speed or gradients: its files' and its folder's name.
        over: the line above the title.
        cautions: what weakens it.
        places: body -> its place among the colours.
        shown: the tables that the terminal shows.
        settings: what the folder is named by.
        content: of the JSON file; `rows` those of the CSV file.
    """

    name: str
    title: str
    over: str
    statements: Sequence[str]
    cautions: Sequence[str]
    figures: Sequence[Figure]
    places: Mapping[str, int]
    tables: Mapping[str, Table]
    shown: Sequence[Table]
    design: Sequence[tuple[str, str]]
    settings: Mapping[str, Any]
    content: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]


def check_out(out: Path | None) -> None:
    """Refuse a file as the folder that the page is to lie in."""
    if out is not None and out.exists() and not out.is_dir():
        raise ConfigError(f"--out: not a folder; found the file {out}; name a folder for the page")


def publish(report: Report, root: Path, out: Path | None = None) -> Path:
    """Write NAME.json, NAME.csv, NAME.html, figures/ and tables/; return their folder.

    Args:
        root: where a folder named by the settings is made.
        out: the folder itself, instead.
    """
    digest = hashlib.sha256(json.dumps(report.settings, sort_keys=True).encode()).hexdigest()
    folder = out or root / f"{report.name}-{digest[:8]}"
    write_json(folder / f"{report.name}.json", dict(report.content))
    write_text(folder / f"{report.name}.csv", records_sheet(report.rows))
    write_drawings(report.figures, report.places, folder)
    write_tables({figure.name: figure.table for figure in report.figures} | dict(report.tables), folder)
    write_text(folder / f"{report.name}.html", render(report))
    return folder


def render(report: Report) -> str:
    """Return the page as text."""
    return render_page(TEMPLATE, report.figures, report=report, legends=legends(report.figures, report.places))
