"""Metrics of numbers (SciPy's and scikit-learn's) and of predicted tokens (PyTorch's cross-entropy)."""

import evaluate
import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, mean_absolute_error, root_mean_squared_error

from headswap.answers import Answers, Labels
from headswap.errors import DataError
from headswap.metrics.language_modeling import Perplexity, TargetAccuracy, TokenLoss
from headswap.metrics.regression import MeanAbsoluteError, Pearson, RootMeanSquaredError, Spearman

RNG = np.random.default_rng(2)


def numbers(predictions, references):
    return Answers(np.asarray(predictions), np.asarray(references), Labels(("score",), "regression"))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_metrics_of_one_number_equal_scipy_and_scikit_learn(kind):
    references = RNG.integers(0, 6, 90).astype(kind)  # with ties
    predictions = (references + RNG.normal(size=90)).astype(kind)
    answers = numbers(predictions, references)
    wide = predictions.astype(float), references.astype(float)
    assert Pearson().compute(answers) == pytest.approx(pearsonr(*wide).statistic, abs=1e-15)
    assert Spearman().compute(answers) == pytest.approx(spearmanr(*wide).statistic, abs=1e-15)
    assert RootMeanSquaredError().compute(answers) == pytest.approx(root_mean_squared_error(*wide), abs=1e-15)
    assert MeanAbsoluteError().compute(answers) == pytest.approx(mean_absolute_error(*wide), abs=1e-15)
    assert MeanAbsoluteError().values(answers).mean() == MeanAbsoluteError().compute(answers)


def test_several_outputs_count_alike():
    references = RNG.normal(size=(40, 3)) * [1, 10, 100]
    predictions = references + RNG.normal(size=(40, 3)) * [2, 10, 10]
    answers = numbers(predictions, references)
    columns = range(3)
    pearson = np.mean([pearsonr(predictions[:, one], references[:, one]).statistic for one in columns])
    spearman = np.mean([spearmanr(predictions[:, one], references[:, one]).statistic for one in columns])
    assert Pearson().compute(answers) == pytest.approx(pearson, abs=1e-15)
    assert Spearman().compute(answers) == pytest.approx(spearman, abs=1e-15)
    assert RootMeanSquaredError().compute(answers) == pytest.approx(root_mean_squared_error(references, predictions))
    assert MeanAbsoluteError().compute(answers) == pytest.approx(mean_absolute_error(references, predictions))
    assert MeanAbsoluteError().values(answers).shape == (40,)


def test_numbers_done_by_hand():
    answers = numbers([1.0, 2.0, 6.0], [1.0, 4.0, 3.0])
    assert MeanAbsoluteError().compute(answers) == pytest.approx(5 / 3)
    assert RootMeanSquaredError().compute(answers) == pytest.approx((13 / 3) ** 0.5)
    assert Spearman().compute(answers) == pytest.approx(0.5)  # 1 - 6 * (0 + 1 + 1) / (3 * 8)


@pytest.mark.parametrize("metric", [Pearson(), Spearman()])
@pytest.mark.parametrize("other", [[5.0, 5.0, 5.0], [5.0, 5.0, 5.0 + 1e-15]])
def test_a_constant_has_no_correlation_and_warns_of_nothing(metric, other):
    assert abs(metric.compute(numbers(other, [1.0, 2.0, 3.0]))) <= 1
    assert metric.compute(numbers([5.0, 5.0, 5.0], [1.0, 2.0, 3.0])) == 0
    assert metric.compute(numbers([1.0, 2.0, 3.0], [5.0, 5.0, 5.0])) == 0
    assert metric.compute(numbers([1.0], [2.0])) == 0


def test_a_constant_output_leaves_the_others_their_correlation():
    references = np.column_stack([np.arange(5.0), np.arange(5.0)])
    assert Pearson().compute(numbers(np.column_stack([np.arange(5.0), np.ones(5)]), references)) == 0.5


def test_metrics_of_numbers_combine():
    predictions, references = RNG.normal(size=(2, 20))
    both = evaluate.combine([Pearson().module(), MeanAbsoluteError().module()])
    result = both.compute(predictions=predictions, references=references)
    assert result["pearson"] == pytest.approx(pearsonr(predictions, references).statistic, abs=1e-15)
    assert result["mae"] == pytest.approx(mean_absolute_error(references, predictions), abs=1e-15)


def test_scores_of_predicted_tokens_equal_cross_entropy_over_all_targets():
    lengths, words = [7, 1, 12, 0], 11
    logits = torch.randn(sum(lengths), words, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.randint(words, (sum(lengths),), generator=torch.Generator().manual_seed(1))
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="none").split(lengths)
    right = (logits.argmax(1) == targets).split(lengths)
    rows = [[float(a.sum()), float(b.sum()), n] for a, b, n in zip(loss, right, lengths, strict=True)]
    answers = Answers(np.array(rows), np.empty((4, 0)), Labels((), "causal_language_modeling"))
    expected = torch.nn.functional.cross_entropy(logits, targets)
    assert TokenLoss().compute(answers) == pytest.approx(float(expected), rel=1e-14)
    assert Perplexity().compute(answers) == pytest.approx(float(expected.exp()), rel=1e-14)
    assert TargetAccuracy().compute(answers) == pytest.approx(accuracy_score(targets, logits.argmax(1)), rel=1e-14)


def test_scores_of_predicted_tokens_done_by_hand():
    sums = Answers(np.array([[2.0, 1, 2], [4.0, 3, 4]]), np.empty((2, 0)), Labels((), "masked_language_modeling"))
    assert TokenLoss().compute(sums) == 1
    assert Perplexity().compute(sums) == pytest.approx(np.e)
    assert TargetAccuracy().compute(sums) == pytest.approx(4 / 6)


def test_the_perplexity_of_an_absurd_loss_is_infinite():
    sums = Answers(np.array([[8000.0, 0, 1]]), np.empty((1, 0)), Labels((), "causal_language_modeling"))
    assert Perplexity().compute(sums) == np.inf


def test_a_split_without_a_token_to_predict_is_refused():
    sums = Answers(np.zeros((2, 3)), np.empty((2, 0)), Labels((), "masked_language_modeling"))
    with pytest.raises(DataError, match=r"metric=perplexity: the split has no token to predict; found 0 targets"):
        Perplexity().compute(sums)
