"""A study's runs before any of them trains: arms x sizes x paired seeds, and whether they are fair. Floor 5."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headswap import config as configuration
from headswap.contracts import DataRequest
from headswap.errors import ConfigError, DataError
from headswap.identity import UNREAD_BY_BASELINES, identity
from headswap.launch import Job, job_of
from headswap.overlays import overlay
from headswap.seeds import Seeds
from headswap.spine import Config, Stage, StudyConfig
from headswap.stages import Chain
from headswap.study.tuned import rows_of

Chosen = Mapping[tuple[str, int | None], dict[str, Any]]
"""(arm, size) -> the values that tuning chose for it, as an overlay."""

ALL_STAGES = "all"
"""What an arm that is nothing without its experiment's stages says of them."""


@dataclass(frozen=True)
class Planned:
    """One cell of the study: `size` labelled rows (training and validation together; None = all), one paired seed.

    Args:
        job: its run; of a chain, the first stage.
        later: gives the jobs of the stages after it, each known once the one before has finished.
        count: how many runs it is.
    """

    arm: str
    size: int | None
    seed: int
    job: Job
    later: Callable[[], Iterator[Job]] = lambda: iter(())
    count: int = 1


def unchanged(made: Config) -> Config:
    return made


def plan(
    config: Config,
    flags: argparse.Namespace | None = None,
    chosen: Chosen | None = None,
    change: Callable[[Config], Config] = unchanged,
) -> list[Planned]:
    """Return the study's runs, seed by seed, so that whatever is finished early is already paired; long runs first.

    The last seed's short runs then fill up the time in which other workers would have nothing left to do.

    Args:
        flags: the command line, of which a chain's stages are composed.
        chosen: laid over the arms; treatment and control may differ in those keys.
        change: what is changed in every run at last, as for a probe of how long they take.

    Raises:
        ConfigError: an arm names an unknown key, or the compared arms differ in a key that `study.may_differ` lacks.
    """
    study = config.study
    if not study.arms:
        raise ConfigError("study.arms: a study needs arms; found none; choose one: headswap list study")
    if config.baseline is not None:
        option = config.choices.get("baseline", "")
        raise ConfigError(
            f"baseline: would stand in every arm of the study; found {option}; set it in an arm of its own, as "
            "study=full does, or baseline=none"
        )
    cells, chosen = [], chosen or {}
    allowed = may_differ(study, chosen)
    for seed in range(config.seed, config.seed + study.seeds):
        for size in sorted(study.sizes, reverse=True) or [None]:
            arms = {arm: Arm(config, arm, size, seed, flags, chosen.get((arm, size), {}), change) for arm in study.arms}
            made = {arm: each.final() for arm, each in arms.items()}
            audit(made, study.treatment, study.control, allowed)
            cells += [arms[arm].planned() for arm in sorted(made, key=lambda arm: -_length(made[arm]))]
    return cells


def _length(config: Config) -> float:
    """Return how long a run is beside those of the other arms."""
    return 0.0 if config.baseline is not None else config.train.epochs


def may_differ(study: StudyConfig, chosen: Chosen) -> list[str]:
    """Return the keys in which treatment and control may differ: those declared, and those that tuning set."""
    pair = study.treatment, study.control
    found = (key for (arm, _), changes in chosen.items() if arm in pair for key, _ in flat(changes))
    return [*study.may_differ, *dict.fromkeys(found)]


@dataclass(frozen=True)
class Arm:
    """An arm at one size and seed: a run, or a chain of them. `tuned` is laid over its own changes."""

    config: Config
    name: str
    size: int | None
    seed: int
    flags: argparse.Namespace | None
    tuned: dict[str, Any] = field(default_factory=dict)
    change: Callable[[Config], Config] = unchanged

    def planned(self) -> Planned:
        title = _title(self.name, self.size, self.seed)
        if not self.chained:
            return Planned(self.name, self.size, self.seed, job_of(self.final(), title))

        def stages() -> Iterator[Job]:
            return (job_of(made, f"{title}: {stage}") for stage, made in self._chain.configs(self._staged))

        def later() -> Iterator[Job]:
            return itertools.islice(stages(), 1, None)

        return Planned(self.name, self.size, self.seed, next(stages()), later, len(self.config.stages))

    def final(self) -> Config:
        """Return the configuration that the arm is judged by: its run's, or its chain's last one as far as known."""
        if not self.config.stages:
            return self._changed(self.config)
        return self._changed(self._chain.final() if self.chained else self._chain.alone())

    @property
    def _changes(self) -> dict[str, Any]:
        return self.config.study.arms[self.name] or {}

    @property
    def chained(self) -> bool:
        """Whether stages run before the one that the arm is judged by."""
        said = self._changes.get("stages", None)
        if said and said != ALL_STAGES:
            raise ConfigError(
                f"study.arms.{self.name}.stages: an arm has the experiment's stages or the last one alone; found "
                f"{said}; set [] for the last one alone, or leave it out"
            )
        if said and not self.config.stages:
            raise ConfigError(
                f"study.arms.{self.name}.stages: the arm is a chain of stages, which the experiment must have; found "
                "none; choose one, such as experiment=attribution"
            )
        # A baseline reads no body, so that none has to be trained for it.
        return bool(self.config.stages) and said in (None, ALL_STAGES) and not self._changes.get("baseline")

    @property
    def _chain(self) -> Chain:
        if self.flags is None:
            raise ConfigError(
                "stages: a chain is composed of the command line's words; found none; use headswap compare"
            )
        return Chain(self.config, self.flags)

    def _staged(self, stage: Stage, made: Config) -> Config:
        if stage is self._chain.last:
            return self._changed(made)
        return self._sized(made, self.size if stage.sized else None)

    def _changed(self, made: Config) -> Config:
        changes = {key: value for key, value in self._changes.items() if key != "stages"}
        measure = made.train.measure_change or self.config.study.measure_change
        made = dataclasses.replace(made, stages=[], train=dataclasses.replace(made.train, measure_change=measure))
        made = overlay(made, changes, f"study.arms.{self.name}")
        if self.tuned:
            made = overlay(made, self.tuned, f"study.tuning.spaces.{self.name}")
        return self._sized(made, self.size)

    def _sized(self, made: Config, size: int | None) -> Config:
        data = rows_for(size, self.config.study)
        return self.change(overlay(made, {"seed": self.seed, "data": data}, "study.sizes"))


def rows_for(size: int | None, study: StudyConfig) -> dict[str, Any]:
    """Return the keys of `data` that give a run so many labelled rows; none where it has all."""
    if size is None:
        return {}
    held = max(1, round(size * study.validation_share))
    return {"train_rows": size - held, "validation_rows": held}


def check_sizes(cells: Sequence[Planned]) -> None:
    """Refuse a size that the data do not have, before anything trains; what has finished is not read again.

    Raises:
        DataError: the smallest or the largest size asks for more rows than there are, or for too few.
    """
    waiting = {cell.size: cell for cell in cells if cell.size is not None and not cell.job.folder.finished}
    for size in sorted({min(waiting), max(waiting)}) if waiting else ():
        config = waiting[size].job.config
        try:
            configuration.build_plugs(config).task.load(DataRequest.of(config.data), Seeds(config.seed))
        except DataError as fault:
            if not str(fault).startswith("data."):
                raise
            raise DataError(
                f"study.sizes: the data have no such {size} rows; {fault}; of {size} rows "
                f"study.validation_share={config.study.validation_share} are validation: change either"
            ) from None


def judged(config: Config, flags: argparse.Namespace | None) -> Config:
    """Return the configuration that a study is known by: the experiment's, or its chain's last stage."""
    return Chain(config, flags).final() if config.stages and flags is not None else config


def audit(arms: dict[str, Config], treatment: str, control: str, may_differ: list[str]) -> None:
    """Refuse a comparison of runs that differ elsewhere than declared; a fair difference has one named cause."""
    undeclared = differences(arms[treatment], arms[control], may_differ)
    if undeclared:
        shown = ", ".join(f"{key} ({one} against {other})" for key, (one, other) in undeclared.items())
        raise ConfigError(
            f"study.may_differ: arms {treatment} and {control} differ in keys it does not name; found {shown}; "
            f"give both arms one value, or declare the difference there"
        )


def differences(first: Config, second: Config, may_differ: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """Return the keys in which two runs differ and that `may_differ` does not name, with both values."""
    one, other = (dict(flat(configuration.to_dict(made))) for made in (first, second))
    aside = ["choices", "study", "tracker", *may_differ]  # names, the question, where curves go: no settings of a run
    aside += UNREAD_BY_BASELINES if any(made.baseline is not None for made in (first, second)) else ()
    return {
        key: (one.get(key), other.get(key))
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key) and not declared(key, aside)
    }


def declared(key: str, may_differ: Sequence[str]) -> bool:
    """Say whether a key, or one that it lies under, is among those that may differ."""
    return any(key == allowed or key.startswith(f"{allowed}.") for allowed in may_differ)


def other_causes(config: Config, flags: argparse.Namespace | None = None) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Return of each further arm in what else it differs from the control, so that nobody reads one cause into it.

    A baseline differs in everything.
    """
    study = config.study
    size, seed = max(study.sizes, default=None), config.seed
    control = Arm(config, study.control, size, seed, flags).final()
    others = [arm for arm in study.arms if arm not in (study.treatment, study.control)]
    finals = {arm: Arm(config, arm, size, seed, flags).final() for arm in others}
    trained = {arm: final for arm, final in finals.items() if final.baseline is None}
    found = {arm: differences(final, control, study.may_differ) for arm, final in trained.items()}
    return {arm: keys for arm, keys in found.items() if keys}


def flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of nested dicts."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def study_folder(config: Config) -> Path:
    """Return the study's folder, named by what it compares."""
    plugs = configuration.build_plugs(config)
    study = dict(config.study.__dict__)
    if not config.study.tuning.trials:
        study.pop("tuning")  # ranges that nobody tries
    content = {"task": plugs.task.identity(), "body": plugs.body.identity(), "study": study}
    if config.stages:
        content["stages"] = [stage.__dict__ for stage in config.stages]
    names = "-".join(config.choices.get(group, group) for group in ("task", "body", "study"))
    return Path(config.output.root) / config.name / f"study-{names}-{identity(config, content)}"


def _title(arm: str, size: int | None, seed: int) -> str:
    return f"{arm} {rows_of(size)} seed {seed}"
