"""What a display, a terminal or a pipe throws costs its lines, never a run. Floor 0."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any

from headswap.errors import Stopped


def shielded(show: Callable[..., Any], name: str = "display") -> Callable[..., None]:
    """Return `show`, left out from the first time on that it throws anything but a wish to stop."""
    broken: list[Exception] = []

    def tell(*told: Any) -> None:
        if broken:
            return
        try:
            show(*told)
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001 (whatever a display throws, a week of training is worth more)
            broken.append(error)
            say(f"headswap: the {name} failed; runs go on without it: {error!r}")

    return tell


def say(text: str) -> None:
    """Print to stderr, if it is still there."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
    flush()


def flush() -> None:
    """Put out what was printed; a stream that refuses it goes nowhere from now on.

    multiprocessing flushes both before it starts a process, and fails with them.
    """
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except OSError:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (as long as the process)
