"""A sweep's trials as a source of jobs: asks for settings when a place is free, tells what became of them.

Sweep chain: pool.drain() <-> this <-> search. A trial is a run with a folder like any other: one that is finished
already costs nothing, one that was cut off goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headswap.errors import ConfigError, Stopped
from headswap.pool import Job, OnEvent, Outcome
from headswap.sweep.search import SECONDS, Search

PRUNED = "pruned"


def trial_name(number: int, folder: Path) -> str:
    """Return what `sweep.trial` says of a trial: its number and its sweep's folder."""
    return f"{number} {folder.resolve()}"


class Trials:
    """The source.

    Args:
        job: (settings, number) -> the run that they make of the experiment.
        on_event: told of what runs say, and of reused ones.
    """

    def __init__(self, search: Search, job: Callable[[Mapping[str, str], int], Job], on_event: OnEvent) -> None:
        self.search, self.job, self.on_event = search, job, on_event
        self._running: dict[Path, list[Any]] = {}
        self._pruned: set[Path] = set()
        self._stopped: list[tuple[Any, str]] = []

    def asked_of(self, job: Job) -> tuple[int, dict[str, str]]:
        """Return the number and the settings of the trial that a job runs for."""
        trial = self._running[job.folder.path][0]
        return trial.number, trial.user_attrs["words"]

    def abandon(self) -> None:
        """Give up the trials whose runs somebody stopped while the sweep went on; their states are saved."""
        for trial, error in self._stopped:
            self.search.fail(trial, error)

    def took(self, job: Job, seconds: float) -> None:
        """Note how long a job trained, where its trial's clock ran in a queue and beside others, too."""
        for trial in self._running[job.folder.path]:
            trial.set_user_attr(SECONDS, seconds)

    @property
    def hopeless(self) -> bool:
        most = self.search.how.max_failures
        return most is not None and self.search.failures >= most

    def take(self) -> Job | None:
        while not self.hopeless and len(self.search.counted) < self.search.total:
            trial, words = self.search.ask()
            try:
                job = dataclasses.replace(self.job(words, trial.number), seconds=self.search.how.seconds)
            except ConfigError as error:
                self.search.fail(trial, str(error))
                continue
            trial.set_user_attr("folder", str(job.folder.path))
            if job.folder.path in self._running:  # the same settings run beside it
                self._running[job.folder.path].append(trial)
            elif job.folder.finished and job.config.output.reuse:
                self.search.tell(trial, job.folder.result())
                self.on_event(job, {"kind": "reused"})
            else:
                self._running[job.folder.path] = [trial]
                return job
        return None

    def heard(self, job: Job, event: Mapping[str, Any]) -> bool:
        self.on_event(job, event)
        path = job.folder.path
        if path in self._pruned:
            return False
        behind = [self.search.behind(trial, event) for trial in self._running[path]]  # each is to note its score
        if any(behind):
            self._pruned.add(path)
        return any(behind)

    def ended(self, outcome: Outcome) -> None:
        path = outcome.job.folder.path
        for trial in self._running.pop(path):
            if outcome.finished:
                self.search.tell(trial, outcome.job.folder.result())
            elif outcome.status == PRUNED or (path in self._pruned and outcome.status == Stopped.status):
                self.search.prune(trial)
            elif outcome.status == Stopped.status:  # with the sweep, most likely: it goes on with the next one
                self._stopped.append((trial, outcome.error))
            else:
                self.search.fail(trial, outcome.error)
        if path in self._pruned and outcome.status == Stopped.status:
            outcome.job.folder.note(status=PRUNED)
        self._pruned.discard(path)
        self.on_event(outcome.job, {"kind": "ended", "outcome": outcome})
