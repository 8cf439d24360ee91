"""Write a study's report: one page that opens offline, in light and dark, on paper and on a phone. Study chain: end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from rich.table import Table as RichTable
from rich.text import Text

from headswap.study import tables
from headswap.study.calibration import calibration_table
from headswap.study.contrasts import Contrast
from headswap.study.figures import figures
from headswap.study.one_sided import one_sided_tables
from headswap.study.page import Table, legends, render_page, without_empty_columns
from headswap.study.results import Comparison, plain
from headswap.study.sheets import write_tables
from headswap.study.speed_tables import convergence_table, labels_table, power_law_table, survival_table
from headswap.study.static import write_drawings
from headswap.study.traces import arm_index
from headswap.study.tuning_drawings import tuning_table
from headswap.study.units import Unit, bracket, count
from headswap.study.verdict import beside, headline, is_provisional, question, title, verdict

WIDE = 3  # arms that a terminal has room for side by side
TEMPLATE = Path(__file__).with_name("report.html.j2")
RESULTS = (
    "scores", "differences", "uncertainty", "speed", "survival", "labels_saved", "power_laws", "tuning",
    "calibration_errors",
)  # fmt: skip


def write_report(comparison: Comparison, folder: Path) -> Path:
    """Write report.html into `folder`, and beside it its figures and its tables as files; return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.html"
    path.write_text(render(comparison, files=True), encoding="utf-8")
    drawn = figures(comparison)
    write_drawings(drawn, _places(comparison), folder)
    write_tables(named_tables(comparison) | {figure.name: figure.table for figure in drawn}, folder)
    return path


def render(comparison: Comparison, files: bool = False) -> str:
    """Return the page as text; with `files` it links to the figures and tables that are to lie beside it."""
    drawn, places = figures(comparison), _places(comparison)
    return render_page(
        TEMPLATE,
        drawn,
        files=files,
        comparison=comparison,
        headline=headline(comparison),
        title=title(comparison),
        question=question(comparison),
        hero=hero(comparison),
        statements=verdict(comparison),
        beside=beside(comparison),
        design=list(tables.design(comparison)),
        legends=legends(drawn, places),
        tables=named_tables(comparison),
        results=RESULTS,
        one_sided=comparison.answered.one_sided,
        configs={arm: yaml.safe_dump(plain(node), sort_keys=False) for arm, node in comparison.configs.items()},
    )


def _places(comparison: Comparison) -> dict[str, int]:
    arms = (comparison.study.treatment, comparison.study.control, *comparison.arms)
    return {arm: arm_index(arm, comparison) for arm in arms}


def named_tables(comparison: Comparison) -> dict[str, Table]:
    """Return the tables that have rows, those of the figures excepted, by the name of their file."""
    made = {
        "scores": tables.score_table(comparison),
        "differences": tables.contrast_table(comparison),
        "uncertainty": tables.uncertainty_table(comparison),
        "speed": convergence_table(comparison),
        "survival": survival_table(comparison),
        "labels_saved": labels_table(comparison),
        "power_laws": power_law_table(comparison),
        "tuning": tuning_table(comparison),
        "calibration_errors": calibration_table(comparison),
        **one_sided_tables(comparison),
        "recipes": tables.differing_table(comparison.overlays, "What the arms' recipes set differently"),
        "keys": tables.differing_table(
            comparison.configs, "Keys that differ between the arms' resolved configurations"
        ),
        "ledger": tables.nested_table(comparison.ledgers, "Ledger: what became of the model's tensors, one run an arm"),
        "classes": tables.class_table(comparison),
        "data": tables.notes_table(comparison),
        "excluded": tables.excluded_table(comparison),
        "cost": tables.cost_table(comparison),
    }
    return {
        name: without_empty_columns(table) if name in RESULTS else table for name, table in made.items() if table.rows
    }


def hero(comparison: Comparison) -> dict[str, Any] | None:
    """Return what the strip beside the verdict draws: interval, seeds, zero and margin as percent of its width."""
    primary, unit = comparison.primary, Unit(comparison.metric)
    if primary is None:
        return None
    interval, margin = primary.interval, comparison.margin
    marks = [0.0, margin, -margin, interval.mean, *(pair.difference for pair in primary.pairs)]
    marks += [end for end in (interval.low, interval.high) if end is not None]
    low, high = min(marks), max(marks)
    room = 0.06 * (high - low or 1.0)

    def place(value: float) -> float:
        return round(100 * (value - low + room) / (high - low + 2 * room), 2)

    weak = ", provisional" if is_provisional(comparison, primary) else ""
    return {
        "outcome": f"{primary.outcome}{weak}",
        "tone": primary.outcome.replace(" ", "-"),
        "difference": unit.difference(interval.mean),
        "interval": bracket(interval, unit).strip("()") or "no interval",
        "zero": place(0.0),
        "mean": place(interval.mean),
        "ends": None if interval.low is None or interval.high is None else (place(interval.low), place(interval.high)),
        "margin": (place(-margin), place(margin)),
        "margin_text": unit.margin(margin) if margin else "",
        "sense": "" if comparison.greater_is_better else f" Less {unit.name} is better.",
        "seeds": [place(pair.difference) for pair in primary.pairs],
        "treatment": primary.treatment,
        "control": primary.control,
    }


def terminal_table(comparison: Comparison) -> RichTable:
    """Return arm x size scores with the paired difference and its interval, for the command line."""
    if len(comparison.arms) > WIDE:
        return _line_by_line(comparison)
    unit = Unit(comparison.metric)
    table = RichTable(title=Text(f"test {unit.name}"), title_justify="left")
    table.add_column(comparison.words.rows, justify="right")
    for arm in comparison.arms:
        table.add_column(Text(arm), justify="right")
    others = [arm for arm in comparison.arms if arm != comparison.study.control]
    for arm in others if comparison.contrasts else []:
        table.add_column(Text(f"{arm} − {comparison.study.control}"), justify="right")
    sizes = sorted({(score.labels, score.size) for score in comparison.scores}, key=lambda each: each[0])
    for labels, size in sizes:
        scores = [comparison.score_of(arm, size) for arm in comparison.arms]
        cells = [tables.NONE if score is None else tables.arm_text(score, unit) for score in scores]
        found = {each.treatment: each for each in comparison.contrasts if each.size == size}
        if comparison.contrasts:
            cells += [_difference(found.get(arm), unit) for arm in others]
        table.add_row(count(labels), *map(Text, cells))
    return table


def _line_by_line(comparison: Comparison) -> RichTable:
    """Return the same with a line an arm and size, where arms side by side would not fit into a terminal."""
    unit = Unit(comparison.metric)
    table = RichTable(title=Text(f"test {unit.name}"), title_justify="left")
    for name in (comparison.words.rows, "arm", unit.name, f"− {comparison.study.control}"):
        table.add_column(Text(name), justify="right" if name == comparison.words.rows else "left")
    found = {(each.treatment, each.size): each for each in comparison.contrasts}
    scores = sorted(comparison.scores, key=lambda score: (score.labels, comparison.arms.index(score.arm)))
    for before, score in zip([None, *scores], scores, strict=False):
        difference = _difference(found.get((score.arm, score.size)), unit)
        if before is not None and before.labels != score.labels:
            table.add_section()
        table.add_row(*map(Text, (count(score.labels), score.arm, tables.arm_text(score, unit), difference)))
    return table


def _difference(contrast: Contrast | None, unit: Unit) -> str:
    if contrast is None:
        return tables.NONE
    text = f"{unit.difference(contrast.interval.mean)} {bracket(contrast.interval, unit)}".rstrip()
    return f"{text}, {contrast.said}"
