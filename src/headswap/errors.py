"""The faults that a user can cause or mend. Floor 0: every other module may raise them.

Each message reads `<key or file>: <what is wrong>; <what was found>; <choices or remedy>` on one line. The command
line prints that line and exits with `exit_code`; anything that is not one of these is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


class HeadswapError(Exception):
    """A fault with a remedy. `exit_code` is what the command line ends with, `status` what run.json says of the run."""

    exit_code = 1
    status = "failed"


class ConfigError(HeadswapError):
    """A key, a value or an option of the configuration is wrong."""

    exit_code = 2


class DataError(HeadswapError):
    """The rows, columns or labels of a task's data are wrong."""

    exit_code = 2


class WeightsError(HeadswapError):
    """A body's files are missing, damaged, refused or do not fit the architecture."""

    exit_code = 2


class RunError(HeadswapError):
    """A run started and failed, or its folder cannot be used."""

    exit_code = 1


class DamagedError(RunError):
    """A file of a run is not what was written: cut off, changed or gone."""


class OutOfMemory(RunError):
    """The device's memory does not hold a micro-batch."""

    status = "out of memory"


class Diverged(RunError):
    """The loss or the gradient is NaN or infinite. `facts` is what diverged.json records of the step."""

    status = "diverged"

    def __init__(self, message: str, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.facts = dict(facts or {})


class Stopped(RunError):
    """A run was asked to stop, by a signal for one, and its state is saved: the same command goes on from there."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again
    status = "stopped"


def of_status(status: str, code: int, message: str) -> HeadswapError:
    """Return the error that another process ended with."""
    kinds = (Diverged, OutOfMemory, Stopped)
    other = ConfigError if code == ConfigError.exit_code else RunError
    return next((kind for kind in kinds if kind.status == status), other)(message)


def nearest(name: str, choices: Iterable[str], count: int = 3) -> str:
    """Return ` (did you mean a or b?)` for the names nearest to `name`, or an empty string."""
    known = list(dict.fromkeys(choices))
    close = difflib.get_close_matches(name, known, n=count, cutoff=0.6)
    likeness = [difflib.SequenceMatcher(None, key, name).ratio() for key in close]
    close = [
        key for key, ratio in zip(close, likeness, strict=True) if ratio > likeness[0] - 0.1
    ]  # a clear winner alone
    if not close:  # a key given without its group: learning_rate for train.learning_rate
        close = [key for key in known if key.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]][:count]
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def shortly(value: Any) -> str:
    """Return what a message shows of a value."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
