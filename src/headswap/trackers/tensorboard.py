"""TensorBoard: curves in event files, looked at with `tensorboard --logdir`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headswap.tracked import Make, TrackedRun, require


@dataclass(frozen=True)
class TensorBoard:
    """Write event files.

    Args:
        folder: the log directory; a run's events lie in PROJECT/RUN under it.
        project: null for the experiment's `name`.
    """

    folder: str
    project: str | None = None

    def __post_init__(self) -> None:
        require("tensorboard", "tensorboard")

    def open(self, run: TrackedRun, make: Make) -> Any:
        return make(
            "tensorboard",
            f"{self.project or run.project}/{run.name}",
            {} if run.resumed else run.settings,
            self.folder,
            purge_step=run.step + 1 if run.resumed else 0,  # what an earlier process wrote from there on is void
        )

    def close(self, writer: Any, status: str) -> None:
        writer.log({"status": status})
        writer.finish()
