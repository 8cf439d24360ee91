"""Metrics of answers (SQuAD's definition, written again here) and of generated text (sacrebleu's, rouge-score's)."""

import collections
import logging
import re
import string

import evaluate
import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer
from sacrebleu.metrics import BLEU, CHRF

from headswap.answers import Answers, Labels
from headswap.metrics.generation import Bleu, Chrf, Rouge1, Rouge2, RougeL, RougeLsum
from headswap.metrics.question_answering import ExactMatch, SquadF1

RNG = np.random.default_rng(3)
WORDS = [
    "the",
    "a",
    "an",
    "cat",
    "cat",
    "sat",
    "on",
    "mats",
    "The",
    "dog's",
    "42",
    "--",
    "Ärger",
    "running",
    "ran.",
    "",
]
QA = Labels((), "question_answering")
TEXT = Labels((), "sequence_to_sequence")


def sentence(longest=9):
    return " ".join(RNG.choice(WORDS, RNG.integers(0, longest + 1)))


def noisy(text):
    return " ".join(word for word in text.split(" ") if RNG.random() < 0.8) + " " + str(RNG.choice(WORDS))


# The published script's steps, one function a step, as its authors state them: lower case, punctuation, articles,
# white space; then, over the references that are not empty after that, the best exact match and the best F1.
def official_normalise(text):
    text = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def official_f1(gold, guess):
    gold_words, guess_words = official_normalise(gold).split(), official_normalise(guess).split()
    same = sum((collections.Counter(gold_words) & collections.Counter(guess_words)).values())
    if len(gold_words) == 0 or len(guess_words) == 0:
        return int(gold_words == guess_words)
    if same == 0:
        return 0
    precision, recall = same / len(guess_words), same / len(gold_words)
    return 2 * precision * recall / (precision + recall)


def official(prediction, references):
    golds = [gold for gold in references if official_normalise(gold)] or [""]
    exact = max(int(official_normalise(gold) == official_normalise(prediction)) for gold in golds)
    return exact, max(official_f1(gold, prediction) for gold in golds)


BY_HAND = [  # prediction, references, exact match, F1
    ("Denver Broncos", ["Denver Broncos"], 1, 1),
    ("the denver broncos!", ["Denver Broncos"], 1, 1),
    ("Broncos", ["Denver Broncos"], 0, 2 / 3),
    ("Broncos", ["Denver Broncos", "The Broncos"], 1, 1),
    ("red red blue", ["red blue blue"], 0, 2 / 3),
    ("1868", ["1867"], 0, 0),
    ("", [], 1, 1),
    ("1867", [], 0, 0),
    ("", ["1867"], 0, 0),
    ("the", [], 1, 1),  # nothing is left of it, as the published script has it
    ("", ["the", "an end"], 0, 0),  # a reference of which nothing is left does not count beside others
    ("the-cat", ["thecat"], 1, 1),
]


@pytest.mark.parametrize("prediction, references, exact, f1", BY_HAND)
def test_squad_scores_done_by_hand(prediction, references, exact, f1):
    answers = Answers([prediction], [references], QA)
    assert ExactMatch().compute(answers) == exact
    assert SquadF1().compute(answers) == pytest.approx(f1)
    assert official(prediction, references) == (exact, pytest.approx(f1))


def test_squad_scores_follow_the_published_definition():
    references = [[sentence(4) for _ in range(RNG.integers(0, 4))] for _ in range(400)]
    predictions = [noisy(RNG.choice(texts)) if texts and RNG.random() < 0.8 else sentence(4) for texts in references]
    answers = Answers(predictions, references, QA)
    expected = np.array([official(*pair) for pair in zip(predictions, references, strict=True)])
    assert np.array_equal(ExactMatch().values(answers), expected[:, 0])
    assert np.allclose(SquadF1().values(answers), expected[:, 1], rtol=0, atol=1e-15)
    assert ExactMatch().compute(answers) == pytest.approx(expected[:, 0].mean())
    assert SquadF1().compute(answers) == pytest.approx(expected[:, 1].mean())
    assert 0.05 < ExactMatch().compute(answers) < SquadF1().compute(answers) < 0.95


def test_squad_metrics_combine():
    both = evaluate.combine([ExactMatch().module(), SquadF1().module()])
    result = both.compute(predictions=["a cat", ""], references=[["cat sat"], []])
    assert result == {"exact_match": 0.5, "squad_f1": pytest.approx((2 / 3 + 1) / 2)}


def generated(references=lambda: 1, count=60):
    texts = [[sentence(20) + " end" for _ in range(references())] for _ in range(count)]
    return [noisy(RNG.choice(several)) for several in texts], texts


def test_bleu_and_chrf_equal_sacrebleu():
    predictions, references = generated()
    answers = Answers(predictions, references, TEXT)
    streams = [[texts[0] for texts in references]]
    assert Bleu().compute(answers) == BLEU().corpus_score(predictions, streams).score
    assert Chrf().compute(answers) == CHRF().corpus_score(predictions, streams).score
    assert 10 < Bleu().compute(answers) < 90
    lower = BLEU(tokenize="char", lowercase=True).corpus_score(predictions, streams).score
    assert Bleu(tokenize="char", lowercase=True).compute(answers) == lower
    assert Chrf(word_order=2).compute(answers) == CHRF(word_order=2).corpus_score(predictions, streams).score


def test_examples_may_have_unequal_numbers_of_references():
    predictions, references = generated(lambda: RNG.integers(1, 4))
    answers = Answers(predictions, references, TEXT)
    streams = [[texts[at] if at < len(texts) else None for texts in references] for at in range(3)]
    assert Bleu().compute(answers) == BLEU().corpus_score(predictions, streams).score
    assert Chrf().compute(answers) == CHRF().corpus_score(predictions, streams).score


def test_bleu_of_a_sentence_done_by_hand():
    # 5 of 5 words, 3 of 4 pairs, 2 of 3 triples, 1 of 2 fours are in the reference; 5 words for 6: exp(1 - 6 / 5)
    answers = Answers(["a b c d f"], [["a b c d e f"]], TEXT)
    expected = 100 * np.exp(1 - 6 / 5) * (5 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert Bleu().compute(answers) == pytest.approx(expected)


@pytest.mark.parametrize("metric", [Bleu(), Chrf(), Rouge1(), Rouge2(), RougeL(), RougeLsum()])
def test_empty_predictions_score_zero(metric):
    assert metric.compute(Answers(["", ""], [["a cat sat here"], ["x", "a dog"]], TEXT)) == 0


@pytest.mark.parametrize("stemmer", [False, True])
@pytest.mark.parametrize("metric", [Rouge1, Rouge2, RougeL, RougeLsum])
def test_rouge_equals_rouge_score(metric, stemmer):
    predictions, references = generated()
    predictions = [text.replace(" cat", "\ncat") for text in predictions]
    references = [[text.replace(" cat", "\ncat") for text in texts] for texts in references]
    scorer = RougeScorer([metric.kind], tokenizer=DefaultTokenizer(stemmer))
    pairs = zip(references, predictions, strict=True)
    expected = [scorer.score(texts[0], text)[metric.kind].fmeasure for texts, text in pairs]
    answers = Answers(predictions, references, TEXT)
    assert np.array_equal(metric(use_stemmer=stemmer).values(answers), expected)
    assert metric(use_stemmer=stemmer).compute(answers) == pytest.approx(np.mean(expected), abs=1e-15)
    assert 0 < np.mean(expected) < 1


def test_rouge_takes_the_best_of_several_references():
    answers = Answers(["the red cat"], [["a dog", "the red cat sat", "red"]], TEXT)
    assert Rouge1().compute(answers) == pytest.approx(2 * 1 * 0.75 / 1.75)
    assert Rouge2().compute(answers) == pytest.approx(2 * 1 * (2 / 3) / (5 / 3))


def test_rouge_by_sentences_ignores_their_order():
    answers = Answers(["it rained\nwe ran home"], [["we ran home\nit rained"]], TEXT)
    assert RougeLsum().compute(answers) == 1
    assert RougeL().compute(answers) == pytest.approx(3 / 5)


def test_scoring_text_leaves_the_log_alone(monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    answers = Answers(["a cat"], [["a cat sat"]], TEXT)
    for metric in (Bleu(), Chrf(), Rouge1()):
        metric.compute(answers)
    assert logging.root.handlers == []


def test_text_metrics_combine():
    both = evaluate.combine([Chrf().module(), RougeL().module()])
    result = both.compute(predictions=["a cat"], references=[["a cat", "cats"]])
    assert result == {"chrf": pytest.approx(100), "rougel": 1}
