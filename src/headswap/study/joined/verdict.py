"""Say in sentences what joined studies found; nothing here is written by hand for some studies.

Joined chain: joining -> verdict (this) -> page. The counts are of the studies' own verdicts. What is over all studies
is told from four of them on: an interquartile mean of three is about the middle one alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from headswap.study.joined.aggregates import MINIMUM_TASKS
from headswap.study.joined.joining import Joined
from headswap.study.statistics import Interval
from headswap.study.units import Unit, bracket, number, percent, plural


def verdict(joined: Joined) -> list[str]:
    """Return the statements; the first is the verdict."""
    said = [_main(joined), *_corrected(joined), *_range(joined), *_absent(joined), *_left_out(joined)]
    return [*said, _scope(joined)]


def title(joined: Joined) -> str:
    """Return the verdict without its numbers."""
    main, total = joined.main, len(joined.studies)
    better, worse = (main.outcomes[each] for each in ("better", "worse"))
    where = f"of {total} {joined.nouns}"
    if better and worse:
        return f"{main.treatment} is better than {main.control} in {better} {where}, worse in {worse}"
    if better or worse:
        sense = "better" if better else "worse"
        return f"{main.treatment} is {sense} than {main.control} in {better or worse} {where}"
    if main.outcomes["equivalent"]:
        return f"{main.treatment} and {main.control} are equivalent in {main.outcomes['equivalent']} {where}"
    return f"{main.treatment} against {main.control} is not settled in any {where}"


def metrics_text(joined: Joined) -> str:
    """Return what the interquartile mean is of: accuracy, or accuracy (3 tasks) and macro F1 (2 tasks)."""
    names = [Unit(each.comparison.metric).name for each in joined.averaged]
    counts = {name: names.count(name) for name in names}
    if len(counts) < 2:
        return "".join(counts)
    return _listed([f"{name} ({amount})" for name, amount in counts.items()])


def probability(interval: Interval) -> str:
    """Return 0.93 (0.88 to 0.97)."""
    if interval.low is None or interval.high is None:
        return f"{number(interval.mean, 2)} (no interval: {interval.reason})"
    return f"{number(interval.mean, 2)} ({number(interval.low, 2)} to {number(interval.high, 2)})"


def _main(joined: Joined) -> str:
    main, unit = joined.main, joined.unit
    total = f"{len(joined.studies)} {joined.nouns}"
    parts = [f"Over {total} {main.treatment} {_counted(main.outcomes, main.control)}"]
    if main.interquartile is not None:
        found = main.interquartile
        gap = f"{unit.difference(found.difference.mean)}, {bracket(found.difference, unit).strip('()')}".rstrip(", ")
        scores = f"{unit.score(found.treatment.mean)} against {unit.score(found.control.mean)}"
        some = "" if not joined.left_out else f" over {len(joined.averaged)} of them"
        parts.append(f"interquartile mean of {metrics_text(joined)}{some} {scores} ({gap})")
    if main.improvement is not None:
        share = percent(joined.confidence)
        odds = probability(main.improvement).replace("(", f"({share} CI ", 1) if main.improvement.known else ""
        parts.append(f"a run of it scored better with probability {odds or probability(main.improvement)}")
    return f"{'; '.join(parts)}."


def _counted(outcomes: Mapping[str, int], control: str) -> str:
    """Return was better than scratch in 4, not settled in 1."""
    opening = {
        "better": f"was better than {control} in",
        "worse": f"was worse than {control} in",
        "equivalent": f"was equivalent to {control} in",
        "not settled": f"against {control} was not settled in",
    }
    first, *rest = ((outcome, amount) for outcome, amount in outcomes.items() if amount)
    return ", ".join([f"{opening[first[0]]} {first[1]}", *(f"{outcome} in {amount}" for outcome, amount in rest)])


def _corrected(joined: Joined) -> Iterator[str]:
    """Say which differences are left after the correction for there being several studies."""
    known = sum(value is not None for value in joined.adjusted)
    found = [
        (study.label, joined.stands(place))
        for place, study in enumerate(joined.studies)
        if study.primary.outcome in ("better", "worse")
    ]
    if not found or known < 2:
        return
    fallen = [label for label, stands in found if not stands]
    rule = f"corrected for {known} comparisons (Benjamini-Hochberg, q ≤ {1 - joined.confidence:.2g})"
    if not fallen:
        all_of = f"All {len(found)} differences found stand" if len(found) > 1 else "The one difference found stands"
        yield f"{all_of} when {rule}."
        return
    yield f"When {rule}, {len(found) - len(fallen)} of {plural(len(found), 'difference')} stand; not {_listed(fallen)}."


def _range(joined: Joined) -> Iterator[str]:
    """Name the ends of the differences, of the metrics that have one axis."""
    shown = [each for each in joined.studies if Unit(each.comparison.metric).percent]
    if len(shown) < 2:
        return
    order = sorted(shown, key=lambda each: each.primary.interval.mean)
    if order[0].primary.interval.mean == order[-1].primary.interval.mean:
        return
    low, high = (
        f"{Unit(each.comparison.metric).difference(each.primary.interval.mean)} ({each.label})"
        for each in (order[0], order[-1])
    )
    yield f"The differences go from {low} to {high}{'' if len(shown) == len(joined.studies) else ', those in pp'}."


def _absent(joined: Joined) -> Iterator[str]:
    """Say why there is no interquartile mean or probability of improvement."""
    rule = f"from {MINIMUM_TASKS} {joined.nouns} on: over fewer the middle half is one or two of them"
    if joined.main.improvement is None:
        yield f"No interquartile mean and no probability of improvement: they are given {rule}."
    elif joined.main.interquartile is None:
        averaged = f"{len(joined.averaged)} of the {joined.nouns} can be averaged"
        yield f"No interquartile mean: {averaged}, and it is given {rule}."


def _left_out(joined: Joined) -> Iterator[str]:
    if joined.left_out and joined.main.improvement is not None:
        reasons = "; ".join(f"{label} ({reason})" for label, reason in joined.left_out.items())
        yield f"Not in the interquartile mean: {reasons}."


def _scope(joined: Joined) -> str:
    own = "Every verdict is its study's own; its page says how it was tuned and what is not counted."
    if joined.main.improvement is None:
        return own
    fixed = "the intervals over all of them say what other seeds would give on these, nothing of others"
    return f"The {joined.nouns} are fixed: {fixed}, and they take the test rows as given. {own}"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
