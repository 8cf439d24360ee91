"""Several processes for one run, on this machine: torch elastic starts and ends them together. Floor 4.

    launch() ─ torch elastic ─ python -m headswap.worker RUN_FOLDER, one a rank
       └──── a local socket ──── each rank says how it ended; rank 0 also what happens

Every rank has a log: log.txt of rank 0, rank_<k>.txt of the others.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headswap.config import load
from headswap.errors import RunError
from headswap.records import RunFolder, read_json
from headswap.spine import Config
from headswap.stopping import Stop

if TYPE_CHECKING:
    from headswap.worker import Line, Report

ADDRESS, KEY = "HEADSWAP_EVENTS", "HEADSWAP_EVENTS_KEY"
SHUTDOWN_SECONDS = 600  # to save a large state in, once a stop was asked for


def launch(folder: RunFolder, processes: int, report: Report) -> dict[str, Any]:
    """Train the folder's run in `processes` processes; return how it ended as one message.

    Out of memory on any rank, with `train.find_batch_size`, starts them all again from the last saved state with half
    the micro-batch: a rank alone cannot repeat a step that the others have gone on from.
    """
    config = load(folder / "config.yaml")
    size = micro_batch_limit(folder) or config.train.micro_batch_size or config.train.batch_size // processes
    while True:
        ended = _launched(folder, config, report)
        if ended.get("status") != "out of memory" or not config.train.find_batch_size or size == 1:
            return ended
        size //= 2
        folder.note(micro_batch_size=size)
        report({"kind": "warning", "text": f"out of memory: started again with {size} examples a pass and process"})


def _launched(folder: RunFolder, config: Config, report: Report) -> dict[str, Any]:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _environment(config)
    died: list[tuple[int, int]] = []
    asked = ""
    with tempfile.TemporaryDirectory(prefix="headswap-") as place, _Ear(Path(place), report) as ear:
        spec = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=config.hardware.num_processes, rdzv_backend="c10d",
            rdzv_endpoint="localhost:0", run_id=folder.path.name, max_restarts=0, monitor_interval=0.1,
            logs_specs=DefaultLogsSpecs(log_dir=place), signals_to_handle="SIGTERM,SIGUSR1,SIGHUP,SIGQUIT",
            shutdown_timeout=SHUTDOWN_SECONDS,
        )  # fmt: skip
        try:
            elastic_launch(spec, sys.executable)("-m", "headswap.worker", str(folder.path))
        except SignalException as error:
            asked = signal.Signals(error.sigval).name
        except ChildFailedError as error:
            died = [(rank, failure.exitcode) for rank, failure in error.failures.items()]
    return _verdict(folder, ear.ends, died, asked)


def _verdict(folder: RunFolder, ends: list[dict[str, Any]], died: list[tuple[int, int]], asked: str) -> dict[str, Any]:
    """Return the one message that says how all ranks ended: a kill first, then the first fault that a rank told."""
    killed = [(rank, -code) for rank, code in died if code < 0 and -code != signal.SIGTERM]
    faults = [end for end in ends if end["kind"] == "failed" and end["status"] != "stopped"]
    if killed:
        rank, number = killed[0]
        return _fault(folder, rank, f"was killed; found {signal.Signals(number).name}; out of memory?")
    if faults:
        first = faults[0]
        if "traceback" not in first and first["code"] == 2:  # all ranks would say the same of the input
            return first
        said = _fault(folder, first["rank"], f"failed: {first['error']}", first.get("traceback", ""))
        return said | {"status": first["status"], "code": first["code"]}
    finished = next((end for end in ends if end["kind"] == "finished" and end["rank"] == 0), None)
    if finished is not None:
        return finished
    stopped = next((end for end in ends if end["kind"] == "failed"), None)
    if stopped is not None:
        return stopped
    if asked:
        text = f"stopped by {asked} before the first step; the same command starts again"
        return {"kind": "failed", "error": text, "code": 75, "status": "stopped"}
    rank, code = died[0] if died else (0, 0)
    return _fault(folder, rank, f"ended with code {code} and said nothing")


def _fault(folder: RunFolder, rank: int, said: str, trace: str = "") -> dict[str, Any]:
    log = folder / ("log.txt" if rank == 0 else f"rank_{rank}.txt")
    text = f"{folder.path}: rank {rank} {said}; its log: {log}" + (f"\n{trace.rstrip()}" if trace else "")
    return {"kind": "failed", "error": text, "code": 1, "status": "failed"}


def _environment(config: Config) -> None:
    """Set what the ranks inherit: threads, the loopback for gloo, the modules that this process can import."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = config.hardware.threads or max(1, cores // config.hardware.num_processes)
    os.environ |= {"HEADSWAP_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in sys.path if path))


class _Ear:
    """Listens to the ranks: rank 0's events go to `report`, how each one ended stays in `ends`, first come first."""

    def __init__(self, place: Path, report: Report) -> None:
        self.ends: list[dict[str, Any]] = []
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
        with contextlib.suppress(OSError):
            while True:
                reader = threading.Thread(target=self._read, args=(self._listener.accept(),), daemon=True)
                self._readers.append(reader)
                reader.start()

    def _read(self, connection: Any) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = connection.recv()
                if message["kind"] in ("finished", "failed"):
                    self.ends.append(message)
                else:
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
    with Client(address, "AF_UNIX", authkey=bytes.fromhex(os.environ[KEY])) as connection:
        yield Line(connection, stop)


def micro_batch_limit(folder: RunFolder) -> int | None:
    """Return the micro-batch that an earlier start of the run's processes came down to, None when memory sufficed."""
    with contextlib.suppress(RunError):
        return read_json(folder / "run.json").get("micro_batch_size")
    return None
