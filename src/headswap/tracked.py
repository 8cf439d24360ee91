"""What a tracker must offer, and what it is told of a run. Floor 0, imports nothing heavy.

A tracker takes a run's curve to where people look at curves. Each one works in a process of its own (tracking.py), so
that it may set the environment, take its time, throw or hang. A run's own files stay the truth.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from headswap.errors import ConfigError

Make = Callable[..., Any]
"""(name, project, settings, folder=None, **arguments) -> Accelerate's tracker `name`, begun; hardware.tracker."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run.

    Args:
        name: the run folder's name.
        project: what its runs stand under: the experiment's `name`.
        id: stays the same while an interrupted run is gone on with; a run that starts again has a new one.
        resumed: whether the tracker has heard of this id before.
        step: the last optimizer step that it was told of, 0 for none.
        settings: the configuration: dotted keys, and values that are text, numbers or truth values.
    """

    name: str
    project: str
    id: str
    resumed: bool
    step: int
    settings: Mapping[str, str | float | bool]


@runtime_checkable
class Tracker(Protocol):
    """Where curves go."""

    def open(self, run: TrackedRun, make: Make) -> Any:
        """Begin the run there, or go on with it; return what has `log(values, step=...)`."""
        ...

    def close(self, writer: Any, status: str) -> None:
        """End it there; `status` is `finished`, or else what became of the run: `failed`, `stopped` ..."""
        ...


def require(tracker: str, *packages: str) -> None:
    """Raise ConfigError where a package that the tracker needs is not installed. Imports none of them."""
    if lacking := [package for package in packages if importlib.util.find_spec(package) is None]:
        raise ConfigError(
            f"tracker.{tracker}: needs a package that is not installed; found no {', '.join(lacking)}; "
            f'pip install "headswap[{tracker}]"'
        )
