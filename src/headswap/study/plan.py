"""A study's runs before any of them trains: arms x sizes x paired seeds, and whether they are fair. Floor 5."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headswap import config as configuration
from headswap.errors import ConfigError
from headswap.launch import Job, job_of
from headswap.spine import Config


@dataclass(frozen=True)
class Planned:
    """One cell of the study: `size` labelled rows (training and validation together; None = all), one paired seed."""

    arm: str
    size: int | None
    seed: int
    job: Job


def plan(config: Config) -> list[Planned]:
    """Return the study's runs, seed by seed, so that whatever is finished early is already paired; long runs first.

    The last seed's short runs then fill up the time in which other workers would have nothing left to do.

    Raises:
        ConfigError: an arm names an unknown key, or the compared arms differ in a key that `study.may_differ` lacks.
    """
    study = config.study
    if not study.arms:
        raise ConfigError("study.arms: a study needs arms; found none; choose one: headswap list study")
    if config.stages:
        raise ConfigError("stages: a study compares single runs; found stages; train the stages, then body=from_run")
    cells = []
    for seed in range(config.seed, config.seed + study.seeds):
        for size in sorted(study.sizes, reverse=True) or [None]:
            arms = {arm: arm_config(config, arm, size, seed) for arm in study.arms}
            audit(arms, study.treatment, study.control, study.may_differ)
            longest_first = sorted(arms.items(), key=lambda arm: -arm[1].train.epochs)
            cells += [Planned(arm, size, seed, job_of(made, _title(arm, size, seed))) for arm, made in longest_first]
    return cells


def arm_config(config: Config, arm: str, size: int | None, seed: int) -> Config:
    """Return the configuration of one run of an arm."""
    made = configuration.overlay(config, config.study.arms[arm], f"study.arms.{arm}")
    data: dict[str, Any] = {}
    if size is not None:
        held = max(1, round(size * config.study.validation_share))
        data = {"train_rows": size - held, "validation_rows": held}
    return configuration.overlay(made, {"seed": seed, "data": data}, "study.sizes")


def audit(arms: dict[str, Config], treatment: str, control: str, may_differ: list[str]) -> None:
    """Refuse a comparison of runs that differ elsewhere than declared; a fair difference has one named cause."""
    first, second = (dict(flat(configuration.to_dict(arms[arm]))) for arm in (treatment, control))
    differing = [key for key in sorted(first.keys() | second.keys()) if first.get(key) != second.get(key)]
    undeclared = [
        key for key in differing if not any(key == allowed or key.startswith(f"{allowed}.") for allowed in may_differ)
    ]
    if undeclared:
        shown = ", ".join(f"{key} ({first.get(key)} against {second.get(key)})" for key in undeclared)
        raise ConfigError(
            f"study.may_differ: arms {treatment} and {control} differ in keys it does not name; found {shown}; "
            f"give both arms one value, or declare the difference there"
        )


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
    content = {"task": plugs.task.identity(), "body": plugs.body.identity(), "study": config.study.__dict__}
    names = "-".join(config.choices.get(group, group) for group in ("task", "body", "study"))
    return Path(config.output.root) / config.name / f"study-{names}-{configuration.identity(config, content)}"


def _title(arm: str, size: int | None, seed: int) -> str:
    return f"{arm} {'all rows' if size is None else f'{size} rows'} seed {seed}"
