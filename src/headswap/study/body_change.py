"""Average what training changed in the body over an arm's runs, layer by layer. Study chain: runs -> results.

The runs measured it (headswap.body_change) where `train.measure_change` asked for it; those without body.json are out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headswap.study.runs import FinishedRun
from headswap.study.statistics import t_interval


@dataclass(frozen=True)
class LayerMean:
    """A mean over seeds with its t interval; `runs` are those in which it was measured, none without a mean."""

    mean: float | None
    low: float | None
    high: float | None
    runs: int


@dataclass(frozen=True)
class BodyChange:
    """What training changed in the body of one arm at one size.

    Args:
        layers: their names from below, `embeddings` first.
        relative_change: |end - start| / |start| of each layer's weights.
        cka: how alike each layer's outputs are at the start and at the end, debiased linear CKA.
        texts: on how many texts at least.
        moved: whether any weight of the body did, in any run.
        absent: what could not be measured, and why.
    """

    arm: str
    size: int | None
    labels: int
    layers: tuple[str, ...]
    relative_change: tuple[LayerMean, ...]
    cka: tuple[LayerMean, ...]
    runs: int
    texts: int
    moved: bool
    absent: tuple[str, ...]


def body_changes(
    groups: Mapping[tuple[str, int | None], Sequence[FinishedRun]], confidence: float
) -> tuple[BodyChange, ...]:
    """Return the mean change of every arm and size that has runs with body.json."""
    measured = ([run for run in runs if run.body_change.get("layers")] for runs in groups.values())
    return tuple(_mean_change(runs, confidence) for runs in measured if runs)


def _mean_change(runs: Sequence[FinishedRun], confidence: float) -> BodyChange:
    first, told = runs[0], [run.body_change for run in runs]
    names = tuple(each["layer"] for each in told[0]["layers"])
    known = [{each["layer"]: each for each in one["layers"]} for one in told]

    def means(key: str) -> tuple[LayerMean, ...]:
        return tuple(_layer_mean([layers.get(name, {}).get(key) for layers in known], confidence) for name in names)

    return BodyChange(
        first.arm,
        first.record.size,
        first.labelled_rows,
        names,
        means("relative_change"),
        means("cka"),
        len(runs),
        min((int(one["texts"]) for one in told if one["moved"]), default=0),
        any(one["moved"] for one in told),
        tuple(sorted({one["absent"] for one in told} - {""})),
    )


def _layer_mean(values: Sequence[Any], confidence: float) -> LayerMean:
    known = [float(value) for value in values if value is not None]
    if not known:
        return LayerMean(None, None, None, 0)
    interval = t_interval(known, confidence)
    return LayerMean(interval.mean, interval.low, interval.high, len(known))
