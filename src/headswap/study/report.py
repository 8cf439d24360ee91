"""Write a study's report: one page that opens offline, in light and dark, on paper and on a phone. Study chain: end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from rich.table import Table as RichTable
from rich.text import Text

from headswap.study import tables
from headswap.study.contrasts import Contrast
from headswap.study.figures import figures
from headswap.study.page import Figure, Table, render_page, without_empty_columns
from headswap.study.results import Comparison, plain
from headswap.study.speed_tables import convergence_table, labels_table, power_law_table, survival_table
from headswap.study.traces import DASHES
from headswap.study.units import Unit, count
from headswap.study.verdict import bracket, headline, title, verdict

TEMPLATE = Path(__file__).with_name("report.html.j2")


def write_report(comparison: Comparison, folder: Path) -> Path:
    """Write report.html into `folder` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.html"
    path.write_text(render(comparison), encoding="utf-8")
    return path


def render(comparison: Comparison) -> str:
    """Return the page as text."""
    drawn = figures(comparison)
    return render_page(
        TEMPLATE,
        drawn,
        comparison=comparison,
        headline=headline(comparison),
        title=title(comparison),
        hero=hero(comparison),
        statements=verdict(comparison),
        design=list(tables.design(comparison)),
        legends={figure.name: _legend(figure, comparison) for figure in drawn},
        results=_filled(
            tables.score_table,
            tables.contrast_table,
            convergence_table,
            survival_table,
            labels_table,
            power_law_table,
            of=comparison,
        ),
        recipes=tables.differing_table(comparison.overlays, "What the arms' recipes set differently"),
        keys=tables.differing_table(comparison.configs, "Keys that differ between the arms' resolved configurations"),
        ledger=tables.nested_table(comparison.ledgers, "Ledger: what became of the model's tensors, one run an arm"),
        classes=tables.class_table(comparison),
        data=tables.notes_table(comparison),
        excluded=tables.excluded_table(comparison),
        cost=tables.cost_table(comparison),
        configs={arm: yaml.safe_dump(plain(node), sort_keys=False) for arm, node in comparison.configs.items()},
    )


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

    return {
        "outcome": primary.outcome,
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


def _difference(contrast: Contrast | None, unit: Unit) -> str:
    if contrast is None:
        return tables.NONE
    text = f"{unit.difference(contrast.interval.mean)} {bracket(contrast.interval, unit)}".rstrip()
    return f"{text}, {contrast.outcome}"


def _filled(*makers: Any, of: Comparison) -> list[Table]:
    return [without_empty_columns(table) for table in (make(of) for make in makers) if table.rows]


def _legend(figure: Figure, comparison: Comparison) -> list[dict[str, Any]]:
    names = [comparison.study.treatment, comparison.study.control]
    names += [arm for arm in comparison.arms if arm not in names]
    places = {arm: names.index(arm) % len(DASHES) for arm in figure.arms}
    return [{"arm": arm, "index": index, "dash": _dash(DASHES[index])} for arm, index in places.items()]


def _dash(dash: str) -> str:
    return "none" if dash == "solid" else dash.replace("px", "")
