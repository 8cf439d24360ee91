"""Weights & Biases: curves in files that can be sent later, or straight to its server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headswap.errors import ConfigError, nearest
from headswap.tracked import Make, TrackedRun, require


@dataclass(frozen=True)
class WandB:
    """Log to wandb, which reads WANDB_API_KEY from the environment itself.

    Args:
        folder: where its files lie.
        mode: `offline` writes files for `wandb sync`; `online` sends; null leaves it to WANDB_MODE.
        project: null for the experiment's `name`.
        entity: the user or team; null for the one that is logged in.
        group: what its pages show together.
        tags: of the run.
    """

    folder: str
    mode: str | None = "offline"
    project: str | None = None
    entity: str | None = None
    group: str | None = None
    tags: list[str] | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("offline", "online", None):
            choices = f"choose offline, online or null{nearest(self.mode, ['offline', 'online'])}"
            raise ConfigError(f"tracker.wandb.mode: no such mode; found {self.mode!r}; {choices}")
        require("wandb", "wandb")

    def open(self, run: TrackedRun, make: Make) -> Any:
        place = Path(self.folder).resolve()
        place.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):  # its own are in the user's home
            os.environ.setdefault(name, str(place / "cache"))
        return make(
            "wandb",
            self.project or run.project,
            {} if run.resumed else run.settings,
            name=run.name[:128],
            id=run.id,
            resume="allow",
            mode=self.mode,
            dir=str(place),
            entity=self.entity,
            group=self.group,
            tags=self.tags,
            settings={"console": "off", "silent": True, "x_stats_pid": os.getppid()},  # measure what trains
        )

    def close(self, writer: Any, status: str) -> None:
        writer.tracker.finish(exit_code=0 if status == "finished" else 1)
