"""Where runs execute: children forked from a warm server that has torch and transformers imported. Floor 5.

The parent imports none of that. A child that is killed, runs out of memory or crashes is one failed run; the others go
on. The server is the standard library's forkserver; nothing home-made schedules processes.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from headswap import config as configuration
from headswap.engines import refuse_other_launchers
from headswap.errors import ConfigError, HeadswapError, Stopped, of_status
from headswap.machine import cores
from headswap.phases import Strategy
from headswap.records import RunFolder
from headswap.shield import flush, shielded
from headswap.spine import Config
from headswap.stopping import Relay


@dataclass(frozen=True)
class Job:
    """One run to do: its configuration and its folder. `title` is what progress lines call it.

    `stop_at`: save and stop after so many optimizer steps.
    """

    config: Config
    folder: RunFolder
    title: str = "run"
    stop_at: int | None = None


@dataclass(frozen=True)
class Outcome:
    """How a job ended. `reused`: the folder was finished before. `error` is empty when it finished.

    `status` of one that did not: failed, diverged, out of memory, stopped.
    """

    job: Job
    finished: bool
    reused: bool = False
    error: str = ""
    code: int = 0
    status: str = ""


OnEvent = Callable[[Job, Mapping[str, Any]], None]


@dataclass
class _Child:
    job: Job
    process: Any
    connection: Any
    last: dict[str, Any] = field(default_factory=dict)


def folder_of(config: Config) -> RunFolder:
    """Return the folder that belongs to this configuration and data; the same ones give the same folder."""
    plugs = configuration.build_plugs(config)
    content = {"task": plugs.task.identity(), "body": plugs.body.identity()}
    names = [config.choices.get(group, group) for group in ("task", "body", "strategy")]
    name = "-".join([*names, str(config.body.get("init", "pretrained")), f"seed{config.seed}"])
    return RunFolder(Path(config.output.root) / config.name / f"{name}-{configuration.identity(config, content)}")


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


def run_jobs(jobs: Sequence[Job], workers: int, on_event: OnEvent) -> list[Outcome]:
    """Run jobs in children, `workers` at a time, and return their outcomes in order; failures do not raise.

    A job whose folder is finished is not run again unless `output.reuse` is false; an unfinished one goes on from its
    last saved state. An `on_event` that throws is left out from then on.

    Raises:
        Stopped: a signal came; what was running has saved its state.
    """
    on_event = shielded(on_event)
    for job in jobs:
        refuse_other_launchers(job.config)
    outcomes: dict[int, Outcome] = {}
    waiting: list[int] = []
    first = {job.folder.path: index for index, job in reversed(list(enumerate(jobs)))}
    for index, job in enumerate(jobs):
        if (
            first[job.folder.path] != index
        ):  # the same run asked for twice, as by two arms that are equal: train it once
            continue
        if job.folder.finished and job.config.output.reuse:
            outcomes[index] = Outcome(job, True, reused=True)
            on_event(job, {"kind": "reused"})
        else:
            waiting.append(index)
    if waiting:
        context = warm_server([jobs[index] for index in waiting])
        threads = max(1, cores() // workers) if workers > 1 else None
        outcomes |= _drain(context, jobs, waiting, (workers, threads, on_event))
    for index in outcomes.keys() ^ set(range(len(jobs))):
        outcomes[index] = replace(outcomes[first[jobs[index].folder.path]], job=jobs[index], reused=True)
        on_event(jobs[index], {"kind": "reused"})
    return [outcomes[index] for index in range(len(jobs))]


def warm_server(jobs: Sequence[Job]) -> Any:
    """Return a multiprocessing context whose server has imported what these runs need, and read the first one's rows.

    The server starts with the first child and serves the whole process; what it lacks, a child loads itself.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the server must not start a pool that a fork would lose
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    kinds = {_model_type(config) for config in _distinct_bodies(jobs)}
    os.environ["HEADSWAP_WARM"] = ",".join(sorted(filter(None, kinds)))
    os.environ["HEADSWAP_WARM_IMPORTS"] = ",".join(sorted(_packages(jobs)))
    os.environ["HEADSWAP_WARM_DATA"] = configuration.dump(jobs[0].config)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["headswap.warm"])
    return context


def _drain(
    context: Any, jobs: Sequence[Job], waiting: list[int], how: tuple[int, int | None, OnEvent]
) -> dict[int, Outcome]:
    workers, threads, on_event = how
    outcomes: dict[int, Outcome] = {}
    running: dict[int, _Child] = {}
    queue = list(waiting)
    with _children_end(running), Relay(lambda: [child.process for child in running.values()]) as signals:
        while queue or running:
            if signals.asked:
                queue.clear()
            while queue and len(running) < workers:
                index = queue.pop(0)
                try:
                    running[index] = _start(context, jobs[index], threads)
                except (OSError, EOFError) as error:  # a signal to the whole group ends the server too
                    outcomes[index] = _unbegun(jobs[index], signals.asked, f"no process started; found {error!r}")
                    on_event(jobs[index], {"kind": "ended", "outcome": outcomes[index]})
                    continue
                if signals.asked:  # while the child was being started, which takes seconds for the first one
                    running[index].process.terminate()
                    queue.clear()
                on_event(jobs[index], {"kind": "started"})
            wait([child.connection for child in running.values()], timeout=0.5)
            for index, child in list(running.items()):
                if _listen(child, on_event):
                    outcomes[index] = _ended(child, signals.asked)
                    on_event(child.job, {"kind": "ended", "outcome": outcomes[index]})
                    del running[index]
    if signals.asked:
        done = sum(outcome.finished for outcome in outcomes.values())
        said = [outcome.error for outcome in outcomes.values() if outcome.code == Stopped.exit_code]
        raise Stopped(
            said[0].replace("stopped by SIGTERM", f"stopped by {signals.asked}")  # what the child was sent
            if len(jobs) == 1 and said
            else f"stopped by {signals.asked}: {done} of {len(waiting)} runs "
            f"finished, {len(said)} saved in the middle; the same command goes on from there"
        )
    return outcomes


def _start(context: Any, job: Job, threads: int | None) -> _Child:
    from headswap.worker import Order, work

    order = Order(configuration.dump(job.config), threads, not job.config.output.reuse, job.stop_at)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(str(job.folder.path), order, sender), daemon=True)
    flush()  # a terminal that is gone would keep the process from starting
    process.start()
    sender.close()
    return _Child(job, process, receiver)


def _listen(child: _Child, on_event: OnEvent) -> bool:
    """Pass on what a child has said; return whether it has ended."""
    try:
        while child.connection.poll():
            message = child.connection.recv()
            if message["kind"] in ("finished", "failed"):
                child.last = message
            else:
                on_event(child.job, message)
    except (EOFError, OSError):
        child.process.join()
        return True
    return False


def _ended(child: _Child, asked: str) -> Outcome:
    child.connection.close()
    if child.last.get("kind") == "finished":
        return Outcome(child.job, True)
    if child.last:
        last = child.last
        return Outcome(child.job, False, error=last["error"], code=last["code"], status=last["status"])
    if asked and child.process.exitcode in (-signal.SIGTERM, 255):  # it had not begun to listen; the server is gone
        return _unbegun(child.job, asked)
    return _unbegun(child.job, "", _death(child.process.exitcode, child.job))


def _unbegun(job: Job, asked: str, error: str = "") -> Outcome:
    """Return the outcome of a job whose process could not say itself how it ended: stopped by `asked`, else failed."""
    if asked:
        error = f"{job.folder.path}: stopped by {asked} before it began; the same command starts it"
        return Outcome(job, False, error=error, code=Stopped.exit_code, status=Stopped.status)
    error = f"{job.folder.path}: {error}"
    with contextlib.suppress(HeadswapError):
        job.folder.note(status="failed", error=error)
    return Outcome(job, False, error=error, code=1)


def _death(code: int | None, job: Job) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = "out of memory? set a smaller train.micro_batch_size" if name == "SIGKILL" else "see its log"
        return f"the run's process was killed; found {name}; {hint}"
    return f"the run's process ended with code {code}; see {job.folder / 'log.txt'}"


@contextlib.contextmanager
def _children_end(running: dict[int, _Child]) -> Iterator[None]:
    """End all children when the parent leaves early (Ctrl-C, an error)."""
    try:
        yield
    finally:
        for child in running.values():
            child.process.terminate()
        for child in running.values():
            child.process.join(5)


def _distinct_bodies(jobs: Sequence[Job]) -> list[Config]:
    return list({str(job.config.body.get("source")): job.config for job in jobs}.values())


def _model_type(config: Config) -> str | None:
    """Return the body's model type, as far as a local config.json tells it; the server preloads its code."""
    plugs = configuration.build_plugs(config)
    try:
        found = json.loads((plugs.body.locate(weights=False).folder / "config.json").read_text(encoding="utf-8"))
    except (HeadswapError, OSError, ValueError):
        return None  # the child will say what is wrong
    return str(found.get("model_type", ""))


def _packages(jobs: Sequence[Job]) -> set[str]:
    """Return what the runs' strategies will import, where that is slow (`imports` of the class)."""
    distinct = {repr(job.config.strategy): job.config for job in jobs}.values()
    strategies = [configuration.build(each.strategy, "strategy", Strategy, each.plugins) for each in distinct]
    return {name for strategy in strategies for name in getattr(strategy, "imports", ())}


def _ignore(job: Job, event: Mapping[str, Any]) -> None:
    """Watch nothing."""
