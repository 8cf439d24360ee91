"""The run folder: what a run leaves behind; a half-written file is never taken for a whole one. Floor 2.

    config.yaml  run.json  ledger.json  metrics.jsonl  log.txt  model/  predictions.parquet  result.json

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

from headswap.errors import RunError

RESULT = "result.json"
LOCK = ".lock"


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: temporary file, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(
            f"{path}: cannot be written; {error.strerror or error}; free space or change output.root"
        ) from error


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text whole or not at all."""
    write_bytes(path, content.encode("utf-8"))


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
    """Read the whole lines of a JSON-lines file; a last line cut off by a crash is left out."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    whole, _, _ = text.rpartition("\n")
    return [json.loads(line) for line in whole.splitlines() if line]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class RunFolder:
    """One run's folder. Only the process that holds `locked()` writes into it."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._metrics = None

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
    def locked(self) -> Iterator[None]:
        """Hold the folder against a second process. Raises RunError with the holder's pid and host."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(
            self / LOCK, "a+", encoding="utf-8"
        ) as file:  # never removed: a second opener must meet the same file
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                raise RunError(
                    f"{self.path}: another process trains here ({file.read().strip()}); wait or stop it"
                ) from error
            file.truncate(0)
            file.write(f"pid {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield

    def clear(self) -> None:
        """Remove what an unfinished try left, except its configuration and log."""
        for entry in list(self.path.iterdir()):
            if entry.name in ("config.yaml", "log.txt", LOCK):
                continue
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def note(self, **values: Any) -> None:
        """Add to run.json."""
        path = self / "run.json"
        known = read_json(path) if path.exists() else {}
        write_json(path, known | values)

    def log_metrics(self, line: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl, flushed: a killed run keeps what it had."""
        if self._metrics is None:
            self._metrics = open(self / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115 (open as long as the run)
        self._metrics.write(json.dumps({"time": round(time.time(), 3), **line}) + "\n")
        self._metrics.flush()

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write result.json, the last file of a run."""
        if self._metrics is not None:
            os.fsync(self._metrics.fileno())
            self._metrics.close()
            self._metrics = None
        self.note(status="finished")
        write_json(self / RESULT, dict(result))
