"""Exact save and resume: everything a training is at one optimizer-step boundary, in safetensors and JSON. Floor 3.

    checkpoint/step-00000120/  model.safetensors  optimizer.safetensors  state.json  manifest.json
    checkpoint/best-00000080/  model.safetensors  manifest.json            the best weights so far, when they are kept

No random state is saved: every stream is a pure function of (seed, step, micro-step, rank), see seeds.py. A checkpoint
is a folder that takes its name when all of it is on the disk; the two newest are kept, so that a damaged one has an
older one to fall back to. Rank 0 writes; the others wait.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file

from headswap.durable import published, verify
from headswap.errors import DamagedError
from headswap.sharding import like
from headswap.spine import SaveConfig

WEIGHTS, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
AVERAGE = "average.safetensors"
KEPT = 2
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class State:
    """A training at a step boundary.

    Args:
        facts: JSON: progress, loss scale, what the run is made of, how many lines metrics.jsonl has.
        weights: the model's tensors that training changes, by name.
        optimizer: its state by `<kind>/<weight's name>`.
        best: the weights of the best evaluation so far, empty when none is kept; `best_step` is its step.
        average: the running mean of the weights, empty when none is kept.
    """

    step: int
    facts: Mapping[str, Any]
    weights: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, torch.Tensor]
    best: Mapping[str, torch.Tensor]
    best_step: int = 0
    average: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass
class Checkpoints:
    """The checkpoints of one run folder.

    Args:
        tell: told what a person should know: {"kind": "saving" | "saved" | "warning", ...}.
    """

    folder: Path
    every: SaveConfig
    tell: Callable[[Mapping[str, Any]], None]
    rejected: list[str] = field(default_factory=list)
    seconds: float = 0.0
    count: int = 0
    last_step: int = 0
    _last_time: float = field(default_factory=time.monotonic)
    _last_seconds: float = 0.0

    def due(self, step: int) -> bool:
        """Return whether a save is due now that `step` optimizer steps are done."""
        if step == self.last_step:
            return False
        if self.every.steps and step % self.every.steps == 0:
            return True
        if self.every.seconds is None:
            return False
        least = max(self.every.seconds, self._last_seconds / self.every.max_share)
        return time.monotonic() - self._last_time >= least

    def save(self, state: State, refused: str = "") -> bool:
        """Write a checkpoint; a disk that refuses costs a warning, and the checkpoints before stay as they are.

        Args:
            refused: what the disk said when the files that a state counts on were to be written, empty for nothing.
        """
        started = time.monotonic()
        self.tell({"kind": "saving", "step": state.step})
        try:
            if refused:
                raise OSError(refused)
            self._write(state)
            self.last_step, self.count = state.step, self.count + 1
            self._prune()
        except OSError as error:
            text = f"{self.folder}: checkpoint of step {state.step} not saved; found {error.strerror or error}"
            self.tell({"kind": "warning", "text": f"{text}; training goes on and tries again later: free space"})
        self._last_time = time.monotonic()
        self._last_seconds = self._last_time - started
        self.seconds += self._last_seconds
        saved = self.last_step == state.step
        if saved:
            self.tell({"kind": "saved", "step": state.step, "seconds": self._last_seconds})
        return saved

    def newest(self, metrics_lines: int) -> Path | None:
        """Return the newest whole checkpoint; what is damaged is named in `rejected`, and removed.

        Args:
            metrics_lines: whole lines in metrics.jsonl; a checkpoint that counts on more of them is passed over.
        """
        for path in reversed(self._of("step")):
            try:
                self._check(path, metrics_lines)
            except DamagedError as error:
                self.rejected.append(str(error))
                shutil.rmtree(path, ignore_errors=True)
                continue
            self.last_step = read_state(path)["step"]
            return path
        return None

    def _check(self, path: Path, metrics_lines: int) -> None:
        verify(path)
        state = read_state(path)
        if state["best"] is not None:
            if not re.fullmatch(r"best-\d{8,}", str(state["best"])):  # it will be read, or removed
                raise DamagedError(f"{path / STATE}: names no best weights; found {state['best']!r}; remove {path}")
            try:
                verify(self.folder / state["best"])
            except DamagedError:
                shutil.rmtree(self.folder / state["best"], ignore_errors=True)
                raise
        if state["metrics_lines"] > metrics_lines:
            raise DamagedError(
                f"{self.folder.parent / 'metrics.jsonl'}: cut off or damaged; found {metrics_lines} whole lines, "
                f"{path.name} expects {state['metrics_lines']}; copy it again, or train again"
            )

    def remove(self) -> None:
        """Remove all checkpoints: the run has finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, state: State) -> None:
        best = f"best-{state.best_step:08d}" if state.best else None
        if best is not None and not (self.folder / best).is_dir():
            with published(self.folder / best) as draft:
                draft.write(WEIGHTS, safetensors_bytes(state.best))
        with published(self.folder / f"step-{state.step:08d}") as draft:
            draft.write(WEIGHTS, safetensors_bytes(state.weights))
            draft.write(OPTIMIZER, safetensors_bytes(state.optimizer))
            if state.average:
                draft.write(AVERAGE, safetensors_bytes(state.average))
            draft.write_json(STATE, {"step": state.step, "best": best, **state.facts})

    def _of(self, kind: str) -> list[Path]:
        return sorted(path for path in self.folder.glob(f"{kind}-*") if path.is_dir())

    def _prune(self) -> None:
        kept, old = self._of("step")[-KEPT:], self._of("step")[:-KEPT]
        for path in old:
            shutil.rmtree(path, ignore_errors=True)
        used = {_best_of(path) for path in kept}
        for path in self._of("best"):
            if path.name not in used:
                shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob(".*.tmp"):  # of a process that was killed while it wrote
            shutil.rmtree(path, ignore_errors=True)


def read_state(path: Path) -> dict[str, Any]:
    """Return state.json of a verified checkpoint."""
    try:
        return json.loads((path / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path / STATE}: cannot be read; found {error}; train again") from error


def load(path: Path) -> State:
    """Read a verified checkpoint, tensors on the CPU."""
    facts = read_state(path)
    step, best = facts.pop("step"), facts.pop("best")
    kept = load_file(path.parent / best / WEIGHTS) if best else {}
    mean = load_file(path / AVERAGE) if (path / AVERAGE).is_file() else {}
    return State(
        step, facts, load_file(path / WEIGHTS), load_file(path / OPTIMIZER), kept,
        int(best.removeprefix("best-")) if best else 0, mean,
    )  # fmt: skip


def safetensors_bytes(tensors: Mapping[str, torch.Tensor]) -> Iterator[Any]:
    """Yield a safetensors file piece by piece: one tensor at a time in memory, hashed while it is written.

    The format: https://github.com/huggingface/safetensors#format; the library's own writer copies all tensors first.
    """
    header: dict[str, Any] = {}
    end = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in sorted(tensors):
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            yield memoryview(cast(Any, flat.view(torch.uint8).numpy()))


def optimizer_tensors(optimizer: Any, names: Mapping[torch.Tensor, str]) -> dict[str, torch.Tensor]:
    """Return an optimizer's state by `<kind>/<weight's name>`."""
    return {
        f"{kind}/{names[weight]}": value
        for weight, values in optimizer.state.items()
        for kind, value in values.items()
        if isinstance(value, torch.Tensor)
    }


def fill_optimizer(optimizer: Any, names: Mapping[torch.Tensor, str], tensors: Mapping[str, torch.Tensor]) -> None:
    """Give a new optimizer the state of an earlier one, in pieces where its weights are."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    numbers = {names[weight]: number for number, weight in enumerate(weights)}
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        kind, name = key.split("/", 1)
        number = numbers[name]
        shaped = value.shape == weights[number].shape  # a moment is, the count of steps is not
        state.setdefault(number, {})[kind] = like(value, weights[number]) if shaped else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _best_of(path: Path) -> str | None:
    try:
        return read_state(path)["best"]
    except DamagedError:
        return None
