"""What a child process does: read a run folder's config.yaml, run it, tell the parent. Floor 4.

It is entered by a fork of the warm server (`work`), or by `python -m headswap.worker RUN_DIR` for one process of many.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from headswap.errors import HeadswapError
from headswap.records import RunFolder


def work(path: str, threads: int | None, connection: Connection) -> None:
    """Run the folder's configuration in this process; send events and at last `finished` or `failed`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means and ends its children
    if threads:
        os.environ["HEADSWAP_THREADS"] = str(threads)
    folder = RunFolder(Path(path))
    try:
        with folder.locked(), _logged(folder / "log.txt"):
            _send(connection, _outcome(folder, _throttled(connection)))
    except HeadswapError as error:  # the lock is held by another process
        _send(connection, {"kind": "failed", "error": str(error), "code": error.exit_code})
    finally:
        connection.close()


def _outcome(folder: RunFolder, report: Any) -> dict[str, Any]:
    from headswap.config import load
    from headswap.run import run

    try:
        folder.clear()
        return {"kind": "finished", "result": run(load(folder / "config.yaml"), folder, report)}
    except HeadswapError as error:
        print(error, file=sys.stderr)
        return _failed(folder, str(error), error.exit_code)
    except Exception as error:  # noqa: BLE001 (the child's last line of defence: whatever it was is one failed run)
        traceback.print_exc()
        return _failed(folder, f"{type(error).__name__}: {error}; the traceback is in {folder / 'log.txt'}", 1)


def _failed(folder: RunFolder, message: str, code: int) -> dict[str, Any]:
    with contextlib.suppress(HeadswapError):
        folder.note(status="failed", error=message)
    return {"kind": "failed", "error": message, "code": code}


def _throttled(connection: Connection, seconds: float = 0.1) -> Any:
    """Return a report function that passes on at most ten training lines a second, and every other line."""
    last = [0.0]

    def report(line: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if line["kind"] != "train" or now - last[0] >= seconds or line["step"] == line["total"]:
            last[0] = now
            _send(connection, dict(line))

    return report


def _send(connection: Connection, message: dict[str, Any]) -> None:
    """Tell the parent; end this process when the parent is gone, or it would train on, unseen, in a locked folder."""
    try:
        connection.send(message)
    except OSError:
        raise SystemExit("the process that started this run is gone") from None


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send this process's output, C libraries' too, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with open(path, "a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for saved, descriptor in zip(kept, (1, 2), strict=True):
                os.dup2(saved, descriptor)
                os.close(saved)
