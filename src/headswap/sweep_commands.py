"""`headswap sweep` and `headswap top`. Floor 6; imports nothing heavy before they need it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headswap.commandline import Parser, composed
from headswap.errors import ConfigError

SHOWN = 5


def sweep(words: Sequence[str]) -> int:
    """Search the settings of an experiment; with --resume FOLDER go on with a sweep by its folder."""
    parser = Parser(prog="headswap sweep", add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    flags, rest = parser.parse_known_args(list(words))
    if {"-m", "--multirun"} & set(rest):
        raise ConfigError(
            "-m: headswap sweep chooses from sweep.space; found -m; leave it out, or use headswap train -m"
        )
    if flags.resume is not None:
        from headswap.sweep.execute import reopened

        if odd := [word for word in rest if word.startswith("-")]:
            raise ConfigError(f"headswap sweep --resume: takes a folder and overrides; found {odd[0]}; leave it out")
        return _done(reopened(flags.resume, rest), flags.dry_run)

    def act(given: Any) -> int:
        from headswap.sweep.execute import plan

        config, said = given
        return _done(plan(config, said.overrides, said.config_dir), flags.dry_run)

    return composed("sweep", rest, act)


def trial(config: Any) -> int:
    """Train one trial of a sweep that another process keeps. No test score is shown: it must not be chosen by."""
    import dataclasses

    from headswap.errors import of_status
    from headswap.launch import job_of
    from headswap.sweep.alone import run_trial
    from headswap.sweep.trials import PRUNED

    job = job_of(dataclasses.replace(config, sweep=type(config.sweep)(trial=config.sweep.trial)))
    outcome = run_trial(config.sweep, job, lambda job, event: None)
    if outcome.finished:
        result = job.folder.result()
        value = result["scores"]["validation"][result["primary"]]
        said = f"validation {result['primary']} {value:.4f}"
    elif outcome.status == PRUNED:
        said = "fell behind and was ended"
    else:
        raise of_status(outcome.status, outcome.code, outcome.error)
    print(f"trial {config.sweep.trial.partition(' ')[0]}: {said}  {job.folder.path}", flush=True)
    return 0


def top(words: Sequence[str]) -> int:
    """Print a sweep's best trials again, also while it runs."""
    from rich.console import Console

    from headswap.sweep.show import look, print_findings

    parser = Parser(prog="headswap top", add_help=False, allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=10)
    flags = parser.parse_intermixed_args(list(words))
    if flags.count < 1:
        raise ConfigError(f"--count: shows the best so many trials; found {flags.count}; give a number above 0")
    print_findings(look(flags.folder), Console(), flags.count)
    return 0


def report(folder: Path) -> int:
    """Make a sweep's report again, and print its best trials."""
    from rich.console import Console

    from headswap.sweep.findings import read
    from headswap.sweep.show import print_findings, redraw

    page = redraw(folder)
    print_findings(read(folder), Console())
    print(f"report: {page}")
    print(folder)
    return 0


def _done(made: Any, dry: bool) -> int:
    from headswap.progress import Watch
    from headswap.sweep import execute

    if dry:
        return _shown(made)
    with Watch(made.search(forgotten=True).total, split="validation") as watch:
        watch.console.print(f"sweep: {made.folder}", markup=False, highlight=False, soft_wrap=True)
        search = execute.sweep(made, watch)
    show(made, search)
    return 0


def show(made: Any, search: Any) -> None:
    """Print what came of a sweep, after confirming its best settings where that is asked for."""
    from rich.console import Console

    from headswap.records import read_json
    from headswap.sweep.findings import SUMMARY, findings
    from headswap.sweep.show import print_findings

    print_findings(findings(read_json(made.folder / SUMMARY), made.folder), Console())
    if made.config.sweep.confirm:
        _confirm(made, search)
    print(f"report: {made.folder / 'report.html'}")
    print(made.folder)


def _confirm(made: Any, search: Any) -> None:
    """Run the best settings on fresh seeds, and keep what came of it in the sweep's folder."""
    import dataclasses

    from headswap.progress import Watch
    from headswap.records import write_json
    from headswap.sweep.confirm import confirm, print_confirmed
    from headswap.sweep.findings import CONFIRMED
    from headswap.sweep.page import draw

    sweep = made.config.sweep
    count = min(sweep.confirm, len(search.best())) * sweep.confirm_seeds
    with Watch(count, split="validation") as watch:
        found = confirm(made, search, watch)
    write_json(made.folder / CONFIRMED, [dataclasses.asdict(each) for each in found])
    draw(made.folder)
    print_confirmed(found, search, watch.console)


def _shown(made: Any) -> int:
    """Print the first trials that the sweep would run, their folders, and how long all would take; runs nothing."""
    from headswap.sweep.execute import workers
    from headswap.sweep.search import JOURNAL

    search = made.search(forgotten=True)
    known = made.search() if (made.folder / JOURNAL).is_file() else None
    done = len(known.counted) if known else 0
    print(f"sweep: {made.folder}, {done} of {search.total} trials done")
    for _ in range(min(SHOWN, search.total)):
        trial, words = search.ask()
        job = made.job(words, "trial")
        state = "finished" if job.folder.finished else "to train"
        print(f"trial {trial.number}: {' '.join(f'{key}={word}' for key, word in words.items())}")
        print(f"  {job.folder.path} ({state})")
    count = workers(made.config)
    beside = f"{count} side by side" if count else "as many side by side as the Ray cluster has room for"
    took = [
        (trial.datetime_complete - trial.datetime_start).total_seconds()
        for trial in (known.study.trials if known else [])
        if trial.datetime_complete and trial.values
    ]
    if took:
        left = sum(took) / len(took) * max(0, search.total - done) / max(1, count)
        print(
            f"about {left:.0f} s left{'' if count else ' on one worker'}, {beside}, by the {len(took)} finished trials"
        )
    else:
        print(f"{beside}; how long it takes is known once a trial has finished")
    return 0
