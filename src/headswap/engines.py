"""How processes that headswap does not start itself are started, and told how they share the model. Floor 2.

    accelerate_config()  accelerate.yaml for `accelerate launch --config_file`
    engine_environment() the same as environment variables, for processes that srun starts
    job_script()         job.sh for sbatch

Pure functions of a configuration. All of them start the same worker: `python -m headswap.worker RUN_FOLDER`.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headswap.errors import ConfigError
from headswap.spine import Config, HardwareConfig

FSDP2 = {
    "fsdp_version": 2,
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",  # which classes, the worker says: sharding.layer_classes
    "fsdp_reshard_after_forward": True,
    "fsdp_offload_params": False,
    "fsdp_state_dict_type": "SHARDED_STATE_DICT",  # states are headswap's own; this one adds no second backend
    "fsdp_cpu_ram_efficient_loading": False,  # every process builds the same model from the same seed
    "fsdp_activation_checkpointing": False,  # accelerate's draws new dropout masks; train.gradient_checkpointing
}
_TYPES = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "deepspeed": "DEEPSPEED"}
_DEEPSPEED_NAMES = {
    "zero_stage": "ACCELERATE_DEEPSPEED_ZERO_STAGE",
    "zero3_init_flag": "ACCELERATE_DEEPSPEED_ZERO3_INIT",
    "gradient_accumulation_steps": "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
    "gradient_clipping": "ACCELERATE_GRADIENT_CLIPPING",
    "offload_optimizer_device": "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE",
    "offload_param_device": "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE",
}
_OWN_OPTIONS = {
    "nodes": "hardware.num_machines",
    "ntasks": "hardware.num_processes",
    "ntasks-per-node": "hardware.num_processes",
    "cpus-per-task": "hardware.threads",
    "gpus-per-task": "hardware.sbatch.gpus-per-node",  # it hides a node's other GPUs from a process, NCCL wants them
    "requeue": "hardware.engine",
    "no-requeue": "hardware.engine",
}


def refuse_other_launchers(config: Config) -> None:
    """Refuse to train here what another launcher is to start. Raises ConfigError naming `headswap prepare`."""
    launcher = config.hardware.launcher
    if launcher not in ("headswap", "ray"):
        raise ConfigError(
            f"hardware.launcher: this command starts the processes itself; found {launcher}; type headswap prepare "
            f"with the same overrides, then the command that it prints"
        )


def accelerate_config(config: Config) -> dict[str, Any]:
    """Return what stands in accelerate.yaml.

    `mixed_precision` is always no: `train.precision` may be auto, which the worker resolves on the GPU that it finds,
    and what it gives to its Accelerator goes before this file.
    """
    hardware = config.hardware
    several = hardware.num_machines > 1
    return {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": _TYPES[hardware.engine],
        "mixed_precision": "no",
        "use_cpu": False,
        "num_machines": hardware.num_machines,
        "num_processes": hardware.num_processes,
        "machine_rank": 0,
        "main_process_port": 29500 if several else 0,  # 0 takes a free one, for two runs beside one another
        **({"fsdp_config": dict(FSDP2)} if hardware.engine == "fsdp2" else {}),
        **({"deepspeed_config": deepspeed_config(config)} if hardware.engine == "deepspeed" else {}),
    }


def deepspeed_config(config: Config) -> dict[str, Any]:
    """Return accelerate's DeepSpeed settings: ZeRO-2, and the loop's own accumulation and clipping limit.

    A clipping of 0.0 means none; left out, accelerate would fill in 1.0. `train_micro_batch_size_per_gpu` the worker
    sets: this file cannot, and accelerate reads it off data loaders, which headswap has none of.
    """
    return {
        "zero_stage": 2,
        "zero3_init_flag": False,
        "gradient_accumulation_steps": 1,  # the loop's windows are its own: it says which backward pass is the last
        "gradient_clipping": config.train.max_grad_norm or 0.0,
        "offload_optimizer_device": "none",
        "offload_param_device": "none",
        "deepspeed_multinode_launcher": "standard",  # torch's, on every machine; the others need ssh between them
    }


def engine_environment(config: Config) -> dict[str, str]:
    """Return the variables by which a worker's Accelerator learns of the engine; `accelerate launch` sets the same."""
    if config.hardware.engine == "fsdp2":
        return {"ACCELERATE_USE_FSDP": "true", **{key.upper(): _said(value) for key, value in FSDP2.items()}}
    if config.hardware.engine == "deepspeed":
        settings = deepspeed_config(config)
        named = {variable: _said(settings[key]) for key, variable in _DEEPSPEED_NAMES.items()}
        return {"ACCELERATE_USE_DEEPSPEED": "true", **named}
    return {}


def sbatch_options(config: Config, folder: Path) -> dict[str, Any]:
    """Return the job's options by their long names: what the hardware asks for, then `hardware.sbatch`.

    Raises:
        ConfigError: an option that no sbatch could have, that headswap sets itself, or a signal that would not reach
            the processes.
    """
    hardware = config.hardware
    for name, value in hardware.sbatch.items():
        _check_option(name, value)
    here = hardware.num_processes // hardware.num_machines
    gpus = {} if hardware.device == "cpu" else {"gpus-per-node": here}
    threads = {"cpus-per-task": hardware.threads} if hardware.threads else {}
    wanted = {
        "job-name": config.name,
        "nodes": hardware.num_machines,
        "ntasks-per-node": here,
        **threads,
        **gpus,
        "signal": "USR1@120",
        "requeue" if _saves(hardware) else "no-requeue": True,
        "open-mode": "append",
        "output": str(folder).replace("%", "%%") + "/slurm-%j.txt",
        **hardware.sbatch,
    }
    return {name: value for name, value in wanted.items() if value is not None and value is not False}


def job_script(config: Config, folder: Path, place: Path) -> str:
    """Return job.sh.

    Args:
        folder: the run folder, absolute and on a disk that all nodes see.
        place: the folder that relative paths of the configuration start from.
    """
    hardware = config.hardware
    options = sbatch_options(config, folder)
    lines = [f"#SBATCH --{name}" + ("" if value is True else f"={_quoted(value)}") for name, value in options.items()]
    return _JOB.format(
        options="\n".join(lines),
        script=_quoted(folder / "job.sh"),
        place=_quoted(place),
        exports=_exports(hardware, engine_environment(config)),
        threads=f"--cpus-per-task={hardware.threads} " if hardware.threads else "",
        local=hardware.num_processes // hardware.num_machines,
        command=shlex.join([sys.executable, "-m", "headswap.worker", str(folder)]),
        requeue=_REQUEUE if _saves(hardware) else "",
    )


def _check_option(name: str, value: Any) -> None:
    key = f"hardware.sbatch.{name}"
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise ConfigError(f"{key}: no long name of an sbatch option; found {name!r}; write it as in sbatch --help")
    if name in _OWN_OPTIONS:
        raise ConfigError(f"{key}: is set by headswap; found {value!r}; set {_OWN_OPTIONS[name]}")
    if not isinstance(value, str | int | float | None) or not str(value).isprintable():
        raise ConfigError(f"{key}: must be one line of text or a number; found {value!r}; correct it")
    if name == "signal" and not re.fullmatch(r"(USR1|TERM)@[0-9]+", str(value)):
        raise ConfigError(
            f"{key}: must reach the processes, which listen to USR1 and TERM; found {value!r}; set USR1@<seconds>"
        )


def _saves(hardware: HardwareConfig) -> bool:
    """Return whether a stopped run has a state to go on from: one put back without would start anew for ever."""
    return hardware.engine != "deepspeed"


def _exports(hardware: HardwareConfig, environment: Mapping[str, str]) -> str:
    threads = {"OMP_NUM_THREADS": str(hardware.threads)} if hardware.threads else {}
    return "".join(f"export {name}={_quoted(value)}\n" for name, value in {**threads, **environment}.items())


def _said(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quoted(value: Any) -> str:
    return shlex.quote(str(value))


_JOB = """\
#!/usr/bin/env bash
{options}
# Written by headswap prepare. To put it into the queue: sbatch {script}
#
# srun itself starts one process a GPU. Slurm's signals then reach the processes that train and their exit code comes
# back, while torchrun and accelerate launch die of USR1 and end with 1 whatever a worker's code was.
set -u
cd -- {place} || exit 1

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
export MASTER_ADDR MASTER_PORT
{exports}
# When Slurm ends the job (scancel, preemption, time over) this shell gets TERM too. It waits for the processes to save
# their state, and does not put a job back that somebody cancelled; after a preemption Slurm does that.
ended=
trap 'ended=yes' TERM

# A process that ends leaves the others 600 seconds: rank 0 may still be writing the state, or the results.
# USR1 is passed over until the worker listens to it, else one that comes too early would kill it.
code=0
# shellcheck disable=SC2016
srun --kill-on-bad-exit=0 --wait=600 {threads}bash -c '
export RANK="$SLURM_PROCID" LOCAL_RANK="$SLURM_LOCALID" WORLD_SIZE="$SLURM_NTASKS" LOCAL_WORLD_SIZE={local}
trap "" USR1
exec "$@"' worker {command} || code=$?
{requeue}
exit "$code"
"""
_REQUEUE = """
# 75: stopped by a signal with its state saved; the same job goes on from there.
if [ "$code" -eq 75 ] && [ -z "$ended" ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi"""
