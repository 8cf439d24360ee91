"""Which runs a body went through before this one, back to the checkpoint that nobody here trained. Floor 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headswap.config import load
from headswap.records import read_json


def lineage(source: str) -> list[dict[str, Any]]:
    """Return the runs that made the body `source`, the last one first; empty where it is not a run's.

    Each has its folder's name, what it learned from what, its seed, the sha256 of the weights that it handed on and
    their test score; `origin` is where the oldest one's body came from.

    Raises:
        RunError: a run's own files are damaged.
    """
    if not source:
        return []  # a body from settings
    folder = Path(source).expanduser()
    folder = folder.parent if folder.name == "model" else folder
    if not all((folder / name).is_file() for name in ("run.json", "result.json", "config.yaml")):
        return []
    about, result, config = (
        read_json(folder / "run.json"),
        read_json(folder / "result.json"),
        load(folder / "config.yaml"),
    )
    primary = result["primary"]
    made = {
        "run": folder.name,
        "task": config.choices.get("task", ""),
        "body": config.choices.get("body", ""),
        "init": config.body.get("init", "pretrained"),
        "strategy": config.choices.get("strategy", ""),
        "seed": config.seed,
        "rows": result["rows"]["train"],
        "test": {primary: result["scores"]["test"][primary]},
        "sha256": {name: value for name, value in result.get("sha256", {}).items() if name.endswith(".safetensors")},
        "origin": config.body.get("source"),
    }
    return [made, *about.get("lineage", [])]


def told(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return a lineage in words, the oldest run first."""
    if not runs:
        return ""
    start = f"{runs[-1]['init']} {runs[-1]['body']}"
    links = [
        f"{run['task']} ({run['strategy']}, {run['rows']:,} rows, seed {run['seed']}; test "
        + ", ".join(f"{name} {value:.4g}" for name, value in run["test"].items())
        + ")"
        for run in reversed(runs)
    ]
    return " -> ".join([start, *links])
