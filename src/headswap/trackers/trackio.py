"""Trackio: curves in a local SQLite file, looked at with `trackio show`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headswap.tracked import Make, TrackedRun, require


@dataclass(frozen=True)
class Trackio:
    """Log to Trackio's files; nothing leaves the machine.

    Args:
        folder: where its files lie; `TRACKIO_DIR` for its own commands.
        project: null for the experiment's `name`.
        group: what its dashboard shows or hides together.
    """

    folder: str
    project: str | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        require("trackio", "trackio")

    def open(self, run: TrackedRun, make: Make) -> Any:
        os.environ["TRACKIO_DIR"] = str(Path(self.folder).resolve())
        for name in [name for name in sys.modules if name.split(".")[0] == "trackio"]:
            del sys.modules[name]  # it reads the folder when it is imported, and somebody may have done so
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = True  # else it asks the hub who is logged in
        return make(
            "trackio",
            self.project or run.project,
            {} if run.resumed else run.settings,
            name=run.name,
            group=self.group,
            resume="allow" if run.resumed else "never",
            embed=False,
            auto_log_cpu=False,  # of the process that logs, which is not the one that trains
            auto_log_gpu=False,
        )

    def close(self, writer: Any, status: str) -> None:
        if status != "finished":
            writer.tracker.alert(f"the run has {status}")
        writer.finish()
