"""Several processes for one run, on this machine: torch elastic starts and ends them together. Floor 4.

    launch() ─ torch elastic ─ python -m headswap.worker RUN_FOLDER, one a rank
       └──── a local socket ──── each rank says how it ended; rank 0 also what happens

Every rank has a log: log.txt of rank 0, rank_<k>.txt of the others.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headswap.config import load
from headswap.errors import ConfigError, RunError, Stopped
from headswap.machine import cores
from headswap.records import RunFolder, read_json
from headswap.spine import Config
from headswap.stopping import SIGNALS, Stop

if TYPE_CHECKING:
    from headswap.worker import Line, Report

ADDRESS, KEY, STOP_AT = "HEADSWAP_EVENTS", "HEADSWAP_EVENTS_KEY", "HEADSWAP_STOP_AT"
SHUTDOWN_SECONDS = 600  # to save a large state in, once a stop was asked for
ECHO_SECONDS = 15  # torch elastic kills ranks that hang 30 seconds after the first has died; these are not the cause


def launch(folder: RunFolder, processes: int, report: Report, stop_at: int | None = None) -> dict[str, Any]:
    """Train the folder's run in `processes` processes; return how it ended as one message.

    Out of memory on any rank, with `train.find_batch_size`, starts them all again from the last saved state with half
    the micro-batch: a rank alone cannot repeat a step that the others have gone on from.
    """
    config = load(folder / "config.yaml")
    size = micro_batch_limit(folder) or config.train.micro_batch_size or config.train.batch_size // processes
    _environment(config, stop_at)
    while True:
        ended = _launched(folder, processes, report)
        if ended.get("status") != "out of memory" or not config.train.find_batch_size or size == 1:
            return ended
        size //= 2
        folder.note(micro_batch_size=size)
        report({"kind": "warning", "text": f"out of memory: started again with {size} examples a pass and process"})


def _launched(folder: RunFolder, processes: int, report: Report) -> dict[str, Any]:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    died: list[tuple[int, int]] = []
    asked = ""
    with tempfile.TemporaryDirectory(prefix="headswap-") as place, _Ear(Path(place), report) as ear:
        spec = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=processes, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
            local_addr="localhost", run_id=folder.path.name, max_restarts=0, monitor_interval=0.1,
            logs_specs=DefaultLogsSpecs(log_dir=place), signals_to_handle="SIGHUP,SIGQUIT",
            shutdown_timeout=SHUTDOWN_SECONDS,
        )  # fmt: skip
        try:
            with _heard_once(ear):
                elastic_launch(spec, sys.executable)("-m", "headswap.worker", str(folder.path))
        except SignalException as error:
            asked = str(error)
        except ChildFailedError as error:
            first = min(failure.timestamp for failure in error.failures.values())
            died = [
                (rank, failure.exitcode)
                for rank, failure in error.failures.items()
                if failure.timestamp - first < ECHO_SECONDS
            ]
    # What ranks said while they were killed before the first step is an echo.
    ends = [end for end in ear.ends if end["kind"] == "finished" or ear.trained or not asked]
    return _verdict(folder, ends, died, asked)


@contextlib.contextmanager
def _heard_once(ear: _Ear) -> Iterator[None]:
    """Hear SIGTERM, SIGUSR1 and SIGUSR2: torch elastic passes the first one on and waits for the ranks to save.

    Before the first step there is nothing to save, and a rank that waits for the others hears nothing: they are killed.
    Elastic's own handler throws at every further signal, too, and so leaves the ranks alone while they save.
    """
    from torch.distributed.elastic.multiprocessing import SignalException

    heard: list[int] = []

    def hear(number: int, frame: Any) -> None:
        heard.append(number)
        if len(heard) == 1:
            raise SignalException(signal.Signals(number).name, signal.SIGTERM if ear.trained else signal.SIGKILL)

    before = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _verdict(folder: RunFolder, ends: list[dict[str, Any]], died: list[tuple[int, int]], asked: str) -> dict[str, Any]:
    """Return the one message that says how all ranks ended.

    A rank that left without a word is the cause, and what the others say an echo; else it is the first to tell a fault.
    """
    finished = next((end for end in ends if end["kind"] == "finished" and end["rank"] == 0), None)
    if finished is not None:  # all is on the disk
        return finished
    told = {end["rank"] for end in ends}
    mute = [(rank, code) for rank, code in died if rank not in told]
    crashed = [(rank, code) for rank, code in mute if -code not in SIGNALS]
    if crashed and not asked:
        rank, code = crashed[0]
        killed = f"was killed; found {signal.Signals(-code).name}; out of memory?" if code < 0 else ""
        return _fault(folder, rank, killed or f"ended with code {code} and said nothing")
    first = next((end for end in ends if end["kind"] == "failed"), None)
    by_signal = bool(mute) and mute[0] == died[0]  # before it listened: what the others say is an echo
    if first is None or (by_signal and first["status"] != Stopped.status):
        reason = asked or (signal.Signals(-mute[0][1]).name if mute else "nobody knows what")
        text = f"stopped by {reason} before the first step; the same command starts again"
        return {"kind": "failed", "error": text, "code": Stopped.exit_code, "status": Stopped.status}
    if first["status"] == Stopped.status or ("traceback" not in first and first["code"] == ConfigError.exit_code):
        return first  # all ranks say the same
    said = _fault(folder, first["rank"], f"failed: {first['error']}", first.get("traceback", ""))
    return said | {"status": first["status"], "code": first["code"]}


def _fault(folder: RunFolder, rank: int, said: str, trace: str = "") -> dict[str, Any]:
    log = folder / ("log.txt" if rank == 0 else f"rank_{rank}.txt")
    text = f"{folder.path}: rank {rank} {said}; its log: {log}" + (f"\n{trace.rstrip()}" if trace else "")
    return {"kind": "failed", "error": text, "code": 1, "status": "failed"}


def _environment(config: Config, stop_at: int | None) -> None:
    """Set what the ranks inherit: threads, the loopback for gloo, the modules that this process can import."""
    own = int(os.environ.get("HEADSWAP_THREADS", cores()))  # fewer where several runs share the machine
    threads = config.hardware.threads or max(1, own // config.hardware.num_processes)
    os.environ |= {"HEADSWAP_THREADS": str(threads), "OMP_NUM_THREADS": str(threads), STOP_AT: str(stop_at or 0)}
    if loopback := {"linux": "lo", "darwin": "lo0"}.get(sys.platform):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in sys.path if path))


class _Ear:
    """Listens to the ranks: rank 0's events go to `report`, how each one ended stays in `ends`, first come first.

    `trained` turns true with the first step.
    """

    def __init__(self, place: Path, report: Report) -> None:
        self.ends: list[dict[str, Any]] = []
        self.trained = False
        self._report = report
        self._key = secrets.token_bytes(16)
        self._listener = Listener(str(place / "events"), "AF_UNIX", authkey=self._key)
        self._readers: list[threading.Thread] = []

    def __enter__(self) -> _Ear:
        os.environ |= {ADDRESS: str(self._listener.address), KEY: self._key.hex()}
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._readers:
            reader.join(5)  # what a rank said before it ended may still be on its way
        self._listener.close()
        for name in (ADDRESS, KEY):
            os.environ.pop(name, None)

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except (EOFError, AuthenticationError):  # a rank that died while it introduced itself
                continue
            except OSError:  # closed
                return
            reader = threading.Thread(target=self._read, args=(connection,), daemon=True)
            self._readers.append(reader)
            reader.start()

    def _read(self, connection: Any) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = connection.recv()
                if message["kind"] in ("finished", "failed"):
                    self.ends.append(message)
                else:
                    self.trained = self.trained or message["kind"] == "train"
                    self._forward(message)

    def _forward(self, message: Mapping[str, Any]) -> None:
        try:
            self._report(message)
        except Exception:  # noqa: BLE001 (the process that started this one is gone: end the ranks, they save)
            os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def connected(stop: Stop) -> Iterator[Line | None]:
    """Give the line to the process that launched this rank; None where no `launch` did."""
    from headswap.worker import Line

    address = os.environ.get(ADDRESS)
    if address is None:
        yield None
        return
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    with Client(address, "AF_UNIX", authkey=bytes.fromhex(os.environ[KEY])) as connection:
        yield Line(connection, stop)


def _end_with(launcher: int) -> None:
    """End this rank when the process that launched it is killed: nobody holds the folder's lock any more."""
    while os.getppid() == launcher:
        time.sleep(0.2)
    shutil.rmtree(Path(os.environ[ADDRESS]).parent, ignore_errors=True)
    os._exit(1)


def step_to_stop_at() -> int | None:
    """Return the step that the process which launched this rank was told to stop at."""
    return int(os.environ.get(STOP_AT, "0")) or None


def micro_batch_limit(folder: RunFolder) -> int | None:
    """Return the micro-batch that an earlier start of the run's processes came down to, None when memory sufficed."""
    with contextlib.suppress(RunError):
        return read_json(folder / "run.json").get("micro_batch_size")
    return None
