"""Changes laid over a composed configuration: an arm's, a size's, a stage's. Floor 0."""

from __future__ import annotations

import re
from typing import Any

from headswap import config as configuration
from headswap.errors import ConfigError, nearest
from headswap.spine import Config


def overlay(config: Config, changes: dict[str, Any], where: str) -> Config:
    """Return a copy of `config` with the nested dict `changes` laid over it.

    Raises:
        ConfigError: `changes` names a key that the configuration does not have; `where` says who asked.
    """
    tree = configuration.to_dict(config)
    for group in configuration.PLUG_GROUPS:  # the option's name is no longer true of another class
        value, held = changes.get(group), tree[group] or {}
        if isinstance(value, dict) and (_other_plug(value, held) or _other_settings(value, held)):
            tree["choices"][group] = str(value.get("architecture") or str(value["_target_"]).split(".")[-2])
    _merge(tree, changes, where)
    return configuration.checked(configuration.from_dict(tree))


def _other_plug(value: dict[str, Any], held: dict[str, Any]) -> bool:
    """Say whether `value` names another class, or another architecture: the fields of `held` are none of its own."""
    named = [name for name in ("_target_", "architecture") if name in held or name == "_target_"]
    return any(value.get(name, held.get(name)) != held.get(name) for name in named)


def _other_settings(value: dict[str, Any], held: dict[str, Any]) -> bool:
    """Say whether `value` is a whole body from settings, and not the one that is held."""
    return "architecture" in value and any(held.get(name) != each for name, each in value.items())


def _merge(tree: dict[str, Any], changes: dict[str, Any], where: str, prefix: str = "") -> None:
    free = re.match(rf"({'|'.join(configuration.PLUG_GROUPS)})\.\w+\.", prefix)  # inside a plug's own field
    for key, value in changes.items():
        if key not in tree and not free:
            known = [prefix + name for name in tree]
            raise ConfigError(
                f"{where}: no such key; found {prefix}{key!s}{nearest(prefix + key, known)}; "
                f"keys here: {', '.join(sorted(tree))}"
            )
        if isinstance(value, dict) and isinstance(tree.get(key), dict) and not _other_plug(value, tree[key]):
            _merge(tree[key], value, where, f"{prefix}{key}.")
        else:
            tree[key] = value
