"""What a run is known by, and what of a configuration its run reads at all. Floor 0."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from headswap.config import to_dict
from headswap.spine import Config

UNREAD_BY_BASELINES = ("body", "head", "strategy", "train", "run", "data.max_length", "data.bucket")
"""Keys that a baseline's run does not read, whatever they say."""


def identity(config: Config, content: dict[str, Any]) -> str:
    """Return the 8 hex digits a run is known by: its configuration and its data, without hardware and paths.

    Args:
        config: the resolved configuration.
        content: what the plugs that the run reads say identifies their bytes (`identity()` of task and body).
    """
    from headswap import __version__

    tree = to_dict(config)
    where = ("hardware", "output", "tracker")  # and who looks on
    for key in ("name", "seed", "run", "plugins", *where, "study", "sweep", "stages", "choices"):
        tree.pop(key)
    tree["train"].pop("save_every")  # saving changes no bit of the result
    if not tree["train"]["measure_change"]:  # measuring does not either, but a run without it lacks what is asked for
        tree["train"].pop("measure_change")
    tree = read_keys(tree)
    if config.baseline is None:
        tree.pop("baseline")
    tree |= {"seed": config.seed, "content": content, "version": __version__}
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()[:8]


def read_keys(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration in plain containers without the keys that its run does not read."""
    if tree.get("baseline") is None:
        return tree
    kept = {key: value for key, value in tree.items() if key not in UNREAD_BY_BASELINES}
    data = {key: value for key, value in tree.get("data", {}).items() if f"data.{key}" not in UNREAD_BY_BASELINES}
    return kept | {"data": data}
