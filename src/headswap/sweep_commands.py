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


def top(words: Sequence[str]) -> int:
    """Print a sweep's best trials again."""
    from rich.console import Console

    from headswap.sweep.execute import reopened
    from headswap.sweep.show import print_top

    if len(words) != 1:
        raise ConfigError(f"headswap top: needs one sweep folder; found {len(words)}; see headswap --help")
    print_top(reopened(Path(words[0])).search(), Console())
    return 0


def _done(made: Any, dry: bool) -> int:
    from headswap.progress import Watch
    from headswap.sweep import execute
    from headswap.sweep.show import print_top

    if dry:
        return _shown(made)
    with Watch(made.search(forgotten=True).total, split="validation") as watch:
        watch.console.print(f"sweep: {made.folder}", markup=False, highlight=False, soft_wrap=True)
        search = execute.sweep(made, watch)
    print_top(search, watch.console)
    if made.config.sweep.confirm:
        _confirm(made, search)
    print(made.folder)
    return 0


def _confirm(made: Any, search: Any) -> None:
    """Run the best settings on fresh seeds, and keep what came of it in the sweep's folder."""
    import dataclasses

    from headswap.progress import Watch
    from headswap.records import write_json
    from headswap.sweep.confirm import confirm, print_confirmed
    from headswap.sweep.execute import CONFIRMED

    sweep = made.config.sweep
    count = min(sweep.confirm, len(search.best())) * sweep.confirm_seeds
    with Watch(count, split="validation") as watch:
        found = confirm(made, search, watch)
    write_json(made.folder / CONFIRMED, [dataclasses.asdict(each) for each in found])
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
