"""Seconds and memory of a body against the length of its texts, the number of tokens in a step held constant.

Measures chain: bodies -> speed (this) -> speed_report -> page. Three operations: a training step (forward, backward,
AdamW) and a forward pass of the body alone, without any head; and writing one more token after a text of the length,
with the cache, by the model that generates. Repeats are interleaved over the bodies, so that what else the machine does
hits all alike, and each repeat of one body has its pair in every other.
"""

from __future__ import annotations

import ctypes
import gc
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import GenerationConfig

from headswap.hardware import is_out_of_memory
from headswap.measures.bodies import Subject, precision

OPERATIONS = ("train", "inference", "decode")
WRITTEN = 17
"""Tokens that a decoding writes; the first one is the prompt's, and is not timed."""
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Asked:
    """What is to be measured. `tokens`: in one training step or pass; a longer text stands alone."""

    lengths: Sequence[int]
    operations: Sequence[str] = OPERATIONS
    tokens: int = 4096
    repeats: int = 5
    precision: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class Cell:
    """One body at one length under one operation on one device.

    Args:
        seconds: one a repeat: of a step, a pass, or one written token. Empty where it was left out, and `why` says so.
        memory: bytes that the operation needs at its height beyond what lies there before it; None: not measured.
    """

    device: str
    operation: str
    body: str
    length: int
    batch: int
    tokens: int
    precision: str
    kernel: str = ""
    seconds: tuple[float, ...] = ()
    memory: int | None = None
    why: str = ""

    @property
    def speed(self) -> float:
        """Tokens a second, by the median repeat."""
        return self.tokens / median(self.seconds)

    @property
    def best(self) -> float:
        """Tokens a second of the fastest repeat."""
        return self.tokens / min(self.seconds)


@dataclass
class _Place:
    """The models that are held on one device while it is measured."""

    device: str
    asked: Asked
    models: dict[tuple[str, str], Any] = field(default_factory=dict)

    def model(self, subject: Subject, kind: str) -> Any:
        key = (subject.name, kind)
        if key not in self.models:
            self.models[key] = subject.drawn(self.asked.seed, kind).to(self.device)
        return self.models[key]


def measure(
    measured: Sequence[Subject], asked: Asked, device: str, tell: Callable[[str], None] = lambda what: None
) -> list[Cell]:
    """Return a cell for every body, length and operation, in this order of operations, lengths, bodies."""
    place, found = _Place(device, asked), []
    for operation in asked.operations:
        place.models.clear()  # a training step leaves its optimizer's state in none of them
        for length in asked.lengths:
            tell(f"{device} {operation} {length}")
            found += _side_by_side(measured, operation, length, place)
    return found


def _side_by_side(measured: Sequence[Subject], operation: str, length: int, place: _Place) -> Iterator[Cell]:
    acts: dict[str, Callable[[], float]] = {}
    blank: dict[str, Cell] = {}
    for subject in measured:
        batch = 1 if operation == "decode" else max(1, place.asked.tokens // length)
        tokens = 1 if operation == "decode" else batch * length
        name = precision(place.asked.precision, place.device)
        cell = Cell(place.device, operation, subject.name, length, batch, tokens, name)
        blank[subject.name] = cell
        if why := _unserved(subject, operation, length):
            blank[subject.name] = replace(cell, why=why)
            continue
        try:
            act, kernel = _prepared(subject, cell, place)
            act()  # the first one allocates, plans and warms caches
            memory = grown(act, place.device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            blank[subject.name] = replace(cell, why="out of memory")
            continue
        acts[subject.name], blank[subject.name] = act, replace(cell, kernel=kernel, memory=memory)
    seconds: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(place.asked.repeats):
        for name, act in acts.items():
            seconds[name].append(act())
    for name, cell in blank.items():
        yield replace(cell, seconds=tuple(seconds.get(name, ())))


def _unserved(subject: Subject, operation: str, length: int) -> str:
    """Return why a body has no such cell, "" where it has."""
    needed = length + (WRITTEN if operation == "decode" and not subject.config.is_encoder_decoder else 0)
    if operation == "decode" and subject.generator is None:
        return "does not write: each of its states sees both sides"
    if subject.positions is not None and needed > subject.positions:
        return f"has {subject.positions:,} positions"
    return ""


def _prepared(subject: Subject, cell: Cell, place: _Place) -> tuple[Callable[[], float], str]:
    """Return what performs the operation once and returns its seconds, and the attention kernel."""
    model = place.model(subject, subject.generator or "" if cell.operation == "decode" else "AutoModel")
    ids = subject.tokens(cell.batch, cell.length, place.asked.seed).to(place.device)
    if cell.operation == "decode":
        return lambda: written(model.eval(), ids), str(model.config._attn_implementation)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if subject.config.is_encoder_decoder:
        given["decoder_input_ids"] = ids
    kind = _TYPES.get(cell.precision)
    cast = torch.autocast(place.device, kind) if kind else nullcontext()
    act = _step(model.train(), given, cast) if cell.operation == "train" else _pass(model.eval(), given, cast)
    return lambda: timed(act, place.device), str(model.config._attn_implementation)


def _step(model: Any, given: dict[str, Any], cast: Any) -> Callable[[], None]:
    """Return a training step of the body alone; its loss is the mean square of its states."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5)

    def step() -> None:
        with cast:
            loss = model(**given).last_hidden_state.float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _pass(model: Any, given: dict[str, Any], cast: Any) -> Callable[[], None]:
    def forward() -> None:
        with torch.inference_mode(), cast:
            model(**given)

    return forward


def timed(act: Callable[[], None], device: str) -> float:
    """Return the seconds that something takes, on a GPU until it is done there."""
    _await(device)
    began = time.perf_counter()
    act()
    _await(device)
    return time.perf_counter() - began


@dataclass
class _Clock:
    """What transformers calls a streamer: it hears of every token as it is written."""

    moments: list[float] = field(default_factory=list)

    def put(self, value: Any) -> None:
        self.moments.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is held back."""


def written(model: Any, ids: torch.Tensor) -> float:
    """Return the seconds that one more token takes after `ids`, with the cache: the mean of those written."""
    clock, pad = _Clock(), model.config.pad_token_id
    settings = GenerationConfig(
        max_new_tokens=WRITTEN, min_new_tokens=WRITTEN, do_sample=False, use_cache=True, num_beams=1,
        pad_token_id=0 if pad is None else pad,
    )  # fmt: skip
    with torch.inference_mode():
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings, streamer=clock)
    first, last = clock.moments[1], clock.moments[-1]  # before them stands the prompt
    return (last - first) / (len(clock.moments) - 2)


def grown(act: Callable[[], Any], device: str) -> int | None:
    """Return the bytes that `act` needs at its height beyond what lies there before it.

    On CUDA what its allocator hands out; on Linux's CPUs the growth of the process's resident memory, which holds all
    that libraries take; None elsewhere.
    """
    if device == "cuda":
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        act()
        return torch.cuda.max_memory_allocated() - before
    if device != "cpu" or not _forget_the_peak():
        return None
    before = _resident("VmRSS")
    act()
    return max(0, _resident("VmHWM") - before)


def _forget_the_peak() -> bool:
    """Give freed memory back and let the kernel count the peak anew. Return whether it does."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what is freed, and a peak inside that would not show
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _resident(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) * 1024 if found else 0


def _await(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()
