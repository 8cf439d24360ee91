"""Extractive question answering: its rows, and a whole run that plain transformers repeats."""

import csv
import json

import numpy as np
import pyarrow.parquet
import pytest
import torch

from headswap.config import compose
from headswap.contracts import DataRequest
from headswap.errors import ConfigError, DataError
from headswap.seeds import Seeds
from headswap.tasks.question_answering import QuestionAnswering
from tiny_questions import questions, written
from tiny_runs import ran


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


def test_a_missing_column_is_told_with_the_tasks_own_keys(tmp_path):
    assert fault(tmp_path, [row()], context="passage").endswith(
        "no column 'passage'; found 'question', 'context', 'answer_text', 'answer_start'; set task.question, "
        "task.context, task.answer_text and task.answer_start to keys of its objects"
    )


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
    assert outcome["kind"] == "finished", outcome
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
        assert each["length"] == windows_tokens(tmp_path / "run" / "model", "what was it", rows["context"][row])
    assert result["scores"]["test"]["exact_match"] == np.mean([each["value_exact_match"] for each in test])


def windows_tokens(folder, question, context):
    """Return how many tokens the windows of a context hold together."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    cut = {"truncation": "only_second", "max_length": 32, "stride": 8, "return_overflowing_tokens": True}
    return sum(map(len, tokenizer(question, context, **cut)["input_ids"]))


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
