"""The sweep page's tables, and trials.csv. Sweep chain: findings -> this -> page."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterator, Mapping

from headswap.study.page import NONE, Table
from headswap.study.units import Unit, plural, seconds
from headswap.sweep.axes import brief
from headswap.sweep.findings import SEED, STATES, Findings, Tried


def trials_table(found: Findings) -> Table:
    """Return every trial, with its run folder and why it ended."""
    rows = tuple(
        (
            str(trial.number),
            STATES.get(trial.state, trial.state),
            *(brief(trial.settings.get(key, NONE)) for key in found.space),
            trial.reason or NONE,
            trial.folder or NONE,
            *_values(trial, found),
            NONE if trial.seconds is None else seconds(trial.seconds),
        )
        for trial in found.trials
    )
    columns = ("trial", "state", *found.space, "why it ended", "run folder", *(each.name for each in found.measures))
    return Table("Every trial", (*columns, "took"), rows, words=4 + len(found.space))


def settings_table(found: Findings) -> Table:
    """Return the settings over their seeds, the best mean first; no rows where the space has no seed."""
    if SEED not in found.space:
        return Table("", (), ())
    measure = found.measures[0]
    keys = [key for key in found.space if key != SEED]
    rows = tuple(
        (
            ", ".join(str(trial.number) for trial in each.trials),
            *(brief(each.settings.get(key, NONE)) for key in keys),
            measure.text(each.mean),
            NONE if each.deviation is None else measure.spread(each.deviation),
            str(len(each.values)),
        )
        for each in found.settings()
    )
    columns = ("trials", *keys, f"mean {measure.name}", "SD", "seeds")
    return Table("Settings over their seeds, ranked by the mean", columns, rows, words=1 + len(keys))


def reasons_table(found: Findings) -> Table:
    """Return the trials that did not finish, by reason."""
    groups: dict[tuple[str, str], list[Tried]] = {}
    for trial in found.of("fail", "pruned", "lost"):
        groups.setdefault((STATES[trial.state], trial.reason), []).append(trial)
    ranked = sorted(groups.items(), key=lambda each: -len(each[1]))
    rows = tuple(
        (state.split()[0], reason or NONE, ", ".join(str(trial.number) for trial in trials), str(len(trials)))
        for (state, reason), trials in ranked
    )
    return Table("Trials that did not finish, by reason", ("state", "reason", "which", "trials"), rows, words=3)


def confirmed_table(found: Findings) -> Table:
    """Return the confirmed settings with their spread, and the winner's test score: others' could be chosen by."""
    measure, won, rows = found.measures[0], found.winner, []
    keys = [key for key in found.space if key != SEED]
    for each in found.confirmed:
        known, spread = bool(each.again), len(each.again) > 1
        rows.append(
            (
                str(each.trial),
                *(brief(each.settings.get(key, NONE)) for key in keys),
                "; ".join(each.errors) or NONE,
                measure.text(each.found),
                measure.text(each.mean) if known else NONE,
                measure.spread(statistics.stdev(each.again)) if spread else NONE,
                measure.change(each.fell) if known else NONE,
                str(len(each.again)),
                spread_text(each.test, each.metric) if each is won and each.test else NONE,
            )
        )
    name = f"test {won.metric}".strip() if won else "test"
    columns = ("trial", *keys, "failed", "in the sweep", "mean on fresh seeds", "SD", "change", "seeds", name)
    return Table(f"Confirmed: {measure.name} on fresh seeds", columns, tuple(rows), words=2 + len(keys))


def cost_table(found: Findings) -> Table:
    """Return what trials cost, by how they ended."""
    rows = []
    for state in ("complete", "pruned", "fail", "lost", "running"):
        took = [trial.seconds for trial in found.of(state) if trial.seconds is not None]
        if trials := found.of(state):
            mean = seconds(statistics.mean(took)) if took else NONE
            rows.append((STATES[state], str(len(trials)), mean, seconds(sum(took)) if took else NONE))
    total = sum(trial.seconds or 0.0 for trial in found.trials)
    rows.append(("all", str(len(found.trials)), NONE, seconds(total)))
    columns = ("state", "trials", "mean", "together")
    return Table("Cost: time from when a trial was asked for to its end", columns, tuple(rows))


def cost_lines(found: Findings) -> Iterator[str]:
    """Yield what the cost table cannot say."""
    wall, total = found.wall(), sum(trial.seconds or 0.0 for trial in found.trials)
    if wall:
        yield (
            f"Wall time {seconds(wall)}, pauses left out; {seconds(total)} of trials in it: "
            f"{total / wall:.1f} side by side on average."
        )
    if pruned := [trial for trial in found.of("pruned") if trial.scores]:
        saved = sum(1 - max(trial.scores) / 100 for trial in pruned)
        yield (
            f"Pruning: {plural(len(pruned), 'trial')} left out {saved:.1f} trials' worth of steps "
            f"({100 * saved / len(pruned):.0f} % of their own on average). In seconds it is not known: they never ran."
        )


def trials_csv(found: Findings) -> str:
    """Return every trial as a row: what sweep.json says, for a table calculator."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [each.name for each in found.objectives]
    writer.writerow(["trial", "state", *found.space, *names, "took_seconds", "begun", "folder", "error"])
    for trial in found.trials:
        state = STATES.get(trial.state, trial.state).split()[0]
        values = trial.values if trial.state == "complete" else ("",) * len(names)
        words = [trial.settings.get(key, "") for key in found.space]
        writer.writerow([trial.number, state, *words, *values, trial.seconds, trial.begun, trial.folder, trial.error])
    return file.getvalue()


def spread_text(scores: tuple[float, ...], metric: str) -> str:
    """Return the mean of test scores, with its spread, in the metric's unit."""
    unit = Unit(metric)
    spread = f" ± {unit.gap(statistics.stdev(scores))}" if len(scores) > 1 else ""
    return f"{unit.score(statistics.mean(scores))}{spread}"


def _values(trial: Tried, found: Findings) -> list[str]:
    if trial.state != "complete":
        return [NONE] * len(found.objectives)
    return [each.text(value) for each, value in zip(found.measures, trial.values, strict=True)]


def words_of(settings: Mapping[str, str]) -> str:
    """Return settings in a line, their numbers in four digits."""
    return ", ".join(f"{key}={brief(word)}" for key, word in settings.items()) or NONE
