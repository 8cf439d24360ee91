"""Which labels the two arms take for which: numbers and figure. Study chain: runs -> this -> figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headswap.study.contrasts import Pair
from headswap.study.page import NONE, Figure, Plot, Table
from headswap.study.statistics import crossed_interval
from headswap.study.traces import layout_of, safe
from headswap.study.units import Unit, count, number, percent, plural

if TYPE_CHECKING:
    from headswap.study.results import Comparison

MOST_CLASSES, FEW = 20, 8
OTHERS = "all others"
_SHARE = Unit("accuracy")
Matrix = tuple[tuple[float, ...], ...]
Ends = tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class Confusion:
    """Shares of the test rows of a class that are predicted as each class, means over the paired seeds.

    `low` and `high` are the ends of the crossed interval of treatment minus control, None where none can be drawn.
    """

    classes: tuple[str, ...]
    predicted: tuple[str, ...]
    """The columns: the classes, and all others together where some are left out."""
    rows: tuple[int, ...]
    treatment: Matrix
    control: Matrix
    low: Ends
    high: Ends
    left_out: int
    """Classes that are not among `classes`, which are then those that are confused most."""

    @property
    def difference(self) -> Matrix:
        pairs = zip(self.treatment, self.control, strict=True)
        return tuple(tuple(a - b for a, b in zip(*rows, strict=True)) for rows in pairs)


def confusion(pairs: Sequence[Pair], confidence: float) -> Confusion | None:
    """Return the confusion of the pairs' arms; None for a problem without one class a row."""
    first = pairs[0][0]
    names = tuple(str(name) for name in first.result.get("labels", ()))
    if first.problem != "single_label_classification" or not names or not first.ids.size:
        return None
    truth = first.labels.astype(int)
    answers = [np.array([run.predictions for run in arm]).astype(int) for arm in zip(*pairs, strict=True)]
    if max(truth.max(), *(each.max() for each in answers)) >= len(names):
        return None
    shown = _shown(truth, answers, len(names))
    coded = [_coded(each, shown, len(names)) for each in answers]
    width = len(shown) + (len(shown) < len(names))
    cells = [_cells(coded, truth == each, width, confidence) for each in shown]
    classes = tuple(names[each] for each in shown)
    predicted = (*classes, OTHERS) if width > len(shown) else classes
    rows = tuple(int((truth == each).sum()) for each in shown)
    return Confusion(
        classes,
        predicted,
        rows,
        tuple(row[0] for row in cells),
        tuple(row[1] for row in cells),
        tuple(row[2] for row in cells),
        tuple(row[3] for row in cells),
        len(names) - len(shown),
    )


def _shown(truth: NDArray, answers: list[NDArray], classes: int) -> list[int]:
    """Return the classes to draw, in their own order: those with test rows, the most confused where there are many."""
    wrong = np.zeros(classes)
    for predictions in answers:
        for row in predictions:
            missed = row != truth
            wrong += np.bincount(truth[missed], minlength=classes) + np.bincount(row[missed], minlength=classes)
    present = np.flatnonzero(np.bincount(truth, minlength=classes))
    kept = sorted(present.tolist(), key=lambda each: (-wrong[each], each))[:MOST_CLASSES]
    return sorted(kept)


def _coded(predictions: NDArray, shown: list[int], classes: int) -> NDArray:
    """Return the column of each prediction; all classes that are not shown share the last one."""
    column = np.full(classes, len(shown))
    column[shown] = np.arange(len(shown))
    return column[predictions]


def _cells(
    coded: list[NDArray], mine: NDArray, width: int, confidence: float
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float | None, ...], tuple[float | None, ...]]:
    """Return one true class's row: shares of treatment and control, and the ends of the differences' intervals."""
    hits = [[(each[:, mine] == column).astype(float) for column in range(width)] for each in coded]
    intervals = [crossed_interval(a - b, confidence) for a, b in zip(*hits, strict=True)]
    shares = [tuple(float(cell.mean()) for cell in arm) for arm in hits]
    return shares[0], shares[1], tuple(each.low for each in intervals), tuple(each.high for each in intervals)


def confusion_figure(comparison: Comparison) -> Figure | None:
    """Both arms' confusion matrices and their difference, rows adding up to 100 %."""
    found, study, primary = comparison.answered.confusion, comparison.study, comparison.primary
    if found is None or primary is None:
        return None
    names = study.treatment, study.control
    most = max(max(map(abs, row)) for row in found.difference) or 1.0
    ends = {"zmin": -100.0 * most, "zmax": 100.0 * most}
    kind = "heat" if len(found.classes) <= FEW else "arm"
    shades = [[[0, "@paper"], [1, f"@{kind}{index}"]] for index in (0, 1)]
    both = [[0, f"@{kind}1"], [0.5, "@paper"], [1, f"@{kind}0"]]
    whole = {"zmin": 0.0, "zmax": 100.0}
    plots = (
        _plot(found, found.treatment, names[0], shades[0], whole),
        _plot(found, found.control, names[1], shades[1], whole),
        _plot(found, found.difference, f"{names[0]} − {names[1]} (pp)", both, ends, signed=True),
    )
    caption = (
        f"Test rows of each label (rows) by the label they were given (columns), in percent of the row; means over "
        f"{plural(len(primary.pairs), 'paired seed')} with {plural(primary.labels, comparison.words.row)}. The "
        f"numbers hold {percent(study.confidence)} intervals of each difference over seeds and examples, not "
        f"corrected for there being many."
    )
    if found.left_out:
        caption += f" The {len(found.classes)} most confused labels of {len(found.classes) + found.left_out}."
    return Figure(
        "confusion", "Which labels are taken for which", caption, _described(found, names), plots,
        _table(found, names, percent(study.confidence)),
    )  # fmt: skip


def _plot(
    found: Confusion, values: Matrix, title: str, colours: list, ends: Mapping[str, float], signed: bool = False
) -> Plot:
    few = len(found.classes) <= FEW
    words = [[_rounded(100 * value, signed) for value in row] for row in values]
    heat = {"type": "heatmap", "z": [[100 * value for value in row] for row in values], "text": words}
    heat |= {"colorscale": colours, "showscale": False, "xgap": 1, "ygap": 1, **ends}
    heat |= {"hovertemplate": "%{y} given as %{x}: %{text}" + f"{' pp' if signed else ' %'}<extra></extra>"}
    heat |= {"texttemplate": "%{text}", "textfont": {"color": "@ink", "size": 12}} if few else {}
    heat |= {"x": _distinct(found.predicted), "y": _distinct(found.classes)}
    layout = layout_of(
        (120 if few else 170) + max(44 if few else 15, 150 // len(found.classes)) * len(found.classes), "given", "true"
    )
    for axis, angle in (("xaxis", -35 if few else -90), ("yaxis", 0)):
        layout[axis] |= {"type": "category", "showgrid": False, "showline": False, "ticks": "", "tickangle": angle}
        layout[axis] |= {"dtick": 1, "tickfont": {"color": "@ink", "size": 11.5 if few else 10}, "ticklabelstandoff": 4}
    layout["yaxis"] |= {"autorange": "reversed"}
    return Plot(title, [heat], layout, 0 if few else 160 + 14 * len(found.predicted))


def _rounded(value: float, signed: bool) -> str:
    text = number(value, 0)
    return f"+{text}" if signed and text.strip("0") and value > 0 else text


def _distinct(names: Sequence[str]) -> list[str]:
    """Return axis words cut short; those that would then be alike get their place, for they are one tick else."""
    cut = [safe(name if len(name) <= 18 else f"{name[:17]}…") for name in names]
    return [word if cut.count(word) == 1 else f"{word} ({place + 1})" for place, word in enumerate(cut)]


def _described(found: Confusion, names: tuple[str, str]) -> str:
    said = [
        f"{name} gets {_SHARE.score(first[place])} ({names[0]}) and {_SHARE.score(second[place])} ({names[1]}) right"
        for place, (name, first, second) in enumerate(zip(found.classes, found.treatment, found.control, strict=True))
    ]
    return f"Two confusion matrices and their difference. {'; '.join(said)}."


def _table(found: Confusion, names: tuple[str, str], share: str) -> Table:
    rows: list[tuple[str, ...]] = []
    parts: Any = zip(found.treatment, found.control, found.low, found.high, strict=True)
    for name, amount, row in zip(found.classes, found.rows, parts, strict=True):
        for given, first, second, low, high in zip(found.predicted, *row, strict=True):
            ends = [NONE if end is None else _SHARE.signed(end) for end in (low, high)]
            shares = _SHARE.score(first), _SHARE.score(second)
            rows.append((name, given, *shares, _SHARE.difference(first - second), *ends, count(amount)))
    columns = ("true", "given", *names, "difference", f"{share} low", f"{share} high", "test rows")
    return Table("Test rows of each label by the label they were given", columns, tuple(rows), words=2)
