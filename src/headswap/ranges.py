"""Which values the spine's keys may have, and which can stand together. Floor 0, imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from headswap.spine import Config, HardwareConfig, SaveConfig, StudyConfig, SweepConfig, TrainConfig, TuningConfig

_POSITIVE = (
    "data.train_rows",
    "data.validation_rows",
    "data.test_rows",
    "data.max_length",
    "train.epochs",
    "train.max_steps",
    "train.batch_size",
    "train.micro_batch_size",
    "train.eval_batch_size",
    "train.learning_rate",
    "train.head_learning_rate",
    "train.max_grad_norm",
    "train.evaluations",
    "train.evaluate_every",
    "train.patience",
    "train.save_every.steps",
    "train.save_every.seconds",
    "train.save_every.max_share",
    "hardware.threads",
    "hardware.num_processes",
    "hardware.num_machines",
    "hardware.ray.cpus",
    "hardware.ray.memory_gib",
    "study.seeds",
    "sweep.trials",
    "sweep.workers",
    "sweep.seconds",
    "sweep.startup",
    "sweep.confirm_seeds",
)
_CHOICES = {
    "train.schedule": ("linear", "cosine", "constant"),
    "train.keep": ("best", "last"),
    "train.select_by": ("metric", "loss"),
    "train.precision": ("auto", "fp32", "bf16", "fp16"),
    "hardware.device": ("auto", "cpu", "cuda", "mps"),
    "hardware.engine": ("ddp", "fsdp2", "deepspeed"),
    "hardware.launcher": ("headswap", "ray", "accelerate", "slurm"),
    "sweep.sampler": ("tpe", "random", "quasi_random", "grid"),
    "sweep.pruner": ("none", "halving", "hyperband"),
    "study.tuning.sampler": ("random", "tpe"),
    "study.tuning.pruner": ("none", "halving"),
}
_SHARES = ("train.warmup_share", "study.validation_share", "sweep.first_rung")


def value_at(config: Any, key: str) -> Any:
    """Return the value of a dotted key of a Config or of a nested dict; KeyError when it is absent."""
    node = config
    for part in key.split("."):
        node = node[part] if isinstance(node, dict) else getattr(node, part)
    return node


def faults(config: Config) -> Iterator[str]:
    """Yield one message for every value out of range and every pair of values that cannot stand together."""
    for key in _POSITIVE:
        value = value_at(config, key)
        if value is not None and not value > 0:
            yield f"{key}: must be above 0; found {value}; set a positive number"
    for key, choices in _CHOICES.items():
        if value_at(config, key) not in choices:
            yield f"{key}: unknown choice; found {value_at(config, key)!r}; choose one of {', '.join(choices)}"
    for key in _SHARES:
        if not 0 <= value_at(config, key) < 1:
            yield f"{key}: must lie in [0, 1); found {value_at(config, key)}; set a share such as 0.1"
    yield from _train_faults(config.train)
    yield from _hardware_faults(config.train, config.hardware)
    yield from _study_faults(config.study)
    yield from _tuning_faults(config.study.tuning)
    yield from _sweep_faults(config.sweep)
    if not config.metric:
        yield "metric: no metric is chosen; found an empty list; set metric=[accuracy], the first one selects"


def _train_faults(train: TrainConfig) -> Iterator[str]:
    if train.weight_decay < 0:
        yield f"train.weight_decay: must not be negative; found {train.weight_decay}; set 0 or more"
    if train.ema is not None and not 0 < train.ema < 1:
        yield f"train.ema: must lie between 0 and 1; found {train.ema}; set a share such as 0.999, or null for none"
    if train.patience is not None and train.keep != "best":
        yield "train.patience: early stopping needs the best weights; found train.keep=last; set train.keep=best"


def _hardware_faults(train: TrainConfig, hardware: HardwareConfig) -> Iterator[str]:
    if hardware.num_processes > 0 and hardware.num_machines > 0:
        yield from batch_faults(train, hardware.num_processes)
        if hardware.num_processes % hardware.num_machines:
            yield (
                f"hardware.num_processes: counts over all machines and must divide; found {hardware.num_processes} on "
                f"{hardware.num_machines} machines; set a multiple of {hardware.num_machines}"
            )
    if hardware.launcher in ("headswap", "ray") and (hardware.num_machines > 1 or hardware.engine != "ddp"):
        yield (
            f"hardware.launcher: {hardware.launcher} starts plain DDP on one machine; found {hardware.engine} on "
            f"{hardware.num_machines}; set hardware.launcher=accelerate or slurm, then headswap prepare"
        )
    yield from _engine_faults(train.save_every, hardware)
    yield from _ray_faults(hardware)
    if train.ema is not None and hardware.engine == "deepspeed":
        yield (
            "train.ema: DeepSpeed keeps the weights that it trains in partitions of its own; found a mean asked for; "
            "set train.ema=null or hardware.engine=fsdp2"
        )


def _engine_faults(saving: SaveConfig, hardware: HardwareConfig) -> Iterator[str]:
    """Yield what accelerate would pass over in silence, and what an engine cannot do."""
    if hardware.engine != "ddp" and hardware.device not in ("auto", "cuda"):
        yield (
            f"hardware.engine: {hardware.engine} shares a model out over GPUs alone; found hardware.device="
            f"{hardware.device}; set hardware.device=cuda or hardware.engine=ddp"
        )
    if hardware.launcher == "accelerate" and hardware.device in ("cpu", "mps"):
        yield (
            f"hardware.launcher: accelerate launch starts one process where there are no GPUs, whatever is asked; "
            f"found hardware.device={hardware.device}; set hardware.launcher=headswap or slurm"
        )
    if hardware.engine == "deepspeed" and (saving.steps or saving.seconds):
        yield (
            f"train.save_every: DeepSpeed keeps the optimizer's state in partitions of its own, no exact state is "
            f"saved; found steps={saving.steps}, seconds={saving.seconds}; set train.save_every.seconds=null and "
            f"train.save_every.steps=null to do without, or hardware.engine=fsdp2"
        )


def _ray_faults(hardware: HardwareConfig) -> Iterator[str]:
    ray = hardware.ray
    if not re.fullmatch(r"auto|local|(\[[0-9a-fA-F:]+\]|[\w.-]+):[0-9]+", ray.address):
        yield (
            f"hardware.ray.address: no address of a cluster; found {ray.address!r}; set local, auto or HOST:PORT, on a "
            "node of that cluster"
        )
    if ray.retries < 0:
        yield f"hardware.ray.retries: must not be negative; found {ray.retries}; set 0 for none"
    if ray.gpus is not None and (ray.gpus < 0 or (ray.gpus > 1 and ray.gpus % 1)):
        yield f"hardware.ray.gpus: a share of one GPU or whole ones; found {ray.gpus:g}; set 0.5 or 2, or 0 for none"
    elif ray.gpus and ray.gpus < hardware.num_processes > 1:
        yield (
            f"hardware.ray.gpus: every process needs one; found {ray.gpus:g} for {hardware.num_processes} processes; "
            "set null for one a process"
        )
    if ray.gpus == 0 and hardware.launcher == "ray" and hardware.device == "cuda":
        yield "hardware.ray.gpus: hardware.device=cuda computes on one; found 0; set null for one a process"
    for name, amount in ray.resources.items():
        if name in ("CPU", "GPU", "memory") or not amount > 0:
            yield (
                f"hardware.ray.resources.{name}: an amount above 0 of what nodes offer by a name of their own; found "
                f"{amount:g}; correct it, or set hardware.ray.cpus, gpus or memory_gib"
            )


def batch_faults(train: TrainConfig, processes: int) -> Iterator[str]:
    """Yield what hinders a global batch from being shared out evenly over `processes`."""
    if train.batch_size % processes:
        yield (
            f"train.batch_size: counts over all processes and must divide; found {train.batch_size} on {processes} "
            f"processes; set a multiple of {processes}"
        )
    elif train.micro_batch_size and (train.batch_size // processes) % train.micro_batch_size:
        share = train.batch_size // processes
        of_one = "" if processes == 1 else f" / {processes} processes = {share}"
        yield (
            f"train.micro_batch_size: must divide train.batch_size{' / processes' if of_one else ''}; found "
            f"{train.micro_batch_size} and {train.batch_size}{of_one}; set a divisor of {share}"
        )


def _study_faults(study: StudyConfig) -> Iterator[str]:
    for role in ("treatment", "control"):
        arm = getattr(study, role)
        if study.arms and arm not in study.arms:
            yield f"study.{role}: no such arm; found {arm!r}; choose one of {', '.join(study.arms)}"
    if study.treatment == study.control:
        yield f"study.control: an arm cannot be compared with itself; found {study.control!r} twice; name another arm"
    if any(size <= 1 for size in study.sizes):
        yield f"study.sizes: a size counts labelled rows; found {study.sizes}; set numbers above 1"
    if len(set(study.sizes)) != len(study.sizes):
        yield f"study.sizes: a size stands twice; found {study.sizes}; name each size once"
    if study.margin is not None and study.margin < 0:
        yield f"study.margin: must not be negative; found {study.margin}; set 0.01, 0 for none, or null"
    if not 0.5 <= study.confidence < 1:
        yield f"study.confidence: must lie in [0.5, 1); found {study.confidence}; set 0.95"
    workers = study.workers
    if workers not in (None, "auto") and not (isinstance(workers, int) and workers > 0):
        yield f"study.workers: how many runs go side by side; found {workers!r}; set a number above 0, auto or null"


def _tuning_faults(tuning: TuningConfig) -> Iterator[str]:
    if tuning.trials < 0 or tuning.trials == 1:
        yield f"study.tuning.trials: one trial chooses nothing; found {tuning.trials}; set 2 or more, 0 for none"
    if not 0.25 <= tuning.first_rung < 1:
        yield (
            f"study.tuning.first_rung: an earlier rung favours what starts fast, which is the question of the study; "
            f"found {tuning.first_rung}; set a share in [0.25, 1)"
        )
    if tuning.keep_one_in < 2:
        yield f"study.tuning.keep_one_in: one in two at least goes on; found {tuning.keep_one_in}; set 2 or more"
    if len(set(tuning.seeds)) != len(tuning.seeds):
        yield f"study.tuning.seeds: a seed stands twice; found {tuning.seeds}; name each seed once"
    if len(tuning.seeds) > 1 and (tuning.sampler != "random" or tuning.pruner != "none"):
        yield (
            f"study.tuning.seeds: only whole random trials are repeated on several seeds; found {len(tuning.seeds)} "
            f"with sampler={tuning.sampler}, pruner={tuning.pruner}; set one seed, or sampler=random and pruner=none"
        )
    named = isinstance(tuning.sizes, list | tuple) and all(isinstance(size, int) for size in tuning.sizes)
    if tuning.sizes not in ("each", "largest") and not (named and tuning.sizes):
        yield (
            f"study.tuning.sizes: which sizes are tuned; found {tuning.sizes!r}; set each, largest, or a list of "
            "some of study.sizes"
        )


def _sweep_faults(sweep: SweepConfig) -> Iterator[str]:
    if sweep.keep_one_in < 2:
        yield f"sweep.keep_one_in: one in two at least goes on; found {sweep.keep_one_in}; set 2 or more"
    if sweep.confirm < 0:
        yield f"sweep.confirm: counts the best settings to run again; found {sweep.confirm}; set 0 for none"
    if sweep.confirm and len(sweep.objectives) > 1:
        yield (
            f"sweep.confirm: the best are those by one objective; found {len(sweep.objectives)}; set sweep.confirm=0"
        )
    if sweep.pruner != "none" and len(sweep.objectives) > 1:
        yield (
            f"sweep.pruner: trials are stopped early by one objective; found {len(sweep.objectives)}; set "
            "sweep.pruner=none, or one objective"
        )
