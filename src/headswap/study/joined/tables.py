"""The tables of joined studies, and the same as rows of plain values. Joined chain: joining -> tables -> page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

from markupsafe import Markup
from rich.table import Table as RichTable
from rich.text import Text

from headswap.study.joined.joining import OUTCOMES, Aggregate, Joined, saving_of, speed_of
from headswap.study.joined.reading import StudyRead
from headswap.study.joined.verdict import probability
from headswap.study.page import NONE, Table
from headswap.study.tables import ends
from headswap.study.units import Unit, count, p_text, percent, plural, rough, times


def main_table(joined: Joined, folder: Path) -> Table:
    """Return every study's primary comparison; its name is a link to its report where there is one."""
    main = joined.main
    rows = tuple(
        (
            _link(each, folder),
            each.primary.outcome,
            _rows_word(each),
            *_scores(each),
            _unit(each).difference(each.primary.interval.mean),
            ends(each.primary.interval, _unit(each), signed=True),
            p_text(each.primary.interval.p_value()),
            p_text(joined.adjusted[place]),
            str(len(each.primary.pairs)),
            count(each.primary.test_examples),
        )
        for place, each in enumerate(joined.studies)
    )
    columns = (joined.noun, "verdict", "metric and size", main.treatment, main.control, "difference", "CI", "p", "q")
    title = "Primary comparison of each study; q: p corrected for there being several (Benjamini-Hochberg)"
    return Table(title, (*columns, "pairs", "test rows"), rows, words=3)


def speed_table(joined: Joined) -> Table:
    """Return labels saved and speed of learning of each study."""
    main = joined.main
    columns = (joined.noun, "labelled rows", "were worth", "ratio", "CI over seeds")
    columns += (f"{main.treatment} needed", f"{main.control} needed", "fewer by", "reached")
    rows = tuple((each.label, *_saving_cells(each), *_speed_cells(each)) for each in joined.studies)
    title = (
        f"Labels saved (rows with {main.treatment}, and how many {main.control} needs for the same test score), and "
        f"training examples to {main.control}'s final validation score (medians)"
    )
    return Table(title, columns, rows)


def arms_table(joined: Joined) -> Table:
    """Return each arm's mean score by study, at the size of the primary comparison."""
    arms = tuple(dict.fromkeys(arm for each in joined.studies for arm in each.comparison.arms))
    rows = tuple((each.label, _unit(each).name, *(_mean(each, arm) for arm in arms)) for each in joined.studies)
    return Table("Mean test score of every arm", (joined.noun, "metric", *arms), rows, words=2)


def aggregate_table(joined: Joined) -> Table:
    """Return what each arm is against the control over all studies."""
    share = percent(joined.confidence)
    columns = ("arm", *OUTCOMES, "interquartile mean", "difference", f"{share} CI", "P(better)", f"{share} CI")
    rows = tuple(_aggregate_row(each, joined) for each in joined.aggregates)
    control = joined.main.control
    return Table(f"Arms against {control}, over all {len(joined.studies)} {joined.nouns}", columns, rows)


def warnings_table(joined: Joined) -> Table:
    """Return what the studies themselves warn of."""
    rows = tuple((each.label, warning) for each in joined.studies for warning in each.comparison.warnings)
    return Table("What the studies warn of", (joined.noun, "warning"), rows, words=2)


def design(joined: Joined) -> Iterator[tuple[str, str]]:
    """Yield the lines of the design box."""
    main, studies = joined.main, joined.studies
    yield "Arms compared", f"{main.treatment} against {main.control}"
    yield joined.nouns.capitalize(), ", ".join(each.label for each in studies)
    for name, values in (("Tasks", [each.task for each in studies]), ("Bodies", [each.body for each in studies])):
        if name.lower() != joined.nouns:
            yield name, ", ".join(dict.fromkeys(values))
    yield "Metrics", ", ".join(dict.fromkeys(_unit(each).name for each in studies))
    yield "Paired seeds", ", ".join(dict.fromkeys(str(len(each.primary.pairs)) for each in studies))
    yield "Confidence", percent(joined.confidence)
    yield "Comparisons corrected for", f"{sum(value is not None for value in joined.adjusted)}, one a study"


def terminal_table(joined: Joined) -> RichTable:
    """Return the primary comparisons for the command line; a metric that all have stands in the title alone."""
    main, metrics = joined.main, {_unit(each).name for each in joined.studies}
    alone = len(metrics) == 1
    table = RichTable(title=Text(f"test {', '.join(sorted(metrics))}"), title_justify="left")
    for name in (joined.noun, *(() if alone else ("metric",))):
        table.add_column(Text(name), no_wrap=name == joined.noun)
    for name in ("rows", main.treatment, main.control, f"difference ({percent(joined.confidence)} CI)"):
        table.add_column(Text(name), justify="right", no_wrap=not name.startswith("difference"))
    table.add_column(Text("verdict"), no_wrap=True)
    for each in joined.studies:
        cells = (each.label, *(() if alone else (_unit(each).name,)), count(each.primary.labels), *_scores(each))
        table.add_row(*map(Text, (*cells, _gap(each), each.primary.outcome)))
    return table


def plain_rows(joined: Joined, folder: Path) -> list[dict[str, Any]]:
    """Return one mapping of plain values a study, for joined.csv and joined.json."""
    return [_plain_row(place, each, joined, folder) for place, each in enumerate(joined.studies)]


def _plain_row(place: int, each: StudyRead, joined: Joined, folder: Path) -> dict[str, Any]:
    primary, study = each.primary, each.comparison.study
    interval, saving, speed = primary.interval, saving_of(each), speed_of(each)
    scores = [(pair.treatment, pair.control) for pair in primary.pairs]
    found = {
        "study": each.label,
        "verdict": primary.outcome,
        "task": each.task,
        "body": each.body,
        "metric": each.comparison.metric,
        "greater_is_better": each.comparison.greater_is_better,
        "size": primary.size,
        "labels": primary.labels,
        "treatment": study.treatment,
        "control": study.control,
        "treatment_mean": sum(first for first, _ in scores) / len(scores),
        "control_mean": sum(second for _, second in scores) / len(scores),
        "difference": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "confidence": interval.confidence,
        "scope": primary.scope,
        "margin": each.comparison.margin,
        "p": interval.p_value(),
        "q": joined.adjusted[place],
        "seeds": len(primary.pairs),
        "test_rows": primary.test_examples,
        "improvement": joined.main.improvements[place],
        "in_interquartile_mean": each.label not in joined.left_out,
    }
    for name in ("labels", "ratio", "low", "high", "bound_kind", "bound"):
        found[f"labels_saved_{name}"] = getattr(saving, name) if saving else None
    found["speed_ratio"] = speed.ratio.mean if speed and speed.ratio else None
    bound = speed.bounds.get("examples") if speed else None
    found |= {"speed_bound": bound.low if bound else None, "speed_reached": speed.reached if speed else None}
    return found | {"folder": os.path.relpath(each.folder.resolve(), folder.resolve())}


def _aggregate_row(each: Aggregate, joined: Joined) -> tuple[str, ...]:
    unit, found = joined.unit, each.interquartile
    cells = [NONE] * 3 if found is None else [unit.score(found.treatment.mean), unit.difference(found.difference.mean)]
    if found is not None:
        cells.append(ends(found.difference, unit, signed=True))
    odds = [NONE] * 2 if each.improvement is None else probability(each.improvement).split(" ", 1)
    odds = [odds[0], odds[1].strip("()")]
    return (each.treatment, *(str(each.outcomes[outcome]) for outcome in OUTCOMES), *cells, *odds)


def _saving_cells(study: StudyRead) -> tuple[str, ...]:
    saved = saving_of(study)
    value = (saved.ratio or saved.bound) if saved else None
    if saved is None or value is None:
        return NONE, NONE, NONE, NONE
    inner = "censored" if saved.low is None or saved.high is None else f"{rough(saved.low)}–{rough(saved.high)}"
    return count(saved.labels), f"{saved.sense}{rough(saved.labels * value)}", f"{saved.sense}{times(value)}", inner


def _speed_cells(study: StudyRead) -> tuple[str, ...]:
    speed = speed_of(study)
    if speed is None:
        return NONE, NONE, NONE, NONE
    reached = f"{speed.reached} of {plural(len(speed.arrivals), 'seed')}"
    needed = f"{'≤ ' if speed.at_least else ''}{_median(study, 'treatment')}"
    if speed.reached < len(speed.arrivals):
        needed = "not in all seeds"
    if speed.ratio is None:
        bound = speed.bounds.get("examples")
        least = NONE if bound is None or bound.low is None else f"≥ {times(bound.low)}"
        return needed, _median(study, "control"), least, reached
    ratio = times(speed.ratio.mean)
    if speed.ratio.low is not None and speed.ratio.high is not None:
        ratio += f" ({rough(speed.ratio.low)}–{rough(speed.ratio.high)})"
    return needed, _median(study, "control"), ratio, reached


def _median(study: StudyRead, arm: str) -> str:
    speed = speed_of(study)
    moments = [getattr(each, arm) for each in speed.arrivals] if speed else []
    values = [moment["examples"] for moment in moments if moment]
    return count(median(values)) if values else NONE


def _mean(study: StudyRead, arm: str) -> str:
    score = study.comparison.score_of(arm, study.primary.size)
    return NONE if score is None else _unit(study).score(score.mean)


def _scores(study: StudyRead) -> tuple[str, str]:
    pairs = study.primary.pairs
    first, second = (sum(getattr(pair, arm) for pair in pairs) / len(pairs) for arm in ("treatment", "control"))
    return _unit(study).score(first), _unit(study).score(second)


def _gap(study: StudyRead) -> str:
    """Return +9.2 pp (+7.3 to +11.1)."""
    unit, interval = _unit(study), study.primary.interval
    inner = "" if interval.low is None else f" ({ends(interval, unit, signed=True)})"
    return f"{unit.difference(interval.mean)}{inner}"


def _rows_word(study: StudyRead) -> str:
    sense = "" if study.comparison.greater_is_better else " (less is better)"
    size = "all " if study.primary.size is None else ""
    return f"{_unit(study).name}{sense}, {size}{plural(study.primary.labels, study.comparison.words.row)}"


def _unit(study: StudyRead) -> Unit:
    return Unit(study.comparison.metric)


def _link(study: StudyRead, folder: Path) -> str:
    report = study.folder / "report.html"
    if not report.is_file():
        return study.label
    address = quote(os.path.relpath(report.resolve(), folder.resolve()))
    return Markup('<a href="{}">{}</a>').format(address, study.label)
