"""The same answer for every row: what is right without reading anything. Floor 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from headswap.answers import Labels, Problem
from headswap.fitted import Columns, Fitted, shares

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Majority:
    """Answer with the shares of the training labels, or with the mean of the training numbers.

    One label: the logarithm of each label's share, so that the commonest is predicted and its probability is its share.
    Several labels: the log odds of each one's share. A label that no training row has counts as half a row.
    """

    problems: ClassVar[tuple[Problem, ...]] = (
        "single_label_classification",
        "multi_label_classification",
        "regression",
    )

    def fits(self, rows: Columns, inputs: Sequence[str], labels: Labels) -> Iterator[Fitted]:
        import numpy as np

        answer = _answer(np.asarray(rows["label"]), labels)
        yield Fitted(partial(_repeated, answer), answer.size)


def _answer(targets: np.ndarray, labels: Labels) -> np.ndarray:
    """Return [outputs]."""
    import numpy as np
    from scipy.special import logit

    if labels.problem == "regression":
        return targets.mean(axis=0, dtype=np.float64)
    if labels.problem == "multi_label_classification":
        return logit(shares(targets.sum(axis=0, dtype=np.float64), len(targets)))
    return np.log(shares(np.bincount(targets, minlength=labels.count), len(targets)))


def _repeated(answer: np.ndarray, rows: Columns) -> np.ndarray:
    import numpy as np

    return np.tile(answer, (len(rows["id"]), 1))
