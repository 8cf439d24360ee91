"""The typed spine of a configuration: every key that is not a plug's. Floor 0, imports nothing heavy.

The dataclasses are the schema: an unknown key or a wrong type is refused with the key's name. The comments beside the
values in conf/ say what they are for; here stand types and units. Ranges, and what fits together, are in ranges.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class OutputConfig:
    """Where folders are made. None of it is part of a run's identity."""

    root: str = "outputs"
    reuse: bool = True
    keep_model: bool = True


@dataclass
class DataConfig:
    """How much of the task's data is used, and how it is cut into tokens and batches."""

    train_rows: int | None = None
    validation_rows: int | None = None
    test_rows: int | None = None
    split_seed: int = 0
    drop_duplicates: bool = True
    max_length: int = 128
    bucket: bool = True


@dataclass
class SaveConfig:
    """When a checkpoint is due: after so many optimizer steps, or so many seconds; null for neither.

    `max_share` of the time is the most that saving may take: on a slow disk it stretches `seconds`, never `steps`.
    """

    steps: int | None = None
    seconds: float | None = 300.0
    max_share: float = 0.02


@dataclass
class TrainConfig:
    """The recipe. `batch_size` is examples per optimizer step over all devices; micro-batches follow from it."""

    epochs: float = 3.0
    max_steps: int | None = None
    batch_size: int = 32
    micro_batch_size: int | None = None
    eval_batch_size: int = 64
    learning_rate: float = 5e-5
    head_learning_rate: float | None = None
    weight_decay: float = 0.01
    warmup_share: float = 0.1
    schedule: str = "linear"
    max_grad_norm: float | None = 1.0
    evaluations: int = 8
    evaluate_every: int | None = None
    keep: str = "best"
    select_by: str = "metric"
    patience: int | None = None
    ema: float | None = None
    precision: str = "auto"
    attention: str = "auto"
    deterministic: bool = False
    gradient_checkpointing: bool = False
    find_batch_size: bool = False
    cache_features: bool = True
    measure_change: bool = False
    save_every: SaveConfig = field(default_factory=SaveConfig)


@dataclass
class RayConfig:
    """Runs as tasks of a Ray cluster: which one, what a run reserves of a node, how often a lost run begins again.

    `address`: local, auto or HOST:PORT. `cpus` and `gpus`: null for one a process, `gpus` where the cluster has some.
    `resources`: name -> amount of what nodes offer by names of their own.
    """

    address: str = "local"
    cpus: float | None = None
    gpus: float | None = None
    memory_gib: float | None = None
    resources: dict[str, float] = field(default_factory=dict)
    retries: int = 2


@dataclass
class HardwareConfig:
    """Where a run computes. None of it is part of a run's identity, but run.json records it.

    `num_processes` counts over all machines. `engine` says how processes share the model, `launcher` who starts them.
    `sbatch` holds options of SLURM's sbatch by their long names; engines.py checks them.
    """

    device: str = "auto"
    threads: int | None = None
    num_processes: int = 1
    num_machines: int = 1
    engine: str = "ddp"
    launcher: str = "headswap"
    sbatch: dict[str, Any] = field(default_factory=dict)
    ray: RayConfig = field(default_factory=RayConfig)


@dataclass
class TuningConfig:
    """How a study's arms are tuned before its own runs, each by as many trials; 0 trials: the given values.

    `spaces`: arm -> key -> Hydra's choice, range or interval, as text; null for an arm that keeps its given values.
    `sizes`: each, largest, or those of study.sizes that are tuned. `seeds`: the trials', [] for the one before the
    study's first; a setting's score is its mean over them.
    """

    trials: int = 0
    sampler: str = "random"
    pruner: str = "none"
    first_rung: float = 0.25
    keep_one_in: int = 3
    sizes: Any = "each"
    seeds: list[int] = field(default_factory=list)
    spaces: dict[str, Any] = field(default_factory=dict)


@dataclass
class StudyConfig:
    """Arms x label counts x paired seeds, and how the verdict is drawn.

    `workers`: a number, or auto to measure. `measure_change` sets `train.measure_change` in every arm.
    """

    arms: dict[str, Any] = field(default_factory=dict)
    treatment: str = "finetune"
    control: str = "scratch"
    sizes: list[int] = field(default_factory=list)
    validation_share: float = 0.2
    seeds: int = 10
    margin: float | None = None
    confidence: float = 0.95
    workers: int | str | None = None
    measure_change: bool = False
    may_differ: list[str] = field(default_factory=list)
    tuning: TuningConfig = field(default_factory=TuningConfig)


@dataclass
class SweepConfig:
    """Trials over a space of settings: who proposes them, what counts as best, when to give up.

    `space`: key -> Hydra's choice, range or interval, as text. `objectives` are selected on validation: names of
    metrics, `loss`, and costs: `seconds` (of training), `parameters` (that learn); empty for the first metric.
    `trial`: set by a sweep for its trials: number and the sweep's folder.
    """

    sampler: str = "tpe"
    startup: int = 10
    pruner: str = "none"
    first_rung: float = 0.25
    keep_one_in: int = 3
    trials: int = 20
    space: dict[str, Any] = field(default_factory=dict)
    conditions: Any = None
    objectives: list[str] = field(default_factory=list)
    workers: int | None = None
    seconds: float | None = None
    max_failures: int | None = 10
    storage: str | None = None
    confirm: int = 0
    confirm_seeds: int = 3
    trial: str | None = None


@dataclass
class Stage:
    """One link of a chain of runs: Hydra overrides, and the body of the stage before as `run`.

    `alone`: overrides that let the last stage do without the others, in a study of what they bought. `sized`: a study's
    sizes cut this stage's rows too; the last one's always.
    """

    name: str = ""
    overrides: list[str] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)
    sized: bool = False


@dataclass
class Config:
    """A resolved experiment. The plug nodes are plain dicts with `_target_`; `build_plugs` makes objects of them."""

    name: str = "default"
    seed: int = 0
    run: str | None = None
    plugins: list[str] = field(default_factory=list)
    task: Any = None
    body: Any = None
    head: Any = None
    strategy: Any = None
    baseline: Any = None
    metric: dict[str, Any] = field(default_factory=dict)
    tracker: dict[str, Any] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    study: StudyConfig = field(default_factory=StudyConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    stages: list[Stage] = field(default_factory=list)
    choices: dict[str, str] = field(default_factory=dict)
