"""What a study says of the speed of learning. Study chain: results -> verdict (these sentences are part of it)."""

from __future__ import annotations

from headswap.study.contrasts import Contrast
from headswap.study.curves import Convergence
from headswap.study.results import Comparison
from headswap.study.speed import Bound
from headswap.study.units import Unit, count, percent, plural, rough, times

BESIDE = {"steps": "in steps", "flops": "in FLOPs", "seconds": "in seconds"}
"""How the measures beside training examples are named."""


def speed_statements(primary: Contrast, comparison: Comparison) -> list[str]:
    """Return the sentence on the speed of learning at the largest size, or why there is none."""
    speed = next((each for each in comparison.convergence if each.size == primary.size), None)
    if speed is None:
        return _no_curve(comparison)
    return [_sentence(speed, primary, comparison)]


def _no_curve(comparison: Comparison) -> list[str]:
    """Say why there is no learning curve, where an arm did not train or did not look at the metric in training."""
    if fitted := comparison.fitted:
        return [f"No speed is named: {' and '.join(fitted)} did not train in steps, and so has no learning curve."]
    chosen = {config.get("train", {}).get("select_by") for config in comparison.configs.values()}
    if "loss" not in chosen:
        return []
    metric = Unit(comparison.metric).name
    return [f"No speed is named: the runs watched the loss alone (train.select_by=loss), so {metric} has no curve."]


def _sentence(speed: Convergence, primary: Contrast, comparison: Comparison) -> str:
    total, names, seen = len(speed.arrivals), (primary.treatment, primary.control), comparison.words.seen
    if speed.control_gain < comparison.margin:
        return _learned_nothing(speed, primary, comparison)
    if speed.reached < total:
        text = (
            f"{names[0]} did not reach and hold {names[1]}'s final validation score within its own training "
            f"in {total - speed.reached} of {plural(total, 'seed')}{_despite(speed.bounds.get('examples'), seen)}"
        )
    else:
        text = _reached(speed, names, seen)
    return f"{text}{_outcome_of_speed(speed, primary, comparison)}."


def _learned_nothing(speed: Convergence, primary: Contrast, comparison: Comparison) -> str:
    """Say that the control's own final score is no target: whoever starts there has reached it."""
    gain = Unit(comparison.metric).difference(speed.control_gain * (1 if comparison.greater_is_better else -1))
    return (
        f"No speed is named: {primary.control}'s validation score changed by {gain} from its first evaluation to its "
        f"last, so that there is little to reach."
    )


def _despite(bound: Bound | None, seen: str) -> str:
    """Return what is known of the median pair where some treatments never arrived."""
    if bound is None or bound.low is None or bound.at_least <= 1:
        return ", so no speed-up is named"
    factor = f"at least {times(bound.at_least)} fewer {seen}s in the median"
    return f"; with those counted as never, it needed {factor} ({_limit(bound)})"


def _reached(speed: Convergence, names: tuple[str, str], seen: str) -> str:
    first, second = (_median(speed, arm) for arm in ("treatment", "control"))
    examples = f"after a median {'at most ' if speed.at_least else ''}{count(first)} training {seen}s"
    start = f"{names[0]} reached and held {names[1]}'s final validation score {examples} against {count(second)}"
    seeds = f"in {speed.reached} of {plural(len(speed.arrivals), 'seed')}"
    details = _factors(speed, seen) or _least_factors(speed, seen)
    return f"{start} ({'; '.join(details)}), {seeds}" if details else f"{start}, {seeds}; no speed-up is named"


def _factors(speed: Convergence, seen: str) -> list[str]:
    ratio = speed.ratio
    if ratio is None:
        return []
    said = [f"{times(ratio.mean)} fewer {seen}s" if ratio.mean >= 1 else f"{times(1 / ratio.mean)} more {seen}s"]
    if ratio.low is not None and ratio.high is not None:
        said.append(f"{percent(ratio.confidence)} CI {rough(ratio.low)}–{times(ratio.high)}")
    others = {measure: times(found.mean) for measure, found in speed.ratios.items()}
    return said + _beside(others)


def _least_factors(speed: Convergence, seen: str) -> list[str]:
    bound = speed.bounds.get("examples")
    if bound is None or bound.at_least <= 1:
        return []
    others = {measure: f"at least {times(found.at_least)}" for measure, found in speed.bounds.items()}
    limit = [_limit(bound)] if bound.low is not None else []
    return [f"at least {times(bound.at_least)} fewer {seen}s", *limit, *_beside(others)]


def _limit(bound: Bound) -> str:
    return f"one-sided {percent(bound.confidence)} bound {times(bound.low or 0)}"


def _beside(factors: dict[str, str]) -> list[str]:
    """Return the factors in other measures; steps say nothing new where both arms' steps hold as many examples."""
    same = factors.get("steps") == factors["examples"]
    return [
        f"{factors[name]} {text}" for name, text in BESIDE.items() if name in factors and not (name == "steps" and same)
    ]


def _median(speed: Convergence, arm: str) -> float:
    values = sorted(getattr(each, arm)["examples"] for each in speed.arrivals)
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def _outcome_of_speed(speed: Convergence, primary: Contrast, comparison: Comparison) -> str:
    low = speed.area_difference.low
    if primary.outcome == "equivalent" and low is not None and low > 0:
        bought = primary.treatment if comparison.from_scratch else "transfer"
        return f": here {bought} bought speed, not a better end"
    if primary.outcome == "better" or speed.caught_up_at is None:
        return ""
    if all(each.treatment is None for each in speed.arrivals):
        return f"; {primary.control} ends ahead in every seed"
    start = f"{count(speed.caught_up_at)} {comparison.words.seen}s"
    return f"; from {start} on {primary.control}'s mean curve is level or ahead"
