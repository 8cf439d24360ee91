"""The run folder: what a run leaves behind; a half-written file is never taken for a whole one. Floor 2.

    config.yaml  run.json  ledger.json  metrics.jsonl  log.txt  model/  predictions.parquet  body.json  result.json

result.json is written last: its existence means the run finished. It imports nothing heavy, because the command line
reads folders with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headswap.durable import cannot_write, replace_file
from headswap.errors import RunError

RESULT = "result.json"
METRICS = "metrics.jsonl"
BODY_CHANGE = "body.json"
LOCK = ".lock"


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text whole or not at all."""
    replace_file(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all; NaN is refused, because readers of other languages cannot read it."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON. Raises RunError naming the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read; {error}; remove the folder and run again") from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read the whole lines of a JSON-lines file; a last line cut off by a crash is left out. Raises RunError."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    try:
        return [json.loads(line) for line in lines if line]
    except ValueError as error:
        raise RunError(f"{path}: a line is damaged; found {error}; run again") from error


def _lock(file: Any, patience: float) -> None:
    until = time.monotonic() + patience
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.1)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


class MetricsLog:
    """metrics.jsonl, append-only. Lines that a full disk refuses wait in memory and are written with the next ones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        self.refused = ""
        self._good = 0
        self._waiting: list[bytes] = []
        self._file: Any = None

    def whole(self) -> int:
        """Return how many lines the file has ahead of the first that is cut off or damaged."""
        lines = self.path.read_bytes().split(b"\n")[:-1] if self.path.exists() else []
        return next((number for number, line in enumerate(lines) if not _is_json(line)), len(lines))

    def keep(self, lines: int) -> None:
        """Keep the first `lines` lines and cut off the rest, which steps after the checkpoint wrote."""
        whole = self.path.read_bytes().split(b"\n")[:lines] if lines else []
        replace_file(self.path, b"".join(line + b"\n" for line in whole))
        self.lines = len(whole)

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a line, flushed: a killed run keeps what it had."""
        self._waiting.append(json.dumps(line).encode() + b"\n")
        self.lines += 1
        try:
            self._write()
        except OSError as error:
            self.refused = str(error.strerror or error)

    def sync(self) -> None:
        """Put all lines on the disk. Raises OSError when it refuses."""
        self._write()
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Put all lines on the disk and close the file. Raises RunError when it refuses."""
        try:
            self.sync()
        except OSError as error:
            raise cannot_write(self.path, error) from error
        finally:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _write(self) -> None:
        if self._file is None and not self._waiting:
            return
        if self._file is None:
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (open as long as the run)
            self._good = self._file.tell()
        elif self.refused:  # a write that failed half-way left a torn line
            self._file.truncate(self._good)
        text = b"".join(self._waiting)
        while text:
            text = text[self._file.write(text) :]
        self._good = self._file.tell()
        self._waiting.clear()
        self.refused = ""


class RunFolder:
    """One run's folder. Only the process that holds `locked()` writes into it."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.metrics = MetricsLog(self.path / METRICS)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def finished(self) -> bool:
        return (self / RESULT).is_file()

    def result(self) -> dict[str, Any]:
        """Return result.json. Raises RunError when the run has not finished."""
        if not self.finished:
            raise RunError(f"{self.path}: this run has not finished; found no {RESULT}; run it again")
        return read_json(self / RESULT)

    @contextlib.contextmanager
    def locked(self, patience: float = 0.0) -> Iterator[None]:
        """Hold the folder against a second process; wait for its lock `patience` seconds.

        Raises:
            RunError: another process holds it; the message has its pid and host.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # The file is never removed: a second opener must meet the same one.
            lock = open(self / LOCK, "a+", encoding="utf-8")  # noqa: SIM115 (closed by the block below)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        with lock as file:
            try:
                _lock(file, patience)
            except BlockingIOError as error:
                file.seek(0)
                raise RunError(
                    f"{self.path}: another process trains here; found its lock ({file.read().strip()}); wait or stop it"
                ) from error
            except OSError as error:
                said = f"cannot be locked; {error.strerror}; choose an output.root on a file system with locks"
                raise RunError(f"{self.path}: {said}") from error
            with contextlib.suppress(OSError):  # a full disk: the lock holds without its text
                os.ftruncate(file.fileno(), 0)
                os.write(file.fileno(), f"pid {os.getpid()} on {socket.gethostname()}".encode())
            yield

    def clear(self) -> None:
        """Remove what an unfinished try left, except its configuration, its launcher's files and logs."""
        for entry in list(self.path.iterdir()):
            if entry.name in ("config.yaml", "accelerate.yaml", "job.sh", LOCK) or entry.suffix == ".txt":
                continue
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    def note(self, **values: Any) -> None:
        """Add to run.json."""
        known = self.about()
        if "status" in values:  # an error belongs to the status that it came with
            known.pop("error", None)
        write_json(self / "run.json", known | values)

    def about(self) -> dict[str, Any]:
        """Return run.json; nothing where there is none or it is damaged: what is still to be said matters more."""
        with contextlib.suppress(RunError):
            found = read_json(self / "run.json")
            return found if isinstance(found, dict) else {}
        return {}

    def log_metrics(self, line: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl with the time."""
        self.metrics.add({"time": round(time.time(), 3), **line})

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write result.json, the last file of a run. Raises RunError when the disk refuses anything."""
        self.metrics.close()
        self.note(status="finished")
        write_json(self / RESULT, dict(result))


class Onlooker(RunFolder):
    """The run folder as processes other than the first see it: they read, rank 0 writes."""

    def clear(self) -> None:
        """Leave it to rank 0."""

    def note(self, **values: Any) -> None:
        """Leave it to rank 0."""

    def log_metrics(self, line: Mapping[str, Any]) -> None:
        """Leave it to rank 0."""
