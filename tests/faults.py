"""Faults to inject: which and how many, how each is done, and a count of those that were.

The lists below are what the tests of faults are made from (docs/reliability.md has them in a table); `PLANNED` sums
them without running anything, and conftest prints at the end of a test run what was really injected.
"""

import contextlib
import errno
import json
import math
import multiprocessing
import os
import re
import resource
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headswap import durable
from headswap.contracts import DataRequest, Splits
from headswap.seeds import Seeds
from headswap.tasks.text_classification import TextClassification

RANDOM_KILLS = 24
# Where a process kills itself: the disk's call, the end of the path, and whether before it, in its middle or after it.
KILLED_AT = [
    ("_write", "step-00000001.tmp/model.safetensors", "middle"),
    ("_sync", "step-00000001.tmp/optimizer.safetensors", "before"),
    ("_rename", "checkpoint/step-00000002", "before"),
    ("_rename", "checkpoint/step-00000002", "after"),
    ("_write", "step-00000003.tmp/state.json", "middle"),
    ("_write", "step-00000004.tmp/manifest.json", "middle"),
    ("_rename", "checkpoint/best-00000004", "after"),
    ("_sync", "checkpoint", "before"),
    ("_rename", "run.json", "before"),
    ("_rename", "ledger.json", "after"),
    ("_rename", "predictions.parquet", "before"),
    ("_rename", "predictions.parquet", "after"),
    ("_sync", "model.tmp/model.safetensors", "before"),
    ("_rename", "model", "before"),
    ("_rename", "model", "after"),
    ("_rename", "result.json", "before"),
    ("_rename", "result.json", "after"),
]
CALLS_OF_A_SAVE = {"_write": 12, "_sync": 10, "_rename": 2}  # of `small_state()` in test_disk.py: all of them fail once
ERRNOS = [errno.ENOSPC, errno.EIO]
FAILED_IN_TRAINING = [("_write", 1), ("_write", 150), ("_write", 400), ("_sync", 1), ("_sync", 20), ("_rename", 5)]
REFUSED_AT_THE_END = ["predictions.parquet", "model.tmp/model.safetensors", "result.json"]
HARMS = ["first bit", "middle bit", "last bit", "last byte cut", "emptied", "removed"]
CHECKPOINT_FILES = ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
BEST_FILES = ["model.safetensors", "manifest.json"]
MODEL_FILES = [
    "model.safetensors",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "README.md",
    "manifest.json",
]
DIVERGED_AT = [1, 3, 5]  # steps: the first, one with a short window, one in the second epoch
NOTES = ["run.json", "ledger.json", "log.txt"]
ROOMS = [11, 5, 2, 1]  # rows that the memory holds, of the 12 of a step
BAD_NUMBERS = {"NaN": math.nan, "infinity": math.inf, "minus infinity": -math.inf}
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2]
OF_A_CHILD = [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]  # its parent hears SIGINT
BROKEN_DISPLAYS = [ValueError("a bug"), OSError(errno.EIO, "the terminal is gone"), BrokenPipeError()]
REFUSALS = [errno.EROFS, errno.ENOSPC, errno.EDQUOT]

PLANNED = {  # the numbers at the ends: tests that are not made from a list
    "kill -9": RANDOM_KILLS + len(KILLED_AT) + 2,
    "disk full or I/O error": len(ERRNOS) * sum(CALLS_OF_A_SAVE.values())
    + len(FAILED_IN_TRAINING)
    + len(REFUSED_AT_THE_END)
    + 7,
    "bit flip, truncation, loss": len(HARMS) * len([*CHECKPOINT_FILES, *BEST_FILES, *MODEL_FILES, *NOTES]) + 8,
    "NaN or infinity": len(BAD_NUMBERS) * len(DIVERGED_AT) * 2 + 20,
    "out of memory": len(ROOMS) + 14,
    "signal": 2 * len(SIGNALS) + 2 * len(OF_A_CHILD) + len(SIGNALS) + 7,
    "display that throws": 3 * len(BROKEN_DISPLAYS) + 5,
    "full or read-only outputs": 2 * len(REFUSALS) + 6,
    "clock jump": 3,
}
INJECTED: Counter[str] = Counter()
RESUMES: Counter[str] = Counter()


def injected(kind: str, count: int = 1) -> None:
    """Count a fault that was really injected."""
    INJECTED[kind] += count


def resumed(mismatches: list[str]) -> None:
    """Count a comparison of a resumed run with a straight one, and refuse one that differs in any bit."""
    RESUMES["exact" if not mismatches else "different"] += 1
    assert mismatches == []


@contextlib.contextmanager
def failing(call: str, nth: int, code: int, within: str = "/") -> Iterator[list[str]]:
    """Make the nth of the disk's calls about paths with `within` fail; give the paths of all of them."""
    seen: list[str] = []

    def fail(path: str, begin: Callable[[], None]) -> None:
        if within not in path:
            return
        seen.append(path)
        if len(seen) == nth:
            begin()
            raise OSError(code, os.strerror(code))

    sound = _watch(call, fail)
    try:
        yield seen
    finally:
        setattr(durable, call, sound)


@contextlib.contextmanager
def failing_at(end: str, code: int) -> Iterator[list[str]]:
    """Make every fsync or rename of a path that ends so fail; give the paths that were refused."""
    refused: list[str] = []

    def fail(path: str, begin: Callable[[], None]) -> None:
        if path.endswith(end):
            refused.append(path)
            raise OSError(code, os.strerror(code))

    sound = {name: _watch(name, fail) for name in ("_sync", "_rename")}
    try:
        yield refused
    finally:
        for name, function in sound.items():
            setattr(durable, name, function)


@contextlib.contextmanager
def no_more_than(size: int) -> Iterator[None]:
    """Let the kernel refuse every file that grows beyond `size` bytes: half of a write may still be done."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def harm(path: Path, how: str) -> None:
    """Damage a file as a bad disk or a broken copy does."""
    content = bytearray(path.read_bytes())
    if how == "removed":
        path.unlink()
    elif how == "emptied":
        path.write_bytes(b"")
    elif how == "last byte cut":
        path.write_bytes(content[:-1])
    else:
        place = {"first bit": 0, "middle bit": len(content) // 2, "last bit": len(content) - 1}[how]
        content[place] ^= 1 << (place % 8)
        path.write_bytes(content)


@dataclass(frozen=True)
class Faulty(TextClassification):
    """A task whose process, a child, meets the fault that a file beside its table names; without one it is sound.

    The file is read when the run starts, so that runs with and without the fault have the same configuration.
    """

    def load(self, request: DataRequest, seeds: Seeds) -> Splits:
        order = Path(str(self.source)).with_suffix(".fault")
        if multiprocessing.parent_process() is not None and order.exists():  # not in the warm server
            told = json.loads(order.read_text())
            order.unlink()
            _meet(*told)
        return super().load(request, seeds)


def order_fault(table: str, place: tuple[str, str, str], nth: int = 1, code: int = 0) -> Path:
    """Have the next child that reads `table` kill itself at a place as in `KILLED_AT`; return the file that says so.

    Args:
        nth: how many such calls it takes.
        code: fail with this number, as a full or broken disk does, rather than be killed.
    """
    order = Path(table).with_suffix(".fault")
    order.write_text(json.dumps([*place, nth, code]))
    return order


def _meet(call: str, end: str, when: str, nth: int, code: int) -> None:
    seen: list[str] = []

    def meet(path: str, begin: Callable[[], None]) -> None:
        if not path.endswith(end):
            return
        seen.append(path)
        if len(seen) == nth:
            if when == "middle":
                begin()
            if code:
                raise OSError(code, os.strerror(code))
            os.kill(os.getpid(), signal.SIGKILL)

    _watch(call, meet, behind=when == "after")  # for the rest of this process's life


def _watch(name: str, see: Callable[[str, Callable[[], None]], None], behind: bool = False) -> Callable[..., None]:
    """Call `see(path, begin)` ahead of one of durable's seams or behind it; return the sound one.

    `begin` does the first half of a write, and nothing for the other seams.
    """
    sound = getattr(durable, name)

    def begin(*given: Any) -> None:
        if name == "_write":
            file, chunk = given
            file.write(bytes(chunk)[: len(chunk) // 2])
            file.flush()

    def call(*given: Any) -> None:
        path = _path_of(name, given)
        if behind:
            sound(*given)
        see(path, lambda: begin(*given))
        if not behind:
            sound(*given)

    setattr(durable, name, call)
    return sound


def _path_of(name: str, given: Any) -> str:
    """Return the path that a call is about; `.model.1234.tmp` of a draft is called `model.tmp`."""
    path = given[0].name if name == "_write" else given[-1]
    if name == "_sync":
        path = os.readlink(f"/proc/self/fd/{given[0]}")
    return re.sub(r"/\.([^/]+)\.\d+\.tmp", r"/\1.tmp", str(path))
