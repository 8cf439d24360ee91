"""What a person sees of a sweep: its best trials, what became of the others, and which settings mattered."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

from headswap.sweep.search import COSTS, Search


def print_top(search: Search, console: Any, count: int = 10) -> None:
    """Print the best trials, how the others ended, and each setting's importance."""
    from rich.table import Table

    ended = Counter(_state(search, trial) for trial in search.asked)
    console.print("trials: " + ", ".join(f"{number} {state}" for state, number in ended.most_common()), markup=False)
    names = [each.name if each.name in COSTS else f"validation {each.name}" for each in search.objectives]
    table = Table("trial", *names, *search.space, "seconds", box=None)
    for trial in search.best()[:count]:
        words = trial.user_attrs["words"]
        seconds = (trial.datetime_complete - trial.datetime_start).total_seconds()
        values = [f"{value:.4g}" for value in trial.values]
        table.add_row(str(trial.number), *values, *(words.get(key, "") for key in search.space), f"{seconds:.1f}")
    console.print(table)
    for key, share in importances(search).items():
        console.print(f"importance  {key}  {share:.2f}", markup=False, highlight=False)
    for reason, number in Counter(_reason(trial) for trial in search.counted if _reason(trial)).most_common(3):
        console.print(f"failed {number}: {reason}", markup=False, highlight=False, soft_wrap=True)


def importances(search: Search) -> dict[str, float]:
    """Return each setting's share in the scores' variance (fANOVA of Hutter et al. 2014, Optuna's); {} when unknown.

    It needs four finished trials, one objective, and settings that all of them have.
    """
    done = [trial for trial in search.study.trials if trial.state == search.states.COMPLETE]
    if len(done) < 4 or len(search.objectives) > 1:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return search.optuna.importance.get_param_importances(search.study)
        except (ValueError, RuntimeError):  # all scores alike, or no setting in all trials
            return {}


def _state(search: Search, trial: Any) -> str:
    if trial.user_attrs.get("lost"):
        return "lost with an earlier process"
    return {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}.get(trial.state.name, "running")


def _reason(trial: Any) -> str:
    return str(trial.user_attrs.get("error", "")).splitlines()[0] if trial.user_attrs.get("error") else ""
