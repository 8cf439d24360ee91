"""Several sweeps' trials as one source: no worker waits for a sweep to end. Sweep chain: pool <-> this <-> trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headswap.pool import Job, Outcome
from headswap.sweep.trials import Trials


class Joined:
    """Gives the jobs of the first sweep, then those of the second, and so on; each hears of its own."""

    def __init__(self, sweeps: Sequence[Trials]) -> None:
        self.sweeps = sweeps
        self._owners: dict[Path, list[Trials]] = {}

    def take(self) -> Job | None:
        for trials in self.sweeps:
            while (job := trials.take()) is not None:
                owners = self._owners.setdefault(job.folder.path, [])
                owners.append(trials)
                if len(owners) == 1:  # else another sweep has the same run going: both hear of it
                    return job
        return None

    def heard(self, job: Job, event: Mapping[str, Any]) -> bool:
        ends = [trials.heard(job, event) for trials in self._owners[job.folder.path]]
        return all(ends)

    def ended(self, outcome: Outcome) -> None:
        for trials in self._owners.pop(outcome.job.folder.path):
            trials.ended(outcome)

    def abandon(self) -> None:
        """Give up the trials whose runs somebody stopped while the sweeps went on."""
        for trials in self.sweeps:
            trials.abandon()
