"""Metrics of several labels an example (scikit-learn's numbers) and of one label a word (seqeval's)."""

import evaluate
import numpy as np
import pytest
import seqeval.metrics
import seqeval.scheme
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from headswap.answers import Answers, Labels
from headswap.errors import ConfigError
from headswap.metrics.multi_label import ExactLabels, MeanAveragePrecision, MultiLabelMacroF1, MultiLabelMicroF1
from headswap.metrics.tokens import EntityF1, EntityPrecision, EntityRecall, TokenAccuracy, TokenMacroF1

RNG = np.random.default_rng(1)
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
NER = Labels(TAGS, "token_classification")


def indicators(references, predictions, logits=None):
    names = tuple(f"label{number}" for number in range(np.shape(references)[1]))
    outputs = [] if logits is None else list(logits.astype(np.float32))
    return Answers(predictions, references, Labels(names, "multi_label_classification"), outputs)


def tagged(*pairs):
    """Return Answers of (references, predictions) pairs of tag names."""
    rows = [[np.array([TAGS.index(tag) for tag in side.split()], dtype=int) for side in pair] for pair in pairs]
    return Answers([row[1] for row in rows], [row[0] for row in rows], NER)


def words(sentences, label_count):
    references = [RNG.integers(0, label_count, RNG.integers(1, 15)) for _ in range(sentences)]
    right = [RNG.random(len(row)) < 0.7 for row in references]
    predictions = [
        np.where(keep, row, RNG.integers(0, label_count, len(row))) for keep, row in zip(right, references, strict=True)
    ]
    return predictions, references


def test_multi_label_metrics_equal_scikit_learn():
    references = RNG.random((80, 6)) < 0.3
    logits = RNG.normal(size=(80, 6)) + references
    answers = indicators(references, logits > 0.5, logits)
    assert MultiLabelMicroF1().compute(answers) == f1_score(references, logits > 0.5, average="micro")
    assert MultiLabelMacroF1().compute(answers) == f1_score(references, logits > 0.5, average="macro")
    assert ExactLabels().compute(answers) == accuracy_score(references, logits > 0.5)
    expected = average_precision_score(references, logits.astype(np.float32), average="macro")
    assert MeanAveragePrecision().compute(answers) == pytest.approx(expected, abs=1e-15)


def test_multi_label_scores_of_a_table_done_by_hand():
    # label 0: found 1 of 2, one wrongly; label 1: found its one; label 2: nobody has it, nobody predicts it
    references = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=bool)
    predictions = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=bool)
    logits = np.array([[3.0, 2.0, 0.0], [1.0, -1.0, 0.0], [2.0, -2.0, 0.0]])
    answers = indicators(references, predictions, logits)
    assert MultiLabelMicroF1().compute(answers) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert MultiLabelMacroF1().compute(answers) == pytest.approx((0.5 + 1 + 0) / 3)
    assert np.array_equal(ExactLabels().values(answers), [1, 0, 0])
    # label 0 ranks example 0, 2, 1: (1/1 + 2/3) / 2; label 1 is perfect; label 2, which nothing has, is left out
    assert MeanAveragePrecision().compute(answers) == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)


def test_examples_without_any_label_score_zero_and_warn_of_nothing():
    nothing = np.zeros((5, 3), dtype=bool)
    answers = indicators(nothing, nothing, RNG.normal(size=(5, 3)))
    assert MultiLabelMicroF1().compute(answers) == MultiLabelMacroF1().compute(answers) == 0
    assert MeanAveragePrecision().compute(answers) == 0
    assert ExactLabels().compute(answers) == 1


def test_one_label_alone_is_scored_on_its_positives():
    references, predictions = np.array([[1], [1], [0], [0]]), np.array([[1], [0], [0], [0]])
    answers = indicators(references, predictions)
    assert MultiLabelMicroF1().compute(answers) == MultiLabelMacroF1().compute(answers) == pytest.approx(2 / 3)


def test_multi_label_metrics_combine():
    references, predictions = RNG.random((2, 20, 3)) < 0.5
    both = evaluate.combine([MultiLabelMicroF1().module(), ExactLabels().module()])
    result = both.compute(predictions=predictions.astype(int), references=references.astype(int))
    assert result == {
        "multi_label_micro_f1": f1_score(references, predictions, average="micro"),
        "exact_labels": accuracy_score(references, predictions),
    }


def test_word_metrics_equal_scikit_learn_over_all_words():
    predictions, references = words(60, 5)
    answers = Answers(predictions, references, NER)
    flat = np.concatenate(references), np.concatenate(predictions)
    assert TokenAccuracy().compute(answers) == accuracy_score(*flat)
    assert TokenMacroF1().compute(answers) == f1_score(*flat, average="macro")


def test_words_count_alike_however_long_their_sentence_is():
    assert TokenAccuracy().compute(tagged(("O O O", "O O O"), ("O", "B-PER"))) == 0.75


def test_word_macro_f1_counts_an_absent_label_as_zero():
    assert TokenMacroF1().compute(tagged(("O O", "O O"), ("B-PER", "B-PER"))) == pytest.approx(2 / 5)


@pytest.mark.parametrize("scheme", [None, "IOB1", "IOB2"])
def test_entity_scores_equal_seqeval(scheme):
    predictions, references = words(80, 5)
    answers = Answers(predictions, references, NER)
    named = [[[TAGS[label] for label in row] for row in rows] for rows in (references, predictions)]
    how = {"mode": "strict", "scheme": getattr(seqeval.scheme, scheme)} if scheme else {}
    assert EntityF1(scheme=scheme).compute(answers) == seqeval.metrics.f1_score(*named, **how)
    assert EntityPrecision(scheme=scheme).compute(answers) == seqeval.metrics.precision_score(*named, **how)
    assert EntityRecall(scheme=scheme).compute(answers) == seqeval.metrics.recall_score(*named, **how)
    assert 0 < EntityF1(scheme=scheme).compute(answers) < 1


def test_entity_scores_of_sentences_done_by_hand():
    # two true entities; predicted: the person, a place that is one word too short, and a place that is none
    answers = tagged(("B-PER I-PER O B-LOC I-LOC", "B-PER I-PER O B-LOC O"), ("O O", "O B-LOC"), ("", ""))
    assert EntityPrecision().compute(answers) == pytest.approx(1 / 3)
    assert EntityRecall().compute(answers) == pytest.approx(1 / 2)
    assert EntityF1().compute(answers) == pytest.approx(2 / 5)


def test_an_entity_that_begins_with_i_counts_unless_the_scheme_is_strict():
    answers = tagged(("B-PER I-PER", "I-PER I-PER"))
    assert EntityF1().compute(answers) == 1
    assert EntityF1(scheme="IOB2").compute(answers) == 0


@pytest.mark.parametrize("scheme", [None, "IOB2"])
@pytest.mark.parametrize("pair", [("O O", "O O"), ("B-PER O", "O O"), ("O O", "B-PER O")])
def test_no_entity_scores_zero_and_warns_of_nothing(pair, scheme):
    answers = tagged(pair)
    scores = [metric(scheme=scheme).compute(answers) for metric in (EntityF1, EntityPrecision, EntityRecall)]
    assert scores == [0, 0, 0]


def test_bilou_tags_are_read_by_their_scheme():
    labels = Labels(("O", "B-X", "I-X", "L-X", "U-X"), "token_classification")
    answers = Answers([np.array([1, 2, 3, 0, 0])], [np.array([1, 2, 3, 0, 4])], labels)
    assert EntityRecall(scheme="BILOU").compute(answers) == 0.5
    with pytest.raises(
        ConfigError, match=r"type after B-, I-, E-, S- \(scheme null\); found L-X, U-X; .*entity_recall"
    ):
        EntityRecall().compute(answers)


def test_parts_of_speech_are_no_entities():
    labels = Labels(("NOUN", "VERB", "ADJ", "ADV", "PRON", "X"), "token_classification")
    answers = Answers([np.array([0, 1])], [np.array([0, 1])], labels)
    found = r"metric=entity_f1: .* found NOUN, VERB, ADJ, ADV, PRON \.\.\.; choose metric=token_accuracy"
    with pytest.raises(ConfigError, match=found):
        EntityF1().compute(answers)
    assert TokenAccuracy().compute(answers) == 1


def test_token_metrics_combine():
    both = evaluate.combine([EntityF1().module(), EntityRecall().module()])
    result = both.compute(predictions=[["B-PER", "O"]], references=[["B-PER", "B-LOC"]])
    assert result == {"entity_f1": pytest.approx(2 / 3), "entity_recall": 0.5}
