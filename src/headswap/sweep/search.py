"""Optuna's study of a sweep: proposes trials, hears scores, outlives the process. Sweep chain: trials -> this.

Optuna is asked and told; it starts nothing. Its journal in the sweep's folder is the memory: every trial with its
settings, its scores on the way and its end.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headswap.errors import ConfigError, RunError
from headswap.search_space import Choice, Conditions, Dimension, Span, spelled
from headswap.seeds import Seeds
from headswap.spine import SweepConfig

JOURNAL = "trials.journal"
COSTS = {"seconds": ("seconds", "train"), "parameters": ("parameters", "trainable")}
"""Objectives that are no scores -> where they stand in result.json; less of them is better."""
LOST, SECONDS = "lost", "seconds"


@dataclass(frozen=True)
class Objective:
    """What a sweep selects by: a score on validation, or a cost."""

    name: str
    greater_is_better: bool

    def of(self, result: Mapping[str, Any]) -> float:
        """Return its value in a finished run's result.json."""
        if self.name in COSTS:
            part, name = COSTS[self.name]
            return float(result[part][name])
        return float(result["scores"]["validation"][self.name])


def require_optuna() -> Any:
    """Return the module. Raises ConfigError when it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise ConfigError('sweep: needs Optuna; found none; pip install "headswap[sweep]"') from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def mend(folder: Path) -> None:
    """Put the journal in order after a process that was killed: cut off a torn last line, lift the lock it left.

    Optuna would refuse a journal that goes on behind a torn line, and wait half a minute for the lock. The caller holds
    the sweep's own lock.
    """
    path = folder / JOURNAL
    path.with_name(f"{JOURNAL}.lock").unlink(missing_ok=True)
    if path.is_file() and not (text := path.read_bytes()).endswith(b"\n"):
        os.truncate(path, text.rfind(b"\n") + 1)


class Search:
    """A sweep's study.

    Args:
        folder: the sweep's; None for a study that is forgotten.
        seed: what samplers draw from, together with how many trials there were when this process began: a sampler that
            began with the same seed again would propose its first settings again.
        look: read alone: neither write into the folder nor wait for who does.
    """

    def __init__(
        self,
        how: SweepConfig,
        space: Mapping[str, Dimension],
        objectives: Sequence[Objective],
        seed: int,
        folder: Path | None = None,
        conditions: Conditions | None = None,
        *,
        look: bool = False,
    ) -> None:
        self.optuna, self.how, self.objectives, self.conditions = require_optuna(), how, objectives, conditions
        self.space = _finite(space) if how.sampler == "grid" else dict(space)
        directions = ["maximize" if each.greater_is_better else "minimize" for each in objectives]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls several of its parts experimental
            self.study = self._seen(folder) if look and folder else self._study(folder, directions)
            self.study.sampler = self._sampler(seed)
            self.study.pruner = self._pruner()
        if not look:
            self._enqueue_grid(known=folder is not None)

    def _seen(self, folder: Path) -> Any:
        """Return the study that is there: Optuna's create_study would write into it."""
        if not self.how.storage and not (folder / JOURNAL).is_file():
            raise RunError(f"{folder}: no trial of this sweep has begun; found no {JOURNAL}; start it first")
        try:
            return self.optuna.load_study(study_name=self._name(folder), storage=self._storage(folder))
        except KeyError as error:
            raise RunError(f"{folder}: no trial of this sweep has begun; found an empty study; start it") from error

    def _name(self, folder: Path | None) -> str:
        return "sweep" if folder is None or not self.how.storage else folder.name  # a database holds many

    def _study(self, folder: Path | None, directions: Sequence[str]) -> Any:
        try:
            return self.optuna.create_study(
                storage=self._storage(folder), study_name=self._name(folder), directions=directions, load_if_exists=True
            )
        except Exception as error:
            if folder is None or not self.how.storage:
                raise
            said = " ".join(str(error).split())[:200]  # whatever a database's driver throws, or the want of one
            raise ConfigError(
                f"sweep.storage: cannot be opened; found {type(error).__name__}: {said}; correct the address, install "
                "its driver, or set null for a journal in the sweep's folder"
            ) from error

    def _storage(self, folder: Path | None) -> Any:
        if folder is None:
            return None
        if self.how.storage:
            return self.how.storage
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        folder.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(folder / JOURNAL)))

    def _sampler(self, seed: int) -> Any:
        samplers, start = self.optuna.samplers, Seeds(seed).stream("sweep") % 2**32
        if self.how.sampler == "quasi_random":  # one sequence for all processes; the study counts its points
            return samplers.QMCSampler(qmc_type="sobol", scramble=True, seed=start, warn_independent_sampling=False)
        start = Seeds(seed).stream("sweep", len(self.study.trials)) % 2**32
        if self.how.sampler in ("random", "grid"):  # a grid's settings wait in the study
            return samplers.RandomSampler(seed=start)
        return samplers.TPESampler(
            seed=start, n_startup_trials=self.how.startup, multivariate=True, group=True, constant_liar=True
        )

    def _pruner(self) -> Any:
        """Return what ends trials early; it counts in hundredths of a trial's own steps."""
        pruners, first = self.optuna.pruners, max(1, round(100 * self.how.first_rung))
        if self.how.pruner == "halving":
            return pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=self.how.keep_one_in)
        if self.how.pruner == "hyperband":
            return pruners.HyperbandPruner(first, 100, self.how.keep_one_in)
        return pruners.NopPruner()

    def _enqueue_grid(self, known: bool) -> None:
        """Let all combinations wait in the study, once; `known` where it may hold some from an earlier process."""
        if self._grid and "grid" not in self.study.user_attrs:
            for settings in self._grid:
                self.study.enqueue_trial(settings, skip_if_exists=known)
            self.study.set_user_attr("grid", len(self._grid))

    @functools.cached_property
    def _grid(self) -> list[dict[str, str]]:
        """Return all combinations, the last key fastest; none unless the sampler is a grid."""
        if self.how.sampler != "grid":
            return []
        words = [dimension.words for dimension in self.space.values() if isinstance(dimension, Choice)]
        return [dict(zip(self.space, each, strict=True)) for each in itertools.product(*words)]

    @property
    def total(self) -> int:
        """How many trials there are to be: those asked for, or the whole grid if that is smaller."""
        return min(self.how.trials, len(self._grid) or self.how.trials)

    @property
    def asked(self) -> list[Any]:
        """All trials but those of a grid that still wait."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.user_attrs]

    @property
    def counted(self) -> list[Any]:
        """The trials that count towards the total: all but those that were lost with their process."""
        return [trial for trial in self.asked if not trial.user_attrs.get(LOST)]

    @property
    def failures(self) -> int:
        return sum(trial.state == self.states.FAIL for trial in self.counted)

    @property
    def states(self) -> Any:
        return self.optuna.trial.TrialState

    def recover(self) -> int:
        """Ask again for the trials that were running when an earlier process died; return how many.

        Nobody else may be at work: the caller holds the sweep's lock.
        """
        dead = [trial for trial in self.study.trials if trial.state == self.states.RUNNING]
        for trial in dead:
            self.optuna.trial.Trial(self.study, trial._trial_id).set_user_attr(LOST, True)
            self.study.tell(trial.number, state=self.states.FAIL)
            if settings := trial.system_attrs.get("fixed_params") or trial.params:  # it may have died while asking
                self.study.enqueue_trial(settings)
        return len(dead)

    def ask(self) -> tuple[Any, dict[str, str]]:
        """Return a new trial and its settings, key -> override word."""
        trial, words = self.study.ask(), {}
        trial.set_user_attr(LOST, False)
        for key, dimension in self.space.items():
            if self.conditions is None or self.conditions.applies(key, dict(words)):
                words[key] = _suggested(trial, key, dimension)
        trial.set_user_attr("words", words)
        return trial, words

    def tell(self, trial: Any, result: Mapping[str, Any]) -> None:
        """Note a finished run. One whose score is no number has failed."""
        values = [objective.of(result) for objective in self.objectives]
        if all(map(math.isfinite, values)):
            self.study.tell(trial, values)
        else:
            self.fail(trial, f"a score is no number; found {values}")

    def fail(self, trial: Any, reason: str) -> None:
        trial.set_user_attr("error", reason)
        self.study.tell(trial, state=self.states.FAIL)

    def behind(self, trial: Any, event: Mapping[str, Any]) -> bool:
        """Note a score on the way, in % of the trial's own steps; say whether the trial is to end."""
        name = self.objectives[0].name
        if len(self.objectives) > 1 or self.how.pruner == "none" or event["kind"] != "validation" or name not in event:
            return False
        value, share = event[name], event["step"] / event["total"]
        if not math.isfinite(value):
            return False
        trial.report(value, max(1, round(100 * share)))
        return share < 1 and trial.should_prune()

    def trial(self, number: int) -> Any:
        """Return a trial that another process asked for, to report to."""
        storage, study = self.study._storage, self.study._study_id
        return self.optuna.trial.Trial(self.study, storage.get_trial_id_from_study_id_trial_number(study, number))

    def prune(self, trial: Any) -> None:
        self.study.tell(trial, state=self.states.PRUNED)

    def best(self) -> list[Any]:
        """Return the finished trials, the best first; of several objectives the Pareto set alone."""
        done = [trial for trial in self.study.trials if trial.state == self.states.COMPLETE]
        if len(self.objectives) > 1:
            return list(self.study.best_trials)
        sign = -1 if self.objectives[0].greater_is_better else 1
        return sorted(done, key=lambda trial: sign * trial.value)


def objectives_of(names: Sequence[str], metrics: Sequence[Any]) -> list[Objective]:
    """Return the objectives by name; none for the first metric.

    Raises:
        ConfigError: a name is neither a metric of the run, nor loss, seconds or parameters.
    """
    known = {metric.name: Objective(metric.name, metric.greater_is_better) for metric in metrics}
    known |= {name: Objective(name, False) for name in ("loss", *COSTS)}
    names = list(names) or [metrics[0].name]
    for name in names:
        if name not in known:
            raise ConfigError(f"sweep.objectives: no such objective; found {name!r}; choose from {', '.join(known)}")
    if len(set(names)) != len(names):
        raise ConfigError(f"sweep.objectives: one stands twice; found {', '.join(names)}; name each once")
    return [known[name] for name in names]


def _suggested(trial: Any, key: str, dimension: Dimension) -> str:
    if isinstance(dimension, Choice):
        return trial.suggest_categorical(key, list(dimension.words))
    if dimension.whole:
        low, high, step = round(dimension.low), round(dimension.high), round(dimension.step or 1)
        return spelled(trial.suggest_int(key, low, high, step=step, log=dimension.log), whole=True)
    return spelled(trial.suggest_float(key, dimension.low, dimension.high, step=dimension.step, log=dimension.log))


def _finite(space: Mapping[str, Dimension]) -> dict[str, Dimension]:
    """Return the space as choices. Raises ConfigError for a dimension without an end."""
    found: dict[str, Dimension] = {}
    for key, dimension in space.items():
        if isinstance(dimension, Span) and dimension.count is None:
            raise ConfigError(
                f"sweep.space.{key}: a grid needs choices or a range; found an interval; write choice(a,b) or "
                "range(low,high), or take another sweep.sampler"
            )
        found[key] = dimension if isinstance(dimension, Choice) else Choice(tuple(dimension.words()))
    return found
