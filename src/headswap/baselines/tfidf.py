"""TF-IDF and a linear model over it, all of it scikit-learn's. Floor 1.

Counts of words and of letters, weighed by how few rows have them; a logistic regression for labels (one a label where a
row may have several), a ridge regression for numbers. At a few hundred labels it often beats a network from scratch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from headswap.answers import Labels, Problem
from headswap.errors import ConfigError, DataError, shortly
from headswap.fitted import Columns, Fitted, shares

if TYPE_CHECKING:
    import numpy as np

Linear = tuple[Callable[[Any], "np.ndarray"], int]
"""What turns a sparse matrix of features into outputs, and how many numbers it learned."""

WORD = r"(?u)\b\w+\b"  # scikit-learn's own leaves out words of one letter


@dataclass(frozen=True)
class TfIdf:
    """TF-IDF features, a block of them for each text of a pair, and an L2-penalised linear model.

    Args:
        words: the shortest and the longest run of words that is counted, [1, 2] for words and pairs of them; None for
            none.
        characters: likewise of letters inside words, such as [2, 5]; None for none.
        sublinear: a count of n weighs 1 + log n.
        strengths: of the penalty, tried in this order: scikit-learn's 1 / C of the logistic, alpha of the ridge one.
        balanced: weigh every label by rows / (labels x rows of it), as `task.class_weights=balanced` does in training.
    """

    words: list[int] | None = field(default_factory=lambda: [1, 2])
    characters: list[int] | None = None
    sublinear: bool = True
    strengths: list[float] = field(default_factory=lambda: [10.0, 1.0, 0.1, 0.01])
    balanced: bool = False

    problems: ClassVar[tuple[Problem, ...]] = (
        "single_label_classification",
        "multi_label_classification",
        "regression",
    )
    imports: ClassVar[tuple[str, ...]] = ("sklearn.feature_extraction.text", "sklearn.linear_model")

    def __post_init__(self) -> None:
        if found := list(self._faults()):
            raise ConfigError("\n".join(f"baseline.{fault}" for fault in found))

    def _faults(self) -> Iterator[str]:
        for name in ("words", "characters"):
            ends = getattr(self, name)
            if ends is not None and not (len(ends) == 2 and 1 <= ends[0] <= ends[1]):
                yield f"{name}: must be the shortest and the longest run, from 1 on; found {ends}; set one as [1,2]"
        if self.words is None and self.characters is None:
            yield "words: nothing is counted; found null for words and characters; set one of the two, such as [1,2]"
        if not self.strengths or min(self.strengths) <= 0 or len(set(self.strengths)) != len(self.strengths):
            yield f"strengths: must be different numbers above 0; found {self.strengths}; set some such as [10,1,0.1]"

    def fits(self, rows: Columns, inputs: Sequence[str], labels: Labels) -> Iterator[Fitted]:
        import numpy as np

        blocks = [block for column in inputs for block in self._blocks(column, rows[column])]
        features, targets = _features(blocks, rows), np.asarray(rows["label"])
        for strength in self.strengths:
            outputs, parameters = self._linear(features, targets, labels, strength)
            settings = {"strength": strength, "features": features.shape[1]}
            yield Fitted(partial(_outputs, outputs, blocks), parameters, settings)

    def _blocks(self, column: str, texts: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """Yield (column, vectoriser that knows its training texts)."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        kinds: dict[str, dict[str, Any]] = {
            "words": {"analyzer": "word", "token_pattern": WORD},
            "characters": {"analyzer": "char_wb"},
        }
        for name, kind in kinds.items():
            if (ends := getattr(self, name)) is None:
                continue
            vectoriser = TfidfVectorizer(ngram_range=tuple(ends), sublinear_tf=self.sublinear, **kind)
            try:
                vectoriser.fit(texts)
            except ValueError as error:
                raise DataError(
                    f"baseline.{name}: the training texts of column {column!r} have none to count; found texts such as "
                    f"{shortly(texts[0])}; set baseline.words=null baseline.characters=[1,3]"
                ) from error
            yield column, vectoriser

    def _linear(self, features: Any, targets: np.ndarray, labels: Labels, strength: float) -> Linear:
        if labels.problem == "regression":
            return _numbers(features, targets, strength)
        weights = "balanced" if self.balanced else None
        if labels.problem == "multi_label_classification":
            return _several_labels(features, targets, strength, weights)
        return _one_label(features, targets, labels.count, (strength, weights))


def _features(blocks: Sequence[tuple[str, Any]], rows: Columns) -> Any:
    from scipy import sparse

    return sparse.hstack([vectoriser.transform(rows[column]) for column, vectoriser in blocks], format="csr")


def _outputs(linear: Callable[[Any], np.ndarray], blocks: Sequence[tuple[str, Any]], rows: Columns) -> np.ndarray:
    return linear(_features(blocks, rows))


def _logistic(features: Any, targets: np.ndarray, strength: float, weights: str | None) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1 / strength, class_weight=weights, max_iter=1000).fit(features, targets)


def _one_label(features: Any, targets: np.ndarray, count: int, how: tuple[float, str | None]) -> Linear:
    """A label that no training row has stands below all others, by the odds of half a row."""
    import numpy as np

    known, rows = np.unique(targets), len(targets)
    if len(known) == 1:
        answer = np.log(shares(np.bincount(targets, minlength=count), rows))
        return lambda new: np.tile(answer, (new.shape[0], 1)), 0
    model = _logistic(features, targets, *how)

    def outputs(new: Any) -> np.ndarray:
        scores = model.decision_function(new)
        scores = scores if scores.ndim == 2 else np.column_stack([-scores / 2, scores / 2])
        whole = np.repeat(scores.min(axis=1, keepdims=True) + np.log(0.5 / rows), count, axis=1)
        whole[:, known] = scores
        return whole

    return outputs, model.coef_.size + model.intercept_.size


def _several_labels(features: Any, targets: np.ndarray, strength: float, weights: str | None) -> Linear:
    """One against the rest for each label; one that all training rows have, or none, gets its log odds."""
    import numpy as np
    from scipy.special import logit

    present = targets > 0.5
    odds = logit(shares(present.sum(axis=0), len(present)))
    learnt = [number for number, column in enumerate(present.T) if column.any() and not column.all()]
    models = {number: _logistic(features, present[:, number], strength, weights) for number in learnt}

    def outputs(new: Any) -> np.ndarray:
        whole = np.tile(odds, (new.shape[0], 1))
        for number, model in models.items():
            whole[:, number] = model.decision_function(new)
        return whole

    return outputs, sum(model.coef_.size + model.intercept_.size for model in models.values())


def _numbers(features: Any, targets: np.ndarray, strength: float) -> Linear:
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=strength, tol=1e-6).fit(features, targets)
    size = model.coef_.size + targets.shape[1]
    return lambda new: model.predict(new).reshape(new.shape[0], -1), size
