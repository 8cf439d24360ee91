"""What a process that trains does: read a run folder's config.yaml, run it, say how it ended. Floor 4.

`work` is entered by a fork of the warm server; it trains itself, or starts several processes (elastic.py). Each of
those, and those of `accelerate launch` or srun, is `python -m headswap.worker RUN_FOLDER`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from headswap.errors import ConfigError, HeadswapError, OutOfMemory, Stopped
from headswap.placeholders import conceal
from headswap.records import RunFolder, write_text
from headswap.shield import flush, say
from headswap.stopping import Stop

Report = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Order:
    """What the parent asks of a child.

    Args:
        config: the text of config.yaml.
        threads: how many threads to compute with, None for all cores.
        fresh: forget what the folder holds.
        stop_at: save and stop after so many optimizer steps.
        device: the CUDA device to see, as CUDA_VISIBLE_DEVICES names it; empty for all.
        detached: leave the parent's process group, which may be killed as a whole.
    """

    config: str
    threads: int | None = None
    fresh: bool = False
    stop_at: int | None = None
    device: str = ""
    detached: bool = False


def work(path: str, order: Order, connection: Connection) -> None:
    """Run an order in this process; send events and at last `finished` or `failed`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means and tells its children
    if order.detached:
        os.setsid()
    if order.threads:
        os.environ["HEADSWAP_THREADS"] = str(order.threads)
    if order.device:
        os.environ["CUDA_VISIBLE_DEVICES"] = order.device
    folder, stop = RunFolder(Path(path)), Stop(order.stop_at)
    line = Line(connection, stop)
    try:
        with (
            stop.listening((signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)),
            folder.locked(),
            logged(folder / "log.txt"),
        ):
            write_text(folder / "config.yaml", order.config)
            if order.fresh:
                folder.clear()
            line.send(_done(folder, line, stop))
    except HeadswapError as error:  # the lock is held by another process, or the disk refuses the folder
        line.send(_failure(error, str(error)))
    finally:
        connection.close()


def _done(folder: RunFolder, line: Line, stop: Stop) -> dict[str, Any]:
    from headswap.config import load

    config = load(folder / "config.yaml")
    processes = config.hardware.num_processes
    if processes == 1 or config.baseline is not None:
        return outcome(folder, line.report, stop)
    from headswap.elastic import launch

    ended = launch(folder, processes, line.report, stop.at_step)
    if ended["kind"] == "failed":
        with contextlib.suppress(HeadswapError):
            folder.note(status=ended["status"], error=ended["error"])
    return ended


def main() -> int:
    """Be one process of a run, as torch elastic, accelerate launch or srun start it; return the exit code."""
    if len(sys.argv) != 2:
        print("usage: python -m headswap.worker RUN_FOLDER   (headswap prepare makes one)", file=sys.stderr)
        return ConfigError.exit_code
    from headswap.elastic import connected, step_to_stop_at

    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    stop = Stop(step_to_stop_at(), patient=ranks > 1)
    folder = RunFolder(Path(sys.argv[1]))
    with connected(stop) as line, contextlib.ExitStack() as held:
        try:
            held.enter_context(stop.listening())
            _require_config(folder)  # before a lock makes the folder
            if line is None and rank == 0:  # else the process that started this one holds it
                held.enter_context(folder.locked())
            if line is not None:
                held.enter_context(logged(folder / ("log.txt" if rank == 0 else f"rank_{rank}.txt")))
            alone = _spoken if rank == 0 else _quiet
            ended = outcome(folder, line.report if line is not None and rank == 0 else alone, stop)
        except HeadswapError as error:
            ended = _failure(error, str(error))
            say(f"headswap: {error}")
        if line is not None:
            line.send({"rank": rank, **ended})
            return 0 if ended.get("status") == "stopped" else ended.get("code", 0)
    return ended.get("code", 0)


def outcome(folder: RunFolder, report: Report, stop: Stop) -> dict[str, Any]:
    """Run the folder's configuration; return how it ended as one message, whatever went wrong."""
    with contextlib.ExitStack() as trackers:  # they end last: the folder tells them how the run did
        return _outcome(folder, report, stop, trackers)


def _outcome(folder: RunFolder, report: Report, stop: Stop, trackers: contextlib.ExitStack) -> dict[str, Any]:
    rank, told = int(os.environ.get("RANK", "0")), ""
    try:
        from headswap.config import load
        from headswap.run import run
        from headswap.tracking import followed

        _require_config(folder)
        told = (folder / "config.yaml").read_text(encoding="utf-8")
        config = load(folder / "config.yaml")
        report = trackers.enter_context(followed(config, folder, report))
        ended = {"kind": "finished", "result": run(config, folder, report, stop)}
        stop.patient = True  # from here on a signal changes nothing
        return ended
    except HeadswapError as error:
        ended = _failure(error, conceal(str(error), told))
        say(ended["error"])
    except Exception as error:  # noqa: BLE001 (the last line of defence: whatever it was is one failed run)
        log = folder / ("log.txt" if rank == 0 else f"rank_{rank}.txt")
        ended = _failure(error, conceal(f"{type(error).__name__}: {error}; the traceback is in {log}", told))
        ended["traceback"] = conceal(traceback.format_exc(), told)
        if meant := _wish_under(error) or _memory_under(error):
            say(ended["traceback"])
            ended = _failure(meant, str(meant))
        say(ended.get("traceback", ended["error"]))
    stop.patient = True
    with contextlib.suppress(HeadswapError):
        folder.metrics.close()
    if rank == 0:
        with contextlib.suppress(HeadswapError):
            folder.note(status=ended["status"], error=ended["error"])
    return ended


def _require_config(folder: RunFolder) -> None:
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder.path}: not a run folder; found no config.yaml; make one with headswap prepare")


def _memory_under(error: Exception) -> OutOfMemory | None:
    """Return the error of memory that ended where no smaller pass helps, as for the optimizer's state."""
    from headswap.hardware import first_line, is_out_of_memory

    if not is_out_of_memory(error):
        return None
    said = first_line(error)
    return OutOfMemory(f"memory: used up outside of a pass; found {said}; take a smaller body, or free the device")


def _wish_under(error: BaseException | None) -> Stopped | None:
    """Return the wish to stop that a signal threw into foreign code, which made another error of it."""
    while error is not None and not isinstance(error, Stopped):
        error = error.__cause__ or error.__context__
    return error


def _failure(error: BaseException, said: str) -> dict[str, Any]:
    code, status = getattr(error, "exit_code", 1), getattr(error, "status", "failed")
    return {"kind": "failed", "error": said, "code": code, "status": status}


class Line:
    """The connection to the process that started this one; when that is gone, this one is asked to stop.

    Else it would train on, unseen, in a locked folder.
    """

    def __init__(self, connection: Any, stop: Stop, seconds: float = 0.1) -> None:
        self._connection = connection
        self._stop = stop
        self._seconds = seconds
        self._last = 0.0
        self._cut = False

    def report(self, line: Mapping[str, Any]) -> None:
        """Pass on at most ten training lines a second, and every other line."""
        now = time.monotonic()
        if line["kind"] != "train" or now - self._last >= self._seconds or line["step"] == line["total"]:
            self._last = now
            self.send(dict(line))

    def send(self, message: dict[str, Any]) -> None:
        if self._cut:
            return
        try:
            self._connection.send(message)
        except OSError:
            self._cut = True
            if message["kind"] not in ("finished", "failed"):
                self._stop.ask("the loss of the process that started this run")


def _spoken(line: Mapping[str, Any]) -> None:
    """Print what a person would want to see where no parent shows it: accelerate launch, srun."""
    if line["kind"] in ("validation", "resumed", "saved"):
        values = {key: value for key, value in line.items() if key not in ("kind", "examples", "seconds")}
        print(f"headswap: {line['kind']} {values}", flush=True)


def _quiet(line: Mapping[str, Any]) -> None:
    """Tell nobody: rank 0 does."""


@contextlib.contextmanager
def logged(path: Path) -> Iterator[None]:
    """Send this process's output, C libraries' too, to a file."""
    flush()
    kept = os.dup(1), os.dup(2)
    with open(path, "a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            flush()
            for saved, descriptor in zip(kept, (1, 2), strict=True):
                os.dup2(saved, descriptor)
                os.close(saved)


if __name__ == "__main__":
    sys.exit(main())
