"""Say in sentences what a study found; nothing here is written by hand for one study. Study chain: results -> verdict.

Four verdicts: better, worse, equivalent, not settled. A missing difference is never called sameness, and a ratio is
only named where it is not censored.
"""

from __future__ import annotations

from collections.abc import Iterator

from headswap.study.asides import attributed, cheaply, checkpoints, in_time
from headswap.study.contrasts import Contrast
from headswap.study.curves import LabelsSaved
from headswap.study.environment import PLANNED_SEEDS
from headswap.study.results import Comparison
from headswap.study.speed_sentences import speed_statements
from headswap.study.tuning_words import doubts, provisional
from headswap.study.tuning_words import said as tuning_said
from headswap.study.units import Unit, bracket, count, percent, plural, rough, times
from headswap.study.words import head_starts

ROOM = 5


def verdict(comparison: Comparison) -> list[str]:
    """Return at most five sentences, the most important ones; the first is the verdict."""
    return _sentences(comparison)[:ROOM]


def beside(comparison: Comparison) -> list[str]:
    """Return the sentences for which the verdict has no room; they stand under the tables."""
    return _sentences(comparison)[ROOM:]


def _sentences(comparison: Comparison) -> list[str]:
    """Return everything there is to say, by importance; each statement is one sentence."""
    primary = comparison.primary
    if primary is None:
        return [_nothing(comparison)]
    said = [_main(primary, comparison), *_standing(primary, doubts(comparison.tuning, _pair(primary), primary.size))]
    said += [*checkpoints(primary), *attributed(comparison), *cheaply(comparison)]
    said += speed_statements(primary, comparison)
    said += [*_labels(comparison), *in_time(comparison)]
    return [*said, not_counted(comparison)]


def headline(comparison: Comparison) -> str:
    """Return the verdict in one short line, with its numbers."""
    primary, unit = comparison.primary, Unit(comparison.metric)
    if primary is None:
        return _nothing(comparison)
    gap = unit.difference(primary.interval.mean)
    return f"{title(comparison)}: {gap} {bracket(primary.interval, unit)}".rstrip()


def question(comparison: Comparison) -> str:
    """Return what the study asks."""
    if comparison.from_scratch:
        return "Which does better from random weights?"
    return "What did the pretrained weights buy?"


def title(comparison: Comparison) -> str:
    """Return the verdict without its numbers."""
    primary = comparison.primary
    if primary is None:
        return _nothing(comparison)
    weak = ", provisionally" if is_provisional(comparison, primary) else ""
    return {
        "better": f"{primary.treatment} is better than {primary.control}",
        "worse": f"{primary.treatment} is worse than {primary.control}",
        "equivalent": f"{primary.treatment} and {primary.control} are equivalent",
        "not settled": f"{primary.treatment} against {primary.control} is not settled",
    }[primary.outcome] + weak


def is_provisional(comparison: Comparison, primary: Contrast) -> bool:
    """Say whether a settled verdict hangs on a value at the end of its range."""
    doubtful = provisional(comparison.tuning, _pair(primary), primary.size)
    return primary.outcome != "not settled" and doubtful


def tuning(comparison: Comparison) -> str:
    """Return how the two arms of the verdict were tuned."""
    primary = comparison.primary
    pair = (comparison.study.treatment, comparison.study.control) if primary is None else _pair(primary)
    return tuning_said(comparison.tuning, pair, primary.size if primary else None)


def _pair(contrast: Contrast) -> tuple[str, str]:
    return contrast.treatment, contrast.control


def at_rows(contrast: Contrast, row: str) -> str:
    return f"with {'all ' if contrast.size is None else ''}{plural(contrast.labels, row)}"


def _nothing(comparison: Comparison) -> str:
    wanted = f"{comparison.study.treatment} with {comparison.study.control}"
    if not comparison.scores:
        return f"Nothing to compare: none of the {plural(len(comparison.excluded), 'run')} finished."
    if len(comparison.arms) == 1:
        return f"Nothing to compare: only {comparison.arms[0]} has finished runs; {wanted} was asked for."
    return f"Nothing to compare: no size has a seed in which both finished; {wanted} was asked for."


def _main(primary: Contrast, comparison: Comparison) -> str:
    unit, margin = Unit(comparison.metric), comparison.margin
    gap, design = unit.difference(primary.interval.mean), _design(primary, comparison)
    scores = _scores(primary, unit, comparison)
    if primary.outcome == "not settled":
        body = f"{scores}: {gap} {_ends(primary, unit, design)}"
        return f"Not settled: {body}; {_power(primary, unit, margin)}."
    if primary.outcome == "equivalent":
        fair = primary.equivalence
        assert fair is not None
        inner = f"{percent(fair.confidence)} CI {unit.signed(fair.low)} to {unit.signed(fair.high)}"
        return (
            f"Equivalent within ±{unit.margin(margin)}: {scores}: {gap} ({inner}; {design}); "
            f"the difference is smaller than the {unit.margin(margin)} you said matters."
        )
    no_transfer = comparison.fitted or comparison.from_scratch
    opening = "" if primary.outcome == "better" or no_transfer else "Transfer hurt here: "
    body = f"{opening}{scores}: {gap} {_ends(primary, unit, design)}"
    return f"{body}{_matters(primary, unit, margin)}."


def _scores(contrast: Contrast, unit: Unit, comparison: Comparison) -> str:
    treatment = sum(pair.treatment for pair in contrast.pairs) / len(contrast.pairs)
    control = sum(pair.control for pair in contrast.pairs) / len(contrast.pairs)
    metric = "" if unit.metric == "accuracy" else f"{unit.name} "
    first = f"{contrast.treatment} scored {metric}{unit.score(treatment)}"
    sense = "" if comparison.greater_is_better else " (less is better)"
    rows = at_rows(contrast, comparison.words.row)
    return f"{first} against {unit.score(control)} for {contrast.control} {rows}{sense}"


def _design(contrast: Contrast, comparison: Comparison) -> str:
    return (
        f"{plural(len(contrast.pairs), 'paired seed')} × {plural(contrast.test_examples, 'test example')}"
        f"{', interval over seeds only' if contrast.scope == 'seeds only' else ''}; tuning: {tuning(comparison)}"
        f"{_setting(comparison)}"
    )


def _setting(comparison: Comparison) -> str:
    """Return ; texts of 7 to 42 tokens; cpu, where bodies that know nothing are compared: it is true there alone."""
    if not comparison.from_scratch:
        return ""
    tokens, devices = comparison.answered.tokens, comparison.environment.get("device", ())
    return "; ".join(("", *([f"texts of {_between(*tokens)}"] if tokens else []), *devices))


def _between(low: int, high: int) -> str:
    return plural(low, "token") if low == high else f"{count(low)} to {count(high)} tokens"


def _ends(contrast: Contrast, unit: Unit, design: str) -> str:
    if not contrast.interval.known:
        return f"(no interval: {contrast.interval.reason}; {design})"
    return f"{bracket(contrast.interval, unit).removesuffix(')')}; {design})"


def _matters(contrast: Contrast, unit: Unit, margin: float) -> str:
    low, high = contrast.interval.low, contrast.interval.high
    if low is None or high is None or margin <= 0:
        return ""
    if min(abs(low), abs(high)) > margin:
        return f"; that is more than the {unit.margin(margin)} you said matters"
    if contrast.equivalence is not None and contrast.equivalence.equivalent:
        return f"; it is less than the {unit.margin(margin)} you said matters"
    return f"; whether it is more than the {unit.margin(margin)} you said matters is open"


def _power(contrast: Contrast, unit: Unit, margin: float) -> str:
    if contrast.detectable is None:
        return "without an interval nothing can be concluded, so add paired seeds"
    text = f"this design detects {unit.gap(contrast.detectable)} with 80 % power"
    if margin <= 0 or contrast.detectable <= margin:
        return text
    ways = []
    if contrast.seeds_needed:
        ways.append(f"{count(contrast.seeds_needed)} seeds")
    if contrast.examples_needed:
        ways.append(f"{rough(contrast.examples_needed)} test examples")
    if ways:
        return f"{text}; about {' or '.join(ways)} would be needed for {unit.margin(margin)}"
    if contrast.interval.examples and contrast.components is not None:
        return f"{text}; {unit.margin(margin)} would need more seeds and more test examples together"
    return text


def _standing(primary: Contrast, doubt: str) -> Iterator[str]:
    """Yield in one statement what keeps the verdict from being relied on; `doubt`: the tuning's part of it."""
    if said := " ".join(filter(None, (*_of_seeds(primary), doubt))):
        yield said


def _of_seeds(primary: Contrast) -> Iterator[str]:
    seeds = len(primary.pairs)
    exploratory = f"Exploratory: {plural(seeds, 'paired seed')}, where a study to rely on has {PLANNED_SEEDS}"
    provisional = "the interval is over seeds only and so provisional: that the test rows are a sample too is not in it"
    if seeds < PLANNED_SEEDS:
        yield f"{exploratory}{f'; {provisional}' if primary.scope == 'seeds only' and seeds > 1 else ''}."
    elif primary.scope == "seeds only":
        yield f"Provisional: {provisional.replace(' and so provisional', '')}."


def _labels(comparison: Comparison) -> list[str]:
    names, row = (comparison.study.treatment, comparison.study.control), comparison.words.row
    chosen = shown_saving(comparison.labels_saved)
    if chosen is None:
        return []
    start = f"{plural(chosen.labels, row)} with {names[0]} were worth"
    doubt = f"With {plural(chosen.labels, row)} the {row}s saved cannot be told from none"
    if chosen.ratio is None or chosen.low is None or chosen.high is None:
        bound = chosen.bound or 1.0
        ratio, rest = f"{chosen.sense}{times(bound)}", "the sizes tried do not hold the point itself)."
        if not chosen.settled:
            return [f"{doubt} ({ratio}; {rest}"]
        return [f"{start} {chosen.bound_kind} {rough(chosen.labels * bound)} with {names[1]} ({ratio}; {rest}"]
    ends = f"CI over seeds {rough(chosen.low)}–{times(chosen.high)}"
    if not chosen.settled:
        return [f"{doubt} ({times(chosen.ratio)}; {ends})."]
    ends = f"{times(chosen.ratio)}; {ends}{_came(chosen, row)}"
    worth = f"about {rough(chosen.labels * chosen.ratio)} with {names[1]} ({ends})"
    level = [each.labels for each in comparison.labels_saved if each.ratio is not None and not each.settled]
    tail = f"; with {count(level[0])} the ratio cannot be told from 1" if level and level[0] > chosen.labels else ""
    return [f"{start} {worth}{tail}."]


def _came(saved: LabelsSaved, row: str) -> str:
    """Return the effective data transferred; nothing where the treatment's rows were worth less than their number."""
    if saved.transferred is None or saved.transferred_low is None or saved.transferred_high is None:
        return ""
    if saved.transferred_low <= 0:
        return ""
    ends = f"{rough(saved.transferred_low)}–{rough(saved.transferred_high)}"
    return f"; effective data transferred {rough(saved.transferred)} {row}s, {ends}"


def shown_saving(saved: tuple[LabelsSaved, ...]) -> LabelsSaved | None:
    """Return the size whose ratio the sentence and the arrow show: the smallest that says something."""
    told = [each for each in saved if each.ratio is not None or (each.bound and abs(each.bound - 1) > 0.05)]
    return min(told, key=lambda each: (not each.settled, each.ratio is None), default=None)


def not_counted(comparison: Comparison) -> str:
    """Say what the difference leaves out, and what else is in it."""
    if comparison.from_scratch:
        return "Neither arm has a pretrained weight: what pre-training would bring either of them is not in this."
    control, outside = comparison.study.control, "Not counted: what pre-training cost and the data it saw"
    if fitted := comparison.fitted:
        return f"{outside}; of the pretrained body {' and '.join(fitted)} has nothing, its tokenizer included."
    return (
        f"{outside}; the {control} arm still inherits the pretrained "
        f"tokenizer, so that part of transfer is in both arms{_heads(comparison)}."
    )


def _heads(comparison: Comparison) -> str:
    """Say that the head too started otherwise, where it did."""
    starts, names = head_starts(comparison.ledgers), (comparison.study.treatment, comparison.study.control)
    first, second = (starts.get(name) for name in names)
    if first is None or second is None or first == second:
        return ""
    return f"; the head is part of the difference: {names[0]}'s is {first}, {names[1]}'s is {second}"
