"""A run made ready for another launcher: its folder, its configuration, and the command that starts it. Floor 5.

headswap prepare  ->  RUN_FOLDER/config.yaml + accelerate.yaml or job.sh  ->  accelerate launch, or sbatch
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import yaml

from headswap import config as configuration
from headswap.engines import accelerate_config, job_script
from headswap.errors import ConfigError
from headswap.launch import folder_of
from headswap.records import RunFolder, write_text
from headswap.spine import Config, HardwareConfig

ACCELERATE, JOB = "accelerate.yaml", "job.sh"


@dataclass(frozen=True)
class Prepared:
    """A run that waits to be started: its folder, the files written there, hints, and the command to type.

    The command is empty when the run has finished before.
    """

    folder: Path
    files: tuple[Path, ...]
    hints: tuple[str, ...]
    command: str


def prepare(config: Config) -> Prepared:
    """Write a run's configuration and what its launcher needs.

    Raises:
        ConfigError: headswap starts this run itself, or it is a chain of stages.
        RunError: a process trains in the folder.
    """
    _refuse(config)
    folder = RunFolder(folder_of(config).path.absolute())
    if folder.finished and config.output.reuse:
        return Prepared(folder.path, (), ("finished before, nothing to start; output.reuse=false trains it again",), "")
    with folder.locked():
        if not config.output.reuse:
            folder.clear()
        for stale in (ACCELERATE, JOB):  # an earlier choice of launcher
            (folder / stale).unlink(missing_ok=True)
        write_text(folder / "config.yaml", configuration.dump(config))
        if config.hardware.launcher == "slurm":
            write_text(folder / JOB, job_script(config, folder.path, Path.cwd()))
            return _prepared(folder, JOB, (), f"sbatch {shlex.quote(str(folder / JOB))}")
        write_text(folder / ACCELERATE, accelerate_yaml(config))
        return _prepared(folder, ACCELERATE, _hints(config.hardware), _accelerate_command(folder, config.hardware))


def accelerate_yaml(config: Config) -> str:
    """Return the text of accelerate.yaml."""
    said = "# Written by headswap prepare. The precision is train.precision of config.yaml: the worker sets it.\n"
    return said + yaml.safe_dump(accelerate_config(config), sort_keys=False)


def _refuse(config: Config) -> None:
    if config.stages:
        raise ConfigError(
            f"stages: headswap prepare makes one run; found {len(config.stages)} stages; prepare each by its "
            f"overrides, the next one with run=FOLDER of the one before"
        )
    if config.baseline is not None:
        raise ConfigError(
            f"baseline: needs no launcher, it takes seconds on one core; found baseline="
            f"{config.choices.get('baseline', '')}; type headswap train, or set baseline=none"
        )
    if config.hardware.launcher in ("headswap", "ray"):
        raise ConfigError(
            "hardware.launcher: nothing to prepare, headswap starts this run itself; found "
            f"{config.hardware.launcher}; type headswap train, or choose hardware=fsdp2, deepspeed or slurm"
        )


def _prepared(folder: RunFolder, file: str, hints: tuple[str, ...], command: str) -> Prepared:
    return Prepared(folder.path, (folder / "config.yaml", folder / file), hints, command)


def _hints(hardware: HardwareConfig) -> tuple[str, ...]:
    if hardware.num_machines == 1:
        return ()
    ranks = ", ".join(str(number) for number in range(hardware.num_machines))
    return (
        f"type it on each machine, with MACHINE_RANK={ranks} and MAIN_ADDRESS=the address of machine 0; "
        f"all of them must see the run folder",
    )


def _accelerate_command(folder: RunFolder, hardware: HardwareConfig) -> str:
    place = '--machine_rank "$MACHINE_RANK" --main_process_ip "$MAIN_ADDRESS" ' if hardware.num_machines > 1 else ""
    file, path = (shlex.quote(str(name)) for name in (folder / ACCELERATE, folder.path))
    return f"accelerate launch --config_file {file} {place}-m headswap.worker {path}"
