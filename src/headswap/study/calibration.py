"""Whether the arms are as sure as they are right: numbers and figure. Study chain: runs -> this -> figures.

Confidence is the largest softmax of an example's stored outputs. The expected calibration error is Guo et al. 2017
(arXiv 1706.04599), equation 3: over bins of equal width, the mean gap between confidence and share right, weighted by
the predictions in each; where a word has a label, a word is a prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from headswap.study.page import NONE, Figure, Plot, Table
from headswap.study.runs import FinishedRun, test_column
from headswap.study.statistics import Interval, t_interval
from headswap.study.traces import SYMBOLS, arm_index, layout_of, line
from headswap.study.units import Unit, count, percent, plural

if TYPE_CHECKING:
    from headswap.study.results import Comparison

BINS = 15
_SHARE = Unit("accuracy")
_PROBLEMS = ("single_label_classification", "multiple_choice", "token_classification")


@dataclass(frozen=True)
class Bin:
    """The predictions of all of an arm's runs whose confidence lies in (low, high]."""

    low: float
    high: float
    predictions: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """One arm at the largest size: its expected calibration error over seeds, its bins over all its runs."""

    arm: str
    error: Interval
    confidence: float
    right: float
    bins: tuple[Bin, ...]


def calibration(runs: Sequence[FinishedRun], confidence: float) -> Calibration | None:
    """Return how well one arm's runs know what they know; None where a run's outputs are no scores of labels."""
    found = [each for each in map(confidences, runs) if each is not None]
    if not runs or len(found) < len(runs):
        return None
    errors = [calibration_error(*each) for each in found]
    sure, right = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Calibration(
        runs[0].arm, t_interval(errors, confidence), float(sure.mean()), float(right.mean()), _bins(sure, right)
    )


def confidences(run: FinishedRun) -> tuple[NDArray[np.floating], NDArray[np.bool_]] | None:
    """Return of every prediction how sure the run was and whether it was right."""
    column = test_column(run, "logits") if run.problem in _PROBLEMS and run.ids.size else None
    if column is None:
        return None
    widths = np.diff(column.offsets.to_numpy())
    width = int(widths[0]) if run.classifies else len(run.result.get("labels", ()))
    given, truth = _in_a_row(run.predictions), _in_a_row(run.labels)
    if width < 2 or (widths % width).any() or not len(given) == len(truth) == widths.sum() // width:
        return None
    outputs = column.flatten().to_numpy().astype(float).reshape(-1, width)
    return None if np.isnan(outputs).any() else (softmax(outputs, axis=1).max(axis=1), np.asarray(given == truth))


def _in_a_row(items: NDArray) -> NDArray:
    """Return one item a prediction: where an example is a list of tags, its words one after the other."""
    return np.concatenate(items.tolist()) if items.dtype == object else items


def calibration_error(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    return sum(each.predictions * abs(each.confidence - each.right) for each in _bins(confidence, right)) / len(right)


def _bins(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> tuple[Bin, ...]:
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return tuple(
        Bin(each / BINS, (each + 1) / BINS, int(mine.sum()), float(confidence[mine].mean()), float(right[mine].mean()))
        for each in range(BINS)
        if (mine := place == each).any()
    )


def calibration_figure(comparison: Comparison) -> Figure | None:
    """One reliability diagram an arm, with the diagonal on which confidence is the share right."""
    found, primary = comparison.answered.calibration, comparison.primary
    if not found or primary is None:
        return None
    share = percent(comparison.study.confidence)
    plots = tuple(_plot(each, arm_index(each.arm, comparison)) for each in found)
    rows = tuple(
        (each.arm, f"{_SHARE.score(one.low)} to {_SHARE.score(one.high)}", count(one.predictions),
         _SHARE.score(one.confidence), _SHARE.score(one.right), _SHARE.difference(one.confidence - one.right))
        for each in found for one in each.bins
    )  # fmt: skip
    columns = ("arm", "confidence from", "predictions", "mean confidence", "right", "gap")
    table = Table("Confidence and share right, all runs of an arm together", columns, rows, words=2)
    said = "; ".join(f"{each.arm} {_error_text(each, share)}" for each in found)
    caption = (
        f"How often a prediction is right against how sure the run was of it (largest softmax), with "
        f"{plural(primary.labels, comparison.words.row)}, in {BINS} bins; larger marks hold more predictions. On the "
        f"diagonal the two agree; below it the arm is surer than it is right. Expected calibration error (ECE), mean "
        f"over seeds: {said}."
    )
    title = "Is it right as often as it is sure?"
    return Figure("calibration", title, caption, f"Reliability diagrams. {_described(found)}.", plots, table)


def calibration_table(comparison: Comparison) -> Table:
    """Return the expected calibration error of every arm."""
    share = percent(comparison.study.confidence)
    rows = tuple(
        (each.arm, _SHARE.score(each.error.mean), _ends(each.error), _SHARE.score(each.confidence),
         _SHARE.score(each.right), _SHARE.difference(each.confidence - each.right), str(each.error.seeds))
        for each in comparison.answered.calibration
    )  # fmt: skip
    columns = ("arm", "ECE", f"{share} CI", "mean confidence", "right", "surer by", "runs")
    title = f"Expected calibration error ({BINS} bins) at the largest size, {share} t interval over seeds"
    return Table(title, columns, rows)


def _plot(each: Calibration, index: int) -> Plot:
    most = max(one.predictions for one in each.bins)
    sizes = [round(4 + 11 * (one.predictions / most) ** 0.5, 1) for one in each.bins]
    x, y = ([100 * getattr(one, name) for one in each.bins] for name in ("confidence", "right"))
    curve = line(x, y, f"@arm{index}", 1.4, "solid") | {"mode": "lines+markers", "hoverinfo": "text"}
    curve |= {"marker": {"symbol": SYMBOLS[index], "size": sizes, "color": f"@arm{index}", "opacity": 1}}
    curve |= {"text": [f"{plural(one.predictions, 'prediction')}: {_SHARE.score(one.confidence)} sure, "
                       f"{_SHARE.score(one.right)} right" for one in each.bins]}  # fmt: skip
    layout = layout_of(300, "confidence (%)", "right (%)")
    for axis in ("xaxis", "yaxis"):
        layout[axis] |= {"range": [-3, 104], "tickvals": [0, 25, 50, 75, 100]}
    title = f"{each.arm}: ECE {_SHARE.score(each.error.mean)}".replace(" %", "\N{NO-BREAK SPACE}%")
    return Plot(title, [line([0, 100], [0, 100], "@muted", 1, "4px,3px"), curve], layout)


def _described(found: Sequence[Calibration]) -> str:
    return "; ".join(
        f"{each.arm} is {_SHARE.score(each.confidence)} sure and {_SHARE.score(each.right)} right on average, "
        f"calibration error {_SHARE.score(each.error.mean)}"
        for each in found
    )


def _error_text(each: Calibration, share: str) -> str:
    ends = _ends(each.error)
    return _SHARE.score(each.error.mean) + ("" if ends == NONE else f" ({share} CI {ends})")


def _ends(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return NONE
    return f"{_SHARE.score(max(interval.low, 0)).removesuffix(' %')} to {_SHARE.score(interval.high)}"
