"""Questions in little: rows, features and random logits for them."""

import json
import random

import numpy as np

from conftest import WORDS, make_tokenizer
from headswap.answers import Labels, Observed
from headswap.encoded import encode_rows
from headswap.tasks.question_answering import QuestionAnswering


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def task_of(**fields):
    return QuestionAnswering(train="a", **fields)


def split_row(question, context, text=None, start=0):
    return {
        "id": ["1"], "question": [question], "context": [context],
        "answer_texts": [[text] if text is not None else []], "answer_starts": [[start] if text is not None else []],
    }  # fmt: skip


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


def observed_of(task, rows, outputs=None, seed=0, calibration=None, max_length=24):
    """Return the observation of random logits on rows, or of those given."""
    tokenizer, dice = make_tokenizer(), np.random.default_rng(seed)
    encoded = encode_rows(rows, task, tokenizer, max_length)
    if outputs is None:
        sizes = [len(encoded.column("input_ids", feature)) for feature in range(len(encoded))]
        outputs = [dice.normal(size=(2, size)).astype(np.float32) * 3 for size in sizes]
    return Observed(outputs, encoded, rows, tokenizer, Labels((), "question_answering"), calibration or {})
