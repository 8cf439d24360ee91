"""Run a sweep, or go on with one: folder, lock, trials, report. Sweep chain: commands -> this -> trials, page."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headswap import config as configuration
from headswap.durable import cannot_write
from headswap.engines import refuse_other_launchers
from headswap.errors import ConfigError, RunError, Stopped
from headswap.launch import drained, job_of, side_by_side
from headswap.pool import Job, OnEvent
from headswap.records import RunFolder, read_json, write_json, write_text
from headswap.search_space import Conditions, parse
from headswap.shield import shielded
from headswap.spine import Config, SweepConfig
from headswap.sweep.page import publish
from headswap.sweep.search import Search, mend, objectives_of
from headswap.sweep.summary import summary
from headswap.sweep.trials import Trials, trial_name

COMMAND = "command.json"
TRIED = 3
# What may change between two calls that go on with one sweep.
_FREE = ("trials", "workers", "seconds", "max_failures", "storage", "confirm", "confirm_seeds", "trial")


@dataclass(frozen=True)
class Plan:
    """A sweep before it runs: its configuration, the command line that trials are composed of, and its folder."""

    config: Config
    overrides: tuple[str, ...]
    config_dirs: tuple[str, ...]
    folder: Path

    def composed(self, words: Sequence[str]) -> Config:
        return configuration.compose([*self.overrides, *words], self.config_dirs)

    def job(self, settings: Mapping[str, str], title: str, *more: str) -> Job:
        """Return the run of some settings, key -> override word. Raises ConfigError where they cannot be composed."""
        made = self.composed([*(f"{key}={word}" for key, word in settings.items()), *more])
        return job_of(dataclasses.replace(made, sweep=SweepConfig()), title)

    def trial_job(self, settings: Mapping[str, str], number: int) -> Job:
        """Return the run of a trial, which knows itself as one: its test score is told to nobody."""
        made = self.job(settings, f"trial {number}")
        sweep = SweepConfig(trial=trial_name(number, self.folder))
        return dataclasses.replace(made, config=dataclasses.replace(made.config, sweep=sweep))

    def search(self, forgotten: bool = False, look: bool = False) -> Search:
        """Return the sweep's study; with `forgotten` one in memory alone, with `look` one to read."""
        sweep, plugs = self.config.sweep, configuration.build_plugs(self.config)
        conditions = sweep.conditions and configuration.build(
            sweep.conditions, "sweep.conditions", Conditions, self.config.plugins
        )
        objectives = objectives_of(sweep.objectives, plugs.metrics)
        place = None if forgotten else self.folder
        return Search(sweep, parse(sweep.space), objectives, self.config.seed, place, conditions, look=look)


def plan(config: Config, overrides: Sequence[str], config_dirs: Sequence[str]) -> Plan:
    """Return the sweep of a command line.

    Raises:
        ConfigError: there is nothing to choose from, or a key of the space is none of the configuration.
    """
    if config.stages:
        raise ConfigError(
            f"stages: a sweep's trials are single runs; found {len(config.stages)} stages; sweep one of them"
        )
    refuse_other_launchers(config)
    space = parse(config.sweep.space)
    if not space:
        raise ConfigError(
            "sweep.space: nothing to choose from; found none; set sweep.space.KEY, such as "
            "'sweep.space.train.learning_rate=tag(log,interval(1e-5,1e-3))'"
        )
    if inner := [key for key in space if key.split(".")[0] in ("sweep", "study", "output", "hardware", "stages")]:
        raise ConfigError(f"sweep.space.{inner[0]}: no setting of a run; found {inner[0]!r}; choose keys of the run")
    made = Plan(config, tuple(overrides), tuple(map(str, config_dirs)), _folder_of(config))
    _require_possible(made)
    return made


def _require_possible(made: Plan) -> None:
    """Raise ConfigError where none of the first trials can be composed: a mistake in a key, not an unlucky setting."""
    search, fault = made.search(forgotten=True), None
    for _ in range(min(TRIED, search.total)):
        try:
            made.job(search.ask()[1], "trial")
            return
        except ConfigError as error:
            fault = fault or error
    if fault is not None:
        raise fault


def reopened(folder: Path, overrides: Sequence[str] = ()) -> Plan:
    """Return the sweep of a folder, with more words behind its own. Raises RunError where it is no sweep's."""
    _require_sweep(folder)
    told = read_json(folder / COMMAND)
    if not told["overrides"]:
        raise RunError(f"{folder}: the tuning of a study's arm; found no words of its own; the study's command goes on")
    words = (*told["overrides"], *overrides)
    made = plan(configuration.compose(words, told["config_dirs"]), words, told["config_dirs"])
    if made.folder.name != folder.resolve().name:
        raise ConfigError(
            f"sweep: these words make another sweep; found {' '.join(overrides)}; going on may change "
            f"{', '.join(f'sweep.{key}' for key in _FREE)}"
        )
    return dataclasses.replace(made, folder=folder)


def seen(folder: Path) -> Search:
    """Return a sweep's study to read, also while the sweep runs: nothing is written, composed or waited for."""
    _require_sweep(folder)
    return Plan(configuration.load(folder / "config.yaml"), (), (), folder).search(look=True)


def _require_sweep(folder: Path) -> None:
    if not (folder / COMMAND).is_file():
        raise RunError(f"{folder}: not a sweep folder; found no {COMMAND}; name the folder that headswap sweep printed")


def sweep(made: Plan, on_event: OnEvent) -> Search:
    """Run trials until there are as many as asked for; return the study.

    Raises:
        Stopped: a signal came; running trials are saved and go on with the next call.
        RunError: so many trials failed that the sweep gave up; another process sweeps here.
    """
    with opened(made) as search:
        trials = Trials(search, made.trial_job, shielded(on_event))
        asked = drained([job_of(made.config)], trials, workers(made.config))
        if not asked:
            trials.abandon()
    ended_well(search, trials, asked)
    return search


def ended_well(search: Search, trials: Trials, asked: str) -> None:
    """Raise what `sweep` raises where the trials did not come to their total; `asked`: what stopped them."""
    if asked:
        raise Stopped(
            f"stopped by {asked}: {len(search.counted)} of {search.total} trials asked for; the same command goes on"
        )
    if trials.hopeless and len(search.counted) < search.total:
        reasons = [trial.user_attrs.get("error", "") for trial in search.counted if trial.state == search.states.FAIL]
        raise RunError(
            f"sweep.max_failures: so many trials failed that the sweep gave up; found {search.failures} of "
            f"{len(search.counted)}; the last one said: {reasons[-1]}"
        )


@contextlib.contextmanager
def opened(made: Plan) -> Iterator[Search]:
    """Hold the sweep's folder and give its study, put in order after an earlier process; at last write sweep.json.

    Raises:
        RunError: another process sweeps here, or the disk refuses the folder.
    """
    with RunFolder(made.folder).locked():
        try:
            write_json(
                made.folder / COMMAND, {"overrides": list(made.overrides), "config_dirs": list(made.config_dirs)}
            )
            write_text(made.folder / "config.yaml", configuration.dump(made.config))
            if alone := made.config.sweep.storage is None:  # a database may have others at work on it
                mend(made.folder)
            search = made.search()
            if alone:
                search.recover()
            try:
                yield search
            finally:
                publish(made.folder, summary(search))
        except OSError as error:
            raise cannot_write(made.folder, error) from error


def workers(config: Config) -> int:
    """Return how many trials go side by side; 0 for as many as Ray has room for."""
    return config.sweep.workers or side_by_side(config.hardware)


def _folder_of(config: Config) -> Path:
    """Return the folder of a sweep: of the experiment, the space, and how it is searched."""
    how = {key: value for key, value in dataclasses.asdict(config.sweep).items() if key not in _FREE}
    known: Mapping[str, Any] = {"run": job_of(config).folder.path.name, "sweep": how}
    digits = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:8]
    name = "-".join(config.choices.get(group, group) for group in ("task", "body"))
    return Path(config.output.root) / config.name / f"sweep-{name}-{config.sweep.sampler}-{digits}"
