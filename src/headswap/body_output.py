"""What a body is given and what is kept of its output: keys of rows, forms, tables on disk, passes. Floor 2.

frozen.py decides when a body is served from tables, cuts.py where it is cut.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from headswap.contracts import LossFunction, Task
from headswap.durable import published, verify
from headswap.errors import DamagedError, Stopped
from headswap.hardware import Hardware
from headswap.stopping import Stop

if TYPE_CHECKING:
    from headswap.cuts import Cut, Say
    from headswap.data import Batches

VALUES, KEYS, COUNTS = "values.bin", "keys.npy", "counts.npy"
KEY_BYTES = 16

Piece = tuple[list[bytes], np.ndarray, np.ndarray]


class Unserved(Exception):
    """Why a body computes every batch itself."""


@dataclass(frozen=True)
class Given:
    """What a body was given in one call: what each row is known by, and where its real tokens stand."""

    keys: list[bytes]
    real: np.ndarray
    device: torch.device

    @classmethod
    def of(cls, signature: inspect.Signature, args: Any, named: Any) -> Given | None:
        """Return None where rows cannot be told apart by tokens alone."""
        bound = signature.bind(*args, **named).arguments
        for name, parameter in signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                bound |= bound.pop(name, {})
        tensors = {name: value for name, value in bound.items() if isinstance(value, torch.Tensor)}
        ids, mask = tensors.get("input_ids"), tensors.pop("attention_mask", None)
        if ids is None or mask is None or ids.dim() != 2:
            return None
        if any(each.shape != ids.shape for each in (mask, *tensors.values())):
            return None
        real = mask.cpu().numpy().astype(bool)
        columns = np.stack([tensors[name].cpu().numpy().astype(np.int64) for name in sorted(tensors)], axis=-1)
        keys = [
            hashlib.blake2b(row[places].tobytes(), digest_size=KEY_BYTES).digest()
            for row, places in zip(columns, real, strict=True)
        ]
        return cls(keys, real, ids.device)


@dataclass(frozen=True)
class Form:
    """What is kept of a body's output, and the form of the whole.

    Args:
        kind: the pooled vector, the state of the first or of the last real token, or the states of all real tokens.
        fields: the output's tensors: name -> (width, dtype).
    """

    kind: str
    type: type
    fields: Mapping[str, tuple[int, torch.dtype]]

    @property
    def name(self) -> str:
        return "pooler_output" if self.kind == "pooler_output" else "last_hidden_state"

    @property
    def width(self) -> int:
        return self.fields[self.name][0]

    @property
    def dtype(self) -> torch.dtype:
        return self.fields[self.name][1]

    def counts(self, real: np.ndarray) -> np.ndarray:
        """Return how many vectors each row has."""
        return real.sum(axis=1) if self.kind == "last_hidden_state" else np.ones(len(real), dtype=np.int64)

    def _places(self, real: np.ndarray) -> Any:
        """Return where the kept vectors stand in [rows, tokens], rows first."""
        if self.kind == "last_hidden_state":
            return np.nonzero(real)
        places = real.argmax(axis=1) if self.kind == "first" else real.shape[1] - 1 - real[:, ::-1].argmax(axis=1)
        return np.arange(len(real)), places

    def taken(self, output: Any, real: np.ndarray) -> np.ndarray:
        """Return the kept vectors of an output, float32, one row after another."""
        value = output[self.name]
        if self.name == "last_hidden_state":
            value = value[tuple(torch.from_numpy(part).to(value.device) for part in self._places(real))]
        return value.float().cpu().numpy()

    def output(self, values: np.ndarray, given: Given, rest: float) -> Any:
        """Return an output with these vectors, and `rest` everywhere else."""
        shapes = {"last_hidden_state": given.real.shape, "pooler_output": given.real.shape[:1]}
        made = {}
        for name, (width, dtype) in self.fields.items():
            shape = (*shapes[name], width)
            if name != self.name:
                made[name] = torch.full((), rest, dtype=dtype, device=given.device).expand(shape)
            elif name == "pooler_output":
                made[name] = torch.from_numpy(values).to(given.device, dtype)
            else:
                whole = np.full(shape, rest, dtype=np.float32)
                whole[self._places(given.real)] = values
                made[name] = torch.from_numpy(whole).to(given.device, dtype)
        return self.type(**made)


@dataclass(frozen=True)
class Table:
    """The vectors of a split, mapped into memory, and where those of each row lie."""

    values: np.ndarray
    spans: Mapping[bytes, tuple[int, int]]

    @classmethod
    def read(cls, folder: Path, width: int) -> Table | None:
        """Return None where the table is absent or damaged."""
        if not folder.is_dir():
            return None
        try:
            verify(folder)
        except (DamagedError, OSError):
            return None
        ends = np.cumsum(np.load(folder / COUNTS)).tolist()
        keys = map(bytes, np.load(folder / KEYS))
        spans: dict[bytes, tuple[int, int]] = {}
        for key, first, last in zip(keys, [0, *ends], ends, strict=False):
            spans.setdefault(key, (first, last))
        return cls(np.memmap(folder / VALUES, dtype=np.float32, mode="r").reshape(-1, width), spans)

    @staticmethod
    def write(folder: Path, pieces: Iterable[Piece]) -> None:
        """Write a table, whole or not at all. Raises OSError when the disk refuses."""
        keys: list[bytes] = []
        counts: list[np.ndarray] = []

        def chunks() -> Iterator[memoryview]:
            for piece_keys, piece_counts, values in pieces:
                keys.extend(piece_keys)
                counts.append(piece_counts)
                yield memoryview(cast(Any, np.ascontiguousarray(values).view(np.uint8).reshape(-1)))

        with published(folder) as draft:
            draft.write(VALUES, chunks())
            np.save(draft.path / KEYS, np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, KEY_BYTES))
            np.save(draft.path / COUNTS, np.concatenate(counts))


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class ReadMore(Exception):
    """The head reads more than what a form keeps."""


@dataclass(frozen=True)
class Heard:
    """One pass: what the body was given and gave, and what came of it."""

    given: Given
    output: Any
    said: list[np.ndarray]


@dataclass(frozen=True)
class Passes:
    """Passes over features, to learn what the body gives and what the head makes of it."""

    task: Task
    batches: Batches
    loss: LossFunction
    hardware: Hardware
    model: Any
    cut: Cut

    def whole(self, split: str, rows: np.ndarray) -> Heard:
        """Compute a batch as ever, and listen at the cut."""
        calls = cast(list[tuple[Any, Any]], [])

        def listen(given: Given | None, compute: Callable[[], Any]) -> Any:
            calls.append((given, compute()))
            return calls[-1][1]

        said = self._said(split, rows, listen)
        if len(calls) != 1 or calls[0][0] is None:
            raise Unserved("the model does not give its body tokens and a mask, once a batch")
        return Heard(calls[0][0], calls[0][1], said)

    def plain(self, split: str, rows: np.ndarray) -> None:
        """Give the model a batch as ever."""
        self.task.forward(self.model, self.hardware.move(self.batches.collate(split, rows)))

    def part(self, split: str, rows: np.ndarray, heard: Heard, form: Form) -> np.ndarray:
        """Return what is kept of a batch. Raises ReadMore where the rest, as the cut's, changes what the head says."""
        values = form.taken(heard.output, heard.given.real)
        mutilated = form.output(values, heard.given, self.cut.rest)
        said = self._said(split, rows, lambda given, compute: mutilated)
        if not all(np.allclose(*pair, rtol=1e-6, atol=1e-7) for pair in zip(said, heard.said, strict=True)):
            raise ReadMore(f"found places read beside {form.kind}")
        return values

    def forms(self, rows: np.ndarray) -> Iterator[Form]:
        """Yield the forms that serve for these training features, the smallest first."""
        heard = self.whole("train", rows)
        names = [name for name in ("last_hidden_state", "pooler_output") if _tensor(heard.output, name) is not None]
        if "last_hidden_state" not in names:
            raise Unserved(f"the body gives no states; found {type(heard.output).__name__}")
        fields = {name: (heard.output[name].shape[-1], heard.output[name].dtype) for name in names}
        for kind in self.cut.forms:
            if kind == "pooler_output" and kind not in names:
                continue
            form = Form(kind, type(heard.output), fields)
            with contextlib.suppress(ReadMore):
                self.part("train", rows, heard, form)
                yield form

    def pieces(self, split: str, form: Form, stop: Stop) -> Iterator[Piece]:
        """Yield what is kept of a split, batch by batch.

        Raises:
            ReadMore: the head reads other places of some feature.
            Stopped: somebody asked for it.
        """
        for rows in self.batches.evaluation(split):
            if stop.reason:
                raise Stopped(f"stopped by {stop.reason} while the body's outputs for {split} were computed")
            heard = self.whole(split, rows)
            yield heard.given.keys, form.counts(heard.given.real), self.part(split, rows, heard, form)

    def _said(self, split: str, rows: np.ndarray, say: Say) -> list[np.ndarray]:
        """Return the loss of a batch and what scoring would keep of it, when what passes the cut is what `say` says."""
        task = self.task
        batch = self.hardware.move(self.batches.collate(split, rows))
        with self.cut.through(say):
            output = task.forward(self.model, batch)
        loss = np.asarray(float(self.loss(output, batch)))
        return [loss, *task.observe(self.model, batch, output)]


def _tensor(output: Any, name: str) -> torch.Tensor | None:
    found = output.get(name) if isinstance(output, Mapping) else None
    return found if isinstance(found, torch.Tensor) else None
