"""What tuning may try: the ranges of a study's arms, checked before anything runs. Study chain: tuning -> this."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, get_type_hints

from headswap.errors import ConfigError, nearest
from headswap.search_space import Choice, Dimension, parse, value_of
from headswap.spine import Config, StudyConfig
from headswap.study.plan import Arm
from headswap.study.tuned import nested
from headswap.typecheck import conform

_NOT_TUNED = ("study", "sweep", "output", "hardware", "stages", "name", "run", "plugins", "metric", "tracker", "seed")
_NOT_TUNED += ("data.train_rows", "data.validation_rows", "data.test_rows", "data.split_seed")
_NOT_TUNED += ("body.init", "body.source")

Space = tuple[dict[str, Dimension], dict[str, str]]
"""Dotted key -> what may be tried, parsed and as text."""


def arms_of(config: Config, flags: argparse.Namespace | None) -> dict[str, Space]:
    """Return arm -> its ranges, for the arms that have some.

    Args:
        flags: the command line, of which a chain's last stage is composed.

    Raises:
        ConfigError: an arm has none, and neither null nor a baseline says that it needs none; a key that is none, or no
            setting; fewer settings than trials; trial seeds that are the study's; ranges of an arm that is a chain.
    """
    study = config.study
    _refuse_unfit(config)
    found = {}
    for arm in study.arms:
        if study.tuning.spaces.get(arm) is None:
            if arm not in study.tuning.spaces and not (study.arms[arm] or {}).get("baseline"):
                _refuse_chain(Arm(config, arm, None, config.seed, flags))
                raise ConfigError(
                    f"study.tuning.spaces.{arm}: an arm of a tuned study has ranges; found none; set "
                    f"'study.tuning.spaces.{arm}.train.learning_rate=tag(log,interval(1e-5,1e-3))', or "
                    f"study.tuning.spaces.{arm}=null for its given values"
                )
            continue
        found[arm] = _space(config, flags, arm)
    if not found:
        raise ConfigError(
            f"study.tuning.spaces: no arm has ranges; found {', '.join(study.arms)} with given values; set "
            "study.tuning=none, or ranges for an arm"
        )
    return found


def sizes_of(study: StudyConfig) -> list[int | None]:
    """Return the sizes that are tuned, the largest first. Raises ConfigError where one is none of the study's."""
    chosen, sizes = study.tuning.sizes, sorted(study.sizes, reverse=True)
    if chosen == "each" or not sizes:
        if chosen not in ("each", "largest"):
            raise ConfigError(
                f"study.tuning.sizes: the study has no sizes, it takes all rows; found {chosen}; set "
                "study.tuning.sizes=each"
            )
        return list(sizes) or [None]
    if chosen == "largest":
        return [sizes[0]]
    if odd := [size for size in chosen if size not in sizes]:
        raise ConfigError(
            f"study.tuning.sizes: not among study.sizes; found {odd[0]}; choose from {', '.join(map(str, sizes))}"
        )
    return sorted(set(chosen), reverse=True)


def _refuse_unfit(config: Config) -> None:
    study = config.study
    if odd := [arm for arm, each in study.tuning.spaces.items() if arm not in study.arms and each is not None]:
        raise ConfigError(
            f"study.tuning.spaces.{odd[0]}: no such arm; found {odd[0]!r}{nearest(odd[0], study.arms)}; arms: "
            f"{', '.join(study.arms)}"
        )
    own = range(config.seed, config.seed + study.seeds)
    if shared := [seed for seed in study.tuning.seeds if seed in own]:
        raise ConfigError(
            f"study.tuning.seeds: the study's own runs have that seed; found {shared[0]}; choose seeds outside "
            f"{own.start} to {own.stop - 1}, or [] for {own.start - 1}"
        )


def _space(config: Config, flags: argparse.Namespace | None, arm: str) -> Space:
    given, where = config.study.tuning.spaces[arm], f"study.tuning.spaces.{arm}"
    own = Arm(config, arm, None, config.seed, flags)
    _refuse_chain(own)
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(
            f"{where}: ranges by key; found {given!r}; set {where}.train.learning_rate=..., or null for given values"
        )
    space = parse(given, where)
    if odd := [key for key in space if any(key == no or key.startswith(f"{no}.") for no in _NOT_TUNED)]:
        raise ConfigError(f"{where}.{odd[0]}: not to be tuned; found {odd[0]!r}; choose settings of the arm's run")
    size = next(iter(sizes_of(config.study)))
    for ends in _corners(space):
        values = {key: typed(key, value_of(word), arm) for key, word in ends.items()}
        dataclasses.replace(own, size=size, tuned=nested(values)).final()
    count = _count(space)
    if count < config.study.tuning.trials:
        raise ConfigError(
            f"{where}: fewer settings than trials; found {count} for {config.study.tuning.trials}; widen the ranges, "
            "or lower study.tuning.trials"
        )
    return space, dict(_texts(given))


def _refuse_chain(arm: Arm) -> None:
    if arm.chained:
        where = f"study.tuning.spaces.{arm.name}"
        found = f"{len(arm.config.stages)} stages"
        raise ConfigError(
            f"{where}: an arm that is a chain is not tuned; found {found}; set {where}=null for its given values, "
            "which headswap sweep finds for a stage"
        )


def _corners(space: Mapping[str, Dimension]) -> list[dict[str, str]]:
    """Return settings in which every choice and both ends of every range stand once."""
    ends = {
        key: each.words if isinstance(each, Choice) else (_word(each.low, each.whole), _word(each.high, each.whole))
        for key, each in space.items()
    }
    return [
        {key: words[min(place, len(words) - 1)] for key, words in ends.items()}
        for place in range(max(map(len, ends.values())))
    ]


def _word(value: float, whole: bool) -> str:
    return str(round(value)) if whole else f"{value:.9g}"


def _count(space: Mapping[str, Dimension]) -> float:
    return math.prod(
        len(each.words) if isinstance(each, Choice) else (each.count or math.inf) for each in space.values()
    )


def _texts(given: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return dotted key -> text, as a sweep's own space has it."""
    found: list[tuple[str, str]] = []
    for name, value in given.items():
        found += _texts(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", str(value))]
    return found


def typed(key: str, value: Any, arm: str) -> Any:
    """Return a value with the type that its key has. Raises ConfigError where it does not fit."""
    hint: Any = Config
    for part in key.split("."):
        hints = get_type_hints(hint) if isinstance(hint, type) and is_dataclass(hint) else {}
        hint = hints.get(part, Any)
    return value if hint is Any else conform(value, hint, f"study.tuning.spaces.{arm}.{key}")
