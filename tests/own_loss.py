"""A task that takes the process of Hydra's launcher with it, once: a plug that the tests of launchers name."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from headswap.contracts import DataRequest, Splits
from headswap.seeds import Seeds
from headswap.tasks.text_classification import TextClassification


@dataclass(frozen=True)
class KillsItsLauncher(TextClassification):
    marker: str = ""

    def load(self, request: DataRequest, seeds: Seeds) -> Splits:
        """The run is a child of the fork server, and that is one of the launcher's process."""
        if not Path(self.marker).exists() and os.getppid() != 1:
            parent = Path(f"/proc/{os.getppid()}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
            if "loky" in Path(f"/proc/{parent}/cmdline").read_text(encoding="utf-8"):
                Path(self.marker).touch()
                os.kill(int(parent), signal.SIGKILL)
        return super().load(request, seeds)
