"""What is said of a study before it is paid for: arms, runs, what it could detect, how long it takes. Floor 6."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from headswap.spine import Config


def print_study(config: Config, flags: argparse.Namespace, console: Any, timed: bool = False) -> None:
    """Print the study's runs one by one, then what it is as a whole.

    Args:
        timed: measure how long it takes, by short runs of its arms.
    """
    from headswap.study.plan import check_sizes, plan
    from headswap.study.tuning import known, planned, sweeps

    made = sweeps(config, flags)
    for name, value in (line for each in made for line in planned(each)):
        console.print(f"tuning {name:<18} {value}", markup=False, highlight=False, soft_wrap=True)
    tuning = known(config, made)
    cells = plan(config, flags, tuning.chosen(config.study.sizes) if tuning else None)
    check_sizes(cells)
    for cell in cells if tuning or not made else []:  # before tuning nobody knows their settings, and so their folders
        state = "finished" if cell.job.folder.finished else "to train"
        after = f", {cell.count - 1} more after it" if cell.count > 1 else ""
        _print(console, f"{cell.job.title:<32}", f"{state}  {cell.job.folder.path}{after}")
    if made and tuning is None:
        _print(console, "tuning", "the runs' settings and folders are known once the trials have ended; here: as given")
    for name, value in _lines(config, flags, cells):
        _print(console, name, value)
    console.print(_table(config, cells))
    if made and tuning is None and timed:
        _print(
            console, "time", "without the trials of tuning, which are not probed; the runs as with the given settings"
        )
    if timed:
        for name, value in _time(config, flags, cells):
            _print(console, name, value)
    else:
        _print(console, "time", "headswap plan --time says how long it takes: it runs 20 steps of each arm")


def _print(console: Any, name: str, value: Any) -> None:
    console.print(f"study  {name:<12} {value}", markup=False, highlight=False, soft_wrap=True)


def _lines(config: Config, flags: argparse.Namespace, cells: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    from headswap.study.plan import judged, other_causes, study_folder
    from headswap.study.power import sentences

    last = judged(config, flags)
    yield "folder", study_folder(last)
    for arm, changes in config.study.arms.items():
        role = {config.study.treatment: " (treatment)", config.study.control: " (control)"}.get(arm, "")
        yield "arm", f"{arm}{role}: {_changes(changes) or 'changes nothing'}"
    for arm, keys in other_causes(config, flags).items():
        shown = ", ".join(f"{key} ({one} against {other})" for key, (one, other) in keys.items())
        yield "more causes", f"{arm} differs from {config.study.control} also in {shown}; study.may_differ lacks that"
    done = sum(cell.job.folder.finished for cell in cells if cell.count == 1)
    yield "runs", f"{sum(cell.count for cell in cells)}, {done} of them finished already"
    splits = _splits(last)
    for size, arms in _sizes(config, flags, splits.labels).items():
        yield "parameters", f"{', '.join(arms)}: {size}"
    rows = len(splits.test)
    yield "test rows", f"{rows:,}, the same in every run"
    yield from sentences(last, cells, rows)


def _sizes(config: Config, flags: argparse.Namespace, labels: Any) -> dict[str, list[str]]:
    """Return how many parameters the arms' models have -> the arms, as far as their bodies are there."""
    from headswap.config import build_plugs
    from headswap.errors import ConfigError, WeightsError
    from headswap.model import describe
    from headswap.study.plan import Arm

    found: dict[str, list[str]] = {}
    for arm in config.study.arms:
        made = Arm(config, arm, max(config.study.sizes, default=None), config.seed, flags).final()
        plugs = build_plugs(made)
        if plugs.baseline is not None:
            continue
        try:
            told = describe(plugs.body, labels, plugs.task.auto_class)
        except (ConfigError, WeightsError):  # a chain's body before its first stage has trained
            continue
        whole = told["body"] + told["head"]
        found.setdefault(f"{whole:,}, without embeddings {whole - told['embeddings']:,}", []).append(arm)
    return found


def _changes(changes: Any) -> str:
    """Return what an arm sets, key by key; of a class its name."""
    from headswap.study.runs import flatten

    leaves = flatten(dict(changes or {}))
    return ", ".join(
        f"{key.removesuffix('._target_')}={str(value).split('.')[-1]}" if key.endswith("_target_") else f"{key}={value}"
        for key, value in leaves.items()
    )


def _splits(config: Config) -> Any:
    """Return the rows of the runs; of a chain, those of its last stage."""
    from headswap.config import build_plugs
    from headswap.run_data import data_request
    from headswap.seeds import Seeds

    return build_plugs(config).task.load(data_request(config), Seeds(config.seed))


def _table(config: Config, cells: Sequence[Any]) -> Any:
    """Return how many runs of each arm and size there are, and how many of them have finished."""
    from rich.table import Table

    sizes = sorted({cell.size for cell in cells}, key=lambda size: size or 0)
    table = Table("runs finished", *(f"{size:,} rows" if size else "all rows" for size in sizes), box=None)
    for arm in config.study.arms:
        counts = []
        for size in sizes:
            mine = [cell for cell in cells if (cell.arm, cell.size) == (arm, size)]
            done = sum(cell.job.folder.finished for cell in mine if cell.count == 1)
            counts.append(f"{done} of {sum(cell.count for cell in mine)}")
        table.add_row(arm, *counts)
    return table


def _time(config: Config, flags: argparse.Namespace, cells: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Yield how long the study takes from here, and by what."""
    from headswap.study.costs import left, makespan
    from headswap.study.probe import STEPS, probe
    from headswap.study.units import plural, seconds
    from headswap.study.workers import workers_of

    workers = workers_of(config)
    found = probe(config, flags, cells, workers)
    going = [cell for cell in cells if cell.arm in found.arms]
    rounds = left(going, found.arms, config)
    count = sum(map(len, rounds))
    if not count:
        yield "time", "none: every run has finished"
        return
    beside = f"{workers} side by side" if workers else "on one worker; Ray shares them out as it has room"
    total = found.warming + makespan(rounds, workers)
    yield "time", f"about {seconds(total)} for {plural(count, 'run')}, {beside}, by {STEPS} steps of each arm"
    for arm, stages in found.arms.items():
        for place, timed in enumerate(stages):
            stage = f" {config.stages[place].name}" if len(stages) > 1 else ""
            yield "seconds", f"{arm}{stage}: {timed.cost.said}"
    if any(timed.config.train.patience for stages in found.arms.values() for timed in stages):
        yield "at most", "train.patience may end runs sooner"
