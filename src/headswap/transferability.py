"""What frozen vectors tell of a task before anyone trains: H-score, LogME and a cross-validated probe. Floor 5.

Vectors are [rows, width], rows are of training. screen.py makes the vectors and sets bodies side by side. All three
rank bodies; none of them knows what the same architecture learns from scratch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from headswap.answers import Answers, Labels
from headswap.errors import DataError

if TYPE_CHECKING:
    from headswap.contracts import Metric

P = ParamSpec("P")
R = TypeVar("R")

FOLDS = 5
_INNER_FOLDS = 3
_STRENGTHS = np.logspace(-4, 0, 5)  # scikit-learn's C, on standardised vectors
_PENALTIES = np.logspace(-1, 6, 15)
_GRID, _ZOOMS = 201, 8


@dataclass(frozen=True)
class Targets:
    """What is learned, as numbers.

    Args:
        labels: names of the outputs, and the problem.
        values: [rows] output numbers of one label each, [rows, labels] bool of several, [rows, outputs] float.
    """

    labels: Labels
    values: np.ndarray

    @property
    def classes(self) -> list[np.ndarray]:
        """The partitions of the rows into classes, each [rows]: one, or one a label; none of numbers."""
        if self.labels.problem == "regression":
            return []
        return [self.values] if self.values.ndim == 1 else list(self.values.T)

    @property
    def columns(self) -> np.ndarray:
        """[rows, outputs] float64: numbers as they are, labels as 0 and 1, one against the rest."""
        found = self.values[:, None] == np.arange(self.labels.count) if self.values.ndim == 1 else self.values
        return found.astype(np.float64)


def targets_of(labels: Labels, given: Any) -> tuple[Targets, np.ndarray]:
    """Return the targets that five folds can hold, and the rows [kept] that have them.

    A label of fewer than 5 rows (or, of several labels, one that fewer than 5 rows lack) is left out.

    Raises:
        DataError: too few rows or labels are left.
    """
    values = np.asarray(given)
    rows = np.arange(len(values))
    if labels.problem == "regression":
        found = Targets(labels, values.reshape(len(values), -1).astype(np.float64))
    elif labels.problem == "multi_label_classification":
        counts = values.astype(bool).sum(axis=0)
        kept = np.flatnonzero((counts >= FOLDS) & (len(values) - counts >= FOLDS))
        found = Targets(_only(labels, kept), values.astype(bool)[:, kept])
    else:
        kept = np.flatnonzero(np.bincount(values, minlength=labels.count) >= FOLDS)
        rows = np.flatnonzero(np.isin(values, kept))
        found = Targets(_only(labels, kept), np.searchsorted(kept, values[rows]))
    least = 2 if labels.problem == "single_label_classification" else 1
    if len(rows) < 2 * FOLDS or found.labels.count < least:
        raise DataError(
            f"data.train_rows: too few to screen with; found {len(rows)} rows and {found.labels.count} outputs that "
            f"{FOLDS} folds can hold; give {2 * FOLDS} rows or more, {FOLDS} of each label"
        )
    return found, rows


def _one_thread(score: Callable[P, R]) -> Callable[P, R]:
    """Compute in one thread: the matrices are small, and on cores that others use two threads took 30 times as long."""

    @functools.wraps(score)
    def alone(*given: P.args, **options: P.kwargs) -> R:
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):
            return score(*given, **options)

    return alone


def _only(labels: Labels, kept: np.ndarray) -> Labels:
    return Labels(tuple(labels.names[number] for number in kept), labels.problem)


@_one_thread
def h_score(vectors: np.ndarray, classes: np.ndarray) -> float:
    """Return how much of the vectors' spread lies between the classes: 0 for none, at most classes - 1.

    Bao et al. 2019 (An information-theoretic approach to transferability): tr(cov(f)^-1 cov(E[f|y])). With few rows or
    wide vectors cov(f) cannot be inverted; it is shrunk as in arXiv:2110.06893, section 4:
    H = tr(cov_a(f)^-1 (1 - a) cov(E[f|y])), cov_a = (1 - a) cov + a tr(cov)/width I, a by Ledoit and Wolf.

    Args:
        classes: [rows] any values that tell classes apart.
    """
    from sklearn.covariance import ledoit_wolf

    centred = np.asarray(vectors, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    covariance, shrinkage = ledoit_wolf(centred, assume_centered=True)
    members = classes[:, None] == np.unique(classes)
    counts = members.sum(axis=0)
    sums = members.T @ centred
    between = sums.T @ (sums / counts[:, None]) / len(centred)
    return float((1 - shrinkage) * np.trace(np.linalg.pinv(covariance, hermitian=True) @ between))


@_one_thread
def log_me(vectors: np.ndarray, columns: np.ndarray) -> float:
    """Return the largest log evidence a row of a Bayesian linear model on the vectors, mean over the columns.

    arXiv:2102.11005, equation 2: y = F w + noise, w ~ N(0, I/a), noise ~ N(0, 1/b), so y ~ N(0, I/b + F F'/a), and the
    score is max log p(y | F, a, b) / rows. The paper alternates between a and b until they settle; here b is solved for
    t = a/b, which leaves one number to search. The maximum is the same, and no start or stop decides. Where vectors are
    wider than there are rows, the authors' code (2110.10545) leaves (width - rows)/2 log a out; here it is counted.

    Args:
        columns: [rows, outputs]; of labels, 0 and 1 one against the rest. Each must hold something other than 0.
    """
    features, targets = np.asarray(vectors, dtype=np.float64), np.asarray(columns, dtype=np.float64)
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    noise = singular.max() * max(features.shape) * np.finfo(np.float64).eps
    powers = np.where(singular > noise, singular, 0.0) ** 2
    along = (left.T @ targets) ** 2
    beside = np.maximum((targets**2).sum(axis=0) - along.sum(axis=0), 0.0)
    if np.count_nonzero(powers) == len(targets):
        beside[:] = 0.0  # but for rounding, which would be taken for noise where the fit may be perfect
    found = [_most_evidence(powers, *each, len(targets)) for each in zip(along.T, beside, strict=True)]
    return float(np.mean(found))


def _most_evidence(powers: np.ndarray, along: np.ndarray, beside: float, rows: int) -> float:
    """Search log t for the largest evidence: a grid over 32 powers of ten, then ever finer around its best point.

    Args:
        powers: squared singular values of the features; `along` is y'y along their directions, `beside` beside them.
    """

    def evidence(places: np.ndarray) -> np.ndarray:
        ratio = np.exp(places)[:, None]
        residual = (along * ratio / (ratio + powers)).sum(axis=1) + beside
        return -0.5 * (np.log(2 * np.pi * residual / rows) + 1 + np.log1p(powers / ratio).sum(axis=1) / rows)

    middle, reach = np.log(powers.max() or 1.0), 16 * np.log(10)
    best = -np.inf
    for _ in range(_ZOOMS):
        places = np.linspace(middle - reach, middle + reach, _GRID)
        found = evidence(places)
        best = max(best, float(found.max()))
        middle, reach = places[found.argmax()], 4 * reach / _GRID
    return best


@_one_thread
def probe(vectors: np.ndarray, targets: Targets, metric: Metric) -> list[float]:
    """Return a linear probe's metric on each of five folds that it was not fitted on.

    Labels: logistic regression, C by three folds inside the training part; several labels and numbers: ridge, its
    penalty by leave-one-out inside; several labels are +1 and -1, given from 0 on. Vectors are standardised with the
    training part's mean and spread.
    """
    values, found = np.asarray(vectors, dtype=np.float64), []
    for train, test in _folds(targets):
        fitted = _fitted(values[train], targets, train)
        found.append(float(metric.compute(_answers(fitted, values[test], targets, test))))
    return found


def _folds(targets: Targets) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import KFold, StratifiedKFold

    kind = StratifiedKFold if targets.values.ndim == 1 else KFold
    yield from kind(FOLDS, shuffle=True, random_state=0).split(targets.values, targets.values)


def _fitted(vectors: np.ndarray, targets: Targets, rows: np.ndarray) -> Any:
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    wanted = targets.values[rows]
    if targets.values.ndim == 1:
        inner = StratifiedKFold(_INNER_FOLDS, shuffle=True, random_state=0)
        choices = {"C": list(_STRENGTHS)}
        model = GridSearchCV(LogisticRegression(max_iter=1000), choices, scoring="neg_log_loss", cv=inner)
    else:
        model = RidgeCV(_PENALTIES)
        wanted = np.where(wanted, 1.0, -1.0) if wanted.dtype == bool else wanted
    return make_pipeline(StandardScaler(), model).fit(vectors, wanted)


def _answers(fitted: Any, vectors: np.ndarray, targets: Targets, rows: np.ndarray) -> Answers:
    """Return the probe's answers in the form of answers.Answers."""
    true, count = targets.values[rows], targets.labels.count
    if true.ndim == 1:
        outputs = np.log(np.maximum(fitted.predict_proba(vectors), np.finfo(np.float64).tiny))
        return Answers(outputs.argmax(axis=1), true, targets.labels, list(outputs))
    outputs = fitted.predict(vectors).reshape(len(rows), count)
    if true.dtype == bool:
        return Answers(outputs > 0, true, targets.labels, list(outputs))
    one = count == 1
    return Answers(outputs[:, 0] if one else outputs, true[:, 0] if one else true, targets.labels, list(outputs))
