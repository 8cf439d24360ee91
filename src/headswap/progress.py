"""What a person sees while runs train: bars on a terminal, plain lines elsewhere. Floor 6."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from headswap.launch import Job


class Watch:
    """Shows the events of jobs; a context manager.

    Args:
        split: whose score is told of a finished run: a sweep must not show the one that it may not choose by.
    """

    def __init__(self, total: int, console: Console | None = None, split: str = "test") -> None:
        self.console = console or Console()
        self._split = split
        self._total = total
        self._done = 0
        self._begun = time.monotonic()
        self._bars: dict[str, Any] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(30 if total == 1 else 10),  # what is said beside it must fit into 80 columns
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._all = self._progress.add_task("all runs", total=total, said="") if total > 1 else None

    def __enter__(self) -> Watch:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, job: Job, event: Mapping[str, Any]) -> None:
        show = getattr(self, f"_{event['kind']}", None)
        if show:
            show(job, event)

    def _ledger(self, job: Job, event: Mapping[str, Any]) -> None:
        if self._total == 1:
            rows = ", ".join(f"{count:,} {split}" for split, count in event["rows"].items())
            self.console.print(f"rows: {rows}")
            for warning in event["warnings"]:
                self.console.print(f"data: {warning}", markup=False, highlight=False)
            if event["table"]:
                self.console.print(ledger_table(event["table"]))

    def _baseline(self, job: Job, event: Mapping[str, Any]) -> None:
        self._ledger(job, {**event, "table": ()})

    def _train(self, job: Job, event: Mapping[str, Any]) -> None:
        said = f"loss {event['loss']:.3f} rate {event['learning_rate']:.0e}"
        bar = self._bar(job, event["total"])
        self._progress.update(bar, completed=event["step"], said=said)

    def _validation(self, job: Job, event: Mapping[str, Any]) -> None:
        if self._total == 1:
            values = {
                name: value
                for name, value in event.items()
                if isinstance(value, float) and name not in ("time", "seconds", "loss")
            }
            said = "  ".join(f"{name} {value:.4f}" for name, value in {"loss": event["loss"], **values}.items())
            self.console.print(f"step {event['step']:>5}  validation {said}{'  best' if event['best'] else ''}")

    def _warning(self, job: Job, event: Mapping[str, Any]) -> None:
        self._say(job, event["text"])

    def _resumed(self, job: Job, event: Mapping[str, Any]) -> None:
        self._say(job, f"goes on from its saved state after step {event['step']}")

    def _out_of_memory(self, job: Job, event: Mapping[str, Any]) -> None:
        self._say(job, f"out of memory: {event['micro_batch_size']} examples a pass from step {event['step']} on")

    def _say(self, job: Job, text: str) -> None:
        self.console.print(f"{job.title}: {text}", markup=False, highlight=False, soft_wrap=True)

    def _reused(self, job: Job, event: Mapping[str, Any]) -> None:
        self._count(job, "reused")

    def _ended(self, job: Job, event: Mapping[str, Any]) -> None:
        outcome = event["outcome"]
        if not outcome.finished:
            self._count(job, outcome.error if outcome.status == "stopped" else f"FAILED: {outcome.error}")
            return
        result = job.folder.result()
        value = result["scores"][self._split][result["primary"]]
        self._count(job, f"{self._split} {result['primary']} {value:.4f} in {result['seconds']['total']:.1f} s")

    def _count(self, job: Job, said: str) -> None:
        self._done += 1
        if job.title in self._bars:
            self._progress.remove_task(self._bars.pop(job.title))
        if self._all is not None:
            self._progress.update(self._all, completed=self._done)
            left = (time.monotonic() - self._begun) / self._done * (self._total - self._done)
            clock = "" if self.console.is_terminal else f"  (about {left:.0f} s left)"
            self.console.print(
                f"[{self._done}/{self._total}] {job.title}: {said}{clock}", markup=False, highlight=False
            )

    def _bar(self, job: Job, total: int) -> Any:
        if job.title not in self._bars:
            self._bars[job.title] = self._progress.add_task(job.title, total=total, said="")
        return self._bars[job.title]


def ledger_table(lines: Sequence[Sequence[Any]]) -> Table:
    """Return the ledger's short table: what became of every tensor of the model."""
    table = Table(title="head swap", title_justify="left")
    for index, name in enumerate(("part", "fate", "tensors", "elements", "which")):
        table.add_column(name, justify="right" if index in (2, 3) else "left")
    for line in lines:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in line))
    return table
