"""The best settings of a sweep once more, on seeds that it never saw. Sweep chain: execute -> this.

The best of many trials is partly the luckiest one: its score falls when it is run again. What is left after that is
what may be reported.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headswap.launch import run_jobs
from headswap.pool import Job, OnEvent
from headswap.sweep.execute import Plan, workers
from headswap.sweep.search import Search


@dataclass(frozen=True)
class Confirmed:
    """One setting on fresh seeds.

    Args:
        found: its objective in the sweep.
        again: the same objective on each fresh seed that finished.
        test: the run's first metric on the test rows, of the same runs.
        errors: why others failed.
    """

    trial: int
    settings: Mapping[str, str]
    found: float
    again: tuple[float, ...]
    test: tuple[float, ...]
    errors: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        return statistics.mean(self.again) if self.again else float("nan")

    @property
    def fell(self) -> float:
        """By how much the objective changed, away from the sweep's value."""
        return self.mean - self.found


def confirm(made: Plan, search: Search, on_event: OnEvent) -> list[Confirmed]:
    """Run the best settings on fresh seeds; return them, the best mean first.

    Two trials with the same settings are one. Finished runs are not trained again.
    """
    sweep, distinct = made.config.sweep, {}
    for trial in search.best():
        distinct.setdefault(tuple(sorted(trial.user_attrs["words"].items())), trial)
    chosen = list(distinct.values())[: sweep.confirm]
    cells = [(trial, _job(made, trial, seed)) for trial in chosen for seed in range(1, sweep.confirm_seeds + 1)]
    outcomes = run_jobs([job for _, job in cells], workers(made.config), on_event) if cells else []
    objective, found = search.objectives[0], []
    for trial in chosen:
        ended = [outcome for (owner, _), outcome in zip(cells, outcomes, strict=True) if owner is trial]
        results = [outcome.job.folder.result() for outcome in ended if outcome.finished]
        found.append(
            Confirmed(
                trial.number,
                trial.user_attrs["words"],
                trial.values[0],
                tuple(objective.of(result) for result in results),
                tuple(result["scores"]["test"][result["primary"]] for result in results),
                tuple(outcome.error for outcome in ended if not outcome.finished),
            )
        )
    sign = -1 if objective.greater_is_better else 1
    return sorted(found, key=lambda each: (not each.again, sign * each.mean if each.again else 0.0))


def _job(made: Plan, trial: Any, seed: int) -> Job:
    seed += made.config.seed
    return made.job(trial.user_attrs["words"], f"trial {trial.number} seed {seed}", f"seed={seed}")


def print_confirmed(found: list[Confirmed], search: Search, console: Any) -> None:
    """Print what was left of the best scores, and the winner's test score."""
    from rich.table import Table

    name = search.objectives[0].name
    table = Table("trial", *search.space, f"{name} in the sweep", "on fresh seeds", "change", "seeds", box=None)
    for each in found:
        spread = f" ± {statistics.stdev(each.again):.4f}" if len(each.again) > 1 else ""
        cells = (each.settings.get(key, "") for key in search.space)
        table.add_row(
            str(each.trial), *cells, f"{each.found:.4f}", f"{each.mean:.4f}{spread}", f"{each.fell:+.4f}",
            str(len(each.again)),
        )  # fmt: skip
    console.print(table)
    if found and found[0].test:
        mean, count = statistics.mean(found[0].test), len(found[0].test)
        console.print(
            f"trial {found[0].trial} is best on fresh seeds; its test score is {mean:.4f}, the mean of {count} runs "
            "that took no part in the choice of settings",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    for each in found:
        for error in each.errors:
            console.print(f"trial {each.trial} failed on a fresh seed: {error}", markup=False, soft_wrap=True)
