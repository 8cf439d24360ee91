"""Runs in children: fed from a source, heard, stopped, timed, and never more than one lost at a time. Floor 5.

    Source.take() -> Job -> a fork of the warm server (worker.work) -> its events -> Source.heard() -> Source.ended()

A study's source is a list; a sweep's asks its sampler for the next job when a place is free.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any, Protocol

from headswap import config as configuration
from headswap.errors import HeadswapError, Stopped
from headswap.records import RunFolder
from headswap.shield import flush
from headswap.spine import Config
from headswap.stopping import Relay

GRACE = 60.0
"""Seconds that a run has to save its state and end, when its time is up, before it is killed."""


@dataclass(frozen=True)
class Job:
    """One run to do: its configuration and its folder. `title` is what progress lines call it.

    `stop_at`: save and stop after so many optimizer steps. `seconds`: the most it may take.
    """

    config: Config
    folder: RunFolder
    title: str = "run"
    stop_at: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Outcome:
    """How a job ended. `reused`: the folder was finished before. `error` is empty when it finished.

    `status` of one that did not: failed, diverged, out of memory, stopped, timed out.
    """

    job: Job
    finished: bool
    reused: bool = False
    error: str = ""
    code: int = 0
    status: str = ""


OnEvent = Callable[[Job, Mapping[str, Any]], None]
Ends = Callable[[Job, Mapping[str, Any]], bool]


class Source(Protocol):
    """Gives jobs one by one, and hears what becomes of them."""

    def take(self) -> Job | None:
        """Return the next job; None when there is none: for good if no other runs, else until one has ended."""
        ...

    def heard(self, job: Job, event: Mapping[str, Any]) -> bool:
        """Hear what a run says; return whether it shall save its state and end."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """Hear how a job ended."""
        ...


@dataclass(frozen=True)
class Places:
    """Where children compute.

    Args:
        count: how many run side by side.
        threads: of each, None for all cores.
        devices: CUDA devices as CUDA_VISIBLE_DEVICES names them, one for each child; none to leave that alone.
        detached: children outlive what kills this process and its whole group, and save their states.
    """

    count: int = 1
    threads: int | None = None
    devices: tuple[str, ...] = ()
    detached: bool = False


@dataclass
class _Child:
    job: Job
    process: Any
    connection: Any
    device: str = ""
    begun: float = field(default_factory=time.monotonic)
    last: dict[str, Any] = field(default_factory=dict)
    told: float = 0.0
    """When it was asked to end, 0 for never."""
    late: bool = False

    def end(self) -> None:
        """Ask it to save its state and end, once."""
        if not self.told:
            self.told = time.monotonic()
            self.process.terminate()

    def watch_clock(self) -> None:
        """End a run whose time is up; kill it when it does not end."""
        now = time.monotonic()
        if self.job.seconds is not None and now - self.begun > self.job.seconds:
            self.late = True
            self.end()
        if self.told and now - self.told > GRACE:
            self.process.kill()


def drain(context: Any, source: Source, places: Places) -> str:
    """Run all jobs of the source; return the signal that came, if one did: what ran has saved its state then."""
    running: list[_Child] = []
    with _children_end(running), Relay(lambda: [child.process for child in running]) as signals:
        while True:
            while not signals.asked and len(running) < places.count:
                if (job := source.take()) is None:
                    break
                _begin(context, job, (source, places, running), signals)
            if not running:
                return signals.asked
            wait([child.connection for child in running], timeout=0.5)
            for child in list(running):
                child.watch_clock()
                if _listen(child, source):
                    running.remove(child)
                    source.ended(_ended(child, signals.asked))


def _begin(context: Any, job: Job, into: tuple[Source, Places, list[_Child]], signals: Relay) -> None:
    source, places, running = into
    free = [device for device in places.devices if device not in {child.device for child in running}]
    try:
        running.append(_start(context, job, places, free[0] if free else ""))
    except (OSError, EOFError) as error:  # a signal to the whole group ends the server too
        source.ended(unbegun(job, signals.asked, f"no process started; found {error!r}"))
        return
    if signals.asked:  # while the child was being started, which takes seconds for the first one
        running[-1].process.terminate()
    source.heard(job, {"kind": "started"})


def _start(context: Any, job: Job, places: Places, device: str) -> _Child:
    from headswap.worker import Order, work

    fresh = not job.config.output.reuse
    order = Order(configuration.dump(job.config), places.threads, fresh, job.stop_at, device, places.detached)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(str(job.folder.path), order, sender), daemon=True)
    flush()  # a terminal that is gone would keep the process from starting
    process.start()
    sender.close()
    return _Child(job, process, receiver, device)


def _listen(child: _Child, source: Source) -> bool:
    """Pass on what a child has said; return whether it has ended."""
    try:
        while child.connection.poll():
            message = child.connection.recv()
            if message["kind"] in ("finished", "failed"):
                child.last = message
            elif source.heard(child.job, message):
                child.end()
    except (EOFError, OSError):
        child.process.join()
        return True
    return False


def _ended(child: _Child, asked: str) -> Outcome:
    child.connection.close()
    if child.last.get("kind") == "finished":
        return Outcome(child.job, True)
    if child.late:
        return _overdue(child.job)
    if child.last:
        last = child.last
        return Outcome(child.job, False, error=last["error"], code=last["code"], status=last["status"])
    # it had not begun to listen; the server is gone
    if (asked or child.told) and child.process.exitcode in (-signal.SIGTERM, 255):
        return unbegun(child.job, asked or "request")
    return unbegun(child.job, "", _death(child.process.exitcode, child.job))


def _overdue(job: Job) -> Outcome:
    error = f"{job.folder.path}: took longer than it may; found more than {job.seconds:g} s; allow it more"
    with contextlib.suppress(HeadswapError):
        job.folder.note(status="timed out", error=error)
    return Outcome(job, False, error=error, code=1, status="timed out")


def unbegun(job: Job, asked: str, error: str = "") -> Outcome:
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
def _children_end(running: list[_Child]) -> Iterator[None]:
    """End all children when the parent leaves early (Ctrl-C, an error)."""
    try:
        yield
    finally:
        for child in running:
            child.process.terminate()
        for child in running:
            child.process.join(5)
