"""H-score, LogME and the probe against SciPy, scikit-learn and hand computations."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import f1_score, mean_absolute_error
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headswap.answers import Labels
from headswap.errors import DataError
from headswap.metrics.classification import Accuracy
from headswap.metrics.multi_label import MultiLabelMacroF1
from headswap.metrics.regression import MeanAbsoluteError
from headswap.transferability import Targets, h_score, log_me, probe, targets_of

THREE = Labels(("a", "b", "c"))


def largest_evidence(features: np.ndarray, target: np.ndarray) -> float:
    """Search the precisions of the weights and of the noise for the largest log N(y; 0, I/beta + F F'/alpha)."""
    same, count = features @ features.T, len(target)

    def minus(precisions: np.ndarray) -> float:
        alpha, beta = np.exp(precisions)
        return -multivariate_normal(np.zeros(count), np.eye(count) / beta + same / alpha).logpdf(target)

    options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000}
    found = [minimize(minus, start, method="Nelder-Mead", options=options).fun for start in ([0, 0], [3, -2], [-3, 3])]
    return -min(found) / count


def drawn(rows: int, width: int, shift: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors of three classes whose means lie `shift` apart, and the classes."""
    dice = np.random.default_rng(seed)
    classes = np.arange(rows) % 3
    vectors = dice.normal(size=(rows, width)) * dice.uniform(0.5, 2, width)
    return vectors + shift * dice.normal(size=(3, width))[classes], classes


@pytest.mark.parametrize(("rows", "width"), [(40, 5), (30, 12), (20, 35)])
def test_log_me_is_the_largest_marginal_likelihood(rows, width):
    vectors, classes = drawn(rows, width)
    numbers = vectors @ np.linspace(-1, 1, width) + 3 * np.random.default_rng(1).normal(size=rows)
    assert log_me(vectors, numbers[:, None]) == pytest.approx(largest_evidence(vectors, numbers), abs=1e-9)
    columns = Targets(THREE, classes).columns
    expected = np.mean([largest_evidence(vectors, columns[:, label]) for label in range(3)])
    assert log_me(vectors, columns) == pytest.approx(expected, abs=1e-9)


def test_vectors_that_tell_nothing_leave_log_me_the_evidence_of_noise():
    target = np.array([1.0, 2.0, -1.0, 0.5])
    expected = -(np.log(2 * np.pi * (target @ target) / 4) + 1) / 2  # of N(0, mean square)
    assert log_me(np.zeros((4, 3)), target[:, None]) == pytest.approx(expected, abs=1e-9)


def test_h_score_of_one_dimension_is_the_share_between_the_classes():
    # mean 3, variance (9 + 1 + 1 + 9) / 4 = 5; class means 1 and 5, whose variance is 4; one number is never shrunk
    assert h_score(np.array([[0.0], [2.0], [4.0], [6.0]]), np.array([7, 7, 9, 9])) == pytest.approx(4 / 5)


def test_h_score_is_the_trace_with_the_shrunk_covariance():
    vectors, classes = drawn(50, 8)
    shrunk = LedoitWolf().fit(vectors)
    means = np.stack([vectors[classes == label].mean(axis=0) for label in classes])
    between = np.cov(means, rowvar=False, bias=True)
    expected = (1 - shrunk.shrinkage_) * np.trace(np.linalg.pinv(shrunk.covariance_) @ between)
    assert 0 < shrunk.shrinkage_ < 1
    assert h_score(vectors, classes) == pytest.approx(expected, rel=1e-10)


def test_h_score_of_many_rows_is_the_trace_of_the_plain_covariance():
    vectors, classes = drawn(30_000, 3, shift=3.0)
    means = np.stack([vectors[classes == label].mean(axis=0) for label in range(3)])[classes]
    expected = np.trace(np.linalg.inv(np.cov(vectors.T)) @ np.cov(means.T))
    assert h_score(vectors, classes) == pytest.approx(expected, rel=2e-3)


def test_vectors_that_separate_classes_score_above_others():
    apart, classes = drawn(120, 10, shift=2.0)
    alike, _ = drawn(120, 10, shift=0.0, seed=1)
    targets = Targets(THREE, classes)
    assert h_score(apart, classes) > 3 * h_score(alike, classes)
    assert log_me(apart, targets.columns) > log_me(alike, targets.columns) + 0.1
    assert np.mean(probe(apart, targets, Accuracy())) > 0.95
    assert np.mean(probe(alike, targets, Accuracy())) < 0.5


def test_the_probe_is_a_nested_cross_validation():
    vectors, classes = drawn(90, 6, shift=0.4)
    outer, inner = (StratifiedKFold(count, shuffle=True, random_state=0) for count in (5, 3))
    search = GridSearchCV(
        LogisticRegression(max_iter=1000), {"C": [1e-4, 1e-3, 1e-2, 0.1, 1.0]}, scoring="neg_log_loss", cv=inner
    )
    expected = cross_val_score(make_pipeline(StandardScaler(), search), vectors, classes, cv=outer, scoring="accuracy")
    assert probe(vectors, Targets(THREE, classes), Accuracy()) == pytest.approx(list(expected), abs=1e-12)


def test_the_probe_of_numbers_and_of_several_labels_is_ridge():
    vectors, classes = drawn(60, 4)
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 6, 15)))
    numbers = vectors[:, :1] * 2 + classes[:, None]
    folds = list(KFold(5, shuffle=True, random_state=0).split(vectors))
    expected = [
        mean_absolute_error(numbers[test], ridge.fit(vectors[train], numbers[train]).predict(vectors[test]))
        for train, test in folds
    ]
    assert probe(vectors, Targets(Labels(("n",), "regression"), numbers), MeanAbsoluteError()) == pytest.approx(
        expected
    )
    several = Targets(Labels(("x", "y"), "multi_label_classification"), np.stack([classes > 0, classes == 2], axis=1))
    given = np.where(several.values, 1, -1)
    expected = [
        f1_score(
            several.values[test], ridge.fit(vectors[train], given[train]).predict(vectors[test]) > 0, average="macro"
        )
        for train, test in folds
    ]
    assert probe(vectors, several, MultiLabelMacroF1()) == pytest.approx(expected)


def test_labels_too_rare_for_five_folds_are_left_out():
    found, rows = targets_of(THREE, [0] * 6 + [1] * 4 + [2] * 5)
    assert (found.labels.names, rows.tolist()) == (("a", "c"), [*range(6), *range(10, 15)])
    assert found.values.tolist() == [0] * 6 + [1] * 5
    several = Labels(("always", "often", "never"), "multi_label_classification")
    found, rows = targets_of(several, [[1, row % 2, 0] for row in range(12)])
    assert (found.labels.names, len(rows), found.values.shape) == (("often",), 12, (12, 1))
    with pytest.raises(DataError, match=r"data.train_rows: too few to screen with; found 6 rows and 1 outputs"):
        targets_of(THREE, [0] * 6 + [1] * 4)
