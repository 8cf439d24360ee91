"""The sweep's page: report.html from sweep.json and confirmed.json, and trials.csv beside it. Sweep chain: end."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headswap.records import write_json, write_text
from headswap.study.units import plural, seconds
from headswap.sweep import lists
from headswap.sweep.findings import SEED, STATES, SUMMARY, Findings, read

if TYPE_CHECKING:
    from headswap.study.page import Figure

PAGE, ROWS = "report.html", "trials.csv"
TEMPLATE = Path(__file__).with_name("sweep.html.j2")
_PROPOSED = {
    "tpe": "TPE: what did well so far, and what was not known",
    "random": "at random",
    "quasi_random": "evenly spread (scrambled Sobol)",
    "grid": "every combination",
}
_PRUNER = {"none": "none", "halving": "successive halving", "hyperband": "Hyperband"}


def publish(folder: Path, told: Mapping[str, Any]) -> Path:
    """Write what a sweep found into its folder: sweep.json first, then the same as rows and as a page."""
    write_json(folder / SUMMARY, told)
    return draw(folder)


def draw(folder: Path) -> Path:
    """Write trials.csv and report.html from what lies in the folder; return the page's path."""
    found = read(folder)
    write_text(folder / ROWS, lists.trials_csv(found))
    write_text(folder / PAGE, render(found))
    return folder / PAGE


def write_files(folder: Path) -> None:
    """Write the page's figures as drawings, and their numbers as sheets: seconds that a sweep need not wait for."""
    from headswap.study.sheets import write_tables
    from headswap.study.static import write_drawings

    made = figures(read(folder))
    write_drawings(made, {}, folder)
    write_tables({figure.name: figure.table for figure in made}, folder)


def figures(found: Findings) -> list[Figure]:
    """Return the figures that the sweep has data for, in the order of the page."""
    from headswap.sweep import drawings, landscape

    made = (
        drawings.history_figure(found),
        landscape.pareto_figure(found),
        landscape.parallel_figure(found),
        landscape.slices_figure(found),
        landscape.importances_figure(found),
        drawings.curves_figure(found),
    )
    return [figure for figure in made if figure is not None]


def render(found: Findings) -> str:
    """Return the page as text."""
    from headswap.study.page import render_page, without_empty_columns

    return render_page(
        TEMPLATE,
        figures(found),
        title=title(found),
        name=found.name,
        hero=hero(found),
        statements=list(statements(found)),
        warnings=list(warnings(found)),
        design=list(design(found)),
        confirmed=without_empty_columns(lists.confirmed_table(found)),
        settings=lists.settings_table(found),
        reasons=lists.reasons_table(found),
        trials=without_empty_columns(lists.trials_table(found)),
        cost=lists.cost_table(found),
        cost_lines=list(lists.cost_lines(found)),
    )


def title(found: Findings) -> str:
    """Return the headline."""
    counted, best, won = plural(len(found.counted), "trial"), found.best(), found.winner
    if not best:
        return f"None of {counted} finished"
    if len(found.objectives) > 1:
        return f"{len(best)} of {counted} {'is' if len(best) == 1 else 'are'} on the Pareto front"
    measure, lead = found.measures[0], found.settings()[0]
    if won:
        return f"The best settings reach {measure.text(won.mean)} {measure.name} on fresh seeds"
    if len(lead.values) > 1:
        return f"The best settings have {measure.text(lead.mean)} {measure.name} over {len(lead.values)} seeds"
    return f"The best of {counted} has {measure.text(lead.mean)} {measure.name}"


def hero(found: Findings) -> dict[str, Any] | None:
    """Return what stands large beside the statements; nothing where no single trial is the best."""
    if not found.finished or len(found.objectives) > 1:
        return None
    won, lead, measure = found.winner, found.settings()[0], found.measures[0]
    if won:
        spread = f" ± {measure.spread(statistics.stdev(won.again))}" if len(won.again) > 1 else ""
        under = f"{measure.name}{spread}, {plural(len(won.again), 'fresh seed')}, settings of trial {won.trial}"
        shown = {"over": "Confirmed", "tone": "equivalent", "big": measure.text(won.mean), "under": under}
        return shown | {"settings": _overrides(won.settings)}
    spread = "" if lead.deviation is None else f" ± {measure.spread(lead.deviation)}, mean of {len(lead.values)} seeds"
    under = f"{measure.name}{spread}, trial {lead.number}: partly luck, not confirmed"
    shown = {"over": "Best in the sweep", "tone": "not-settled", "big": measure.text(lead.mean), "under": under}
    return shown | {"settings": _overrides(lead.settings)}


def statements(found: Findings) -> Iterator[str]:
    """Yield the headline's sentences in plain words."""
    best, won, measure = found.best(), found.winner, found.measures[0]
    if not best:
        yield "No trial finished, so there is nothing to choose. The reasons stand below."
    elif len(found.objectives) > 1:
        for trial in best[:5]:
            values = ", ".join(each.text(value) for each, value in zip(found.measures, trial.values, strict=True))
            yield f"Trial {trial.number}: {values} ({lists.words_of(trial.settings)})"
        if len(best) > 5:
            yield f"{plural(len(best) - 5, 'more trial')} of the Pareto front in the tables below."
    elif won:
        yield (
            f"In the sweep trial {won.trial} had {measure.text(won.found)}; on seeds that the sweep never saw its "
            f"settings have {measure.text(won.mean)}: a change of {measure.change(won.fell)}."
        )
        if won.test:
            yield (
                f"Test {won.metric} of these {plural(len(won.test), 'run')}: "
                f"{lists.spread_text(won.test, won.metric)}. They took no part in the choice of settings."
            )
        if best[0].number != won.trial:
            yield f"The best single trial was {best[0].number}, with {measure.text(best[0].values[0])}."
    else:
        yield f"Trial {best[0].number} has the best {measure.name} of {plural(len(found.finished), 'finished trial')}."
    yield _ended(found)


def warnings(found: Findings) -> Iterator[str]:
    """Yield what a reader must know before believing the best score."""
    best, known = found.best(), {each.trial for each in found.confirmed}
    if best and not found.winner:
        yield (
            f"The best of {plural(len(found.finished), 'trial')} is partly the luckiest: expect less when it is run "
            "again. To see by how much, on fresh seeds, and to get a test score: headswap sweep --resume FOLDER "
            "sweep.confirm=5"
        )
    elif best and known and best[0].number > max(trial.number for trial in found.trials if trial.number in known):
        yield f"Trial {best[0].number} was found after the confirmation and has had none: run sweep.confirm again."
    if SEED in found.space and len(found.objectives) == 1 and found.finished:
        yield "seed is one of the settings: they are ranked by their mean over it; fewer seeds are more luck."
    if len(found.counted) < found.total:
        yield f"{len(found.counted)} of {found.total} trials asked for: the sweep did not come to its end."


def design(found: Findings) -> Iterator[tuple[str, str]]:
    """Yield the lines of the box that says how the sweep was made."""
    senses = [f"{each.name}, {'more' if each.sign > 0 else 'less'} is better" for each in found.measures]
    yield ("Selected by" if len(senses) == 1 else "Objectives"), "; ".join(senses)
    yield "Proposed", _PROPOSED.get(found.sampler, found.sampler)
    yield "Ended early by", _PRUNER.get(found.pruner, found.pruner)
    yield "Trials", f"{len(found.counted)} of {found.total} asked for"
    wall = found.wall()
    if wall is not None:
        yield "Wall time", f"{seconds(wall)}, pauses left out"
    yield "Settings searched", ", ".join(found.space)


def _ended(found: Findings) -> str:
    ended = Counter(STATES.get(trial.state, trial.state) for trial in found.trials)
    return f"Trials: {', '.join(f'{amount} {state}' for state, amount in ended.most_common()) or 'none'}."


def _overrides(settings: Mapping[str, str]) -> list[str]:
    return [f"{key}={word}" for key, word in settings.items()]
