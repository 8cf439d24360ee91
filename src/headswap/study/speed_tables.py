"""The report's tables of speed and of rows saved. Study chain: results -> tables (these too) -> report."""

from __future__ import annotations

from headswap.study.curves import Convergence, LabelsSaved
from headswap.study.page import NONE, Table
from headswap.study.results import Comparison
from headswap.study.units import Unit, count, rough, times
from headswap.study.verdict import percent


def convergence_table(comparison: Comparison) -> Table:
    """Return areas under the learning curves and the times to the control's final score."""
    unit, study = Unit(comparison.metric), comparison.study
    sign = 1 if comparison.greater_is_better else -1
    seen = comparison.words.seen
    columns = (
        comparison.words.rows,
        f"area {study.treatment}",
        f"area {study.control}",
        "difference",
        "CI",
        "reached",
        f"{seen}s needed",
    )
    columns += (f"{study.control} needed", "fewer by", "in seconds", f"{study.control} level from")
    rows = tuple(_convergence_row(each, unit, sign) for each in comparison.convergence)
    title = f"Speed of learning: mean validation score over log {seen}s, and {seen}s to the control's final score"
    return Table(title, columns, rows, words=0)


def labels_table(comparison: Comparison) -> Table:
    """Return the labels-saved ratio by size, a bound where it is censored."""
    names = comparison.study.treatment, comparison.study.control
    words = comparison.words.rows
    columns = (f"{words} with {names[0]}", f"worth with {names[1]}", "ratio", "CI over seeds", "censored resamples")
    rows = tuple(_saved_row(each) for each in comparison.labels_saved)
    title = f"{words.capitalize()} saved: how many {words} the control needs for the same test score"
    return Table(title, columns, rows, words=0)


def _convergence_row(each: Convergence, unit: Unit, sign: int) -> tuple[str, ...]:
    first, second = (
        [moment["examples"] for moment in (getattr(one, arm) for one in each.arrivals) if moment]
        for arm in ("treatment", "control")
    )
    missed = each.reached < len(each.arrivals)
    ratio = NONE if each.ratio is None else f"{'≥ ' if each.at_least else ''}{times(each.ratio.mean)}"
    if each.ratio is not None and each.ratio.low is not None and each.ratio.high is not None:
        ratio += f" ({rough(each.ratio.low)}–{rough(each.ratio.high)})"
    gap = each.area_difference
    turned = (
        NONE
        if gap.low is None or gap.high is None
        else " to ".join(unit.signed(value) for value in sorted((sign * gap.low, sign * gap.high)))
    )
    return (
        count(each.labels),
        unit.score(sign * each.treatment_area),
        unit.score(sign * each.control_area),
        unit.difference(sign * gap.mean),
        turned,
        f"{each.reached} of {len(each.arrivals)}",
        "not in all seeds" if missed else f"{'≤ ' if each.at_least else ''}{count(sorted(first)[len(first) // 2])}",
        count(sorted(second)[len(second) // 2]) if second else NONE,
        ratio,
        NONE if each.seconds_ratio is None else times(each.seconds_ratio),
        NONE if each.caught_up_at is None else count(each.caught_up_at),
    )


def _saved_row(each: LabelsSaved) -> tuple[str, ...]:
    censored = percent(each.censored_share)
    if each.ratio is not None and each.low is not None and each.high is not None:
        ratio = times(each.ratio), f"{rough(each.low)}–{rough(each.high)}"
        return count(each.labels), rough(each.labels * each.ratio), *ratio, censored
    sense = {"at least": "≥ ", "at most": "≤ "}.get(each.bound_kind, "")
    if each.bound is None:
        return count(each.labels), "unknown", NONE, NONE, censored
    return (
        count(each.labels),
        f"{sense}{rough(each.labels * each.bound)}",
        f"{sense}{times(each.bound)}",
        "censored",
        censored,
    )
