"""Small labelled tables on disk, and the task loaded on them."""

import csv
from types import SimpleNamespace

import pytest

from headswap.contracts import DataRequest, Splits
from headswap.errors import DataError
from headswap.seeds import Seeds
from headswap.tasks.text_classification import TextClassification

SEEDS = Seeds(3)


def output(logits):
    """Return what a model gives, as far as losses read it."""
    return SimpleNamespace(logits=logits)


def written(path, rows, header=("text", "label")):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def numbered(count, labels=("neg", "pos"), word="text"):
    return [(f"{word} {number}", labels[number % len(labels)]) for number in range(count)]


def loaded(request=None, seeds=SEEDS, **fields) -> Splits:
    return TextClassification(**{"text": ["text"], **fields}).load(request or DataRequest(), seeds)


def fault(**fields) -> str:
    with pytest.raises(DataError) as caught:
        loaded(**fields)
    return str(caught.value)
