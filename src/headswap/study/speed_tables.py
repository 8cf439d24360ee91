"""The report's tables of speed and of rows saved. Study chain: results -> tables (these too) -> report."""

from __future__ import annotations

from headswap.study.curves import Convergence, LabelsSaved
from headswap.study.page import NONE, Table
from headswap.study.power_law import fitted_ratio
from headswap.study.results import Comparison
from headswap.study.units import MINUS, Unit, count, number, p_text, percent, rough, times


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
    columns += (f"{study.control} needed", f"fewer {seen}s", "in steps", "in FLOPs", "in seconds")
    columns += (f"{study.control} level from",)
    rows = tuple(_convergence_row(each, unit, sign) for each in comparison.convergence)
    title = f"Speed of learning: mean validation score over log {seen}s, and {seen}s to the control's final score"
    return Table(title, columns, rows, words=0)


def survival_table(comparison: Comparison) -> Table:
    """Return what can be said of the time to the target where some run never got there."""
    study, words = comparison.study, comparison.words
    rows = []
    for each in comparison.convergence:
        if each.survival is None:
            continue
        found = each.survival
        arms = (
            (study.treatment, [one.treatment for one in each.arrivals], found.treatment_median, found.treatment_mean),
            (study.control, [one.control for one in each.arrivals], found.control_median, found.control_mean),
        )
        for arm, times_there, median, mean in arms:
            there = sum(moment is not None for moment in times_there)
            cells = "not by half" if median is None else count(median), count(mean), count(found.cap)
            rows.append((arm, count(each.labels), f"{there} of {len(times_there)}", *cells, p_text(found.logrank_p)))
    columns = ("arm", words.rows, "reached", "median", "mean up to the cap", "cap", "p (log-rank)")
    title = f"Training {words.seen}s to the control's final score where some run never got there: Kaplan-Meier median"
    return Table(title, columns, tuple(rows))


def labels_table(comparison: Comparison) -> Table:
    """Return the labels-saved ratio by size, a bound where it is censored."""
    names = comparison.study.treatment, comparison.study.control
    words = comparison.words.rows
    columns = (f"{words} with {names[0]}", f"worth with {names[1]}", "ratio", "CI over seeds")
    columns += ("effective data transferred", "by power law", "censored resamples")
    rows = tuple(_saved_row(each, fitted_ratio(each, comparison.power_laws, names)) for each in comparison.labels_saved)
    title = f"{words.capitalize()} saved: how many {words} the control needs for the same test score"
    return Table(title, columns, rows, words=0)


def power_law_table(comparison: Comparison) -> Table:
    """Return the laws that were fitted to the arms' errors, and what each foretold of the largest size."""
    unit = Unit(comparison.metric)
    rows = []
    for law in comparison.power_laws:
        foretold, low, high, found = (number(each * unit.scale, 3) for each in law.left_out)
        formula = f"{number(law.floor * unit.scale, 3)} + {law.scale * unit.scale:.3g} N^{MINUS}{law.exponent:.2f}"
        shown = "yes" if law.holds else "no"
        rows.append((law.arm, formula, shown, foretold, f"{low} to {high}", found))
    columns = ("arm", f"error, {unit.title}", "holds", "largest size foretold", "95 % band", "found")
    return Table(
        "Power law of the error over N labelled rows, and what it foretells from the others", columns, tuple(rows), 3
    )


def _convergence_row(each: Convergence, unit: Unit, sign: int) -> tuple[str, ...]:
    first, second = (
        [moment["examples"] for moment in (getattr(one, arm) for one in each.arrivals) if moment]
        for arm in ("treatment", "control")
    )
    missed = each.reached < len(each.arrivals)
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
        *(_factor(each, measure) for measure in ("examples", "steps", "flops", "seconds")),
        NONE if each.caught_up_at is None else count(each.caught_up_at),
    )


def _factor(each: Convergence, measure: str) -> str:
    """Return 12× (9–16), or ≥ 12× (≥ 9) where a time is censored."""
    ratio, bound = each.ratios.get(measure), each.bounds.get(measure)
    if ratio is not None:
        if ratio.low is None or ratio.high is None:
            return times(ratio.mean)
        return f"{times(ratio.mean)} ({rough(ratio.low)}–{rough(ratio.high)})"
    if bound is None or not bound.at_least:
        return NONE
    return f"≥ {times(bound.at_least)}{f' (≥ {rough(bound.low)})' if bound.low else ''}"


def _saved_row(each: LabelsSaved, fitted: float | None) -> tuple[str, ...]:
    censored, law = percent(each.censored_share), NONE if fitted is None else times(fitted)
    if each.ratio is not None and each.low is not None and each.high is not None:
        ratio = times(each.ratio), f"{rough(each.low)}–{rough(each.high)}"
        return count(each.labels), rough(each.labels * each.ratio), *ratio, _transferred(each), law, censored
    if each.bound is None:
        return count(each.labels), "unknown", NONE, NONE, NONE, law, censored
    return (
        count(each.labels),
        f"{each.sense}{rough(each.labels * each.bound)}",
        f"{each.sense}{times(each.bound)}",
        "censored",
        f"{each.sense}{_signed(each.labels * (each.bound - 1))}",
        law,
        censored,
    )


def _transferred(each: LabelsSaved) -> str:
    ends = each.transferred, each.transferred_low, each.transferred_high
    mean, low, high = (NONE if end is None else _signed(end) for end in ends)
    return f"{mean} ({low} to {high})"


def _signed(value: float) -> str:
    return f"{MINUS}{rough(-value)}" if value < 0 else rough(value)
