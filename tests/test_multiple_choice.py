"""One of several choices: what is read, how a row becomes as many inputs, what is scored and told."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import AutoModelForMultipleChoice

import tiny_families
from headswap.answers import Labels, Observed
from headswap.contracts import DataRequest, Task
from headswap.encoded import encode_rows
from headswap.errors import ConfigError, DataError
from headswap.tasks.multiple_choice import MultipleChoice
from tiny_families import FAMILIES
from tiny_tables import SEEDS, written
from tiny_tokenizer import WORDS, tiny_tokenizer

FIELDS = {"context": ["premise"], "choices": ["choices"], "label": "answer", "source": "a.jsonl"}
TASK = MultipleChoice(**FIELDS)


def jsonl(path, rows) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def copa(count, **changes):
    return [
        {"premise": f"p {n}", "choices": [f"first {n}", f"second {n}"], "answer": n % 2, **changes}
        for n in range(count)
    ]


def loaded(**fields):
    return MultipleChoice(**{**FIELDS, **fields}).load(DataRequest(), SEEDS)


def test_importing_the_plug_imports_nothing_heavy():
    code = (
        "import sys, headswap.tasks.multiple_choice as plug; "
        "plug.MultipleChoice(context=['a'], choices=['b'], label='c', source='a.csv');"
        "print([name for name in ('torch', 'transformers', 'datasets', 'pandas', 'numpy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_it_is_a_task_whose_outputs_are_no_labels():
    assert isinstance(TASK, Task)
    assert (TASK.auto_class, TASK.problem, TASK.inputs) == (
        "AutoModelForMultipleChoice",
        "multiple_choice",
        ("premise", "choices"),
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"context": []}, "task.context: must name one column or more; found none"),
        ({"choices": []}, "task.choices: must name one column or more; found none"),
        ({"choices": ["premise"]}, "task.context: context, choices, label and id must be different columns; found"),
        ({"context": ["label"]}, "task.context: the names id and label are taken"),
        ({"wording": {"question": {}}}, "task.wording: names no column of task.context; found 'question'; use one of premise"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_stand_is_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        MultipleChoice(**{**FIELDS, **fields})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"choices": ["a", "b", "c"]}, r"another number of choices \(found 3 where row 1 has 2\) in column 'choices'; row 3 \(.* line 3\)"),
        ({"choices": ["a", ""]}, "empty text in column 'choices'; row 3"),
        ({"choices": "a b"}, "no list, or an empty one in column 'choices'; row 3"),
        ({"answer": 2}, "neither the number nor the text of a choice '2' in column 'answer'; row 3 .*; give numbers from 0 to 1"),
        ({"answer": None}, "empty or null label in column 'answer'; row 3"),
        ({"premise": ""}, "empty text in column 'premise'; row 3"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_learned_is_named(row, message, tmp_path):
    rows = copa(12)
    with pytest.raises(DataError, match=message):
        loaded(source=jsonl(tmp_path / "a.jsonl", [*rows[:2], {**rows[2], **row}, *rows[2:]]))


def test_one_choice_is_none_and_splits_must_agree_on_their_number(tmp_path):
    with pytest.raises(DataError, match="fewer than two choices in column 'choices'; row 1"):
        loaded(source=jsonl(tmp_path / "a.jsonl", copa(9, choices=["a"], answer=0)))
    train, test = (
        jsonl(tmp_path / "b.jsonl", copa(20)),
        jsonl(tmp_path / "c.jsonl", copa(3, choices=list("abc"), premise="q")),
    )
    with pytest.raises(
        DataError,
        match=r"task.choices: splits differ in their number of choices; found 2 in train, 2 in validation, 3 in test",
    ):
        loaded(source=None, train=train, test=test)


def test_the_right_choice_is_a_number_or_a_text_and_choices_are_lists_or_columns(tmp_path):
    numbered = loaded(source=jsonl(tmp_path / "a.jsonl", copa(20)))
    named = [{**row, "answer": row["choices"][row["answer"]]} for row in copa(20)]
    by_text = loaded(source=jsonl(tmp_path / "b.jsonl", named))
    cells = [(row["premise"], json.dumps(row["choices"]), row["answer"]) for row in copa(20)]
    spelled = loaded(source=written(tmp_path / "c.csv", cells, ("premise", "choices", "answer")))
    flat = [(row["premise"], *row["choices"], row["answer"]) for row in copa(20)]
    apart = loaded(
        source=written(tmp_path / "d.csv", flat, ("premise", "one", "two", "answer")), choices=["one", "two"]
    )
    assert list(numbered.train["label"]) == [int(row.split()[-1]) % 2 for row in numbered.train["premise"]]
    assert numbered.fingerprint == by_text.fingerprint == spelled.fingerprint
    assert list(apart.train["label"]) == list(numbered.train["label"])
    assert list(zip(apart.train["one"], apart.train["two"], strict=True)) == list(map(tuple, numbered.train["choices"]))
    assert numbered.labels == Labels((), "multiple_choice")
    labels = list(numbered.train["label"])
    assert numbered.notes["class_counts"]["train"] == {"0": labels.count(0), "1": labels.count(1)}


def test_values_are_said_in_words_and_an_unknown_one_is_named(tmp_path):
    wording = {"question": {"cause": "bad plain", "effect": "good"}}
    task = MultipleChoice(**{**FIELDS, "context": ["premise", "question"], "wording": wording})
    rows = {"premise": ["a", "b"], "question": ["cause", "effect"], "choices": [["c", "d"], ["e", "f"]]}
    ids = task.encode(rows, tiny_tokenizer(), 32)["input_ids/1"]
    assert [" ".join(WORDS[token] for token in row) for row in ids] == [
        "[CLS] a bad plain [SEP] d [SEP]", "[CLS] b good [SEP] f [SEP]",
    ]  # fmt: skip
    source = jsonl(tmp_path / "a.jsonl", [{**row, "question": "when"} for row in copa(9)])
    with pytest.raises(
        DataError,
        match=r"task.wording: says nothing for some values of 'question'; found 'when', first in row 1; add them",
    ):
        task.read(source, Labels((), "multiple_choice"))


def test_a_row_is_a_pair_for_each_choice_and_only_its_context_is_cut():
    rows = {
        "premise": ["a b c", "a b c d e f"],
        "choices": [["good", "bad plain"], ["fine", "poor good bad"]],
        "label": [1, 0],
    }
    found = TASK.encode(rows, tiny_tokenizer(), 9)
    said = {
        name: [" ".join(WORDS[token] for token in row) for row in found[name]]
        for name in ("input_ids/0", "input_ids/1")
    }
    assert said == {
        "input_ids/0": ["[CLS] a b c [SEP] good [SEP]", "[CLS] a b c d e [SEP] fine [SEP]"],
        "input_ids/1": ["[CLS] a b c [SEP] bad plain [SEP]", "[CLS] a b c [SEP] poor good bad [SEP]"],
    }
    assert found["token_type_ids/1"] == [[0] * 5 + [1] * 3, [0] * 5 + [1] * 4]
    assert (found["truncated"], found["labels"]) == ([False, True], [1, 0])
    with pytest.raises(
        DataError,
        match=r"data.max_length: a choice leaves no room for its context; found 6 tokens of 6 for 'poor good bad'",
    ):
        TASK.encode(rows, tiny_tokenizer(), 6)


def batch_of(rows, tokenizer, max_length=32):
    encoded = encode_rows(rows, TASK, tokenizer, max_length)
    return TASK.collator(tokenizer, SEEDS)(encoded.collate(np.arange(len(encoded))), "test", np.arange(len(encoded)), 0)


ROWS = {
    "id": ["1", "2", "3"],
    "premise": ["the film was good", "a dull movie : nobody loved it", "the plot"],
    "choices": [["it was fine", "it was poor and long"], ["they loved it", "they hated it"], ["is this a great film ?", "no"]],
    "label": [0, 1, 0],
}  # fmt: skip


@pytest.mark.parametrize("side", ["right", "left"])
def test_choices_are_stacked_as_the_tokenizer_pads_them(side):
    tokenizer = FAMILIES["BERT"].tokenizer()
    tokenizer.padding_side = side
    batch = batch_of(ROWS, tokenizer)
    flat = [
        list(column)
        for column in zip(
            *((p, c) for p, row in zip(ROWS["premise"], ROWS["choices"], strict=True) for c in row), strict=True
        )
    ]
    plain = tokenizer(*flat, padding=True, return_tensors="pt")
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert torch.equal(batch[name], plain[name].view(3, 2, -1)), name
    assert batch["labels"].tolist() == [0, 1, 0] and set(batch) == {*plain, "labels"}


@pytest.mark.parametrize(
    "name", ["BERT", "RoBERTa", "DistilBERT", "ALBERT", "DeBERTa-v2", "ELECTRA", "MPNet", "ModernBERT"]
)
def test_logits_and_loss_are_those_of_transformers_own_way(name):
    tokenizer = FAMILIES[name].tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForMultipleChoice.from_config(tiny_families.config_of(name, tokenizer)).eval()
    batch = batch_of(ROWS, tokenizer)
    flat = [
        list(column)
        for column in zip(
            *((p, c) for p, row in zip(ROWS["premise"], ROWS["choices"], strict=True) for c in row), strict=True
        )
    ]
    plain = tokenizer(*flat, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = TASK.forward(model, batch)
        expected = model(**{name: each.view(3, 2, -1) for name, each in plain.items()}, labels=torch.tensor([0, 1, 0]))
    assert torch.equal(output.logits, expected.logits)
    loss = TASK.loss(None)
    assert float(loss(output, batch) / loss.weight(batch)) == pytest.approx(float(expected.loss), rel=1e-6)
    assert [each.tolist() for each in TASK.observe(model, batch, output)] == expected.logits.tolist()


def test_answers_and_results_are_the_likeliest_choice():
    logits = [np.array([0.0, 1.0], np.float32), np.array([3.0, 1.0], np.float32), np.array([0.0, 0.0], np.float32)]
    seen = Observed(logits, None, ROWS, None, Labels((), "multiple_choice"))
    answers = TASK.answers(seen)
    assert (answers.predictions.tolist(), answers.references.tolist()) == ([1, 0, 0], [0, 1, 0])
    results = TASK.results(seen)
    assert [(each.number, each.choice) for each in results] == [
        (1, "it was poor and long"),
        (0, "they loved it"),
        (0, "is this a great film ?"),
    ]
    assert results[0].scores == pytest.approx((1 / (1 + np.e), np.e / (1 + np.e)))
    assert results[2].cells() == {
        "predicted_choice": 0,
        "predicted_text": "is this a great film ?",
        "choice_scores": [0.5, 0.5],
    }


@pytest.mark.parametrize(("value", "message"), [
    ("a", "no list of choices; found 'a'; give a list of 2 texts"), (["a"], "no list of choices"), (["a", " "], "empty text"),
    (["a", 1], "not a text; found 1"),
])  # fmt: skip
def test_what_is_no_list_of_choices_is_told(value, message):
    with pytest.raises(DataError, match=message):
        TASK.cell("choices", value)
    assert TASK.cell("choices", '["a", "b"]') == ["a", "b"] and TASK.cell("premise", "a") == "a"


def test_rows_with_other_numbers_of_choices_are_not_predicted_together():
    with pytest.raises(
        DataError, match=r"choices: must hold equally many choices in every row.* in row 2 where the first has 2"
    ):
        TASK.encode({"premise": ["a", "b"], "choices": [["c", "d"], ["c", "d", "e"]]}, tiny_tokenizer(), 16)
