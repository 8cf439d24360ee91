"""F1, precision and recall from counts of what is right, predicted and actual: what resampled examples add up to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def f1(counts: np.ndarray) -> np.ndarray:
    """Return 2 right / (predicted + actual) for counts [3, labels], 0 where there is neither."""
    right, predicted, actual = counts
    return share(2 * right, predicted + actual)


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.divide(part, whole, out=np.zeros_like(part, dtype=np.float64), where=whole > 0)


def of_rows(predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Return [examples, 3 x labels]: right, predicted and actual, of indicator rows [examples, labels]."""
    import numpy as np

    return np.concatenate([predicted & actual, predicted, actual], axis=1).astype(np.float64)


def of_labels(predictions: np.ndarray, references: np.ndarray, count: int) -> np.ndarray:
    """Return the counts of examples that have one label each."""
    import numpy as np

    every = np.arange(count)
    return of_rows(np.asarray(predictions)[:, None] == every, np.asarray(references)[:, None] == every)
