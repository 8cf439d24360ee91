"""Tune a study's arms before its own runs, each by as many trials. Study chain: tuning (this) -> plan -> execute.

Every arm at a tuned size is a sweep with a folder of its own; all of their trials come from one pool. A sweep's folder
hangs on the arm, its ranges and how they are searched: it goes on after a stop, and studies share it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headswap import config as configuration
from headswap.engines import refuse_other_launchers
from headswap.errors import Stopped
from headswap.launch import drained, job_of
from headswap.pool import Job, OnEvent
from headswap.records import read_json, write_json
from headswap.search_space import Dimension, value_of
from headswap.shield import shielded
from headswap.spine import Config, SweepConfig
from headswap.study.choosing import arm_tuning
from headswap.study.plan import Arm, judged, study_folder
from headswap.study.spaces import arms_of, sizes_of, typed
from headswap.study.tuned import TUNING, Tuning, nested, read, rows_of
from headswap.study.workers import workers_of
from headswap.sweep.execute import Plan, opened
from headswap.sweep.findings import SEED, SUMMARY, findings
from headswap.sweep.joined import Joined
from headswap.sweep.search import Search, objectives_of
from headswap.sweep.trials import Trials, trial_name

ENDED = ("complete", "pruned", "fail")
DRAWN = "drawn"


@dataclass(frozen=True)
class ArmSweep:
    """The trials of one arm at one size.

    Args:
        config: the study's.
        flags: the command line, where the study's experiment is a chain.
        seeds: of the trials.
    """

    arm: str
    size: int | None
    config: Config
    flags: argparse.Namespace | None
    seeds: tuple[int, ...]
    space: dict[str, Dimension]
    texts: dict[str, str]

    def made(self, words: Mapping[str, str]) -> Config:
        """Return the configuration of a trial's settings, key -> override word."""
        seed = int(words.get(SEED, self.seeds[0]))
        values = {key: typed(key, value_of(word), self.arm) for key, word in words.items() if key != SEED}
        made = Arm(self.config, self.arm, self.size, seed, self.flags, nested(values)).final()
        return dataclasses.replace(made, sweep=SweepConfig())

    def job(self, words: Mapping[str, str], number: int) -> Job:
        """Return the run of a trial, which knows itself as one: its test score is told to nobody."""
        made = self.made(words)
        sweep = SweepConfig(trial=trial_name(number, self.plan.folder))
        output = dataclasses.replace(made.output, keep_model=False)
        return job_of(dataclasses.replace(made, sweep=sweep, output=output), f"{self.title} trial {number}")

    @property
    def title(self) -> str:
        return f"{self.arm} {rows_of(self.size)}"

    @functools.cached_property
    def plan(self) -> Plan:
        """The sweep: the arm's given values, the space, and a folder that both name."""
        tuning, given = self.config.study.tuning, self.made({})
        over_seeds = {SEED: f"choice({','.join(map(str, self.seeds))})"} if len(self.seeds) > 1 else {}
        how = SweepConfig(
            sampler=tuning.sampler,
            pruner=tuning.pruner,
            first_rung=tuning.first_rung,
            keep_one_in=tuning.keep_one_in,
            trials=tuning.trials * len(self.seeds),
            max_failures=None,
            space=self.texts | over_seeds,
        )
        run = job_of(given).folder.path.name
        known = {"run": run, "how": {**dataclasses.asdict(how), "trials": None}, "seeds": self.seeds}
        digits = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:8]
        name = f"tuning-{run.rpartition('-seed')[0]}-{'all' if self.size is None else self.size}-{digits}"
        return Plan(dataclasses.replace(given, sweep=how), (), (), Path(given.output.root) / given.name / name)

    @property
    def count(self) -> int:
        """How many runs it is."""
        return self.config.study.tuning.trials * len(self.seeds)

    @property
    def ended(self) -> int:
        """How many of them have ended, as far as sweep.json tells."""
        path = self.plan.folder / SUMMARY
        trials = read_json(path)["trials"] if path.is_file() else []
        return min(self.count, sum(trial["state"] in ENDED for trial in trials))

    def draws(self) -> list[tuple[dict[str, Any], dict[str, str]]]:
        """Return the settings of a random search, as Optuna and as words have them; none where it learns as it goes.

        They are the same whenever they are asked for, each comes once, and fewer of them are the first of more.
        """
        how = self.plan.config.sweep
        if how.sampler != "random":
            return []
        search = Search(dataclasses.replace(how, space={}), self.space, self.objectives, self.seeds[0])
        found: dict[str, tuple[dict[str, Any], dict[str, str]]] = {}
        while len(found) < self.config.study.tuning.trials:  # spaces.py has seen to there being so many
            trial, words = search.ask()
            found.setdefault(json.dumps(words), (trial.params, words))
        return list(found.values())

    @property
    def objectives(self) -> Any:
        return objectives_of([], configuration.build_plugs(self.plan.config).metrics)

    def trials(self, search: Search, on_event: OnEvent) -> Trials:
        """Return the sweep as a source, with the settings of a random search waiting in its study."""
        drawn = self.draws()
        for params, _ in drawn[search.study.user_attrs.get(DRAWN, 0) :]:
            for seed in self.seeds:
                more = {SEED: str(seed)} if len(self.seeds) > 1 else {}
                search.study.enqueue_trial(params | more, skip_if_exists=True)
        search.study.set_user_attr(DRAWN, max(len(drawn), search.study.user_attrs.get(DRAWN, 0)))
        return Trials(search, self.job, on_event)


def sweeps(config: Config, flags: argparse.Namespace | None = None) -> list[ArmSweep]:
    """Return the sweeps of a study that is tuned, the largest sizes first; none where `study.tuning.trials` is 0.

    Args:
        flags: the command line, of which a chain's stages are composed.

    Raises:
        ConfigError: an arm has no ranges, or one that cannot be tried; seeds that are the study's own; a tuned chain.
    """
    if not config.study.tuning.trials:
        return []
    refuse_other_launchers(config)
    arms, seeds = arms_of(config, flags), _seeds(config)
    return [
        ArmSweep(arm, size, config, flags, seeds, space, texts)
        for size in sizes_of(config.study)
        for arm, (space, texts) in arms.items()
    ]


def shares(made: Sequence[ArmSweep]) -> str:
    """Return how many trials there are, and how they are shared out."""
    arms = " and ".join(dict.fromkeys(each.arm for each in made))
    sizes = ", ".join(dict.fromkeys(rows_of(each.size) for each in made))
    return f"{sum(each.count for each in made)} trials, {made[0].count} for each of {arms} at {sizes}"


def planned(each: ArmSweep) -> Iterator[tuple[str, str]]:
    """Yield what `headswap plan` prints of a sweep: (title, what it tries and whether it has trained)."""
    yield each.title, f"{each.count} trials, {each.ended} have ended  {each.plan.folder}"
    for number, (_, words) in enumerate(each.draws()):
        seeds = [{SEED: str(seed)} if len(each.seeds) > 1 else {} for seed in each.seeds]
        runs = [each.job(words | seed, number).folder for seed in seeds]
        state = "finished" if all(run.finished for run in runs) else "to train"
        setting = " ".join(f"{key}={word}" for key, word in words.items())
        yield f"trial {number}", f"{state}  {setting}"


def _seeds(config: Config) -> tuple[int, ...]:
    return tuple(config.study.tuning.seeds) or (config.seed - 1,)


def known(config: Config, made: Sequence[ArmSweep]) -> Tuning | None:
    """Return what tuning found, where it has come to its end; None else, and where nothing is tuned."""
    if not made:
        return None
    if ((folder := _folder(made)) / TUNING).is_file():
        return read(folder)
    return _tuning(config, made) if all(each.ended >= each.count for each in made) else None


def tune(config: Config, made: Sequence[ArmSweep], on_event: OnEvent) -> Tuning | None:
    """Run the trials that are left and write tuning.json into the study's folder; None where nothing is tuned.

    Raises:
        Stopped: a signal came; what ran has saved its state, and the same command goes on.
        RunError: no trial of an arm finished, or another process tunes it.
    """
    if not made:
        return None
    found = known(config, made)
    if found is None:
        _run([each for each in made if each.ended < each.count], config, on_event)
        found = _tuning(config, made)
    write_json(_folder(made) / TUNING, dataclasses.asdict(found))
    return found


def _folder(made: Sequence[ArmSweep]) -> Path:
    return study_folder(judged(made[0].config, made[0].flags))


def _run(made: Sequence[ArmSweep], config: Config, on_event: OnEvent) -> None:
    distinct = list({each.plan.folder: each for each in made}.values())  # arms that are equal are tuned once
    with contextlib.ExitStack() as held:
        searches = [held.enter_context(opened(each.plan)) for each in distinct]
        heard = shielded(on_event)
        joined = Joined([each.trials(search, heard) for each, search in zip(distinct, searches, strict=True)])
        first = [job_of(each.plan.config) for each in distinct]
        asked = drained(first, joined, workers_of(config))
        if not asked:
            joined.abandon()
    if asked:
        done, count = sum(each.ended for each in distinct), sum(each.count for each in distinct)
        raise Stopped(f"stopped by {asked}: {done} of {count} tuning trials have ended; the same command goes on")


def _tuning(config: Config, made: Sequence[ArmSweep]) -> Tuning:
    tuning, objective = config.study.tuning, made[0].objectives[0]
    arms = []
    for each in made:
        folder = each.plan.folder
        found = findings(read_json(folder / SUMMARY), folder)
        arms.append(arm_tuning((each.arm, each.size), found, folder.parent, (tuning.trials, len(each.seeds))))
    given = tuple(arm for arm in config.study.arms if arm not in {each.arm for each in made})
    how = (tuning.trials, tuning.sampler, tuning.pruner, tuning.first_rung)
    return Tuning(*how, objective.name, objective.greater_is_better, made[0].seeds, tuple(arms), given)
