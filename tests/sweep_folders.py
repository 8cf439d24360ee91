"""Fabricated sweep folders for tests of the sweep's page: no model, no training, known numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RATE = {"low": 1e-5, "high": 1e-3, "step": None, "log": True, "whole": False}
EPOCHS = {"low": 2, "high": 6, "step": 1, "log": False, "whole": True}
WAYS = {"words": ["full", "probe", "lp_ft"]}
SPACE = {"train.learning_rate": RATE, "strategy": WAYS, "train.epochs": EPOCHS}
ACCURACY = {"name": "accuracy", "greater_is_better": True}
SECONDS = {"name": "seconds", "greater_is_better": False}


def trial(number: int, *values: float, **changes: Any) -> dict[str, Any]:
    """Return a trial of sweep.json; without values it has failed."""
    words = WAYS["words"]
    settings = {"train.learning_rate": f"{1e-5 * 1.5 ** (number % 10):.9g}", "strategy": words[number % len(words)]}
    made = {
        "number": number,
        "state": "complete" if values else "fail",
        "settings": settings | {"train.epochs": str(2 + number % 5)},
        "values": list(values) or None,
        "scores": {},
        "folder": f"outputs/name/run-{number}",
        "error": None if values else "diverged: the loss is NaN at step 3; lower train.learning_rate\nTraceback",
        "begun": f"2026-03-01T22:{number % 60:02}:00",
        "seconds": 30.0,
    }
    return made | changes


def pruned(number: int, score: float, share: int) -> dict[str, Any]:
    return trial(number, score, state="pruned", scores={"25": score - 0.02, str(share): score})


def told(trials: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """Return what sweep.json holds."""
    made = {"objectives": [ACCURACY], "space": SPACE, "sampler": "tpe", "pruner": "none", "total": len(trials)}
    return made | {"best": [], "importances": {}, "trials": trials} | changes


def written(folder: Path, content: dict[str, Any], confirmed: list[dict[str, Any]] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(content), encoding="utf-8")
    if confirmed is not None:
        (folder / "confirmed.json").write_text(json.dumps(confirmed), encoding="utf-8")
    return folder
