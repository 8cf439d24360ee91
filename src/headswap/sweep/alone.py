"""One trial in a process that its sweep does not hear, as Hydra's launchers start it. Sweep chain: batches -> this.

It reports its scores to the sweep's study itself, and ends when it falls behind. How it ended the sweep tells.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headswap.launch import run_jobs
from headswap.pool import Job, OnEvent, Outcome
from headswap.spine import SweepConfig
from headswap.sweep.execute import reopened
from headswap.sweep.trials import PRUNED, trial_name


def trial_word(folder: Path, number: int) -> str:
    """Return the override that makes a run this trial of the sweep in `folder`."""
    name = trial_name(number, folder).replace("\\", "\\\\").replace('"', '\\"')
    return f'sweep.trial="{name}"'


def run_trial(how: SweepConfig, job: Job, on_event: OnEvent) -> Outcome:
    """Run the job of the trial that `how.trial` names; its outcome's status is `pruned` where it fell behind.

    Where another process holds the run's folder, as one does whose launcher was lost, this one waits for it.
    """
    falls_behind = _judge(str(how.trial)) if how.pruner != "none" else None
    behind: list[Mapping[str, Any]] = []

    def ends(job: Job, event: Mapping[str, Any]) -> bool:
        if falls_behind and not behind and falls_behind(event):
            behind.append(event)
        return bool(behind)

    with job.folder.locked(math.inf):
        pass
    outcome = run_jobs([dataclasses.replace(job, seconds=how.seconds)], 1, on_event, ends)[0]
    if behind and not outcome.finished:
        job.folder.note(status=PRUNED)
        return dataclasses.replace(outcome, status=PRUNED)
    return outcome


def _judge(name: str) -> Callable[[Mapping[str, Any]], bool]:
    """Return what notes a score of the trial in its sweep's study, and says whether it is to end."""
    number, _, folder = name.partition(" ")
    search = reopened(Path(folder)).search()
    trial = search.trial(int(number))
    return lambda event: search.behind(trial, event)
