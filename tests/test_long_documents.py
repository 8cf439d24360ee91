"""Labelled texts hidden among other words: what a document holds, what it depends on, and what is refused."""

import argparse

import pytest
from transformers import AutoTokenizer

from headswap.config import compose
from headswap.contracts import DataRequest
from headswap.errors import ConfigError, DataError
from headswap.seeds import Seeds
from headswap.study.plan import other_causes
from headswap.tasks.long_documents import LongDocuments
from tiny_tables import numbered, written

FILLER = [f"word{number}" for number in range(500)]


@pytest.fixture
def files(tmp_path):
    texts = [
        (f"mark{number} {'good' if number % 2 else 'bad'} film", ("neg", "pos")[number % 2]) for number in range(60)
    ]
    filler = [[" ".join(FILLER[start : start + 50])] for start in range(0, 500, 50)]
    return {
        "source": written(tmp_path / "texts.csv", texts),
        "filler": written(tmp_path / "prose.csv", filler, header=("text",)),
    }


def documents(split, seed=0, split_seed=0, **fields):
    task = LongDocuments(text=["text"], **fields)
    rows = task.load(DataRequest(split_seed=split_seed), Seeds(seed)).of(split)
    return dict(zip(rows["id"], (text.split() for text in rows["text"]), strict=True))


def parts(document):
    """Return where the labelled text begins, its words, and the words around it in order."""
    start = next(place for place, word in enumerate(document) if word.startswith("mark"))
    return start, document[start : start + 3], document[:start] + document[start + 3 :]


def test_a_document_has_so_many_words_the_labelled_text_whole_and_a_stretch_of_filler_around_it(files):
    found = documents("train", words=40, **files)
    starts = set()
    for document in found.values():
        start, own, around = parts(document)
        first = FILLER.index(around[0])
        assert len(document) == 40 and own[1:] in (["good", "film"], ["bad", "film"])
        assert around == FILLER[first : first + 37]
        starts.add(start)
    assert min(starts) < 10 and max(starts) > 27  # the text stands anywhere


def test_what_surrounds_test_texts_is_never_read_in_training(files):
    around = {split: {word for each in documents(split, words=40, **files).values() for word in parts(each)[2]}
              for split in ("train", "validation", "test")}  # fmt: skip
    assert (
        max(map(FILLER.index, around["train"])) < 400 <= min(map(FILLER.index, around["test"] | around["validation"]))
    )


def test_a_document_is_the_same_in_runs_of_every_seed_and_its_text_the_same_at_every_length(files):
    assert documents("train", seed=1, words=40, **files) == documents("train", seed=2, words=40, **files)
    short, long = (documents("test", words=words, **files) for words in (20, 80))
    assert {row: parts(text)[1] for row, text in short.items()} == {row: parts(text)[1] for row, text in long.items()}


def test_rows_are_split_by_the_texts_so_that_a_repeated_one_stands_in_one_split(tmp_path, files):
    rows = [(f"mark{number % 30} film here", ("neg", "pos")[number % 2]) for number in range(60)]
    source = written(tmp_path / "twice.csv", rows)
    marks = [
        {parts(text)[1][0] for text in documents(split, words=40, **files | {"source": source}).values()}
        for split in ("train", "validation", "test")
    ]
    assert sum(map(len, marks)) == len(set.union(*marks)) == 30


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"words": 7}, ConfigError, r"^task\.words: must be 8 or more; found 7; raise it"),
        ({"words": 450}, DataError, r"too few words to fill a document; found 400 of the 447"),
        ({"filler_text": "body"}, DataError, r"prose.csv: .*'body'.*task\.filler_text"),
        ({"text": ["text", "other"]}, ConfigError, r"^task\.text: must name one column; found text, other"),
        (
            {"filler": "someone/prose"},
            ConfigError,
            r"^task\.filler: must be a csv, tsv, jsonl or parquet file; found 'someone/prose'",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_by_its_key(files, fields, error, message):
    with pytest.raises(error, match=message):
        LongDocuments(**{"text": ["text"], **files, **fields}).load(DataRequest(), Seeds(0))


def test_a_labelled_text_longer_than_a_document_is_named(tmp_path, files):
    source = written(tmp_path / "long.csv", [*numbered(40), ("a " * 12 + "b", "pos")])
    with pytest.raises(DataError, match=r"fewer than a labelled text has; found 10 for the 13 words of the row"):
        LongDocuments(text=["text"], words=10, **files | {"source": source}).load(DataRequest(), Seeds(0))


def test_a_document_that_does_not_fit_is_refused_with_the_tokens_it_has_and_a_text_to_predict_is_cut(files, tiny_body):
    task, tokenizer = LongDocuments(text=["text"], words=20, **files), AutoTokenizer.from_pretrained(tiny_body)
    rows = task.load(DataRequest(), Seeds(0)).train[:]
    longest = max(len(tokenizer(text)["input_ids"]) for text in rows["text"])
    said = (
        rf"found {longest - 1}, and one of {longest} tokens among those of 20 words; set data.max_length to {longest}"
    )
    with pytest.raises(ConfigError, match=said):
        task.encode(rows, tokenizer, longest - 1)
    assert not any(task.encode(rows, tokenizer, longest)["truncated"])
    assert all(task.encode({"text": rows["text"]}, tokenizer, 8)["truncated"])


def test_other_filler_makes_another_run(tmp_path, files):
    first = LongDocuments(text=["text"], **files).identity()
    other = written(tmp_path / "other.csv", [["else"]], header=("text",))
    second = LongDocuments(text=["text"], **files | {"filler": other}).identity()
    assert len(first) == 2 and len(first.items() & second.items()) == 1


def test_the_study_names_no_cause_besides_the_bodies_and_self_pretraining(files, tiny_body):
    words = [
        "experiment=long_documents", f"task.source={files['source']}", "task.label=label", f"task.filler={files['filler']}",
        "task.words=20", f"body.tokenizer_source={tiny_body}",
    ]  # fmt: skip
    flags = argparse.Namespace(overrides=words, config_dir=[])
    assert other_causes(compose(words), flags) == {}
