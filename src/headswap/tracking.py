"""A run's curve in trackers, each in a process that reads what the run writes. Floor 4.

    worker.outcome ─ followed() ─ fork ─ follow(): metrics.jsonl, result.json ─ tracker plug ─ Accelerate's tracker

The run waits for none of it but, briefly, at its end: a tracker that throws, hangs or draws random numbers does so in
a process that trains nothing. The process is forked before the run computes, and so has all that is imported; it ends
by itself, also after a run that was killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from headswap import config as configuration
from headswap.curve import Curve, ends, remembered, settings, status
from headswap.placeholders import conceal
from headswap.records import METRICS, RunFolder, write_json
from headswap.shield import flush, say
from headswap.spine import Config
from headswap.stopping import SIGNALS
from headswap.tracked import TrackedRun, Tracker

Report = Callable[[Mapping[str, Any]], None]

WAIT = 5.0  # seconds that the end of a run waits for all its trackers
LINGER = 60.0  # after that a tracker may still tell what it knows for so long; then its process ends
LOOK = 1.0  # between two looks at the run's files
AGAIN = 10.0  # before what failed is tried again


@contextlib.contextmanager
def followed(config: Config, folder: RunFolder, report: Report) -> Iterator[Report]:
    """Start the run's trackers; yield the report through which they hear that it begins to train.

    At the end they are told that the folder says how it ended. Only rank 0 has trackers.
    """
    if not config.tracker or os.environ.get("RANK", "0") != "0":
        yield report
        return
    followers = [_start(name, config, folder) for name in config.tracker]

    def warn() -> None:
        for text in [text for follower in followers for text in follower.said()]:
            say(f"headswap: {text}")
            report({"kind": "warning", "text": text})

    def tell(line: Mapping[str, Any]) -> None:
        report(line)
        if line["kind"] in ("ledger", "baseline"):  # the data is read and the model built: now there is a curve
            for follower in followers:
                follower.send(folder.metrics.lines)
        warn()

    try:
        yield tell
    finally:
        deadline = time.monotonic() + WAIT
        for follower in followers:
            follower.send("ended")
        for follower in followers:
            follower.wait(deadline)
        warn()


class _Follower:
    """A tracker's process, as the run sees it; no call but `wait` takes time."""

    def __init__(self, name: str, pid: int, connection: Connection | None, words: list[str]) -> None:
        self.name, self._pid, self._connection, self._words = name, pid, connection, words

    def send(self, message: Any) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):  # it has ended, and has said why
                self._connection.send(message)

    def said(self) -> list[str]:
        """Return what it has said since the last call."""
        try:
            while self._connection is not None and self._connection.poll():
                self._words.append(self._connection.recv())
        except (EOFError, OSError):
            self._gone()
        words, self._words = self._words, []
        return words

    def wait(self, deadline: float) -> None:
        """Wait until it has ended, or leave it to itself at the deadline."""
        words = []
        while self._connection is not None and self._connection.poll(max(0.0, deadline - time.monotonic())):
            words += self.said()
        if self._connection is not None:
            words.append(
                f"tracker.{self.name}: has not told all yet; found it at work {WAIT:g} s after the run's end; it goes "
                f"on alone for at most {LINGER:g} s"
            )
        self._words = words

    def _gone(self) -> None:
        assert self._connection is not None
        self._connection.close()
        self._connection = None
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _start(name: str, config: Config, folder: RunFolder) -> _Follower:
    """Fork the process of a tracker; where the system has none left, there is a follower that says so."""
    ours, theirs = Pipe()
    flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # a handler of ours must not run there
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of a fork beside threads. What these may hold, the new process never asks for.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _be(name, config, folder, theirs)
    except OSError as error:
        return _Follower(name, 0, None, [f"tracker.{name}: no process for it; found {error}; the run goes on without"])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return _Follower(name, pid, ours, [])


def _be(name: str, config: Config, folder: RunFolder, connection: Connection) -> None:
    """Be a tracker's process, from the fork to its end."""
    try:
        _leave(folder / f"tracker_{name}.txt", connection.fileno())
        follow(name, config, folder, _Ear(connection))
    except BaseException as error:  # noqa: BLE001 (nothing may go up from here: there stands the run's own code)
        traceback.print_exc()
        _say(connection, name, config, error)
    finally:
        flush()
        os._exit(0)


def _leave(log: Path, kept: int) -> None:
    """Let go of what belongs to the run: its terminal, signals, files and locks, and its place among the ranks."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:  # the run's end is its own; but not its children's
        signal.signal(number, lambda *_: None)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in map(int, os.listdir("/dev/fd")):
        if descriptor not in (kept, nothing):  # not closed: an object of the run's may still close its number later
            os.dup2(nothing, descriptor, inheritable=descriptor < 3)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor, stream in ((1, "stdout"), (2, "stderr")):
        os.dup2(written, descriptor)
        setattr(sys, stream, open(descriptor, "w", encoding="utf-8", buffering=1, closefd=False))  # noqa: SIM115
    ranks = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    for variable in list(os.environ):
        if variable in ranks or variable.startswith(("ACCELERATE_", "FSDP_", "TORCHELASTIC_")):
            del os.environ[variable]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())


class _Ear:
    """What the tracker's process hears of the run: that it begins, and that it is over; its death too."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.begun, self.over = threading.Event(), threading.Event()
        self.lines: int | None = None
        self.killed = False
        threading.Thread(target=self._hear, daemon=True).start()

    def _hear(self) -> None:
        try:
            while (message := self.connection.recv()) != "ended":
                self.lines = message
                self.begun.set()
        except (EOFError, OSError):
            self.killed = True
        self.over.set()
        self.begun.set()
        time.sleep(LINGER)
        os._exit(1)


def follow(name: str, config: Config, folder: RunFolder, ear: _Ear) -> None:
    """Take to a tracker what the run writes, until it is over; try again what fails, and say so once."""
    from headswap.hardware import tracker as make

    plug: Tracker = configuration.build(config.tracker[name], f"tracker.{name}", Tracker, config.plugins)
    ear.begun.wait()
    if ear.lines is None:  # it ended before it began
        return
    place = Path(config.output.root) / ".trackers" / "state" / config.name / f"{folder.path.name}.{name}.json"
    told, resumed = remembered(place, ear.lines)
    run = TrackedRun(folder.path.name, config.name, told.id, resumed, told.step, settings(config))
    curve, writer, failed, pause = Curve(folder / METRICS, told), None, False, 0.0
    kept: dict[str, Any] = {}
    while True:
        over = ear.over.wait(pause)
        try:
            if writer is None:
                writer = plug.open(run, make)
            for values, step in curve.news():
                writer.log(values, step=step)
            if asdict(told) != kept:
                kept = asdict(told)
                write_json(place, kept)
            pause = LOOK
            if over:
                break
        except Exception as error:  # noqa: BLE001 (whatever a tracker throws)
            traceback.print_exc()
            if not failed:
                _say(ear.connection, name, config, error)
            failed, pause = True, AGAIN
            if over:
                return
    if scores := ends(folder, config.sweep.trial is not None):
        writer.log(scores, step=told.step)
    plug.close(writer, status(folder, ear.killed))


def _say(connection: Connection, name: str, config: Config, error: BaseException) -> None:
    said = next(iter(str(error).splitlines()), "")[:200] or type(error).__name__
    text = f"tracker.{name}: failed; found {said}; the run goes on, and tracker_{name}.txt in its folder has more"
    with contextlib.suppress(OSError):
        connection.send(conceal(text, config.tracker[name]))
