"""The best settings of a sweep once more, on seeds that it never saw. Sweep chain: execute -> this.

The best of many trials is partly the luckiest one: its score falls when it is run again. What is left after that is
what may be reported.
"""

from __future__ import annotations

import itertools
import statistics
from typing import Any

from headswap.launch import run_jobs
from headswap.pool import Job, OnEvent
from headswap.records import read_json
from headswap.sweep.axes import brief
from headswap.sweep.execute import Plan, workers
from headswap.sweep.findings import SEED, SUMMARY, Confirmed, Setting, findings
from headswap.sweep.search import Search
from headswap.sweep.show import broken, listed, mean_text, say


def confirm(made: Plan, search: Search, on_event: OnEvent) -> list[Confirmed]:
    """Run the best settings on fresh seeds; return them, the best mean first.

    Trials that differ in nothing or in their seed alone are one. Finished runs are not trained again.
    """
    chosen, seeds = _chosen(made), _fresh(made, search)
    cells = [(each, _job(made, each, seed)) for each in chosen for seed in seeds]
    outcomes = run_jobs([job for _, job in cells], workers(made.config), on_event) if cells else []
    objective, found = search.objectives[0], []
    for each in chosen:
        ended = [outcome for (owner, _), outcome in zip(cells, outcomes, strict=True) if owner is each]
        results = [outcome.job.folder.result() for outcome in ended if outcome.finished]
        found.append(
            Confirmed(
                each.number,
                each.settings,
                each.mean,
                tuple(objective.of(result) for result in results),
                tuple(result["scores"]["test"][result["primary"]] for result in results),
                tuple(outcome.error for outcome in ended if not outcome.finished),
                next((result["primary"] for result in results), ""),
            )
        )
    sign = -1 if objective.greater_is_better else 1
    return sorted(found, key=lambda each: (not each.again, sign * each.mean if each.again else 0.0))


def _chosen(made: Plan) -> list[Setting]:
    """Return the best settings, each by its mean over the seeds that it was tried on; of a Pareto set, those in it."""
    told = findings(read_json(made.folder / SUMMARY), made.folder)
    best = {trial.number for trial in told.best()}
    settings = [each for each in told.settings() if best.intersection(trial.number for trial in each.trials)]
    return settings[: made.config.sweep.confirm]


def _fresh(made: Plan, search: Search) -> list[int]:
    """Return seeds that no trial had, also where `seed` is one of the settings."""
    seen = {trial.user_attrs.get("words", {}).get(SEED) for trial in search.asked} | {str(made.config.seed)}
    unseen = (seed for seed in itertools.count(made.config.seed + 1) if str(seed) not in seen)
    return list(itertools.islice(unseen, made.config.sweep.confirm_seeds))


def _job(made: Plan, setting: Setting, seed: int) -> Job:
    return made.job(setting.settings, f"trial {setting.number} seed {seed}", f"seed={seed}")


def print_confirmed(found: list[Confirmed], search: Search, console: Any) -> None:
    """Print what was left of the best scores, and the winner's test score."""
    name = search.objectives[0].name
    rows = []
    for each in found:
        words = [brief(each.settings.get(key, "")) for key in search.space]
        again = (mean_text(each.again), f"{each.fell:+.4f}") if each.again else ("", "")
        rows.append((str(each.trial), *words, f"{each.found:.4f}", *again, str(len(each.again))))
    columns = ("trial", *map(broken, search.space), f"{name} in the sweep", "on fresh seeds", "change", "seeds")
    say(console, listed(columns, rows))
    if found and found[0].test:
        mean, count = statistics.mean(found[0].test), len(found[0].test)
        say(
            console,
            f"trial {found[0].trial} is best on fresh seeds; its test score is {mean:.4f}, the mean of {count} runs "
            "that took no part in the choice of settings",
        )
    for each in found:
        for error in each.errors:
            say(console, f"trial {each.trial} failed on a fresh seed: {error}")
