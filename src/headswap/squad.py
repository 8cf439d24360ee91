"""How SQuAD compares answers: normalised words, exact match and F1, a threshold for no answer. Floor 0, light.

As in its evaluation scripts (arXiv:1606.05250, arXiv:1806.03822): lower case, no punctuation, no English articles,
white space collapsed; the best of the references counts. A question without an answer has no references, and only an
empty prediction is right.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    Texts = Sequence[str]
    References = Sequence[Sequence[str]]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact(predictions: Texts, references: References) -> np.ndarray:
    """Return 1 for each prediction that equals one of its references, 0 for the others."""
    return _best(lambda words, truth: float(words == truth), predictions, references)


def f1(predictions: Texts, references: References) -> np.ndarray:
    """Return the F1 of the words that each prediction and the best of its references share."""
    return _best(_overlap, predictions, references)


def best_threshold(doubts: np.ndarray, answered: np.ndarray, unanswered: np.ndarray) -> float:
    """Return the doubt above which no answer is given, so that the mean score is highest.

    Of several as good, the one nearest to 0 is taken.

    Args:
        doubts: how much more speaks for no answer than for the best span.
        answered: the score of each question if it is answered, `unanswered` if it is not.
    """
    import numpy as np

    order = np.argsort(doubts, kind="stable")
    rising = np.asarray(doubts, dtype=np.float64)[order]
    gains = np.cumsum(np.append(0.0, (answered - unanswered)[order]))  # of answering the k least doubtful
    cuts = np.concatenate(([rising[0] - 1.0], (rising[:-1] + rising[1:]) / 2, [rising[-1] + 1.0]))
    possible = np.concatenate(([True], rising[:-1] < rising[1:], [True]))
    best = np.flatnonzero(possible & (gains >= gains[possible].max() - 1e-9))
    return float(cuts[best[np.abs(cuts[best]).argmin()]])


def _words(answer: str) -> list[str]:
    return _ARTICLES.sub(" ", answer.lower().translate(_NO_PUNCTUATION)).split()


def _overlap(words: Sequence[str], truth: Sequence[str]) -> float:
    if not words or not truth:  # one of them says that there is no answer: right if both do
        return float(words == truth)
    shared = sum((Counter(words) & Counter(truth)).values())
    return 2 * shared / (len(words) + len(truth))


def _best(measure: Callable[[list[str], list[str]], float], predictions: Texts, references: References) -> np.ndarray:
    import numpy as np

    values = []
    for prediction, answers in zip(predictions, references, strict=True):
        truths = [words for answer in answers if (words := _words(answer))] or [[]]
        values.append(max(measure(_words(prediction), truth) for truth in truths))
    return np.asarray(values)
