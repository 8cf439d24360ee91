"""A span of the context answers the question, long contexts by stride, by AutoModelForQuestionAnswering."""

from __future__ import annotations

import re
import string
from collections import Counter
from typing import Any

import numpy as np
import transformers
from training import Job, Outcome, predict, train

BEST = 20
Answer = tuple[float, str]


def spans(job: Job) -> Outcome:
    """Trivial: the whole context, and the sentence of it that shares most words with the question."""
    rows = job.split("train")
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(job.body)
    collate = transformers.DataCollatorWithPadding(job.tokenizer)
    encoded = _encode(job, rows)
    features = [
        _feature(encoded, number) | _target(encoded, number, rows) for number in range(len(encoded["input_ids"]))
    ]
    model = train(model, features, collate, job)
    tests = job.split("test")
    true = [row["answer_text"] for row in tests]
    trivial = {
        "whole context": [row["context"] for row in tests],
        "sentence of most shared words": [_nearest_sentence(row["question"], row["context"]) for row in tests],
    }
    found = _answers(model, job, tests, collate)
    return Outcome(_scores(true, found), {name: _scores(true, texts) for name, texts in trivial.items()})


def _encode(job: Job, rows: list[dict[str, Any]]) -> Any:
    return job.tokenizer(
        [row["question"] for row in rows], [row["context"] for row in rows], truncation="only_second",
        max_length=job.row.max_length, stride=job.row.options["stride"],
        return_overflowing_tokens=True, return_offsets_mapping=True,
    )  # fmt: skip


def _feature(encoded: Any, number: int) -> dict[str, Any]:
    return {name: encoded[name][number] for name in ("input_ids", "token_type_ids", "attention_mask")}


def _target(encoded: Any, number: int, rows: list[dict[str, Any]]) -> dict[str, int]:
    """Return the first and last token of the answer; the first token of all where this piece does not hold it."""
    row = rows[encoded["overflow_to_sample_mapping"][number]]
    start, end = row["answer_start"], row["answer_start"] + len(row["answer_text"])
    part = encoded.sequence_ids(number)
    places = [place for place, owner in enumerate(part) if owner == 1]
    offsets = encoded["offset_mapping"][number]
    inside = [place for place in places if offsets[place][1] > start and offsets[place][0] < end]
    if not inside or offsets[places[0]][0] > start or offsets[places[-1]][1] < end:
        return {"start_positions": 0, "end_positions": 0}
    return {"start_positions": inside[0], "end_positions": inside[-1]}


def _answers(model: Any, job: Job, rows: list[dict[str, Any]], collate: Any) -> list[str]:
    encoded = _encode(job, rows)
    features = [_feature(encoded, number) for number in range(len(encoded["input_ids"]))]
    best: list[Answer] = [(-np.inf, "")] * len(rows)
    for number, output, place in predict(model, features, collate):
        owner = encoded["overflow_to_sample_mapping"][number]
        logits = [output[name][place].float().numpy() for name in ("start_logits", "end_logits")]
        answer = _best_span(logits, encoded, number, rows[owner]["context"], job.row.options["longest_answer"])
        best[owner] = max(best[owner], answer)
    return [text for _, text in best]


def _best_span(logits: list[np.ndarray], encoded: Any, number: int, context: str, longest: int) -> Answer:
    places = [place for place, owner in enumerate(encoded.sequence_ids(number)) if owner == 1]
    offsets = encoded["offset_mapping"][number]
    starts, ends = (sorted(places, key=lambda place, score=score: -score[place])[:BEST] for score in logits)
    pairs = [(start, end) for start in starts for end in ends if start <= end < start + longest]
    if not pairs:
        return -np.inf, ""
    start, end = max(pairs, key=lambda pair: logits[0][pair[0]] + logits[1][pair[1]])
    return float(logits[0][start] + logits[1][end]), context[offsets[start][0] : offsets[end][1]]


def _nearest_sentence(question: str, context: str) -> str:
    asked = set(_normal(question).split())
    return max(re.split(r"(?<=[.!?]) ", context), key=lambda sentence: len(asked & set(_normal(sentence).split())))


def _normal(text: str) -> str:
    """SQuAD v1.1: lower case, without punctuation and articles, single spaces."""
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def _scores(true: list[str], found: list[str]) -> dict[str, float]:
    exact = [_normal(right) == _normal(answer) for right, answer in zip(true, found, strict=True)]
    overlap = [
        _overlap(_normal(right).split(), _normal(answer).split()) for right, answer in zip(true, found, strict=True)
    ]
    return {"exact": float(np.mean(exact)), "f1": float(np.mean(overlap))}


def _overlap(true: list[str], found: list[str]) -> float:
    shared = sum((Counter(true) & Counter(found)).values())
    return 2 * shared / (len(true) + len(found)) if shared else 0.0
