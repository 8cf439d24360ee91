"""Every paired difference of a study under one another. Study chain: results -> this -> figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headswap.study.contrasts import Contrast
from headswap.study.page import NONE, Figure, Plot, Table
from headswap.study.traces import SYMBOLS, arm_index, interval_row, list_layout, safe
from headswap.study.units import MINUS, Unit, count, p_text, percent, plural

if TYPE_CHECKING:
    from headswap.study.results import Comparison


def forest_figure(comparison: Comparison) -> Figure | None:
    """All arms and sizes against the control, and the treatment against its rivals; None for a single difference."""
    shown = _every(comparison)
    if len(shown) < 2:
        return None
    unit, study, words = Unit(comparison.metric), comparison.study, comparison.words
    names = [_name(each, comparison) for each in shown]
    layout = list_layout(names, unit.gap_title, comparison.margin * unit.scale, 44)
    traces = [interval_row(place, each.interval, unit, _marker(each, comparison)) for place, each in enumerate(shown)]
    shaded = f" Shaded: ±{unit.margin(comparison.margin)}, what you said matters." if comparison.margin else ""
    sense = "" if comparison.greater_is_better else f" Less {unit.name} is better."
    others = f", and {study.treatment} minus others (open marks)" if comparison.further.contrasts else ""
    caption = (
        f"Each arm minus {study.control}{others} in {unit.name} with the same number of {words.rows}: mean and "
        f"{percent(study.confidence)} interval. Bold, with the large mark: the comparison declared beforehand; "
        f"{_family(shown)}.{shaded}{sense}"
    )
    said = [
        f"{_arms(each, comparison)} with {plural(each.labels, words.row)} {unit.difference(each.interval.mean)}, "
        f"{each.said}"
        for each in shown
    ]
    description = f"All differences, from {study.control} where no other arm is named: {'; '.join(said)}."
    table = _table(comparison, unit)
    return Figure("forest", "All comparisons", caption, description, (Plot("", traces, layout),), table)


def _every(comparison: Comparison) -> tuple[Contrast, ...]:
    return *comparison.contrasts, *comparison.further.contrasts


def _arms(each: Contrast, comparison: Comparison) -> str:
    usual = each.control == comparison.study.control
    return each.treatment if usual else f"{each.treatment} {MINUS} {each.control}"


def _name(each: Contrast, comparison: Comparison) -> str:
    name = f"{safe(_arms(each, comparison))}, {count(each.labels)}"
    told = each.said if each.q is None else f"{each.said}, q {p_text(each.q)}"
    return f"{f'<b>{name}</b>' if each is comparison.primary else name}<br>{told}"


def _family(shown: Sequence[Contrast]) -> str:
    if any(each.q is not None for each in shown):
        return "q: of the others, corrected for there being several (Benjamini-Hochberg)"
    return "the others are not corrected for there being several"


def _marker(each: Contrast, comparison: Comparison) -> dict:
    usual = each.control == comparison.study.control
    index = arm_index(each.treatment if usual else each.control, comparison)
    size = 14 if each is comparison.primary else 9
    return {"symbol": SYMBOLS[index] + ("" if usual else "-open"), "size": size, "color": f"@arm{index}"}


def _table(comparison: Comparison, unit: Unit) -> Table:
    share = percent(comparison.study.confidence)
    corrected = any(each.q is not None for each in _every(comparison))
    rows = tuple(
        (f"{each.treatment} − {each.control}", each.said, count(each.labels), unit.difference(each.interval.mean),
         *(NONE if end is None else unit.signed(end) for end in (each.interval.low, each.interval.high)),
         *([p_text(each.q)] if corrected else []), str(len(each.pairs)),
         "yes" if each is comparison.primary else NONE)
        for each in _every(comparison)
    )  # fmt: skip
    columns = ("arms", "verdict", comparison.words.rows, "difference", f"{share} low", f"{share} high")
    columns += (*(["q"] if corrected else []), "pairs")
    return Table("All paired differences", (*columns, "declared beforehand"), rows, words=2)
