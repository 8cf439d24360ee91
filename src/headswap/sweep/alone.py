"""One trial in a process that its sweep does not hear, as Hydra's launchers start it. Sweep chain: batches -> this.

It reports its scores to the sweep's study itself, and ends when it falls behind. How it ended the sweep tells.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headswap.errors import RunError
from headswap.launch import run_jobs
from headswap.pool import Job, OnEvent, Outcome
from headswap.records import RunFolder
from headswap.sweep.execute import reopened
from headswap.sweep.trials import PRUNED, trial_name


def trial_word(folder: Path, number: int) -> str:
    """Return the override that makes a run this trial of the sweep in `folder`."""
    name = trial_name(number, folder).replace("\\", "\\\\").replace('"', '\\"')
    return f'sweep.trial="{name}"'


def run_trial(word: str, job: Job, on_event: OnEvent) -> Outcome:
    """Run the job of the trial that `sweep.trial` names; its outcome's status is `pruned` where it fell behind.

    Where another process holds the run's folder, as one does whose launcher was lost, this one waits for it.
    """
    number, _, folder = word.partition(" ")
    search = reopened(Path(folder)).search()
    trial, behind = search.trial(int(number)), []

    def ends(job: Job, event: Mapping[str, Any]) -> bool:
        if not behind and search.behind(trial, event):
            behind.append(event)
        return bool(behind)

    _await(job.folder)
    outcome = run_jobs([dataclasses.replace(job, seconds=search.how.seconds)], 1, on_event, ends)[0]
    if behind and not outcome.finished:
        job.folder.note(status=PRUNED)
        return dataclasses.replace(outcome, status=PRUNED)
    return outcome


def _await(folder: RunFolder) -> None:
    while True:
        try:
            with folder.locked():
                return
        except RunError:
            time.sleep(1)
