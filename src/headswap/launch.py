"""Where runs execute: children forked from a warm server that has torch and transformers imported. Floor 5.

The parent imports none of that. A child that is killed, runs out of memory or crashes is one failed run; the others go
on. The server is the standard library's forkserver; nothing home-made schedules processes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headswap import config as configuration
from headswap.engines import refuse_other_launchers
from headswap.errors import ConfigError, HeadswapError, Stopped, of_status
from headswap.identity import identity
from headswap.machine import cores, gpus
from headswap.pool import Ends, Job, OnEvent, Outcome, Places, Source, drain
from headswap.records import RunFolder
from headswap.shield import shielded
from headswap.spine import Config, HardwareConfig

__all__ = ["Job", "OnEvent", "Outcome", "folder_of", "job_of", "run_jobs", "train", "warm_server"]


def folder_of(config: Config) -> RunFolder:
    """Return the folder that belongs to this configuration and data; the same ones give the same folder."""
    plugs = configuration.build_plugs(config)
    content = {"task": plugs.task.identity()}
    groups, starts = ["task", "baseline"], []
    if plugs.baseline is None:
        content["body"] = plugs.body.identity()
        groups, starts = ["task", "body", "strategy"], [str(config.body.get("init", "pretrained"))]
    name = "-".join([*(config.choices.get(group, group) for group in groups), *starts, f"seed{config.seed}"])
    return RunFolder(Path(config.output.root) / config.name / f"{name}-{identity(config, content)}")


def job_of(config: Config, title: str = "run") -> Job:
    """Return the job for a configuration."""
    return Job(config, folder_of(config), title)


def train(config: Config, on_event: OnEvent | None = None) -> Path:
    """Train one configuration and return the run folder.

    Raises:
        ConfigError: the configuration is a chain of stages.
        Stopped: a signal came; the state is saved.
        HeadswapError: the run failed; the message is its last line.
    """
    if config.stages:
        raise ConfigError(
            f"stages: train() makes one run; found {len(config.stages)} stages; take each from stages.stage_configs"
        )
    outcome = run_jobs([job_of(config)], 1, on_event or _ignore)[0]
    if not outcome.finished:
        raise of_status(outcome.status, outcome.code, outcome.error)
    return outcome.job.folder.path


def run_jobs(jobs: Sequence[Job], workers: int, on_event: OnEvent, ends: Ends | None = None) -> list[Outcome]:
    """Run jobs in children, `workers` at a time, and return their outcomes in order; failures do not raise.

    A job whose folder is finished is not run again unless `output.reuse` is false; an unfinished one goes on from its
    last saved state. An `on_event` that throws is left out from then on. What `ends` says yes to is asked to save its
    state and end.

    Raises:
        Stopped: a signal came; what was running has saved its state.
    """
    for job in jobs:
        refuse_other_launchers(job.config)
    queue = _Queue(jobs, shielded(on_event), ends)
    count = len(queue.waiting)
    if count:
        asked = drained(queue.waiting, queue, workers)
        if asked:
            raise _stopped(asked, jobs, count, queue.outcomes)
    return queue.all()


def drained(first: Sequence[Job], source: Source, workers: int) -> str:
    """Run all jobs of a source, `workers` at a time: in children here, or as tasks of a Ray cluster.

    Args:
        first: jobs that are like those of the source, known before it gives any.

    Returns:
        The signal that came, if one did: what ran has saved its state then.
    """
    hardware = first[0].config.hardware
    if hardware.launcher == "ray":
        from headswap.ray_pool import drain_on_ray

        return drain_on_ray(source, hardware, workers)
    return drain(warm_server(first), source, places(workers, hardware))


class _Queue:
    """A list of jobs as a source. The same run asked for twice, as by two arms that are equal, is trained once."""

    def __init__(self, jobs: Sequence[Job], on_event: OnEvent, ends: Ends | None) -> None:
        self.jobs, self.on_event, self.ends = jobs, on_event, ends
        self.outcomes: dict[Path, Outcome] = {}
        distinct = {job.folder.path: job for job in reversed(jobs)}
        self.waiting = [job for path, job in reversed(distinct.items()) if not self._reused(path, job)]

    def _reused(self, path: Path, job: Job) -> bool:
        if reused := job.folder.finished and job.config.output.reuse:
            self.outcomes[path] = Outcome(job, True, reused=True)
            self.on_event(job, {"kind": "reused"})
        return reused

    def take(self) -> Job | None:
        return self.waiting.pop(0) if self.waiting else None

    def heard(self, job: Job, event: Mapping[str, Any]) -> bool:
        self.on_event(job, event)
        return self.ends is not None and self.ends(job, event)

    def ended(self, outcome: Outcome) -> None:
        self.outcomes[outcome.job.folder.path] = outcome
        self.on_event(outcome.job, {"kind": "ended", "outcome": outcome})

    def all(self) -> list[Outcome]:
        """Return the outcomes in the order of the jobs."""
        found, seen = [], set()
        for job in self.jobs:
            outcome = self.outcomes[job.folder.path]
            if job.folder.path in seen:
                outcome = replace(outcome, job=job, reused=True)
                self.on_event(job, {"kind": "reused"})
            seen.add(job.folder.path)
            found.append(outcome)
        return found


def _stopped(asked: str, jobs: Sequence[Job], count: int, outcomes: Mapping[Path, Outcome]) -> Stopped:
    ended = [outcome for outcome in outcomes.values() if not outcome.reused]
    said = [outcome.error for outcome in ended if outcome.code == Stopped.exit_code]
    if len(jobs) == 1 and said:
        return Stopped(said[0].replace("stopped by SIGTERM", f"stopped by {asked}"))  # what the child was sent
    done = sum(outcome.finished for outcome in ended)
    return Stopped(
        f"stopped by {asked}: {done} of {count} runs finished, {len(said)} saved in the middle; the same command goes "
        "on from there"
    )


def side_by_side(hardware: HardwareConfig) -> int:
    """Return how many runs go side by side: one a core with one thread each, or one a GPU; 0: as Ray has room.

    Several single-threaded runs finish sooner than one run with many threads: a small body's layers are too short to
    share out (1.2 times on 2 cores, docs/benchmarks.md). A run of several processes counts as so many.
    """
    if hardware.launcher == "ray":
        return 0
    if found := _gpus(hardware):
        return max(1, len(found) // hardware.num_processes)
    return 1 if hardware.device in ("cuda", "mps") else max(1, min(cores(), 8) // hardware.num_processes)


def places(workers: int, hardware: HardwareConfig) -> Places:
    """Return where `workers` children compute: with cores shared out, and GPUs, where there are enough for all."""
    found, each = _gpus(hardware), hardware.num_processes
    shares = [",".join(found[first : first + each]) for first in range(0, workers * each, each)]
    enough = workers > 1 and len(found) >= workers * each
    return Places(workers, max(1, cores() // workers) if workers > 1 else None, tuple(shares) if enough else ())


def _gpus(hardware: HardwareConfig) -> list[str]:
    return gpus() if hardware.device in ("auto", "cuda") else []


def warm_server(jobs: Sequence[Job]) -> Any:
    """Return a multiprocessing context whose server has imported what these runs need, and read the first one's rows.

    The server starts with the first child and serves the whole process; what it lacks, a child loads itself.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the server must not start a pool that a fork would lose
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    kinds = {_model_type(config) for config in _distinct_bodies(jobs)}
    os.environ["HEADSWAP_WARM"] = ",".join(sorted(filter(None, kinds)))
    os.environ["HEADSWAP_WARM_IMPORTS"] = ",".join(sorted(_packages(jobs)))
    shared = next((job for job in jobs if job.config.baseline is None), jobs[0])  # its tokenizer is proved too
    os.environ["HEADSWAP_WARM_DATA"] = configuration.dump(shared.config)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["headswap.warm"])
    return context


def _distinct_bodies(jobs: Sequence[Job]) -> list[Config]:
    trained = [job.config for job in jobs if job.config.baseline is None]
    return list({str(config.body.get("source", config.body)): config for config in trained}.values())


def _model_type(config: Config) -> str | None:
    """Return the body's model type, as far as a local config.json tells it; the server preloads its code."""
    plugs = configuration.build_plugs(config)
    try:
        found = json.loads((plugs.body.locate(weights=False).folder / "config.json").read_text(encoding="utf-8"))
    except (HeadswapError, OSError, ValueError):
        return None  # the child will say what is wrong
    return str(found.get("model_type", ""))


def _packages(jobs: Sequence[Job]) -> set[str]:
    """Return what the runs' strategies or baselines will import, where that is slow (`imports` of the class)."""
    distinct = {repr((job.config.strategy, job.config.baseline)): job.config for job in jobs}.values()
    plugs = [configuration.build_plugs(each) for each in distinct]
    return {name for each in plugs for name in getattr(each.baseline or each.strategy, "imports", ())}


def _ignore(job: Job, event: Mapping[str, Any]) -> None:
    """Watch nothing."""
