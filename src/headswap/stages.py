"""Chains of runs: each stage is the experiment with other overrides, and the body of the stage before. Floor 5."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from headswap import config as configuration
from headswap.launch import folder_of
from headswap.spine import Config


def stage_configs(config: Config, flags: argparse.Namespace) -> Iterator[tuple[str, Config]]:
    """Yield (name, configuration) of each stage in order; an experiment without stages is one stage.

    A stage's overrides come after the experiment's and before the user's own on the command line; its `run` is the
    folder of the stage before, which is known before that stage has run. The user's `body` words go to the stages that
    do not take the body of the stage before.
    """
    if not config.stages:
        yield "run", config
        return
    before, made = config.run, None
    for stage in config.stages:
        if made is not None:  # only now: what a folder is called hangs on the run that the stage before starts from
            before = str(folder_of(made).path)
        fixed = ("stages", "task=", "body") if "body=from_run" in stage.overrides else ("stages", "task=")
        chosen = [word for word in flags.overrides if not word.lstrip("+~").startswith(fixed)]
        overrides = [*stage.overrides, *chosen, "stages=[]"]
        if before is not None:
            overrides.append(f"run='{before}'")
        made = configuration.compose(overrides, flags.config_dir)
        yield stage.name, made
