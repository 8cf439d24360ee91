"""What a person sees of a sweep on the terminal: best trials, what became of the others, which settings mattered."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headswap.records import read_json
from headswap.sweep.axes import brief
from headswap.sweep.execute import seen
from headswap.sweep.findings import CONFIRMED, SEED, STATES, SUMMARY, Confirmed, Findings, findings
from headswap.sweep.lists import spread_text
from headswap.sweep.page import draw, publish, write_files
from headswap.sweep.search import JOURNAL
from headswap.sweep.summary import summary

WIDEST = 10_000


def look(folder: Path) -> Findings:
    """Return what a sweep has found so far, from its journal; reads alone, also while the sweep runs."""
    again = folder / CONFIRMED
    return findings(summary(seen(folder)), folder, read_json(again) if again.is_file() else ())


def redraw(folder: Path) -> Path:
    """Make a sweep's report again, without training, with its figures as files; return the page's path.

    From its journal where that knows more than sweep.json does.
    Raises RunError where the folder is no sweep's.
    """
    told, journal = folder / SUMMARY, folder / JOURNAL
    if journal.is_file() and (not told.is_file() or journal.stat().st_mtime_ns > told.stat().st_mtime_ns):
        publish(folder, summary(seen(folder)))
    page = draw(folder)
    write_files(folder)
    return page


def print_findings(found: Findings, console: Any, count: int = 10) -> None:
    """Print the best trials, or settings over their seeds, with what a confirmation found."""
    ended = Counter(STATES.get(trial.state, trial.state) for trial in found.trials)
    say(console, "trials: " + ", ".join(f"{number} {state}" for state, number in ended.most_common()))
    over_seeds = SEED in found.space and len(found.objectives) == 1
    say(console, _settings(found, count) if over_seeds else _trials(found, count))
    if over_seeds:
        say(console, "trials that differ in seed alone are one line: mean ± standard deviation, ranked by the mean")
    if found.finished and len(found.objectives) == 1:
        settings = found.winner.settings if found.winner else found.settings()[0].settings
        say(console, "best settings: " + " ".join(f"{key}={word}" for key, word in settings.items()))
    if found.winner and found.winner.test:
        won = found.winner
        test = spread_text(won.test, won.metric)
        say(console, f"confirmed: trial {won.trial}; test {won.metric} {test} on {len(won.test)} fresh seeds")
    for key, share in found.importances.items():
        say(console, f"importance  {key}  {share:.2f}")
    reasons = Counter(trial.reason for trial in found.of("fail"))
    for reason, number in reasons.most_common(3):
        say(console, f"failed {number}: {reason}")


def _trials(found: Findings, count: int) -> str:
    again = {each.trial: each for each in found.confirmed}
    names = [each.name for each in found.measures]
    rows = []
    for trial in found.best()[:count]:
        values = [f"{value:.4g}" for value in trial.values]
        words = [brief(trial.settings.get(key, "")) for key in found.space]
        took = "" if trial.seconds is None else f"{trial.seconds:.1f}"
        rows.append((str(trial.number), *values, *words, took, *_confirmed(again, trial.number)))
    return listed(("trial", *names, *map(broken, found.space), "seconds", *_extra(again)), rows)


def _settings(found: Findings, count: int) -> str:
    again = {each.trial: each for each in found.confirmed}
    keys = [key for key in found.space if key != SEED]
    rows = []
    for each in found.settings()[:count]:
        words = [brief(each.settings.get(key, "")) for key in keys]
        cells = (str(each.number), mean_text(each.values), str(len(each.values)), *words)
        rows.append((*cells, *_confirmed(again, each.number)))
    return listed(("best trial", found.measures[0].name, "seeds", *map(broken, keys), *_extra(again)), rows)


def _extra(again: Mapping[int, Confirmed]) -> tuple[str, ...]:
    return ("on fresh seeds", "change") if again else ()


def _confirmed(again: Mapping[int, Confirmed], number: int) -> tuple[str, ...]:
    """Return what the columns of `_extra` say of a trial."""
    each = again.get(number)
    if each is None or not each.again:
        return ("", "") if again else ()
    return mean_text(each.again), f"{each.fell:+.4f}"


def mean_text(values: Sequence[float]) -> str:
    """Return mean ± standard deviation, the latter of two values or more."""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def broken(key: str) -> str:
    """Return a key in several lines, so that the columns of many keys stand side by side."""
    return key.replace(".", ".\n").replace("_", "_\n")


def listed(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as text, as wide as it needs: a narrow console would cut its words off."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    for name in columns:
        table.add_column(Text(name), no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))  # a plain string would be read for markup: [a,b] is a setting
    wide = Console(width=WIDEST, color_system=None)
    with wide.capture() as caught:
        wide.print(table)
    return "\n".join(line.rstrip() for line in caught.get().splitlines())


def say(console: Any, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
