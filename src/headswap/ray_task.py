"""One run as a Ray task: in a Ray worker's process the same drain, children and states as at home. Floor 5.

    ray_pool.py -> perform(errand, post) -> pool.drain() of one run -> a fork of this worker's own warm server

The child leaves the worker's process group: Ray kills that group when the worker dies, and a child that has lost its
worker is to save its state. The task that Ray starts in the worker's place waits for it, and goes on from there.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from headswap import config as configuration
from headswap.errors import RunError, Stopped
from headswap.launch import warm_server
from headswap.pool import Job, Outcome, Places, drain
from headswap.records import RunFolder

PLACED = "placed"
"""The event that says that a Ray worker has taken a run up."""
PATIENCE = 600.0
"""Seconds that a run waits for the process that lost its Ray worker and still saves its state."""
TRAIN_SECONDS = 0.5


@dataclass(frozen=True)
class Errand:
    """What a Ray worker is asked to do.

    Args:
        config: the text of config.yaml.
        folder: of the run, as `place` sees it; it exists.
        place: the folder that the command was typed in, which relative paths start from.
        paths: where the command finds modules; a worker adds those that it has and does not look in.
        threads: to compute with.
        shared: GPUs are shared out by Ray: the run sees those that it was given, and none other.
    """

    config: str
    folder: str
    place: str
    paths: tuple[str, ...]
    threads: int
    shared: bool
    stop_at: int | None = None
    seconds: float | None = None


class Moved(Exception):
    """The run has saved its state because this worker is to go; Ray starts it again on another one."""


class Post:
    """Keeps what runs say until the driver collects it: an actor, so that no task waits for the driver."""

    def __init__(self) -> None:
        self._letters: list[tuple[str, dict[str, Any]]] = []

    def put(self, folder: str, event: dict[str, Any]) -> None:
        self._letters.append((folder, event))

    def collect(self) -> list[tuple[str, dict[str, Any]]]:
        letters, self._letters = self._letters, []
        return letters


def perform(errand: Errand, post: Any) -> tuple[bool, str, int, str]:
    """Do one run in a child of this Ray worker; return `finished`, `error`, `code` and `status` of its outcome.

    Raises:
        Moved: a signal came that nobody who waits for this run has sent; the state is saved.
    """
    try:
        folder = _settled(errand)
        sender = _Sender(post, errand.folder)
        sender.send({"kind": PLACED, "host": socket.gethostname()})
        with folder.locked(PATIENCE):
            pass
    except RunError as error:
        return False, str(error), error.exit_code, error.status
    if folder.finished:  # by a child that had lost its worker
        return True, "", 0, ""
    job = Job(configuration.read(errand.config, "config.yaml"), folder, "run", errand.stop_at, errand.seconds)
    source = _Only(job, sender)
    asked = drain(warm_server([job]), source, places_of(errand))
    sender.delivered()
    ended = source.outcome
    if asked == "SIGTERM" and (ended is None or ended.status == Stopped.status):
        raise Moved(f"{folder.path}: its Ray worker on {socket.gethostname()} was told to end; its state is saved")
    if ended is None:
        return False, f"{folder.path}: stopped before it began", Stopped.exit_code, Stopped.status
    return ended.finished, ended.error, ended.code, ended.status


def _settled(errand: Errand) -> RunFolder:
    """Make this process like the one that the command was typed in. Raises RunError where it cannot see the folder."""
    here = f"it is not on {socket.gethostname()}; the folder of the command and output.root must be on a disk that "
    try:
        os.chdir(errand.place)
    except OSError as error:
        raise RunError(f"{errand.place}: {here}all nodes see") from error
    if not Path(errand.folder).is_dir():
        raise RunError(f"{errand.folder}: {here}all nodes see")
    sys.path += [path for path in errand.paths if path not in sys.path and os.path.exists(path)]
    # As under `python -m headswap`: else every child would run Ray's own script, which imports Ray, before it trains.
    sys.modules["__main__"].__spec__ = ModuleSpec("headswap.__main__", None)
    return RunFolder(Path(errand.folder))


def places_of(errand: Errand) -> Places:
    """Return one place with the GPUs that Ray gave to this task, or none of the node's: the warm server saw others."""
    import ray

    if not errand.shared:
        return Places(1, errand.threads, detached=True)
    given = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    return Places(1, errand.threads, (",".join(given) or "-1",), detached=True)


class _Sender:
    """Sends events to the driver and waits for nothing: of training lines those that come too fast are left out."""

    def __init__(self, post: Any, folder: str) -> None:
        self._post, self._folder = post, folder
        self._sent: list[Any] = []
        self._last = 0.0

    def send(self, event: Mapping[str, Any]) -> None:
        import ray

        if self._sent:
            self._sent = ray.wait(self._sent, num_returns=len(self._sent), timeout=0)[1]
        if event["kind"] == "train" and event["step"] != event["total"]:
            if self._sent or time.monotonic() - self._last < TRAIN_SECONDS:
                return
            self._last = time.monotonic()
        self._sent.append(self._post.put.remote(self._folder, dict(event)))

    def delivered(self) -> None:
        """Wait until all has arrived, at most 10 seconds."""
        import ray

        if self._sent:
            ray.wait(self._sent, num_returns=len(self._sent), timeout=10)


class _Only:
    """A source of one job that sends on what the run says."""

    def __init__(self, job: Job, sender: _Sender) -> None:
        self._jobs, self._sender = [job], sender
        self.outcome: Outcome | None = None

    def take(self) -> Job | None:
        return self._jobs.pop() if self._jobs else None

    def heard(self, job: Job, event: Mapping[str, Any]) -> bool:
        self._sender.send(event)
        return False

    def ended(self, outcome: Outcome) -> None:
        self.outcome = outcome
