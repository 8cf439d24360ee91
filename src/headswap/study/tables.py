"""The report's tables and definition lists, ready to print. Study chain: results -> tables (this) -> report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from headswap.study.page import NONE, Table
from headswap.study.results import Comparison
from headswap.study.runs import flatten
from headswap.study.statistics import Interval, detectable_effect
from headswap.study.summaries import ArmScore
from headswap.study.units import Unit, count, flops, number, p_text, percent, plural, seconds
from headswap.study.verdict import not_counted, tuning, verdict
from headswap.study.words import head_starts


def score_table(comparison: Comparison) -> Table:
    """Return mean, spread and counts of every arm at every size."""
    unit, share = Unit(comparison.metric), percent(comparison.study.confidence)
    others = [name for name in (comparison.scores[0].metrics if comparison.scores else {}) if name != comparison.metric]
    rows = tuple(
        (
            score.arm,
            count(score.labels),
            unit.score(score.mean),
            NONE if score.deviation is None else unit.deviation(score.deviation),
            ends(score.interval, unit),
            str(score.runs),
            str(score.failed),
            str(len(score.collapsed)),
            *(Unit(name).score(score.metrics[name]) if name in score.metrics else NONE for name in others),
        )
        for score in comparison.scores
    )
    columns = (
        "arm",
        comparison.words.rows,
        unit.name,
        "SD",
        f"{share} CI",
        "runs",
        "failed",
        "collapsed",
        *others,
    )
    return Table(f"Test scores: mean over seeds, {share} t interval over seeds", columns, rows)


def contrast_table(comparison: Comparison) -> Table:
    """Return every paired difference with its interval, tests and what the design can detect."""
    unit, study = Unit(comparison.metric), comparison.study
    inner, every = percent(2 * study.confidence - 1), (*comparison.contrasts, *comparison.further.contrasts)
    rows = tuple(
        (
            f"{each.treatment} − {each.control}",
            each.said,
            count(each.labels),
            unit.difference(each.interval.mean),
            ends(each.interval, unit, signed=True),
            NONE
            if each.equivalence is None
            else f"{unit.signed(each.equivalence.low)} to {unit.signed(each.equivalence.high)}",
            p_text(each.interval.p_value()),
            "primary" if each is comparison.primary else p_text(each.q),
            p_text(each.sign_flip_p),
            NONE if each.mcnemar is None else p_text(each.mcnemar.p_value),
            NONE if each.pair_correlation is None else number(each.pair_correlation, 2),
            NONE if each.detectable is None else unit.gap(each.detectable),
            str(len(each.pairs)),
        )
        for each in every
    )
    columns = (
        "arms",
        "verdict",
        comparison.words.rows,
        "difference",
        f"{percent(study.confidence)} CI",
        f"{inner} CI (equivalence)",
    )
    columns += (
        "p (t)",
        "q",
        "p (sign flip, these test rows)",
        "McNemar p (these checkpoints)",
        "pair ρ",
        "detects (80 %)",
        "pairs",
    )
    scope = comparison.contrasts[-1].scope if comparison.contrasts else "seeds and examples"
    family = sum(each.q is not None for each in every)
    corrected = f"; q: Benjamini-Hochberg over the {family} that are not the primary one" if family else ""
    return Table(f"Paired differences on test; intervals over {scope}{corrected}", columns, rows, words=2)


def uncertainty_table(comparison: Comparison) -> Table:
    """Return where the intervals of treatment and control come from, and what more of each would let them detect."""
    unit, rows = Unit(comparison.metric), []
    for each in comparison.contrasts:
        wanted = each.treatment == comparison.study.treatment and each.scope == "seeds and examples"
        if not wanted or each.components is None or each.detectable is None:
            continue
        seeds, examples, confidence = len(each.pairs), each.test_examples, each.interval.confidence
        parts = each.components.variances(seeds, examples)
        sizes = ((seeds, examples), (2 * seeds, examples), (seeds, 2 * examples))
        expected = [detectable_effect(each.components, *size, confidence) for size in sizes]
        detects = (
            each.detectable * effect / (expected[0] or 1.0) for effect in expected
        )  # as found, then in proportion
        shares = (percent(part / sum(parts)) if sum(parts) else NONE for part in parts)
        rows.append((count(each.labels), *shares, *map(unit.gap, detects)))
    title = (
        "Where the uncertainty comes from: shares of the variance of the mean difference, and what would be detected"
    )
    columns = ("seeds", "test examples", "both together", "detects (80 %)", "twice the seeds", "twice the test rows")
    return Table(title, (comparison.words.rows, *columns), tuple(rows))


def cost_table(comparison: Comparison) -> Table:
    """Return what a run cost, by arm and size."""
    rows = tuple(
        (
            score.arm,
            count(score.labels),
            f"{score.runs}{f' ({score.reused} reused)' if score.reused else ''}",
            count(score.steps),
            count(score.examples),
            NONE if score.flops is None else flops(score.flops),
            *(seconds(score.seconds[name]) for name in ("train", "evaluate", "total")),
            *_sizes(score.parameters),
        )
        for score in comparison.scores
    )
    total = sum(score.seconds["total"] * score.runs for score in comparison.scores)
    title = f"Cost: means a run, FLOPs of training alone; all finished runs together {seconds(total)}"
    words = comparison.words
    columns = ("arm", words.rows, "runs", "steps", f"{words.seen}s", "FLOPs", "train", "evaluate", "total")
    return Table(title, (*columns, "parameters", "without embeddings"), rows)


def _sizes(parameters: Mapping[str, int]) -> tuple[str, str]:
    """Return a model's parameters, and those of them that compute: its layers and its head."""
    if "body" not in parameters:
        return NONE, NONE
    whole, below = parameters["body"] + parameters["head"], parameters.get("embeddings")
    return count(whole), NONE if below is None else count(whole - below)


def excluded_table(comparison: Comparison) -> Table:
    rows = tuple(
        (each.arm, each.reason, each.folder, "all" if each.size is None else count(each.size), str(each.seed))
        for each in comparison.excluded
    )
    columns = ("arm", "why", "folder", comparison.words.rows, "seed")
    return Table("Runs outside the comparison", columns, rows, words=3)


def differing_table(configs: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """Return the keys whose values differ between the arms."""
    flat = {arm: flatten(dict(config)) for arm, config in configs.items()}
    keys = sorted({key for leaves in flat.values() for key in leaves})
    rows = tuple((key, *(_cell(leaves.get(key)) for leaves in flat.values())) for key in keys if _differs(flat, key))
    return Table(title, ("key", *flat), rows, words=1 + len(flat))


def nested_table(sections: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """Return nested values side by side, one column a section."""
    flat = {name: flatten(dict(node)) for name, node in sections.items() if node}
    keys = list(dict.fromkeys(key for leaves in flat.values() for key in leaves))
    rows = tuple((key, *(_cell(leaves.get(key)) for leaves in flat.values())) for key in keys)
    return Table(title, ("key", *flat), rows)


def class_table(comparison: Comparison) -> Table:
    """Return how many examples of each split have each label."""
    counts = comparison.data_notes.get("class_counts") or {}
    names = dict.fromkeys(name for found in counts.values() for name in found)
    rows = tuple((name, *(count(found.get(name, 0)) for found in counts.values())) for name in names)
    return Table("Examples of each label, one run", ("label", *counts), rows)


def notes_table(comparison: Comparison) -> Table:
    """Return what else loading the data found."""
    notes = {name: value for name, value in comparison.data_notes.items() if name != "class_counts"}
    return nested_table({"value": notes}, "What loading the data found, one run")


def design(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """Yield the lines of the design box."""
    unit, primary = Unit(comparison.metric), comparison.primary
    yield "Arms", ", ".join(comparison.arms) or NONE
    yield "Metric", f"{unit.name}, {'more' if comparison.greater_is_better else 'less'} is better"
    sizes = sorted({score.labels for score in comparison.scores})
    rows = comparison.words.rows if comparison.words.rows != "labels" else "labelled rows"
    yield rows.capitalize(), f"{', '.join(map(count, sizes)) or NONE} (training and validation together)"
    yield "Test rows", f"{count(comparison.test_rows)}, the same in every run"
    if comparison.labels:
        name = "Columns learned" if comparison.problem == "regression" else "Labels"
        yield name, ", ".join(comparison.labels)
    if primary is not None:
        yield "Paired seeds", f"{len(primary.pairs)} ({', '.join(str(pair.seed) for pair in primary.pairs)})"
        yield (
            "Primary comparison",
            f"declared beforehand: {plural(primary.labels, comparison.words.row)}, the largest size",
        )
        detects = NONE if primary.detectable is None else f"{unit.gap(primary.detectable)} with 80 % power"
        yield "Minimum detectable effect", detects
        yield "Difference that matters", _margin(comparison, unit)
        yield "Interval", _method(primary.interval)
        if primary.disagreement is not None:
            yield "Pairs disagree on", f"{percent(primary.disagreement)} of the test rows"
    starts = head_starts(comparison.ledgers)
    if len(set(starts.values())) > 1:
        yield "Heads", ", ".join(f"{arm} {start}" for arm, start in starts.items())
    if comparison.baselines:
        yield "Baselines", f"{', '.join(comparison.baselines)}: without a body; a choice of settings is validation's"
    if not_counted(comparison) not in verdict(comparison):
        yield "Not counted", not_counted(comparison).removeprefix("Not counted: ")
    yield "Tuning", tuning(comparison)
    if comparison.audit is not None and comparison.audit.pairs:
        yield "Audit", comparison.audit.said
    for key in ("device", "precision", "threads"):
        if key in comparison.environment:
            yield key.capitalize(), ", ".join(comparison.environment[key])
    known = {"device", "precision", "threads"}
    rest = [f"{key} {', '.join(values)}" for key, values in comparison.environment.items() if key not in known]
    if rest:
        yield "Versions", " · ".join(rest)


def ends(interval: Interval, unit: Unit, signed: bool = False) -> str:
    if interval.low is None or interval.high is None:
        return NONE
    write = unit.signed if signed else unit.score
    return f"{write(interval.low).removesuffix(' %')} to {write(interval.high)}"


def arm_text(score: ArmScore, unit: Unit) -> str:
    """Return mean ± SD with the number of runs, marking failed and collapsed ones."""
    spread = "" if score.deviation is None else f" ± {unit.deviation(score.deviation)}"
    marks = [f"{score.failed} failed"] if score.failed else []
    marks += [f"{len(score.collapsed)} collapsed"] if score.collapsed else []
    return f"{unit.score(score.mean)}{spread} (n={score.runs}{''.join(f', {mark}' for mark in marks)})"


def _margin(comparison: Comparison, unit: Unit) -> str:
    if comparison.margin:
        return f"{unit.margin(comparison.margin)}, study.margin"
    return "not set: with study.margin a study can also find two arms equivalent"


def _method(interval: Interval) -> str:
    if interval.degrees_of_freedom is None:
        return f"none: {interval.reason}"
    return f"{interval.method}, {number(interval.degrees_of_freedom, 1)} degrees of freedom"


def _differs(flat: Mapping[str, Mapping[str, Any]], key: str) -> bool:
    return len({_cell(leaves.get(key)) for leaves in flat.values()}) > 1


def _cell(value: Any) -> str:
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value)) or NONE
    if isinstance(value, int):
        return count(value) if abs(value) >= 10_000 else str(value)
    return f"{value:g}".replace("e-0", "e-").replace("e+0", "e") if isinstance(value, float) else str(value)
