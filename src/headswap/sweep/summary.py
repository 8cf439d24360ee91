"""What sweep.json holds: all that the page, `headswap top` and a reader need, so that nobody needs Optuna for it.

Sweep chain: execute -> this -> search. No test score is in it: choosing by one would use it up.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

from headswap.sweep.search import LOST, SECONDS, Search


def summary(search: Search) -> dict[str, Any]:
    """Return every trial, the best ones by number, and what each setting's importance is."""
    return {
        "objectives": [dataclasses.asdict(each) for each in search.objectives],
        "space": {key: dataclasses.asdict(each) for key, each in search.space.items()},
        "sampler": search.how.sampler,
        "pruner": search.how.pruner,
        "total": search.total,
        "best": [trial.number for trial in search.best()[:10]],
        "importances": importances(search),
        "trials": [_told(trial) for trial in search.asked],
    }


def importances(search: Search) -> dict[str, float]:
    """Return each setting's share in the scores' variance (fANOVA of Hutter et al. 2014, Optuna's); {} when unknown.

    It needs four finished trials, one objective, and settings that all of them have. The evaluator is named because
    Optuna 5's own choice is another one, and seeded because it grows a random forest.
    """
    done = [trial for trial in search.study.get_trials(deepcopy=False) if trial.state == search.states.COMPLETE]
    if len(done) < 4 or len(search.objectives) > 1:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = search.optuna.importance.FanovaImportanceEvaluator(seed=0)
        try:
            found = search.optuna.importance.get_param_importances(search.study, evaluator=evaluator)
        except (ValueError, RuntimeError):  # all scores alike, or no setting in all trials
            return {}
    return {key: round(float(share), 6) for key, share in found.items()}


def _told(trial: Any) -> dict[str, Any]:
    about = trial.user_attrs
    begun, ended = trial.datetime_start, trial.datetime_complete
    return {
        "number": trial.number,
        "state": "lost" if about.get(LOST) else trial.state.name.lower(),
        "settings": about.get("words", {}),
        "values": trial.values,
        "scores": {str(step): value for step, value in trial.intermediate_values.items()},
        "folder": about.get("folder"),
        "error": about.get("error"),
        "begun": begun.isoformat() if begun else None,
        "seconds": about.get(SECONDS, (ended - begun).total_seconds() if begun and ended else None),
    }
