"""Which span is the answer, and when there is none: judged by brute force and by transformers' own script."""

import numpy as np
import pytest
from scipy.special import softmax

from headswap.spans import Search
from headswap.squad import best_threshold, f1
from tiny_questions import observed_of, questions, task_of


def brute_force(observed, longest):
    """Return score, start and end of every allowed span of each example, by three loops."""
    found = [{} for _ in observed.features.ids]
    for feature, output in enumerate(observed.outputs):
        example = int(observed.features.example[feature])
        starts, ends = (observed.features.column(name, feature) for name in ("target_from", "target_to"))
        for first in range(len(starts)):
            for last in range(first, min(first + longest, len(starts))):
                if starts[first] >= 0 and starts[last] >= 0:
                    place = (int(starts[first]), int(ends[last]))
                    score = float(output[0][first]) + float(output[1][last])
                    found[example][place] = max(score, found[example].get(place, score))
    return [sorted(((score, place) for place, score in each.items()), reverse=True) for each in found]


def scripts_predictions(observed, longest, none=False, threshold=0.0, n_best=400):
    """Return what postprocess_qa_predictions of transformers' run_qa.py answers, with its probabilities."""
    answers = []
    for example, context in enumerate(observed.rows["context"]):
        candidates, least = [], None
        for feature in np.flatnonzero(observed.features.example == example):
            starts, ends = (observed.features.column(name, feature) for name in ("target_from", "target_to"))
            start_logits, end_logits = observed.outputs[feature]
            null = float(start_logits[0]) + float(end_logits[0])
            least = null if least is None else min(least, null)
            for first in np.argsort(start_logits)[-1 : -n_best - 1 : -1]:
                for last in np.argsort(end_logits)[-1 : -n_best - 1 : -1]:
                    if starts[first] < 0 or starts[last] < 0 or last < first or last - first + 1 > longest:
                        continue
                    score = float(start_logits[first]) + float(end_logits[last])
                    candidates.append((score, context[starts[first] : ends[last]]))
        candidates.sort(key=lambda each: -each[0])
        text = candidates[0][1] if candidates else ""
        answers.append("" if none and least - candidates[0][0] > threshold else text)
    return answers


def test_the_best_span_over_all_windows_is_that_of_three_loops_and_of_transformers_script():
    task, rows = task_of(max_answer_tokens=4, stride=6), questions()
    observed = observed_of(task, rows)
    assert len(observed.outputs) > 2 * len(rows["id"])
    expected = brute_force(observed, 4)
    texts = [context[each[0][1][0] : each[0][1][1]] for context, each in zip(rows["context"], expected, strict=True)]
    answers = task.answers(observed)
    assert answers.predictions == texts == scripts_predictions(observed, 4)
    assert answers.references == rows["answer_texts"]
    np.testing.assert_allclose([each[0] for each in answers.outputs], [each[0][0] for each in expected], rtol=1e-6)
    told = task.results(observed)
    assert [each.text for each in told] == texts
    assert [(each.start, each.end) for each in told] == [each[0][1] for each in expected]
    scores = [softmax([score for score, _ in each[:20]])[0] for each in expected]
    np.testing.assert_allclose([each.score for each in told], scores, rtol=1e-6)
    assert task.calibrate(observed) == {}


@pytest.mark.parametrize("count", [1, 3, 1000])
def test_spans_neither_start_nor_end_in_white_space_and_ties_go_to_the_earliest(count):
    starts, ends = np.array([-1, 0, -1, 4, 6, -1]), np.array([-1, 3, -1, 6, 9, -1])
    logits = np.zeros((2, 6))
    logits[:, [0, 2, 5]] = 9.0  # where no answer may stand
    found = Search(3, count).best(logits, starts, ends)
    assert found == [(0, 3, 0.0), (0, 6, 0.0), (4, 6, 0.0), (4, 9, 0.0), (6, 9, 0.0)][:count]
    assert Search(3).best(logits, np.full(6, -1), ends) == []


def test_no_answer_scores_are_the_lowest_over_the_windows_and_the_threshold_decides():
    task, rows = task_of(max_answer_tokens=4, no_answer=True), questions(none=0.4)
    observed = observed_of(task, rows, seed=5)
    nulls = [
        min(float(observed.outputs[feature][:, 0].astype(float).sum()) for feature in np.flatnonzero(observed.features.example == number))
        for number in range(len(rows["id"]))
    ]  # fmt: skip
    np.testing.assert_allclose([each[1] for each in task.answers(observed).outputs], nulls, rtol=1e-6)
    for threshold in (-9.0, -6.0, 0.0):
        settled = observed_of(task, rows, seed=5, calibration={"no_answer_threshold": threshold})
        expected = scripts_predictions(settled, 4, True, threshold)
        assert task.answers(settled).predictions == expected
        told = task.results(settled)
        assert [each.text for each in told] == expected
        assert all(
            (each.start, each.end) == (0, 0) and each.score == each.no_answer_score for each in told if not each.text
        )
    assert 0 < expected.count("") < len(expected) or threshold == 0.0
    best = brute_force(observed, 4)
    probabilities = [
        softmax([null, *(score for score, _ in each[:20])]) for null, each in zip(nulls, best, strict=True)
    ]
    np.testing.assert_allclose([each.no_answer_score for each in told], [each[0] for each in probabilities], rtol=1e-6)


def test_the_threshold_is_the_best_of_all_on_validation():
    dice = np.random.default_rng(2)
    for _ in range(60):
        count = int(dice.integers(1, 12))
        doubts = np.round(dice.normal(size=count) * 2, 1 if count > 6 else 6)
        answered, unanswered = dice.choice([0.0, 0.5, 1.0], count), dice.choice([0.0, 1.0], count)
        cut = best_threshold(doubts, answered, unanswered)
        score = np.where(doubts > cut, unanswered, answered).sum()
        tried = [*doubts, doubts.min() - 0.5]  # every way of parting them
        assert score == max(np.where(doubts > each, unanswered, answered).sum() for each in tried)


def test_calibration_maximises_f1_and_is_used():
    task, rows = task_of(max_answer_tokens=4, no_answer=True), questions(40, none=0.5)
    observed = observed_of(task, rows, seed=8)
    cut = task.calibrate(observed)["no_answer_threshold"]
    texts = scripts_predictions(observed, 4)
    doubts = [float(each[1]) - float(each[0]) for each in task.answers(observed).outputs]

    def score(threshold):
        told = ["" if doubt > threshold else text for doubt, text in zip(doubts, texts, strict=True)]
        return f1(told, rows["answer_texts"]).mean()

    assert score(cut) == max(map(score, [cut, *doubts, min(doubts) - 1]))
    assert score(cut) > score(0.0)
    again = observed_of(task, rows, seed=8, calibration={"no_answer_threshold": cut})
    assert f1(task.answers(again).predictions, rows["answer_texts"]).mean() == score(cut)


def test_a_context_of_which_the_tokenizer_keeps_nothing_has_no_answer():
    rows = {"question": ["is it"], "context": ["\u200b"], "id": ["1"]}
    for task in (task_of(), task_of(no_answer=True)):
        observed = observed_of(task, rows)
        told = task.results(observed)[0]
        assert (told.text, told.start, told.end) == ("", 0, 0)
        assert 0 <= told.score <= 1


def test_an_answer_prints_itself_and_fills_columns_of_its_own():
    task = task_of(no_answer=True)
    rows = {"question": ["is it"], "context": ["the film"], "id": ["1"]}
    logits = np.zeros((2, 7), dtype=np.float32)
    logits[:, 5] = 4.0
    told = task.results(observed_of(task, rows, [logits]))[0]
    assert (told.text, told.start, told.end) == ("film", 4, 8)
    assert set(told.cells()) == {"predicted_answer", "predicted_start", "predicted_end", "score", "no_answer_score"}
    assert str(told).startswith("film\t0.") and str(told).endswith("characters 4 to 8")
