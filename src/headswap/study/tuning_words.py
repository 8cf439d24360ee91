"""What a study says of its tuning: in the design, in the verdict, as warnings. Study chain: tuned, curves -> this."""

from __future__ import annotations

from collections.abc import Iterator

from headswap.search_space import Choice
from headswap.study.tuned import ArmTuning, Edge, Tuning, rows_of
from headswap.study.tuning_curves import overlap
from headswap.study.units import count, plural
from headswap.sweep.axes import brief, figure

NONE = "none, the recipes are given values"


def said(tuning: Tuning | None, arms: tuple[str, str], size: int | None) -> str:
    """Return how the two arms were tuned, behind `tuning: `."""
    if tuning is None or not (own := _served(tuning, arms, size)):
        return NONE
    seeds = "" if len(tuning.seeds) == 1 else f" on {len(tuning.seeds)} seeds each"
    kind = {"random": "random ", "tpe": "TPE "}[tuning.sampler]
    pruned = "" if tuning.pruner == "none" else f", {tuning.pruner} from {100 * tuning.first_rung:g} % of the steps on"
    rest = [arm for arm in arms if arm not in {each.arm for each in own}]
    given = f"; {rest[0]} keeps its given values" if rest else ""
    place = " and ".join(dict.fromkeys(f"at {_rows(each.size)}" for each in own))
    who = f"of {own[0].arm}" if rest else "an arm"
    return f"{tuning.trials} {kind}trials {who}{seeds} {place}{pruned}{given}"


def doubts(tuning: Tuning | None, arms: tuple[str, str], size: int | None) -> str:
    """Return the sentences of the verdict on its own tuning; nothing where there is no doubt."""
    if tuning is None:
        return ""
    own = _served(tuning, arms, size)
    edges = [f"{_edge(each, edge)}" for each in own for edge in each.edges]
    told = "; ".join(edges)
    sentences = [f"Provisional: tuning chose a value at the end of its range ({told}); widen it."] if edges else []
    if unequal := _unequal(own, tuning):
        sentences.append(unequal)
    curves = {(curve.arm, curve.size): curve for curve in tuning.curves}
    pair = [curves[each.arm, each.size] for each in own if (each.arm, each.size) in curves]
    if len(pair) == 2 and (first := overlap(*pair)) is not None:
        trials = plural(first, "trial")
        sentences.append(f"Their tuning curves do not settle the order of the arms: bands overlap from {trials} on.")
    return " ".join(sentences)


def provisional(tuning: Tuning | None, arms: tuple[str, str], size: int | None) -> bool:
    """Say whether the arms' difference hangs on where a range of theirs ends."""
    return tuning is not None and any(each.edges for each in _served(tuning, arms, size))


def warnings_about(tuning: Tuning | None) -> Iterator[str]:
    """Yield one sentence for everything in the tuning that weakens the comparison."""
    if tuning is None:
        return
    edges = [_edge(each, edge) for each in tuning.arms for edge in each.edges]
    if edges:
        yield f"Chosen at the end of a range: {'; '.join(edges)}. A better value may lie beyond it."
    for size in dict.fromkeys(each.size for each in tuning.arms):
        own = [each for each in tuning.arms if each.size == size]
        if unequal := _unequal(own, tuning):
            yield unequal
    if tuning.given:
        yield f"Not tuned: {', '.join(tuning.given)} with the values given."


def ends_of(each: ArmTuning, key: str) -> str:
    """Return what was tried for a key: the choices, or the ends of its range."""
    found = each.dimensions[key]
    if isinstance(found, Choice):
        return ", ".join(map(brief, found.words))
    scale = ", log" if found.log else ""
    step = f", steps of {found.step:g}" if found.step else ""
    return f"{figure(found.low)} to {figure(found.high)}{scale}{step}"


def _served(tuning: Tuning, arms: tuple[str, str], size: int | None) -> list[ArmTuning]:
    return [each for arm in arms if (each := tuning.of(arm, size)) is not None]


def _edge(each: ArmTuning, edge: Edge) -> str:
    value, low, high = (figure(float(word)) for word in (edge.value, edge.low, edge.high))
    return f"{edge.key} of {each.arm} at {_rows(each.size)}: {value}, of {low} to {high}"


def _unequal(own: list[ArmTuning], tuning: Tuning) -> str:
    done = {each.arm: len(each.trials) - each.count("fail") for each in own}
    if len(set(done.values())) < 2:
        return ""
    each = ", ".join(f"{number} of {arm}" for arm, number in done.items())
    return f"Unequal tuning at {_rows(own[0].size)}: of {tuning.trials} trials an arm did not fail {each}."


def _rows(size: int | None) -> str:
    return rows_of(None) if size is None else f"{count(size)} rows"
