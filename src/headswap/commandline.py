"""The words after a verb: overrides and flags, composed into a configuration. Floor 6."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from headswap.errors import ConfigError, Stopped


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
        from headswap.hydra_app import multirun

        codes: list[int] = []
        stopped: list[Stopped] = []

        def job(tree: dict[str, Any], overrides: list[str]) -> None:
            config = configuration.checked(configuration.from_dict(tree))
            try:
                codes.append(act((config, argparse.Namespace(**vars(flags) | {"overrides": overrides}))) or 0)
            except Stopped as error:  # Hydra would go on with the next job
                stopped.append(error)
                raise KeyboardInterrupt from error

        try:
            multirun(flags.overrides, flags.config_dir, job)
        except KeyboardInterrupt:
            if stopped:
                raise stopped[0] from None
            raise
        return max(codes, default=0)
    return act((configuration.compose(flags.overrides, flags.config_dir), flags)) or 0
