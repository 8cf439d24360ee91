"""Fabricated sweep folders for tests of the sweep's page: no model, no training, known numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from headswap.sweep.drawings import curves_figure, history_figure
from headswap.sweep.findings import findings
from headswap.sweep.landscape import importances_figure, parallel_figure, pareto_figure, slices_figure

RATE = {"low": 1e-5, "high": 1e-3, "step": None, "log": True, "whole": False}
EPOCHS = {"low": 2, "high": 6, "step": 1, "log": False, "whole": True}
WAYS = {"words": ["full", "probe", "lp_ft"]}
SPACE = {"train.learning_rate": RATE, "strategy": WAYS, "train.epochs": EPOCHS}
ACCURACY = {"name": "accuracy", "greater_is_better": True}
SCORES = [0.71, 0.80, 0.755, 0.78, 0.83, 0.82, 0.69, 0.84, 0.81]
FRESH = {"again": [0.79, 0.81, 0.80], "test": [0.771, 0.775, 0.779], "errors": [], "metric": "accuracy"}
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


def found(content, confirmed=()):
    return findings(content, Path("sweep-text-tiny-tpe-0"), confirmed)


def plain(**changes):
    return told([*(trial(number, score) for number, score in enumerate(SCORES)), trial(9)], **changes)


def trace(figure, name, plot=0):
    return next(each for each in figure.plots[plot].data if each["name"] == name)


def figures_of(made):
    makers = (history_figure, pareto_figure, parallel_figure, slices_figure, importances_figure, curves_figure)
    return {figure.name: figure for figure in (make(made) for make in makers) if figure}
