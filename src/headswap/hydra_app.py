"""What users of Hydra expect beyond composing: -m, --cfg, --info and shell completion, done by Hydra itself. Floor 6.

`@hydra.main` is not used: on Python 3.14 hydra 1.3 cannot even build its argument parser, and its run folders collide
within a second. Hydra's own object does the work, with its own sweepers and launchers.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headswap import composition
from headswap.config import conf_dir
from headswap.errors import ConfigError, HeadswapError

# Run folders and logs are ours, so Hydra keeps its hands off both.
_QUIET = (
    "hydra.output_subdir=null",
    "hydra.run.dir=.",
    "hydra.sweep.dir=${output.root}/multirun",
    "hydra.sweep.subdir=.",
    "hydra.job.chdir=false",
    "hydra/job_logging=disabled",
    "hydra/hydra_logging=disabled",
)
# What Hydra would make objects of, or set before our checks. A group's file can bring it along unseen.
_FORBIDDEN = (
    "callbacks",
    "job.env_set",
    *(f"{log}.{part}" for log in ("hydra_logging", "job_logging") for part in ("handlers", "formatters", "filters")),
)


def multirun(
    overrides: Sequence[str], config_dirs: Sequence[str], task: Callable[[dict[str, Any], list[str]], int]
) -> list[int]:
    """Run `task` on every composed configuration of a sweep such as `seed=1,2,3`, with that job's own overrides.

    A launcher may call it in another process, whatever this one remembers: what it returns is all that comes back.

    Returns:
        What `task` returned for every job.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    found: list[Any] = []

    def one(node: Any) -> int:
        job = HydraConfig.get()
        with composition.secrets_kept():  # another process has Hydra's own resolvers
            tree = composition.resolved(node, job.runtime.choices, OmegaConf)
        return task(tree, list(job.overrides.task))

    given = [*_QUIET, *composition.forced(overrides)]

    def sweep(app: Any) -> None:
        load = app.config_loader.load_configuration
        # Every job loads its own configuration, and its overrides may name files that the first one does not.
        app.config_loader.load_configuration = lambda *words, **named: _harmless(load(*words, **named))
        found.extend(app.multirun(composition.CONFIG_NAME, one, given, False))

    _hydra(config_dirs, overrides, sweep)
    return [job.return_value for batch in found for job in batch]


def _harmless(config: Any) -> Any:
    """Refuse a configuration that would have Hydra itself make objects of any class, or change the environment."""
    from omegaconf import OmegaConf

    for key in _FORBIDDEN:
        if found := OmegaConf.select(config, f"hydra.{key}"):
            named = ", ".join(map(str, found))
            raise ConfigError(
                f"hydra.{key}: not served, because it can run code; found {named}; remove it from the configuration"
            )
    return config


def show_config(kind: str, flags: argparse.Namespace) -> None:
    """Print what `--cfg job|hydra|all` prints, honouring --resolve and --package."""
    _hydra(
        flags.config_dir,
        flags.overrides,
        lambda app: app.show_cfg(
            composition.CONFIG_NAME, composition.forced(flags.overrides), kind, flags.package, flags.resolve
        ),
    )


def show_info(kind: str, flags: argparse.Namespace) -> None:
    """Print what `--info [all|config|defaults|defaults-tree|plugins|searchpath]` prints."""
    _hydra(
        flags.config_dir,
        flags.overrides,
        lambda app: app.show_info(
            kind, config_name=composition.CONFIG_NAME, overrides=composition.forced(flags.overrides)
        ),
    )


def complete(request: str, verbs: Sequence[str]) -> None:
    """Answer `--shell-completion install=bash`, and the shell's queries: a verb first, then Hydra's completion."""
    if request.startswith("query="):
        words = os.environ.get("COMP_LINE", "").split(" ")
        if len(words) <= 2:
            print(" ".join(verb for verb in verbs if verb.startswith(words[-1] if len(words) == 2 else "")))
            return
        os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
    with_string_help()
    _hydra([], [], lambda app: app.shell_completion(composition.CONFIG_NAME, [request]))


def with_string_help() -> None:
    """Let argparse of Python 3.14 accept Hydra's lazy help object, which is not a string."""
    check = getattr(argparse.ArgumentParser, "_check_help", None)
    if check is None:
        return

    def lenient(self: argparse.ArgumentParser, action: argparse.Action) -> None:
        if action.help is None or isinstance(action.help, str):
            check(self, action)

    argparse.ArgumentParser._check_help = lenient  # type: ignore[attr-defined]


def _hydra(config_dirs: Sequence[str], overrides: Sequence[str], act: Callable[[Any], Any]) -> None:
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    composition.register_spine()
    path = create_config_search_path(str(conf_dir()))
    for folder in config_dirs:
        if not Path(folder).is_dir():
            raise ConfigError(f"--config-dir: no such folder; found {folder}; name a folder with groups such as task/")
        path.prepend("command-line", f"file://{Path(folder).resolve()}", SearchPathQuery(provider="schema"))
    GlobalHydra.instance().clear()
    handlers, level = list(logging.root.handlers), logging.root.level  # Hydra sets up logging for the whole process
    try:
        with composition.secrets_kept():
            act(Hydra.create_main_hydra2(task_name="headswap", config_search_path=path))
    except HeadswapError:
        raise
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(composition.explain(error, overrides, config_dirs)) from error
    finally:
        logging.root.handlers[:], logging.root.level = handlers, level
        GlobalHydra.instance().clear()
        sys.stdout.flush()
