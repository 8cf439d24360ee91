"""What a verdict says beside the difference: checkpoints, ingredients, baselines. Study chain: results -> verdict."""

from __future__ import annotations

from collections.abc import Sequence

from headswap.study.attribution import Ingredient, Part
from headswap.study.contrasts import DIFFERENT, Contrast
from headswap.study.results import Comparison
from headswap.study.statistics import Interval
from headswap.study.units import Unit, bracket, count, p_text, seconds, times

_INGREDIENTS: dict[Ingredient, str] = {
    "self_pretraining": "self-pretraining on your own text ({arm}) gives {gap}",
    "outside_weights": "the external weights add {gap}",
    "scale": "random weights of the pretrained scale alone ({arm}) give {gap}",
    "learned": "what the weights learned adds {gap}",
}


def checkpoints(contrast: Contrast) -> list[str]:
    """Say what can be said of a lone pair of runs, and that it is of them alone."""
    found = contrast.mcnemar
    if found is None:
        return []
    p_value = p_text(found.p_value)
    return [
        f"These two checkpoints, not the methods: of {count(contrast.test_examples)} test examples "
        f"{contrast.treatment} alone is right on {count(found.treatment_alone)}, {contrast.control} alone on "
        f"{count(found.control_alone)} "
        f"(exact McNemar p {p_value if p_value.startswith('<') else f'= {p_value}'})."
    ]


def attributed(comparison: Comparison) -> list[str]:
    """Say which part of the difference each ingredient gives, where the study has arms that isolate one."""
    found, unit = comparison.further.attribution, Unit(comparison.metric)
    if found is None:
        return []
    parts = [_part(part, unit, first=place == 0) for place, part in enumerate(found.parts)]
    return [f"Of the {unit.difference(found.whole.mean)}, {'; '.join(parts)}."]


def _part(part: Part, unit: Unit, first: bool) -> str:
    ends = bracket(part.interval, unit) if first and part.interval.known else _ends(part.interval, unit)
    return _INGREDIENTS[part.ingredient].format(arm=part.arm, gap=f"{unit.difference(part.interval.mean)} {ends}")


def cheaply(comparison: Comparison) -> list[str]:
    """Say what the best baseline without a body reaches, and which of the compared arms beat it."""
    primary, name = comparison.primary, comparison.further.baseline
    score = comparison.score_of(name, primary.size) if primary and name else None
    if primary is None or name is None or score is None:
        return []
    unit, study = Unit(comparison.metric), comparison.study
    rivals = [(study.treatment, _found(comparison.further.contrasts, study.treatment, name, primary), 1)]
    rivals += [(study.control, _found(comparison.contrasts, name, study.control, primary), -1)]
    said = [_beaten(arm, each, sign, comparison) for arm, each, sign in rivals if each is not None]
    spent = f" in {seconds(score.seconds['total'])}" if score.seconds.get("total") else ""
    return [f"The baseline {name} reaches {unit.score(score.mean)}{spent}: {', '.join(said)}."] if said else []


def in_time(comparison: Comparison) -> list[str]:
    """Say whether the control only lacks time, where an arm is the control with more steps."""
    primary, longer = comparison.primary, comparison.further.longer
    if primary is None or longer is None:
        return []
    arm, ratio = longer
    score = comparison.score_of(arm, primary.size)
    rival = _found(comparison.further.contrasts, comparison.study.treatment, arm, primary)
    if score is None or rival is None:
        return []
    unit, treatment = Unit(comparison.metric), comparison.study.treatment
    gap = f"{unit.difference(rival.interval.mean)} {_ends(rival.interval, unit)}"
    ends = {
        "better": f"{treatment} is still better by {gap}",
        "worse": f"that is better than {treatment} ({gap})",
        "equivalent": f"that is level with {treatment} ({gap})",
    }
    told = ends.get(rival.outcome, f"{treatment} against that is not settled ({gap})")
    return [
        f"With {times(ratio)} the steps of {comparison.study.control}, {arm} reaches {unit.score(score.mean)}: {told}."
    ]


def _beaten(arm: str, contrast: Contrast, sign: int, comparison: Comparison) -> str:
    """Say whether `arm` beats the baseline; `sign` is -1 where the contrast is the baseline's own."""
    unit, interval = Unit(comparison.metric), contrast.interval
    numbers = unit.difference(sign * interval.mean)
    if interval.low is not None and interval.high is not None:
        low, high = sorted((sign * interval.low, sign * interval.high))
        numbers += f", {unit.signed(low)} to {unit.signed(high)}"
    if contrast.said not in DIFFERENT:  # nor before the correction alone
        return f"{arm} does not beat it ({numbers})"
    return f"{arm} {'beats' if (contrast.outcome == 'better') == (sign > 0) else 'is worse than'} it ({numbers})"


def _found(contrasts: Sequence[Contrast], treatment: str, control: str, primary: Contrast) -> Contrast | None:
    wanted = treatment, control, primary.size
    return next((each for each in contrasts if (each.treatment, each.control, each.size) == wanted), None)


def _ends(interval: Interval, unit: Unit) -> str:
    if interval.low is None or interval.high is None:
        return f"(no interval: {interval.reason})"
    return f"({unit.signed(interval.low)} to {unit.signed(interval.high)})"
