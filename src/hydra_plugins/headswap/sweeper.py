"""Hydra's door to headswap's sweeps: `headswap train -m sweep=tpe ...`, with any of Hydra's launchers.

Hydra takes plugins from this namespace alone, and imports them at every start: nothing heavy here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

TARGET = "hydra_plugins.headswap.sweeper.HeadswapSweeper"

ConfigStore.instance().store(group="hydra/sweeper", name="headswap", node={"_target_": TARGET}, provider="headswap")


class HeadswapSweeper(Sweeper):
    """Asks headswap's search for trials, a batch at a time, and gives them to the launcher."""

    def __init__(self) -> None:
        self.config: Any = None
        self.launcher: Any = None
        self.context: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep to its total.

        Args:
            arguments: the overrides; those with several values, and intervals, are the space.
        """
        from headswap.shield import say
        from headswap.sweep.batches import sweep_in_batches
        from headswap.sweep_commands import show

        sources = self.config.hydra.runtime.config_sources
        folders = [source.path for source in sources if source.provider == "command-line"]
        show(*sweep_in_batches(arguments, folders, self._launch, say))
        return []  # what became of each trial is in the sweep's folder; one that failed fails no sweep

    def _launch(self, jobs: Sequence[Sequence[str]], first: int) -> Sequence[Any]:
        return self.launcher.launch(jobs, initial_job_idx=first)
