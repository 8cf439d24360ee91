"""What a tracker is told of a run, read from the run's own files. Floor 4, used by tracking.py."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headswap import config as configuration
from headswap.errors import RunError
from headswap.records import RunFolder, read_json
from headswap.spine import Config

APART = 0.1  # seconds of training between two training lines that a tracker is told of


@dataclass
class Told:
    """What a tracker has heard of a run; it outlives the process.

    Args:
        lines: how many of metrics.jsonl, those left out for their number among them.
    """

    id: str
    lines: int = 0
    step: int = 0


def remembered(place: Path, lines: int) -> tuple[Told, bool]:
    """Return what a tracker has heard of the run, and whether it has; a run without lines begins, whatever was."""
    with contextlib.suppress(RunError, TypeError):
        if lines:
            return Told(**read_json(place)), True
    return Told(uuid.uuid4().hex), False


class Curve:
    """The points of metrics.jsonl that a tracker has not heard of. A run that goes on repeats lines to the bit."""

    def __init__(self, path: Path, told: Told) -> None:
        self._path, self._told = path, told
        self._place, self._seen, self._last = 0, 0, float("-inf")
        self._waiting: deque[dict[str, Any]] = deque()

    def news(self) -> Iterator[tuple[dict[str, float], int]]:
        """Yield (values, optimizer step); a point counts as heard of when the next one is asked for."""
        while self._waiting or self._read():
            line = self._waiting[0]
            if line["kind"] != "train" or line["seconds"] - self._last >= APART or line["step"] == line["total"]:
                yield points(line), line["step"]
                self._last = line.get("seconds", self._last)
            self._waiting.popleft()
            self._told.lines, self._told.step = self._told.lines + 1, line["step"]

    def _read(self) -> bool:
        """Read the file until there is news; return whether there is."""
        if not self._path.exists():
            return False
        with open(self._path, "rb") as file:
            file.seek(self._place)
            while not self._waiting and (lines := [line for line in file.readlines(1 << 20) if line.endswith(b"\n")]):
                self._place += sum(map(len, lines))
                for line in lines:
                    self._seen += 1
                    if self._seen > self._told.lines + len(self._waiting):
                        self._waiting.append(json.loads(line))
        return bool(self._waiting)


def points(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a line of metrics.jsonl by the names that trackers know them by, as `train/loss`."""
    left_out = ("step", "total", "examples", "seconds", "flops", "time")
    return {
        f"{line['kind']}/{key}": value
        for key, value in line.items()
        if key not in left_out and isinstance(value, int | float) and not isinstance(value, bool)
    }


def settings(config: Config) -> dict[str, str | float | bool]:
    """Return the configuration of the run as trackers take it: one level, no lists, no null."""
    tree = configuration.to_dict(config)
    for key in ("study", "sweep", "stages", "tracker"):
        tree.pop(key)
    return dict(_flat(tree))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | float | bool]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str | int | float) else json.dumps(value, default=str)


def ends(folder: RunFolder, trial: bool) -> dict[str, float]:
    """Return the test scores and the seconds of a finished run; of a sweep's trial the seconds alone.

    Trials are chosen by what is looked at, and a test score that was chosen by is used up.
    """
    if not folder.finished:
        return {}
    result = folder.result()
    seconds = {key: result["seconds"][key] for key in ("train", "total")}
    found = {"test": {} if trial else result["scores"]["test"], "seconds": seconds}
    return {
        f"{group}/{key}": value
        for group, values in found.items()
        for key, value in values.items()
        if isinstance(value, int | float)
    }


def status(folder: RunFolder, killed: bool) -> str:
    """Return how the run ended: as its folder tells, unless it was killed before it could write that down."""
    if folder.finished:
        return "finished"
    return "killed" if killed else str(folder.about().get("status", "failed"))
