"""The words after a verb: overrides and flags, composed into a configuration. Floor 6."""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from headswap.errors import ConfigError, Stopped

SWEEPER = "hydra/sweeper=headswap"
SLURM_GRACE = 600.0
"""Seconds; more than clusters leave between SIGTERM and the end."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ConfigError(f"{self.prog}: {message}; see headswap --help")


def parse(verb: str, words: Sequence[str]) -> argparse.Namespace:
    """Parse the flags that go with overrides."""
    parser = Parser(prog=f"headswap {verb}", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    parser.add_argument(
        "--info",
        "-i",
        nargs="?",
        const="all",
        choices=("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    )
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--package", "-p")
    parser.add_argument("--config-dir", "-cd", action="append", default=[])
    if verb in ("plan", "compare"):
        parser.add_argument("--time", action="store_true")
    if verb == "compare":
        parser.add_argument("--dry-run", action="store_true")
    return parser.parse_intermixed_args(list(words))


def composed(verb: str, words: Sequence[str], act: Callable[[Any], int | None]) -> int:
    """Compose the overrides and give the configuration to `act`, or answer --cfg, --info and -m."""
    from headswap import config as configuration

    flags = parse(verb, words)
    if flags.cfg or flags.info:
        from headswap import hydra_app

        show = hydra_app.show_config if flags.cfg else hydra_app.show_info
        show(flags.cfg or flags.info, flags)
        return 0
    if flags.multirun:
        return _multirun(verb, flags, act)
    return act((configuration.compose(flags.overrides, flags.config_dir), flags)) or 0


def _multirun(verb: str, flags: argparse.Namespace, act: Callable[[Any], int | None]) -> int:
    """Let Hydra's sweeper and launcher call `act`, in this process or in others; return the highest exit code."""
    from headswap import config as configuration
    from headswap.hydra_app import multirun

    stopped: list[Stopped] = []
    own = os.getpid()

    def job(tree: dict[str, Any], overrides: list[str]) -> int:
        config = configuration.checked(configuration.from_dict(tree))
        try:
            return act((config, argparse.Namespace(**vars(flags) | {"overrides": overrides}))) or 0
        except Stopped as error:
            if os.getpid() != own:
                _await_the_end(error)
                return error.exit_code
            stopped.append(error)
            raise KeyboardInterrupt from error  # Hydra would go on with the next job

    try:
        return max(multirun(with_sweeper(verb, flags.overrides), flags.config_dir, job), default=0)
    except KeyboardInterrupt:
        if stopped:
            raise stopped[0] from None
        raise


def with_sweeper(verb: str, overrides: Sequence[str]) -> list[str]:
    """Choose headswap's sweeper where the words need it: an interval, or a word about the sweep itself.

    Raises:
        ConfigError: they need it, and the verb trains no single runs.
    """
    named = [word for word in overrides if word.startswith("hydra/sweeper=")]
    asks = [word for word in overrides if re.match(r"[+]*sweep[.=]|[^=]+=.*\binterval\(", word)]
    if named[-1:] == [SWEEPER] and not asks:
        asks = named
    if not asks or (named and named[-1] != SWEEPER):
        return list(overrides)
    if verb != "train":
        raise ConfigError(f"headswap {verb} -m: only runs can be searched; found {asks[0]}; use headswap train -m")
    return [*overrides, *([] if named else [SWEEPER])]


def _await_the_end(stopped: Stopped) -> None:
    """Wait, the state being saved, for SLURM to end this job, which SIGTERM announces.

    A job that ends by itself first is done for SLURM: after a preemption it would not come back into the queue.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") == "slurm" and "SIGTERM" in str(stopped):
        time.sleep(SLURM_GRACE)
