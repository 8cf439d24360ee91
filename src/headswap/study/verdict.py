"""Say in sentences what a study found; nothing here is written by hand for one study. Study chain: results -> verdict.

Four verdicts: better, worse, equivalent, not settled. A missing difference is never called sameness, and a ratio is
only named where it is not censored.
"""

from __future__ import annotations

from collections.abc import Iterator

from headswap.study.asides import attributed, cheaply, checkpoints
from headswap.study.contrasts import Contrast
from headswap.study.curves import Convergence, LabelsSaved
from headswap.study.environment import PLANNED_SEEDS
from headswap.study.results import Comparison
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
    speed = next((each for each in comparison.convergence if each.size == primary.size), None)
    said += [_speed(speed, primary, comparison)] if speed else _no_speed(comparison)
    said += _labels(comparison)
    return [*said, not_counted(comparison)]


def headline(comparison: Comparison) -> str:
    """Return the verdict in one short line, with its numbers."""
    primary, unit = comparison.primary, Unit(comparison.metric)
    if primary is None:
        return _nothing(comparison)
    gap = unit.difference(primary.interval.mean)
    return f"{title(comparison)}: {gap} {bracket(primary.interval, unit)}".rstrip()


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
    opening = "" if primary.outcome == "better" or _fitted(comparison) else "Transfer hurt here: "
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
    )


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


def _no_speed(comparison: Comparison) -> list[str]:
    """Say why there is no learning curve, where an arm did not train or did not look at the metric in training."""
    if fitted := _fitted(comparison):
        return [f"No speed is named: {' and '.join(fitted)} did not train in steps, and so has no learning curve."]
    chosen = {config.get("train", {}).get("select_by") for config in comparison.configs.values()}
    if "loss" not in chosen:
        return []
    metric = Unit(comparison.metric).name
    return [f"No speed is named: the runs watched the loss alone (train.select_by=loss), so {metric} has no curve."]


def _speed(speed: Convergence, primary: Contrast, comparison: Comparison) -> str:
    total, names = len(speed.arrivals), (primary.treatment, primary.control)
    if speed.reached < total or speed.ratio is None:
        missed = total - speed.reached
        text = (
            f"{names[0]} did not reach and hold {names[1]}'s final validation score within its own training "
            f"in {missed} of {plural(total, 'seed')}, so no speed-up is named"
        )
    else:
        text = _reached(speed, names, comparison.words.seen)
    return f"{text}{_outcome_of_speed(speed, primary, comparison)}."


def _reached(speed: Convergence, names: tuple[str, str], seen: str) -> str:
    first, second = (_median(speed, arm) for arm in ("treatment", "control"))
    ratio = speed.ratio
    assert ratio is not None
    least = "at least " if speed.at_least else ""
    details = [f"{least}{_fold(ratio.mean)}"]
    if ratio.low is not None and ratio.high is not None:
        details.append(f"{percent(ratio.confidence)} CI {rough(ratio.low)}–{times(ratio.high)}")
    if speed.seconds_ratio is not None:
        details.append(f"{times(speed.seconds_ratio)} in seconds")
    examples = f"after a median {'at most ' if speed.at_least else ''}{count(first)} training {seen}s"
    seeds = f"in {speed.reached} of {plural(len(speed.arrivals), 'seed')}"
    start = f"{names[0]} reached and held {names[1]}'s final validation score {examples}"
    return f"{start} against {count(second)} ({'; '.join(details)}), {seeds}"


def _fold(ratio: float) -> str:
    return f"{times(ratio)} fewer" if ratio >= 1 else f"{times(1 / ratio)} more"


def _median(speed: Convergence, arm: str) -> float:
    values = sorted(getattr(each, arm)["examples"] for each in speed.arrivals)
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def _outcome_of_speed(speed: Convergence, primary: Contrast, comparison: Comparison) -> str:
    low = speed.area_difference.low
    if primary.outcome == "equivalent" and low is not None and low > 0:
        return ": here transfer bought speed, not a better end"
    if primary.outcome == "better" or speed.caught_up_at is None:
        return ""
    if all(each.treatment is None for each in speed.arrivals):
        return f"; {primary.control} ends ahead in every seed"
    start = f"{count(speed.caught_up_at)} {comparison.words.seen}s"
    return f"; from {start} on {primary.control}'s mean curve is level or ahead"


def _labels(comparison: Comparison) -> list[str]:
    names, row = (comparison.study.treatment, comparison.study.control), comparison.words.row
    chosen = shown_saving(comparison.labels_saved)
    if chosen is None:
        return []
    start = f"{plural(chosen.labels, row)} with {names[0]} were worth"
    if chosen.ratio is None or chosen.low is None or chosen.high is None:
        bound = chosen.bound or 1.0
        sign = "≥" if chosen.bound_kind == "at least" else "≤"
        worth = f"{chosen.bound_kind} {rough(chosen.labels * bound)} with {names[1]} ({sign} {times(bound)}"
        return [f"{start} {worth}; the sizes tried do not hold the point itself)."]
    ends = f"CI over seeds {rough(chosen.low)}–{times(chosen.high)}"
    if not chosen.settled:
        doubt = f"the {row}s saved cannot be told from none ({times(chosen.ratio)}; {ends})"
        return [f"With {plural(chosen.labels, row)} {doubt}."]
    worth = f"about {rough(chosen.labels * chosen.ratio)} with {names[1]} ({times(chosen.ratio)}; {ends})"
    level = [each.labels for each in comparison.labels_saved if each.ratio is not None and not each.settled]
    tail = f"; with {count(level[0])} the ratio cannot be told from 1" if level and level[0] > chosen.labels else ""
    return [f"{start} {worth}{tail}."]


def shown_saving(saved: tuple[LabelsSaved, ...]) -> LabelsSaved | None:
    """Return the size whose ratio the sentence and the arrow show: the smallest that says something."""
    points = [each for each in saved if each.ratio is not None]
    bounds = [each for each in saved if each.bound is not None and abs(each.bound - 1) > 0.05]
    settled = [each for each in points if each.settled]
    return next(iter([*settled, *bounds, *points]), None)


def not_counted(comparison: Comparison) -> str:
    """Say what the difference leaves out, and what else is in it."""
    control, outside = comparison.study.control, "Not counted: what pre-training cost and the data it saw"
    if fitted := _fitted(comparison):
        return f"{outside}; of the pretrained body {' and '.join(fitted)} has nothing, its tokenizer included."
    return (
        f"{outside}; the {control} arm still inherits the pretrained "
        f"tokenizer, so that part of transfer is in both arms{_heads(comparison)}."
    )


def _fitted(comparison: Comparison) -> list[str]:
    """Return which of the two arms is a baseline."""
    return [arm for arm in (comparison.study.treatment, comparison.study.control) if arm in comparison.baselines]


def _heads(comparison: Comparison) -> str:
    """Say that the head too started otherwise, where it did."""
    starts, names = head_starts(comparison.ledgers), (comparison.study.treatment, comparison.study.control)
    first, second = (starts.get(name) for name in names)
    if first is None or second is None or first == second:
        return ""
    return f"; the head is part of the difference: {names[0]}'s is {first}, {names[1]}'s is {second}"
