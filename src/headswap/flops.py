"""The floating-point operations of a training, counted in its own passes. Floor 3, used by step.py and loop.py.

    counted(batch): a shape that was counted -> its number; a shape between counted ones -> computed from them
                    any other -> this pass is watched

A watched pass hands every operation on as it is and adds what torch's formulas (torch.utils.flop_counter) say of its
shapes: matrix products, convolutions and attention count, what is done element by element does not. So the pass that
trains is the one that is counted, with its frozen layers, its tables in place of a body and what checkpointing computes
again. (torch's FlopCounterMode takes some kernels apart to count them, which changes bits, and follows modules.)

The number for a batch is a polynomial in its widths, once a pass and once a row, of degree 2 where there is attention.
When new shapes have come out as the counted ones said, those between them are computed, in whole numbers. Where they do
not (a body that pads its inputs to windows), every shape is watched once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from math import gcd
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

if TYPE_CHECKING:
    from headswap.hardware import Hardware
    from headswap.training import Progress

AGREED = 2
"""Shapes that must come out as computed before one is not watched."""

Shape = tuple[tuple[int, ...], ...]
Kind = tuple[tuple[str, int], ...]
"""The tensors of a batch and how many dimensions each has: shapes of one kind share a polynomial."""
_ATEN: Any = torch.ops.aten
_NAMESPACES = ("aten", "prim", "prims", "c10d", "_c10d_functional", "fsdp", "profiler")
_UNTOLD = ("miopen_rnn", "_lstm_mps", "_grouped_mm", "_int_mm", "_fft_c2c", "_fft_r2c", "_fft_c2r")
"""Kernels that multiply matrices, or as much as that, and have no formula."""


@dataclass
class FlopCount:
    """Counts what one process computes in forward and backward passes.

    Args:
        note: told why nothing can be said, for run.json.
    """

    note: Callable[[str], None] = lambda why: None
    why: str = ""
    _noted: bool = False
    _kept: int = 0
    _step: int = 0
    _known: dict[tuple[Kind, Shape], int] = field(default_factory=dict, repr=False)
    _polynomials: dict[Kind, Polynomial] = field(default_factory=dict, repr=False)

    def begin(self) -> None:
        """Forget the shapes: with other weights moving, a pass computes something else."""
        self._known, self._polynomials = {}, {}

    @contextlib.contextmanager
    def counted(self, batch: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Count what is computed inside for a batch, forward and backward."""
        if self.why:
            yield
            return
        named = sorted(batch.items())
        kind, shape = tuple((name, each.dim()) for name, each in named), tuple(tuple(each.shape) for _, each in named)
        polynomial = self._polynomials.setdefault(kind, Polynomial())
        if (kind, shape) not in self._known and (found := polynomial.told(shape)) is not None:
            self._known[kind, shape] = found
        if (kind, shape) in self._known:
            yield
        else:
            with Watch() as watch:
                yield
            self.why = watch.untold and f"no formula tells the FLOPs of {watch.untold}"
            self._known[kind, shape] = watch.flops
            polynomial.learn(shape, watch.flops)
        self._step += self._known[kind, shape]

    def keep(self) -> None:
        """Count in what was computed since the last step."""
        self._kept, self._step = self._kept + self._step, 0

    def drop(self) -> None:
        """Leave out what was computed since the last step: it is taken again."""
        self._step = 0

    def settle(self, progress: Progress, hardware: Hardware) -> None:
        """Add to the progress what all processes have kept; all of them call it together."""
        found = hardware.gather((self._kept, self.why))
        self._kept = 0
        self.why = next(filter(None, (why for _, why in found)), "")
        if progress.flops is None and not self.why:
            self.why = "the state that the run went on from holds no count"
        if self.why and not self._noted:
            self.note(self.why)
            self._noted = True
        progress.flops = None if self.why else (progress.flops or 0) + sum(flops for flops, _ in found)


def told(progress: Progress) -> dict[str, int]:
    """Return what result.json and metrics.jsonl say of it: nothing where it is not known."""
    return {} if progress.flops is None else {"flops": progress.flops}


@dataclass
class Polynomial:
    """What counted shapes say of another: a number where their polynomials hold it and it lies between them.

    A shape's terms are a row of whole numbers, and a number follows where that row is a sum of counted rows.
    """

    _rows: list[tuple[int, list[int], int]] = field(default_factory=list, repr=False)
    _span: list[tuple[int, int]] = field(default_factory=list, repr=False)
    _agreed: float = 0

    def told(self, shape: Shape) -> int | None:
        """Return the number for a shape, None where it must be counted."""
        sizes = [size for each in shape for size in each]
        inside = len(sizes) == len(self._span) and all(
            low <= size <= high for size, (low, high) in zip(sizes, self._span, strict=True)
        )
        return self._computed(shape) if inside and self._agreed >= AGREED else None

    def learn(self, shape: Shape, flops: int) -> None:
        """Take in a counted shape, after a look at what the others say of it."""
        expected = self._computed(shape)
        if expected is not None:
            self._agreed = self._agreed + 1 if expected == flops else float("-inf")
        rest, scale, known = self._reduced(shape)
        pivot = next((place for place, value in enumerate(rest) if value), None)
        if pivot is not None:
            left = scale * flops - known
            common = gcd(*rest, left)
            self._rows.append((pivot, [value // common for value in rest], left // common))
        sizes = [size for each in shape for size in each]
        spans = self._span if len(self._span) == len(sizes) else [(size, size) for size in sizes]
        self._span = [(min(low, size), max(high, size)) for size, (low, high) in zip(sizes, spans, strict=True)]

    def _computed(self, shape: Shape) -> int | None:
        rest, scale, known = self._reduced(shape)
        return known // scale if not any(rest) and known % scale == 0 else None

    def _reduced(self, shape: Shape) -> tuple[list[int], int, int]:
        """Return (rest, scale, known): scale x the shape's terms are the rest plus counted rows that come to known."""
        rest, scale, known = terms(shape), 1, 0
        for pivot, row, flops in self._rows:
            ahead, behind = row[pivot], rest[pivot]
            if behind:
                rest = [ahead * mine - behind * theirs for mine, theirs in zip(rest, row, strict=True)]
                scale, known = ahead * scale, ahead * known + behind * flops
        return rest, scale, known


def terms(shape: Shape) -> list[int]:
    """Return the products of up to two widths, once for the pass and once for its rows."""
    rows, widths = next(each[0] for each in shape if each), [size for each in shape for size in each[1:]]
    products = [1, *widths, *(first * second for first, second in combinations_with_replacement(widths, 2))]
    return [*products, *(rows * each for each in products)]


class Watch(TorchDispatchMode):
    """Adds up the FLOPs of all operations inside, and changes none of them.

    Attributes:
        untold: an operation that may multiply matrices and has no formula, empty for none.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.flops, self.untold = 0, ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        out = func(*args, **named)
        formula = _FORMULAS.get(func) or _formula(func)
        if formula is untold:
            self.untold = str(func)
        elif formula is not nothing:
            try:
                self.flops += formula(*args, **named, out_val=out)
            except Exception:  # noqa: BLE001 (a formula that does not know this use of its kernel ends no training)
                self.untold = str(func)
        return out


def nothing(*args: Any, **named: Any) -> int:
    """Return the FLOPs of what is done element by element."""
    return 0


def untold(*args: Any, **named: Any) -> int:
    """Stand for what cannot be counted."""
    raise NotImplementedError


def _attention(query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> int:
    return sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape)


def _recurrent(tokens: int, weights: Sequence[Any]) -> int:
    """Return what a layer of recurrent cells computes: every matrix (gates x width, read) times every token."""
    return 2 * tokens * sum(each.numel() for each in weights if each.dim() == 2)


def _fused_on_cpu(given: Any, *weights: Any, **named: Any) -> int:
    return _recurrent(given.shape[0] * given.shape[1], weights[:2])


def _fused_on_cpu_backward(given: Any, *weights: Any, **named: Any) -> int:
    """Count a product for the gradient of each input and of each weight; the kernel leaves none out."""
    return 2 * _fused_on_cpu(given, *weights)


def _fused_on_gpu(given: Any, weights: Any, *rest: Any, **named: Any) -> int:
    return _recurrent(given.numel() // given.shape[-1], weights)


def _fused_on_gpu_backward(given: Any, weights: Any, *rest: Any, **named: Any) -> int:
    wanted = rest[-1]  # of the input, the states and the weights
    return _fused_on_gpu(given, weights) * (1 + bool(wanted[-1]))


# torch has formulas for the GPU's fused attention alone; the CPU's computes the same, the scores anew when going back.
# Of fused recurrent cells it has none.
_OWN: dict[str, Callable[..., int]] = {
    "mkldnn_rnn_layer": _fused_on_cpu,
    "mkldnn_rnn_layer_backward": _fused_on_cpu_backward,
    "_cudnn_rnn": _fused_on_gpu,
    "_cudnn_rnn_backward": _fused_on_gpu_backward,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
}
_FORMULAS: dict[Any, Callable[..., int]] = {}


def _formula(func: Any) -> Callable[..., int]:
    """Return how the FLOPs of an operation follow from its arguments: `nothing`, `untold`, or a formula."""
    packet = getattr(func, "overloadpacket", func)
    name = str(packet).removeprefix("aten.")
    other = untold if name in _UNTOLD or func.namespace not in _NAMESPACES else nothing
    _FORMULAS[func] = flop_registry.get(packet) or _OWN.get(name) or other
    return _FORMULAS[func]
