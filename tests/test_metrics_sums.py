"""Metrics of a whole split from sums over its examples: of resampled examples they are what the library says of them."""

import numpy as np
import pytest

from headswap.answers import Answers, Labels, Summed
from headswap.metrics.classification import Accuracy, MacroF1, Matthews
from headswap.metrics.generation import Bleu, Chrf
from headswap.metrics.language_modeling import Perplexity, TargetAccuracy, TokenLoss
from headswap.metrics.multi_label import MultiLabelMacroF1, MultiLabelMicroF1
from headswap.metrics.regression import Pearson, RootMeanSquaredError, Spearman
from headswap.metrics.tokens import EntityF1, EntityPrecision, EntityRecall, TokenAccuracy, TokenMacroF1

EXAMPLES = 30
TAGS = ("O", "B-a", "I-a", "B-b", "I-b")
WORDS = ["the", "film", "was", "good", "and", "the plot", "dull"]


def labels(dice):
    true = dice.integers(3, size=EXAMPLES)
    return Answers(np.where(dice.random(EXAMPLES) < 0.7, true, 2), true, Labels(("a", "b", "c", "never")))


def rows(dice):
    return Answers(dice.random((EXAMPLES, 3)) < 0.4, dice.random((EXAMPLES, 3)) < 0.4, Labels(("a", "b", "c")))


def tags(dice):
    sizes = dice.integers(1, 9, size=EXAMPLES)
    true = [dice.integers(5, size=size) for size in sizes]
    return Answers([np.where(dice.random(len(row)) < 0.8, row, 0) for row in true], true, Labels(TAGS))


def numbers(dice):
    true = dice.normal(size=(EXAMPLES, 2)) * [1, 50] + [0, 1000]
    return Answers(true + dice.normal(size=true.shape), true, Labels(("a", "b")))


def texts(dice):
    lines = [[" ".join(dice.choice(WORDS, size=dice.integers(4, 9))) for _ in range(3)] for _ in range(EXAMPLES)]
    told = [f"{line[0]} {line[1][:12]}" if dice.random() < 0.8 else "" for line in lines]
    return Answers(told, [line[: 1 + place % 3] for place, line in enumerate(lines)], Labels(()))


def tokens(dice):
    targets = dice.integers(1, 20, size=EXAMPLES)
    found = np.column_stack([targets * dice.random(EXAMPLES) * 4, dice.binomial(targets, 0.4), targets])
    return Answers(found, np.empty((EXAMPLES, 0)), Labels(()))


def targets(dice):
    sums = tokens(dice).predictions
    return Answers(["a"] * EXAMPLES, [["a"]] * EXAMPLES, Labels((), "sequence_to_sequence"), list(sums))


def drawn(answers, places):
    predictions, references = (
        side[places] if isinstance(side, np.ndarray) else [side[place] for place in places]
        for side in (answers.predictions, answers.references)
    )
    return Answers(
        predictions, references, answers.labels, [answers.outputs[place] for place in places] if answers.outputs else ()
    )


@pytest.mark.parametrize(
    ("metric", "make"),
    [
        (MacroF1(), labels), (Matthews(), labels), (MultiLabelMicroF1(), rows), (MultiLabelMacroF1(), rows),
        (EntityF1(), tags), (EntityPrecision(), tags), (EntityRecall(), tags), (EntityF1(scheme="IOB2"), tags),
        (TokenAccuracy(), tags), (TokenMacroF1(), tags), (RootMeanSquaredError(), numbers), (Pearson(), numbers),
        (Bleu(), texts), (Bleu(lowercase=True, tokenize="char"), texts), (Perplexity(), tokens), (TokenLoss(), tokens),
        (TargetAccuracy(), tokens), (Perplexity(), targets), (TargetAccuracy(), targets),
    ],
)  # fmt: skip
def test_the_metric_of_resampled_examples_is_the_metric_of_their_sums(metric, make):
    dice = np.random.default_rng(4)
    answers = make(dice)
    sums = metric.sums(answers)
    assert isinstance(metric, Summed)
    assert len(sums) == EXAMPLES
    for _ in range(3):
        places = dice.integers(EXAMPLES, size=EXAMPLES)
        counts = np.bincount(places, minlength=EXAMPLES)
        assert metric.of_sums(counts @ sums) == pytest.approx(metric.compute(drawn(answers, places)), abs=1e-9)


def test_metrics_that_are_means_or_rankings_offer_no_sums():
    assert not any(isinstance(metric, Summed) for metric in (Accuracy(), Spearman(), Chrf()))


def test_sums_of_nothing_to_find_give_zero_and_without_targets_no_number():
    assert [metric.of_sums(np.zeros(3)) for metric in (EntityF1(), EntityPrecision(), EntityRecall())] == [0, 0, 0]
    assert (Matthews().of_sums(np.zeros(6)), Bleu().of_sums(np.zeros(10))) == (0, 0)
    assert np.isnan(TokenLoss().of_sums(np.zeros(2)))
