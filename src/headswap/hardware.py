"""Device, processes and precision. Floor 2; the only file that makes an Accelerator.

What accelerate does here: place tensors, autocast, scale and run backward, gather over processes. What it does not: the
schedule, accumulation, the data order and checkpoints are the loop's, because accelerate's own are not exact.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    FullyShardedDataParallelPlugin,
    gather_object,
)

from headswap.errors import ConfigError, RunError
from headswap.sharding import layer_classes, precision_policy, whole
from headswap.spine import HardwareConfig, TrainConfig


@dataclass(frozen=True)
class Precision:
    """What `train.precision` came to: `name` is fp32, bf16 or fp16; `why` says it in words."""

    name: str
    why: str


@dataclass(frozen=True)
class Hardware:
    """Where this run computes, and the few verbs that depend on it."""

    accelerator: Accelerator
    precision: Precision

    def choose_attention(self, model: Any, asked: str, max_length: int) -> str:
        """Set the model's attention kernel and return its name.

        `auto` keeps the architecture's own choice (sdpa), but for short inputs on a CPU: with dropout sdpa has no fused
        kernel there, and eager trains 5 to 10 % faster up to 128 tokens (docs/benchmarks.md).
        """
        short_on_cpu = self.device.type == "cpu" and max_length <= 128
        wanted = ("eager" if short_on_cpu else None) if asked == "auto" else asked
        if wanted is not None:
            try:
                model.set_attn_implementation(wanted)
            except (ValueError, ImportError) as error:
                if asked != "auto":
                    raise ConfigError(
                        f"train.attention: this body cannot use it; found {asked} ({error}); use auto"
                    ) from error
        return str(model.config._attn_implementation)

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def world(self) -> int:
        return self.accelerator.num_processes

    @property
    def rank(self) -> int:
        return self.accelerator.process_index

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.accelerator.is_main_process

    @property
    def in_pieces(self) -> bool:
        """Whether each process holds a part of the weights: then all take part in every pass, and in every save."""
        return self.accelerator.is_fsdp2

    @property
    def by_deepspeed(self) -> bool:
        """Whether the last backward pass of a window takes the optimizer's step as well."""
        return self.accelerator.distributed_type == DistributedType.DEEPSPEED

    def prepare(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        state: Any = self.accelerator.state
        if self.in_pieces:
            state.fsdp_plugin.transformer_cls_names_to_wrap = layer_classes(model)
        if self.by_deepspeed:  # it only reports with it: batches are the loop's
            state.deepspeed_plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = 1
        return self.accelerator.prepare(model, optimizer)

    def place(self, model: torch.nn.Module) -> torch.nn.Module:
        """Return `model` on the device under this precision, for evaluation only."""
        return self.accelerator.prepare_model(model, evaluation_mode=True)

    def plain(self, model: torch.nn.Module) -> torch.nn.Module:
        """Return the model without the wrappers of `prepare`."""
        plain = self.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        if not self.in_pieces and not self.by_deepspeed:
            # accelerate would take it for prepared, and not autocast again
            vars(plain).pop("_is_accelerate_prepared", None)
        return plain

    def backward(self, loss: torch.Tensor) -> None:
        self.accelerator.backward(loss)

    def clip(self, weights: Iterable[torch.nn.Parameter], limit: float | None) -> torch.Tensor:
        """Clip the gradient to `limit` and return the norm it had."""
        norm = self.accelerator.clip_grad_norm_(list(weights), float("inf") if limit is None else limit)
        if self.by_deepspeed:
            return torch.as_tensor(norm)
        assert norm is not None  # None is what some FSDP versions answer, which start() refuses
        return whole(norm)

    @contextlib.contextmanager
    def last_micro_step(self, model: torch.nn.Module, last: bool) -> Iterator[None]:
        """Hold back the exchange of gradients until a window's last micro-step."""
        self.accelerator.gradient_state._set_sync_gradients(last)  # DeepSpeed asks it whether to step
        with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
            yield

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """Return `value` summed over the processes."""
        if self.world == 1:
            return value
        summed = self.accelerator.reduce(value, reduction="sum")
        assert isinstance(summed, torch.Tensor)  # a tensor goes in, so a tensor comes out
        return summed

    def gather(self, value: Any) -> list[Any]:
        """Return every process's `value`, in rank order."""
        return [value] if self.world == 1 else gather_object([value])

    def any(self, *flags: bool) -> list[bool]:
        """Return which flags are set on any process; all processes get the same answer."""
        if self.world == 1:
            return list(flags)
        return [bool(count) for count in self.sum(torch.tensor(flags, dtype=torch.float32, device=self.device))]

    def from_first(self, value: Any) -> Any:
        """Return rank 0's `value` on every process; the others' are ignored."""
        return self.gather(value)[0]

    def wait(self) -> None:
        """Wait until every process has come here."""
        self.accelerator.wait_for_everyone()

    @property
    def scale(self) -> dict[str, Any] | None:
        """The state of fp16's loss scaler, None where nothing is scaled."""
        scaler = self.accelerator.scaler
        return None if scaler is None else dict(scaler.state_dict())

    def set_scale(self, state: dict[str, Any] | None) -> None:
        if self.accelerator.scaler is not None and state:
            self.accelerator.scaler.load_state_dict(state)

    def seed(self, seed: int) -> None:
        """Seed the dice of this process, those of the accelerators only where one computes: asking them takes time."""
        if self.device.type == "cpu":
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def free_cache(self) -> None:
        """Give cached memory back to the device, after it ran out."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def release(self) -> None:
        """Forget what `prepare` wrapped, so that a phase's optimizer state is freed."""
        self.accelerator.free_memory()

    def move(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def describe(self) -> dict[str, Any]:
        """Return what run.json records of it."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else cpu_name()
        return {
            "device": self.device.type,
            "device_name": name,
            "processes": self.world,
            "engine": self.accelerator.distributed_type.value,
            "threads": torch.get_num_threads(),
            "precision": self.precision.name,
            "precision_why": self.precision.why,
        }


def start(config: HardwareConfig, train: TrainConfig) -> Hardware:
    """Take the device. Raises ConfigError when it is not there, RunError when processes were silently dropped."""
    device = _device(config.device)
    chosen = choose_precision(train.precision, device)
    if train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
        torch.use_deterministic_algorithms(True)
    if device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    accelerator = Accelerator(
        cpu=device == "cpu",
        mixed_precision={"fp32": "no"}.get(chosen.name, chosen.name),
        step_scheduler_with_optimizer=False,
        fsdp_plugin=_fsdp_plugin(chosen) if config.engine == "fsdp2" else None,
        # It also keeps DDP from regrouping its buckets after the first step: the order of a sum over three and more
        # processes hangs on the grouping, and a resumed run would sum its first step in another order.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    if threads := config.threads or int(os.environ.get("HEADSWAP_THREADS", "0")):
        torch.set_num_threads(threads)  # after the Accelerator, which sets a number of its own on several CPU processes
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != world:
        raise RunError(
            f"hardware: WORLD_SIZE is {world} but accelerate sees {accelerator.num_processes} process(es); each would "
            f"train alone; start with ACCELERATE_USE_CPU=true on CPUs"
        )
    plain = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
    wanted = {"fsdp2": (DistributedType.FSDP,), "deepspeed": (DistributedType.DEEPSPEED,)}.get(config.engine, plain)
    if accelerator.distributed_type not in wanted:
        raise RunError(
            f"hardware.engine: accelerate took another; found {accelerator.distributed_type}, asked for "
            f"{config.engine}; start it with the command that headswap prepare prints"
        )
    return Hardware(accelerator, chosen)


def tracker(name: str, project: str, settings: Any, folder: str | None = None, /, **arguments: Any) -> Any:
    """Begin one of Accelerate's trackers and return it; for a process that trains nothing."""
    accelerator = Accelerator(cpu=True, log_with=name, project_dir=folder)
    accelerator.init_trackers(project, settings or None, {name: arguments})
    return accelerator.get_tracker(name)


def _fsdp_plugin(precision: Precision) -> FullyShardedDataParallelPlugin:
    return FullyShardedDataParallelPlugin(mixed_precision_policy=precision_policy(precision.name))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that the device's memory, or the machine's, is used up."""
    said = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its kind: Python's own MemoryError has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def choose_precision(asked: str, device: str) -> Precision:
    """Say which precision `asked` comes to on `device`, and why.

    `auto` takes bf16 autocast where the device multiplies in it: CUDA from compute capability 8.0, CPUs with
    AVX512-BF16 or AMX (1.5 to 2 times faster there; without them it is slower than fp32).
    """
    if asked == "fp16" and device == "cpu":
        raise ConfigError("train.precision: fp16 does not train on a CPU; found device cpu; use bf16, fp32 or auto")
    if asked != "auto":
        return Precision(asked, "asked for")
    if device == "cuda":
        good = torch.cuda.get_device_capability() >= (8, 0)
        return Precision("bf16", "this GPU multiplies in bf16") if good else Precision("fp32", "no bf16 on this GPU")
    if device == "cpu" and cpu_multiplies_bf16():
        return Precision("bf16", "this CPU has AVX512-BF16 or AMX")
    return Precision("fp32", f"no fast bf16 on this {device}")


def cpu_multiplies_bf16() -> bool:
    """Return whether the CPU has bf16 matrix instructions."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)


def cpu_name() -> str:
    """Return the CPU's model name, as far as the system tells it."""
    import platform

    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _device(asked: str) -> str:
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == "auto":
        return next(name for name, there in found.items() if there)
    if not found[asked]:
        there = ", ".join(name for name, yes in found.items() if yes)
        raise ConfigError(f"hardware.device: not on this machine; found {asked!r}; choose one of auto, {there}")
    return asked
