"""The faults that a user can cause or mend. Floor 0: every other module may raise them.

Each message reads `<key or file>: <what is wrong>; <what was found>; <choices or remedy>` on one line. The command
line prints that line and exits with `exit_code`; anything that is not one of these is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HeadswapError(Exception):
    """A fault with a remedy. `exit_code` is what the command line ends with."""

    exit_code = 1


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
