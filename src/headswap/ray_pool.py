"""Runs as tasks of a Ray cluster, one task a run, fed from the same sources as children here. Floor 5.

    Source.take() -> a Ray task (ray_task.perform) -> its events, by an actor -> Source.heard()
                                                   -> its value -> Source.ended()

Ray finds the machine, counts resources, and starts a task again whose worker died. `ray.cancel` is Ctrl-C in the
task's process: the run saves its state and ends. Cluster and driver share a disk: all results are files.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headswap import config as configuration
from headswap.errors import ConfigError, RunError
from headswap.machine import cores
from headswap.pool import Job, Outcome, Source, unbegun
from headswap.ray_task import PLACED, Errand, Moved, Post, perform
from headswap.spine import HardwareConfig, RayConfig
from headswap.stopping import Relay

PATIENCE = 30.0
"""Seconds after which a run that no node has room for is told of; and that a result may take to be seen here."""


@dataclass(eq=False)
class _Task:
    job: Job
    ref: Any
    begun: float = field(default_factory=time.monotonic)
    placed: int = 0
    """How often a worker has taken it up."""
    told: bool = False
    unwanted: bool = False
    cancelled: bool = False

    def terminate(self) -> None:
        """Note that it is to save its state and end: Ray must not be called from where a signal is heard."""
        self.unwanted = True

    kill = terminate  # as the driver leaves, all that is cancelled already is cancelled again


def drain_on_ray(source: Source, hardware: HardwareConfig, workers: int) -> str:
    """Run all jobs of the source; return the signal that came, if one did: what ran has saved its state then.

    Args:
        workers: how many tasks are given to Ray at a time; 0 for as many as the cluster's nodes have room for.

    Raises:
        ConfigError: Ray is not installed, no cluster answers, or no node of it has what a run asks for.
    """
    with connected(hardware.ray) as ray:
        needs = _needs(hardware, ray.nodes())
        room = _room(needs, ray.nodes())
        driver = _Driver(ray, source, hardware, needs)
        with driver.ending(), Relay(lambda: driver.tasks) as signals:
            while True:
                while not signals.asked and len(driver.tasks) < (workers or room):
                    if (job := source.take()) is None:
                        break
                    driver.submit(job)
                if not driver.tasks:
                    return signals.asked
                driver.look(signals.asked)


class _Driver:
    """The tasks that are with Ray now."""

    def __init__(self, ray: Any, source: Source, hardware: HardwareConfig, needs: dict[str, float]) -> None:
        self.tasks: list[_Task] = []
        self._ray, self._source, self._hardware = ray, source, hardware
        own = dict(needs)
        self._options = {
            "num_cpus": own.pop("CPU"),
            "num_gpus": own.pop("GPU", 0),
            "memory": int(own.pop("memory", 0)) or None,
            "resources": own,
            "max_retries": hardware.ray.retries,
            "retry_exceptions": [Moved],
        }
        self._perform = ray.remote(perform)
        node = ray.get_runtime_context().get_node_id()
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        self._post = ray.remote(Post).options(num_cpus=0, scheduling_strategy=here).remote()

    def submit(self, job: Job) -> None:
        """Give a run to Ray. Its folder is made here, so that a worker can tell whether it sees this disk."""
        try:
            with job.folder.locked():
                if not job.config.output.reuse:  # once: a worker that takes the run up again is to go on
                    job.folder.clear()
        except RunError as error:
            self._source.ended(Outcome(job, False, error=str(error), code=error.exit_code))
            return
        config = replace(job.config, output=replace(job.config.output, reuse=True))
        errand = Errand(
            configuration.dump(config), str(job.folder.path), os.getcwd(),
            tuple(os.path.abspath(path) for path in sys.path), max(1, int(self._options["num_cpus"])),
            self._hardware.device in ("auto", "cuda"), job.stop_at, job.seconds,
        )  # fmt: skip
        ref = self._perform.options(name=f"headswap {job.title}", **self._options).remote(errand, self._post)
        self.tasks.append(_Task(job, ref))

    def look(self, asked: str) -> None:
        """Cancel what is unwanted, pass on what runs have said, and tell the source of those that have ended."""
        for task in self.tasks:
            if task.unwanted and not task.cancelled:
                task.cancelled = True
                self._ray.cancel(task.ref)
        refs = [task.ref for task in self.tasks]
        done = self._ray.wait(refs, num_returns=len(refs), timeout=0)[0] or self._ray.wait(refs, timeout=0.2)[0]
        self._hear()
        for task in [task for task in self.tasks if task.ref in done]:
            self.tasks.remove(task)
            self._source.ended(self._ended(task, asked))

    def _hear(self) -> None:
        owners = {str(task.job.folder.path): task for task in self.tasks}
        with contextlib.suppress(self._ray.exceptions.RayError):  # what runs say may be lost, what they are is on disk
            for folder, event in self._ray.get(self._post.collect.remote(), timeout=10):
                if (task := owners.get(folder)) is not None and self._heard(task, event):
                    task.terminate()
        for task in self.tasks:
            if not (task.placed or task.told) and time.monotonic() - task.begun > PATIENCE:
                task.told = True
                self._say(task, f"waits for a place on the Ray cluster; none was free for {PATIENCE:.0f} s")

    def _heard(self, task: _Task, event: dict[str, Any]) -> bool:
        if event["kind"] != PLACED:
            return self._source.heard(task.job, event)
        task.placed += 1
        if task.placed > 1:
            self._say(task, f"its Ray worker is gone; begun again on {event['host']} (start {task.placed})")
        return False

    def _say(self, task: _Task, text: str) -> None:
        self._source.heard(task.job, {"kind": "warning", "text": text})

    def _ended(self, task: _Task, asked: str) -> Outcome:
        try:
            finished, error, code, status = self._ray.get(task.ref)
        except self._ray.exceptions.RayError as error:
            if task.job.folder.finished:
                return Outcome(task.job, True)
            if asked or task.cancelled:
                return unbegun(task.job, asked or "request")
            return unbegun(task.job, "", _death(error, task, self._ray))
        if finished and not _seen(task.job):
            here = socket.gethostname()
            return unbegun(task.job, "", f"it finished, but {here} sees no result; it must be on a disk all nodes see")
        return Outcome(task.job, finished, error=error, code=code, status=status)

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """Let the tasks save when the driver leaves early; a second Ctrl-C, which cancels again, ends them at once."""
        try:
            yield
        finally:
            for task in self.tasks:
                self._ray.cancel(task.ref)
            if self.tasks:
                self._ray.wait([task.ref for task in self.tasks], num_returns=len(self.tasks), timeout=5)
            self._ray.kill(self._post)


def _seen(job: Job) -> bool:
    """Return whether the result is here, as soon as a disk on the network shows it."""
    until = time.monotonic() + PATIENCE
    while not job.folder.finished:
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def _death(error: Exception, task: _Task, ray: Any) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    said = lines[-1] if isinstance(error, ray.exceptions.RayTaskError) else lines[0]
    times = f"{task.placed} times" if task.placed > 1 else "once"
    return (
        f"Ray could not do it; found {re.split(r'(?<=[.]) ', said)[0]}; it was begun {times}, see its log.txt; "
        "hardware.ray.retries says how often it is begun again"
    )


def _needs(hardware: HardwareConfig, nodes: list[dict[str, Any]]) -> dict[str, float]:
    """Return what a run reserves of a node, by Ray's names. Null GPUs are one a process, if there are some."""
    ray, each = hardware.ray, hardware.num_processes
    some = any(node["Alive"] and node["Resources"].get("GPU") for node in nodes)
    default = each if hardware.device == "cuda" or (hardware.device == "auto" and some) else 0
    needs = {
        "CPU": ray.cpus or each,
        "GPU": default if ray.gpus is None else ray.gpus,
        "memory": (ray.memory_gib or 0) * 2**30,
        **ray.resources,
    }
    return {name: amount for name, amount in needs.items() if amount}


def _room(needs: dict[str, float], nodes: list[dict[str, Any]]) -> int:
    """Return how many runs the nodes have room for. Raises ConfigError for none."""
    offers = [node["Resources"] for node in nodes if node["Alive"]]
    room = sum(int(min(offer.get(name, 0.0) / amount for name, amount in needs.items())) for offer in offers)
    if room == 0:
        wanted = ", ".join(f"{name} {amount:g}" for name, amount in needs.items())
        found = "; ".join(", ".join(f"{name} {offer.get(name, 0):g}" for name in needs) for offer in offers)
        raise ConfigError(
            f"hardware.ray: no node of the cluster has what a run asks for, {wanted}; found {found or 'no node'}; ask "
            "for less with hardware.ray.cpus, gpus, memory_gib or resources, or add a node"
        )
    return room


def require_ray() -> Any:
    """Return the module, told to send nothing and to print nothing. Raises ConfigError when it is not installed."""
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    # What it prints of dead workers goes to stdout, whose last line is the folder; the runs say it themselves.
    for name, value in {**quiet, "RAY_DEDUP_LOGS_SKIP_REGEX": "^"}.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise ConfigError('hardware.launcher: needs Ray; found none; pip install "headswap[ray]"') from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


@contextlib.contextmanager
def connected(wanted: RayConfig) -> Iterator[Any]:
    """Join the cluster, or start one on this machine that ends with this; one that the caller has joined stays."""
    ray = require_ray()
    if ray.is_initialized():
        yield ray
        return
    os.environ["RAY_task_oom_retries"] = str(wanted.retries)  # noqa: SIM112 (Ray's; its own default has no end)
    with contextlib.ExitStack() as kept:
        if threading.current_thread() is threading.main_thread():  # ray.init would have SIGTERM end this process
            kept.callback(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        if wanted.address == "local" and "RAY_AUTH_TOKEN" not in os.environ:
            # Ray would leave a token in the home folder, which changes how later clusters of this user start.
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
            kept.callback(os.environ.pop, "RAY_AUTH_TOKEN")
        _init(ray, wanted.address)
    try:
        yield ray
    finally:
        ray.shutdown()


def _init(ray: Any, address: str) -> None:
    always = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        ray.init("local", num_cpus=cores(), include_dashboard=False, object_store_memory=100 * 2**20, **always)
        return
    found = _running() if address == "auto" else address
    host, _, port = found.rpartition(":")
    try:
        if not found:
            raise ConnectionError("neither RAY_ADDRESS nor a cluster that ray start has begun")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10):  # Ray itself would try for minutes
            pass
        ray.init(found, **always)
    except (OSError, ValueError, RuntimeError) as error:  # ConnectionError is an OSError
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"hardware.ray.address: no Ray cluster answers at {found or 'this machine'}; found {said[0]}; start one "
            "with ray start --head, join it on this machine with ray start --address=..., or set local"
        ) from error


def _running() -> str:
    """Return the address of the cluster that this machine is a part of, as Ray itself looks for it; empty for none."""
    if address := os.environ.get("RAY_ADDRESS"):
        return address
    place = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    with contextlib.suppress(OSError):
        return (Path(place) / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip()
    return ""
