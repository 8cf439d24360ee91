"""Extractive question answering: rows, windows, targets, the best span; judged by hand, brute force and transformers."""

import csv
import itertools
import json
import random
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest
import torch
from scipy.special import softmax

from conftest import WORDS, make_tokenizer, tiny_config
from headswap.answers import Labels, Observed
from headswap.config import compose
from headswap.contracts import DataRequest
from headswap.encoded import encode_rows
from headswap.errors import ConfigError, DataError, WeightsError
from headswap.losses import SpanCrossEntropy
from headswap.seeds import Seeds
from headswap.spans import Search
from headswap.squad import best_threshold, f1
from headswap.tasks.question_answering import QuestionAnswering
from tiny_families import FAMILIES
from tiny_runs import ran

UNICODE = "🙂 the film was naïve cafe\u0301  good\n\nand fine 👩‍👩‍👧 it is not e\u0301te\u0301 bad end"


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def row(context="the film was good", text="good", start=13, question="what was it"):
    return {"question": question, "context": context, "answer_text": text, "answer_start": start}


def loaded(path, rows, **fields):
    """Load a file whose other rows are sound, so that every split has some."""
    sound = [row(question=f"is it {number}") for number in range(30)]
    task = QuestionAnswering(train=written(path / "train.jsonl", [*rows, *sound]), **fields)
    return task.load(DataRequest(), Seeds(1))


def fault(path, rows, **fields):
    with pytest.raises(DataError) as caught:
        loaded(path, rows, **fields)
    return str(caught.value)


def all_rows(splits):
    return [each for split in (splits.train, splits.validation, splits.test) for each in split]


# Rows


def test_places_that_count_bytes_are_refused_with_rows_and_remedy(tmp_path):
    context = "naïve café: good film"
    in_bytes = context.encode().index(b"good")
    said = fault(tmp_path, [row(), row(context, "good", in_bytes)])
    assert said == (
        f"{tmp_path}/train.jsonl: answers that do not stand at their place (found 'od f' where 'good' should be) in "
        "column 'answer_start'; row 2 (the first at line 2); places count characters of the context from 0, not bytes "
        "or tokens: correct them, or set task.mend_offsets=true to search for the texts"
    )


def test_mended_places_are_the_nearest_ones_and_counted(tmp_path):
    context = "good or bad, bad or good: naïve, but good"
    given = [(context, "good", 22), (context, "good", 0), (context, "bad", 11), (context, "good", 40)]
    splits = loaded(tmp_path, [row(*each, question=f"q{each[2]}") for each in given], mend_offsets=True)
    found = {each["question"]: each["answer_starts"] for each in all_rows(splits)}
    assert (found["q22"], found["q0"], found["q11"], found["q40"]) == ([20], [0], [13], [37])
    assert sum(splits.notes["rows_with_mended_offsets"].values()) == 3
    said = fault(tmp_path, [row(context, "great", 0)], mend_offsets=True)
    assert "answers that do not stand in their context in column 'answer_text'; row 1" in said


def test_a_place_must_be_a_whole_number(tmp_path):
    for start in ("three", 1.5, None, -1):
        assert "a place that is no whole number from 0 in column 'answer_start'; row 1 " in fault(
            tmp_path, [row(start=start)]
        )
    splits = loaded(tmp_path, [row(start="13", question="a"), row(start=13.0, question="b")])
    assert {each["answer_starts"][0] for each in all_rows(splits)} == {13}


def test_no_answer_must_be_asked_for(tmp_path):
    said = fault(tmp_path, [row(), row(text=None, start=None)])
    assert "no answer in column 'answer_text'; row 2 (the first at line 2); fill or remove these rows, or set " in said
    assert "task.no_answer=true" in said
    splits = loaded(tmp_path, [row(text="", start=-1, question="none?")], no_answer=True)
    assert [each["answer_texts"] for each in all_rows(splits) if each["question"] == "none?"] == [[]]
    assert sum(splits.notes["questions_without_answer"].values()) == 1


def test_squads_own_form_is_read_from_json_and_parquet(tmp_path):
    several = {"text": ["good", "was good"], "answer_start": [13, 9]}
    given = [several, {"text": [], "answer_start": []}, [{"text": "film", "answer_start": 4}], None]
    rows = [{**row(question=f"q{number}"), "answers": each} for number, each in enumerate(given * 6)]
    expected = [["good", "was good"], [], ["film"], []]
    sources = [written(tmp_path / "a.jsonl", rows), str(tmp_path / "a.parquet")]
    plain = [{**each, "answers": several if isinstance(each["answers"], list) else each["answers"]} for each in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(plain), sources[1])
    for source, third in zip(sources, (["film"], ["good", "was good"]), strict=True):
        task = QuestionAnswering(train=source, references="answers", no_answer=True)
        splits = task.load(DataRequest(), Seeds(1))
        found = {each["question"]: each["answer_texts"] for each in all_rows(splits)}
        assert [found[f"q{number}"] for number in range(4)] == [*expected[:2], third, []]
        assert "answer_texts" not in task.reading(targets=False).columns


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"text": ["good"], "answer_start": []}, "not of the form {text: [...], answer_start: [...]}"),
        ("good", "not of the form"),
        ({"text": [3], "answer_start": [3]}, "not of the form"),
        ({"text": [" "], "answer_start": [3]}, "an empty text among the answers"),
        ({"text": ["good"], "answer_start": [12]}, "answers that do not stand at their place"),
        ({"text": ["good"], "answer_start": [True]}, "a place that is no whole number"),
        ({"text": [], "answer_start": []}, "no answer"),
    ],
)
def test_faults_of_squads_form_are_told(tmp_path, answers, said):
    rows = [{**row(question=f"q{number}"), "answers": {"text": ["good"], "answer_start": [13]}} for number in range(9)]
    rows[4]["answers"] = answers
    found = fault_of(tmp_path, rows)
    assert said in found
    assert "in column 'answers'; row 5 (the first at line 5); " in found


def fault_of(path, rows):
    with pytest.raises(DataError) as caught:
        QuestionAnswering(train=written(path / "a.jsonl", rows), references="answers").load(DataRequest(), Seeds(1))
    return str(caught.value)


def test_a_csv_file_has_flat_columns(tmp_path):
    with open(tmp_path / "a.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row()))
        writer.writeheader()
        writer.writerows([row(question=f"q{number}") for number in range(20)])
        writer.writerow(row(text="", start="", question="none"))
    splits = QuestionAnswering(train=str(tmp_path / "a.csv"), no_answer=True).load(DataRequest(), Seeds(1))
    assert {tuple(each["answer_starts"]) for each in all_rows(splits)} == {(13,), ()}


def test_empty_questions_and_contexts_are_refused(tmp_path):
    assert "empty text in column 'question'; row 1" in fault(tmp_path, [row(question=" ")])
    assert "empty text in column 'context'; row 1" in fault(tmp_path, [row(context="", text="", start=None)])


def test_faults_of_the_configuration_are_told_together():
    with pytest.raises(ConfigError) as caught:
        QuestionAnswering(train="a", context="question", stride=-1, max_answer_tokens=0, n_best=0, damaged="remove")
    said = str(caught.value)
    for part in ("task.question: question, context,", "task.stride: must be 0", "task.max_answer_tokens: must be 1"):
        assert part in said
    assert "task.n_best: must be 1" in said
    assert "task.damaged: removing characters moves the answers' places; found remove" in said
    with pytest.raises(ConfigError, match="answer_starts, answer_mended are taken; found answer_texts; rename"):
        QuestionAnswering(train="a", question="answer_texts")


# Windows and targets


def task_of(**fields):
    return QuestionAnswering(train="a", **fields)


def split_row(question, context, text=None, start=0):
    return {
        "id": ["1"], "question": [question], "context": [context],
        "answer_texts": [[text] if text is not None else []], "answer_starts": [[start] if text is not None else []],
    }  # fmt: skip


def test_a_feature_holds_question_context_and_the_places_of_the_answer():
    found = task_of().encode(split_row("is it good", "the film  was good.", "good", 14), make_tokenizer(), 64)
    # [CLS] is it good [SEP] the film was good . [SEP]
    assert len(found["input_ids"][0]) == 11
    assert (found["target_start"], found["target_end"], found["truncated"]) == ([8], [8], [False])
    assert found["target_from"] == [[-1, -1, -1, -1, -1, 0, 4, 10, 14, 18, -1]]
    assert found["target_to"] == [[-1, -1, -1, -1, -1, 3, 8, 13, 18, 19, -1]]
    bare = task_of().encode({"question": ["is it"], "context": ["the film"]}, make_tokenizer(), 64)
    assert set(bare) == {"input_ids", "example", "target_from", "target_to", "truncated"}


def test_an_answer_beyond_the_first_window_is_found_in_a_later_one():
    context = " ".join(["the film was very dull and poor but"] * 4 + ["it is great"])
    found = task_of(stride=3).encode(split_row("is it", context, "great", len(context) - 5), make_tokenizer(), 20)
    windows = [ids[4:-1] for ids in found["input_ids"]]  # [CLS] is it [SEP] ... [SEP]
    assert all(len(window) == 15 for window in windows[:-1])
    assert all(one[-3:] == other[:3] for one, other in itertools.pairwise(windows))
    assert found["example"] == [0] * len(windows)
    assert found["target_start"] == found["target_end"] == [0] * (len(windows) - 1) + [len(windows[-1]) + 3]
    default = task_of().encode(split_row("is it", context, "great", len(context) - 5), make_tokenizer(), 20)
    assert default["input_ids"][1][4:9] == default["input_ids"][0][-6:-1]  # a quarter of 20


def test_targets_are_those_of_transformers_script():
    dice, tokenizer, task = random.Random(4), make_tokenizer(), task_of(stride=4)
    for _ in range(40):
        words = dice.choices(WORDS, k=dice.randint(1, 60))
        first = dice.randrange(len(words))
        text = " ".join(words[first : first + dice.randint(1, 6)])
        context, start = " ".join(words), len(" ".join([*words[:first], ""]))
        found = task.encode(split_row("what was it", context, text, start), tokenizer, 24)
        assert list(zip(found["target_start"], found["target_end"], strict=True)) == scripts_targets(
            tokenizer, "what was it", context, (start, start + len(text))
        )


def scripts_targets(tokenizer, question, context, answer):
    """Return what prepare_train_features of transformers' run_qa.py does, but for a start in the context's last token.

    There the script runs on into the special token behind it (whose offsets are 0), as its own comment says.
    """
    encoded = tokenizer(
        [question], [context], truncation="only_second", max_length=24, stride=4, return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )  # fmt: skip
    targets = []
    for window, offsets in enumerate(encoded["offset_mapping"]):
        parts = encoded.sequence_ids(window)
        first = parts.index(1)
        last = len(parts) - 1 - parts[::-1].index(1)
        if not (offsets[first][0] <= answer[0] and offsets[last][1] >= answer[1]):
            targets.append((0, 0))
            continue
        end_of_context = last
        while first <= end_of_context and offsets[first][0] <= answer[0]:
            first += 1
        while offsets[last][1] >= answer[1]:
            last -= 1
        targets.append((first - 1, last + 1))
    return targets


@pytest.mark.parametrize("name", FAMILIES)
def test_every_word_of_a_text_in_many_scripts_keeps_its_characters(name):
    tokenizer, task = FAMILIES[name].tokenizer(), task_of(stride=24)
    for word in dict.fromkeys(UNICODE.split()):
        start = UNICODE.index(word)
        found = task.encode(split_row("is it", UNICODE, word, start), tokenizer, 64)
        assert found["truncated"] == [False] * len(found["input_ids"])
        spans = [
            (found["target_from"][window][first], found["target_to"][window][last])
            for window, (first, last) in enumerate(zip(found["target_start"], found["target_end"], strict=True))
            if found["target_from"][window][first] >= 0
        ]
        assert spans
        assert {UNICODE[begin:end] for begin, end in spans} == {word}
        assert set(spans) == {(start, start + len(word))}


def test_an_answer_that_no_window_holds_counts_as_truncated():
    context = " ".join(["dull"] * 40)
    found = task_of().encode(split_row("is it", context, context, 0), make_tokenizer(), 20)
    assert found["truncated"] == [True] * len(found["input_ids"])
    assert set(found["target_start"]) == {0}
    none = task_of(no_answer=True).encode(split_row("is it", context), make_tokenizer(), 20)
    assert not any(none["truncated"])


def test_a_question_that_leaves_no_room_is_refused_with_its_row():
    rows = {"id": ["a", "b"], "question": ["is it", "is it " * 20], "context": ["the film"] * 2}
    with pytest.raises(DataError) as caught:
        task_of().encode(rows, make_tokenizer(), 32)
    assert str(caught.value) == (
        "data.max_length: no room for a context beside these questions; found 40 tokens where 20 of 32 may be the "
        "question's (rows with id b); shorten them, raise data.max_length, or lower task.stride (8)"
    )
    just = {**rows, "question": ["is it", "is it " * 10], "context": ["the film", "dull " * 90]}
    assert task_of().encode(just, make_tokenizer(), 32)["example"][-1] == 1


def test_a_tokenizer_without_places_is_refused():
    slow = SimpleNamespace(is_fast=False)
    with pytest.raises(WeightsError, match=r"body: this tokenizer does not tell which characters .* fast tokenizer"):
        task_of().encode(split_row("is it", "the film"), slow, 32)


# Answers


def observed_of(task, rows, outputs=None, seed=0, calibration=None, max_length=24):
    """Return the observation of random logits on rows, or of those given."""
    tokenizer, dice = make_tokenizer(), np.random.default_rng(seed)
    encoded = encode_rows(rows, task, tokenizer, max_length)
    if outputs is None:
        sizes = [len(encoded.column("input_ids", feature)) for feature in range(len(encoded))]
        outputs = [dice.normal(size=(2, size)).astype(np.float32) * 3 for size in sizes]
    return Observed(outputs, encoded, rows, tokenizer, Labels((), "question_answering"), calibration or {})


def questions(count=25, seed=3, none=0.0):
    dice = random.Random(seed)
    rows = {"id": [], "question": [], "context": [], "answer_texts": [], "answer_starts": []}
    for number in range(count):
        words = dice.choices(WORDS, k=dice.randint(1, 70))
        first = dice.randrange(len(words))
        answer = " ".join(words[first : first + dice.randint(1, 3)])
        some = dice.random() >= none
        for name, value in zip(
            rows,
            (
                str(number),
                "what was it",
                " ".join(words),
                [answer] * some,
                [len(" ".join([*words[:first], ""]))] * some,
            ),
            strict=True,
        ):
            rows[name].append(value)
    return rows


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


# Loss


def test_the_loss_is_transformers_own_on_rows_of_one_length():
    from transformers import BertForQuestionAnswering

    model = BertForQuestionAnswering(tiny_config()).eval()
    dice = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (6, 12), generator=dice)
    starts, ends = torch.randint(0, 12, (2, 6), generator=dice)
    starts[2], ends[3] = 50, 12  # outside: transformers ignores them
    with torch.no_grad():
        output = model(input_ids=ids, start_positions=starts, end_positions=ends)
    for rows in (torch.tensor([0, 1, 4, 5]), torch.arange(6)):
        batch = {
            "attention_mask": torch.ones(len(rows), 12, dtype=torch.int64),
            "target_start": starts[rows],
            "target_end": ends[rows],
        }
        part = SimpleNamespace(start_logits=output.start_logits[rows], end_logits=output.end_logits[rows])
        loss = SpanCrossEntropy()
        with torch.no_grad():
            own = model(input_ids=ids[rows], start_positions=starts[rows], end_positions=ends[rows]).loss
        torch.testing.assert_close(loss(part, batch) / loss.weight(batch), own)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_neither_loss_nor_observation(side):
    dice = torch.Generator().manual_seed(2)
    lengths, width = [5, 9, 7], 9
    batch = {"target_start": torch.tensor([4, 0, 2]), "target_end": torch.tensor([4, 8, -1])}
    logits, mask = torch.randn(2, 3, width, generator=dice) * 4, torch.zeros(3, width, dtype=torch.int64)
    kept = [slice(width - length, width) if side == "left" else slice(0, length) for length in lengths]
    for number, places in enumerate(kept):
        mask[number, places] = 1
    batch["attention_mask"] = mask
    output = SimpleNamespace(start_logits=logits[0], end_logits=logits[1])
    expected = sum(
        -torch.log_softmax(logits[which, number, places], dim=0)[target] / 2
        for number, places in enumerate(kept)
        for which, target in enumerate((batch["target_start"][number], batch["target_end"][number]))
        if target >= 0
    )
    torch.testing.assert_close(SpanCrossEntropy()(output, batch), expected)
    assert float(SpanCrossEntropy().weight(batch)) == 2.5
    seen = task_of().observe(None, batch, output)
    for number, places in enumerate(kept):
        np.testing.assert_array_equal(seen[number], logits[:, number, places].numpy())


# A whole run


def small_run(tmp_path, body, *overrides):
    rows = questions(80, seed=6, none=0.3)
    table = written(
        tmp_path / "a.jsonl",
        [
            {"question": "what was it", "context": context, "answers": {"text": texts, "answer_start": starts}}
            for context, texts, starts in zip(rows["context"], rows["answer_texts"], rows["answer_starts"], strict=True)
        ],
    )
    config = compose([
        "task=question_answering", f"task.train={table}", "task.references=answers", "task.no_answer=true",
        "task.validation_share=0.2", "task.test_share=0.2", "body=transformer", f"body.source={body}",
        "data.max_length=32", "train.max_steps=6", "train.batch_size=8", "train.evaluations=2",
        "train.learning_rate=1e-3", "train.precision=fp32", "hardware=cpu", "hardware.threads=1",
        f"output.root={tmp_path}", "name=tiny", *overrides,
    ])  # fmt: skip
    return rows, ran(tmp_path / "run", config)


def test_a_small_run_ends_with_answers_that_plain_transformers_repeats(tmp_path, tiny_body):
    rows, outcome = small_run(tmp_path, tiny_body)
    assert outcome["status"] == "finished", outcome
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["primary"] == "squad_f1"
    threshold = result["calibration"]["no_answer_threshold"]
    written = pyarrow.parquet.read_table(tmp_path / "run" / "predictions.parquet").to_pylist()
    test = [each for each in written if each["split"] == "test"]
    assert len(test) == 16
    for each in test:
        row = int(each["id"]) - 1
        assert each["label"] == rows["answer_texts"][row]
        expected = plain_answer(tmp_path / "run" / "model", "what was it", rows["context"][row], threshold)
        assert each["prediction"] == expected
        assert expected in rows["context"][row]
    assert result["scores"]["test"]["exact_match"] == np.mean([each["value_exact_match"] for each in test])


def plain_answer(folder, question, context, threshold):
    """Return the answer as a person would get it from model/ without headswap, window by window."""
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    encoded = tokenizer(
        question, context, truncation="only_second", max_length=32, stride=8, return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )  # fmt: skip
    best, text, none = -np.inf, "", np.inf
    for window, ids in enumerate(encoded["input_ids"]):
        types = (
            {"token_type_ids": torch.tensor([encoded["token_type_ids"][window]])} if "token_type_ids" in encoded else {}
        )
        with torch.no_grad():
            output = model(input_ids=torch.tensor([ids]), **types)
        start, end = output.start_logits[0], output.end_logits[0]
        none = min(none, float(start[0] + end[0]))
        allowed = torch.tensor([part == 1 for part in encoded.sequence_ids(window)])
        scores = start[:, None] + end[None, :]
        scores = scores.masked_fill(~(allowed[:, None] & allowed).triu().tril(29), -torch.inf)
        first, last = divmod(int(scores.argmax()), len(ids))
        if float(scores.max()) > best:
            best, offsets = float(scores.max()), encoded["offset_mapping"][window]
            text = context[offsets[first][0] : offsets[last][1]]
    return "" if none - best > threshold else text
