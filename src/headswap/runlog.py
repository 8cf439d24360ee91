"""What a run tells while it runs: to whoever watches, into metrics.jsonl, and of its own time. Floor 4."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from headswap.records import RunFolder
from headswap.shield import say, shielded
from headswap.training import Report


class Clock:
    """Seconds of a run's parts."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 3)
        self._last = now

    @property
    def total(self) -> float:
        return round(time.perf_counter() - self._start, 3)


def heard(report: Report) -> Report:
    """Return `report`, shielded; warnings go into the log too, where nobody watches."""
    watched = shielded(report, "progress report")

    def tell(line: Mapping[str, Any]) -> None:
        if line["kind"] == "warning":
            say(line["text"])
        watched(line)

    return tell


def both(folder: RunFolder, report: Report) -> Report:
    """Write every line to metrics.jsonl and tell whoever watches; say it once when the disk refuses."""
    said: list[str] = []

    def tell(line: Mapping[str, Any]) -> None:
        folder.log_metrics(line)
        if folder.metrics.refused and not said:
            said.append(folder.metrics.refused)
            text = f"{folder.metrics.path}: cannot be written; {folder.metrics.refused}; its lines wait in memory"
            report({"kind": "warning", "text": f"{text}: free space"})
        report(line)

    return tell


def settled(folder: RunFolder) -> Callable[[], int]:
    """Return a function that puts metrics.jsonl on the disk and says how many lines it has."""

    def settle() -> int:
        folder.metrics.sync()
        return folder.metrics.lines

    return settle
