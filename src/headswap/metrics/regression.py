"""Metrics of numbers: correlations, and errors in the target's unit. Several outputs count alike: a mean over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from headswap.answers import Answers, Problem
from headswap.metrics.offline import Offline

if TYPE_CHECKING:
    import numpy as np


class Regression(Offline):
    """What the metrics of numbers share."""

    problems: ClassVar[tuple[Problem, ...]] = ("regression",)
    form: ClassVar[str] = "numbers"


@dataclass(frozen=True)
class Pearson(Regression):
    """Linear correlation in [-1, 1]; 0 where predictions or references are constant."""

    name: ClassVar[str] = "pearson"
    library: ClassVar[str] = "SciPy stats.pearsonr, mean over outputs"

    def score(self, predictions: Any, references: Any) -> float:
        from scipy.stats import pearsonr

        return _correlation(pearsonr, predictions, references)

    def sums(self, answers: Answers) -> np.ndarray:
        """Return x, y, x², y² and xy of each output, around the split's means, and 1."""
        import numpy as np

        first, second = (_columns(side) for side in (answers.predictions, answers.references))
        first, second = first - first.mean(axis=0), second - second.mean(axis=0)
        return np.column_stack([first, second, first**2, second**2, first * second, np.ones(len(first))])

    def of_sums(self, totals: np.ndarray) -> float:
        import numpy as np

        first, second, square, other, product = totals[:-1].reshape(5, -1) / totals[-1]
        spread = np.maximum(square - first**2, 0) * np.maximum(other - second**2, 0)
        shared = product - first * second
        return float(np.divide(shared, np.sqrt(spread), out=np.zeros_like(shared), where=spread > 0).mean())


@dataclass(frozen=True)
class Spearman(Regression):
    """Correlation of ranks in [-1, 1], ties sharing their mean rank; 0 where either side is constant."""

    name: ClassVar[str] = "spearman"
    library: ClassVar[str] = "SciPy stats.spearmanr, mean over outputs"

    def score(self, predictions: Any, references: Any) -> float:
        from scipy.stats import spearmanr

        return _correlation(spearmanr, predictions, references)


@dataclass(frozen=True)
class RootMeanSquaredError(Regression):
    """Square root of the mean squared error, in the target's unit; of several outputs the mean of their errors."""

    name: ClassVar[str] = "rmse"
    library: ClassVar[str] = "scikit-learn root_mean_squared_error"
    greater_is_better: ClassVar[bool] = False

    def score(self, predictions: Any, references: Any) -> float:
        import numpy as np

        errors = _columns(predictions) - _columns(references)
        return float(np.sqrt((errors**2).mean(axis=0)).mean())

    def sums(self, answers: Answers) -> np.ndarray:
        """Return the squared error of each output, and 1."""
        import numpy as np

        squares = (_columns(answers.predictions) - _columns(answers.references)) ** 2
        return np.column_stack([squares, np.ones(len(squares))])

    def of_sums(self, totals: np.ndarray) -> float:
        import numpy as np

        return float(np.sqrt(totals[:-1] / totals[-1]).mean())


@dataclass(frozen=True)
class MeanAbsoluteError(Regression):
    """Mean distance of prediction and reference, in the target's unit."""

    name: ClassVar[str] = "mae"
    library: ClassVar[str] = "scikit-learn mean_absolute_error"
    greater_is_better: ClassVar[bool] = False
    per_example: ClassVar[bool] = True

    def each(self, predictions: Any, references: Any) -> np.ndarray:
        import numpy as np

        return np.abs(_columns(predictions) - _columns(references)).mean(axis=1)


def _columns(numbers: Any) -> np.ndarray:
    """Return [examples, outputs] float64."""
    import numpy as np

    rows = np.asarray(numbers, dtype=np.float64)
    return rows if rows.ndim == 2 else rows[:, None]


def _correlation(measure: Callable[..., Any], predictions: Any, references: Any) -> float:
    import numpy as np

    pairs = zip(_columns(predictions).T, _columns(references).T, strict=True)
    return float(np.mean([_correlation_of_one(measure, *pair) for pair in pairs]))


def _correlation_of_one(measure: Callable[..., Any], predictions: np.ndarray, references: np.ndarray) -> float:
    import warnings

    import numpy as np
    from scipy.stats import NearConstantInputWarning

    if len(predictions) < 2 or np.ptp(predictions) == 0 or np.ptp(references) == 0:  # SciPy: NaN and a warning
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NearConstantInputWarning)
        return float(np.nan_to_num(measure(predictions, references).statistic))
