"""A page's tables as CSV: numbers as numbers, a unit in the column's name, an interval in two columns. Floor 5.

The numbers are as the page rounds them; comparison.json has them in full.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from headswap.records import write_text
from headswap.study.page import NONE, Table
from headswap.study.units import MINUS

FOLDER = "tables"
_NUMBER = rf"[+{MINUS}-]?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?"
_UNITS = "%|pp|s|min|h|\N{MULTIPLICATION SIGN}"
_SINGLE = re.compile(rf"({_NUMBER}) ?({_UNITS})?")
_RANGE = re.compile(rf"({_NUMBER}) to ({_NUMBER}) ?({_UNITS})?")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_tables(tables: Mapping[str, Table], folder: Path) -> None:
    """Write tables/NAME.csv for every table into `folder`."""
    for name, table in tables.items():
        write_text(folder / FOLDER / f"{name}.csv", sheet(table))


def sheet(table: Table) -> str:
    """Return a table as CSV. A text that a table calculator would take for a formula gets an apostrophe before it."""
    columns = [
        column
        for place, name in enumerate(table.columns)
        for column in _columns(name, [row[place] for row in table.rows], place < table.words)
    ]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([name for name, _ in columns])
    writer.writerows(zip(*(cells for _, cells in columns), strict=True))
    return file.getvalue()


def records_sheet(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return records as CSV under the names of the first one's values, which all of them have."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _columns(name: str, cells: Sequence[str], words: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield a column of the page as one of words or numbers, or as the two ends of its intervals."""
    known = [cell for cell in cells if cell not in (NONE, "")]
    single, ranges = ([pattern.fullmatch(cell) for cell in known] for pattern in (_SINGLE, _RANGE))
    if not words and known and all(single):
        unit = _unit([found[2] for found in single if found])
        if unit is not None:
            yield _named(name, unit), [_number(_SINGLE.fullmatch(cell), 1) for cell in cells]
            return
    if not words and known and all(ranges):
        unit = _unit([found[3] for found in ranges if found])
        if unit is not None:
            for end, place in (("low", 1), ("high", 2)):
                yield _named(f"{name} {end}", unit), [_number(_RANGE.fullmatch(cell), place) for cell in cells]
            return
    yield name, ["" if cell == NONE else _plain(cell) for cell in cells]


def _unit(found: Sequence[str | None]) -> str | None:
    """Return the unit that all cells share, seconds for times of any length; None where they do not share one."""
    units = {unit or "" for unit in found}
    if units <= _SECONDS.keys():
        return "s"
    return units.pop() if len(units) == 1 else None


def _named(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name


def _number(found: re.Match[str] | None, place: int) -> str:
    if found is None:
        return ""
    plain = found[place].replace(",", "").replace(MINUS, "-").removeprefix("+")
    scale = _SECONDS.get(found[found.re.groups] or "", 1.0)
    return plain if scale == 1 else f"{float(plain) * scale:g}"


def _plain(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
