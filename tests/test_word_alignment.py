"""Words and tokens: which token answers for which word, in windows of a long sentence, and what is made of it."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from seqeval.metrics.sequence_labeling import get_entities
from transformers import RobertaTokenizer

from conftest import make_tokenizer
from headswap.answers import Observed
from headswap.encoded import encode_rows
from headswap.errors import ConfigError
from headswap.tasks.token_classification import TokenClassification
from headswap.words import entities, marks_entities, sentence
from tiny_families import FAMILIES
from tiny_tokenizer import WORDS, tiny_tokenizer

TASK = TokenClassification(tokens="tokens", label="tags", source="a.jsonl")
ODD = [
    "the",
    "film",
    "'s",
    "naïve",
    "☃",
    "\u200b",
    "\x00",
    "",
    "2024",
    "cafés",
    ",",
    "don't",
    "👩‍👩‍👧",
    "x\u00a0y",
    "long",
]


def test_labels_stand_on_the_first_token_of_a_word_or_on_all():
    rows = {"id": ["1"], "tokens": [["film", "xyz", "so"]], "label": [[2, 1, 0]]}
    first = TASK.encode(rows, make_tokenizer(), 16)  # [CLS] film x ##y ##z so [SEP]
    assert first["labels"] == [[-100, 2, 1, -100, -100, 0, -100]]
    assert first["target_word"] == [[0, 1, 2, 0, 0, 3, 0]]
    every = TokenClassification(tokens="tokens", label="tags", source="a", label_subwords="all")
    assert every.encode(rows, make_tokenizer(), 16)["labels"] == [[-100, 2, 1, 1, 1, 0, -100]]
    assert "labels" not in TASK.encode({"tokens": ["film xyz so"]}, make_tokenizer(), 16)


@pytest.mark.parametrize("name", FAMILIES)
def test_words_are_found_again_whatever_the_tokenizer(name):
    tokenizer = FAMILIES[name].tokenizer()
    found = TASK.encode({"tokens": [ODD, ODD[::-1]]}, tokenizer, 200)
    for row, words in enumerate([ODD, ODD[::-1]]):
        whole = tokenizer(" ".join(words), truncation=False)
        assert found["input_ids"][row] == whole["input_ids"]
        start, expected = 0, {}
        for number, word in enumerate(words):
            covering = [whole.char_to_token(place) for place in range(start, start + len(word))]
            expected[number + 1] = next((token for token in covering if token is not None), None)
            start += len(word) + 1
        answered = {number: token for token, number in enumerate(found["target_word"][row]) if number}
        assert answered == {number: token for number, token in expected.items() if token is not None}


def test_words_are_cut_as_a_list_of_words_is_and_answered_by_word_ids_first_tokens():
    words, tokenizer = ["The", "film", "'s", "naïve", "plot", ",", "don't", "2024"], FAMILIES["BERT"].tokenizer()
    found = TASK.encode({"tokens": [words]}, tokenizer, 64)
    plain = tokenizer([words], is_split_into_words=True)
    assert found["input_ids"] == plain["input_ids"]
    expected = [plain.word_to_tokens(0, number).start for number in range(len(words))]
    assert [token for token, number in enumerate(found["target_word"][0]) if number] == expected


def test_byte_level_tokenizers_are_given_the_space_before_a_word(tmp_path):
    words, tokenizer = ["The", "film", "naïve", "plot", "2024"], FAMILIES["RoBERTa"].tokenizer()
    tokenizer.save_pretrained(tmp_path)
    spaced = RobertaTokenizer.from_pretrained(tmp_path, add_prefix_space=True)
    rest = spaced(words[1:], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    assert TASK.encode({"tokens": [words]}, tokenizer, 64)["input_ids"][0][-1 - len(rest) : -1] == rest
    tokenizer = FAMILIES["ModernBERT"].tokenizer()  # transformers joins a list of words without spaces here, silently
    found = TASK.encode({"tokens": [words]}, tokenizer, 64)["input_ids"]
    assert (
        found == tokenizer([" ".join(words)])["input_ids"] != tokenizer([words], is_split_into_words=True)["input_ids"]
    )


def test_a_long_sentence_is_answered_whole_each_word_where_it_has_most_context():
    task = TokenClassification(tokens="tokens", label="tags", source="a", stride=2)
    words = list("abcdefgh")  # windows abcd, cdef, efgh between [CLS] and [SEP]
    found = task.encode({"tokens": [words, ["good"]], "label": [list(range(8)), [9]]}, tiny_tokenizer(), 6)
    assert [[WORDS[token] for token in row[1:-1]] for row in found["input_ids"]] == [
        list("abcd"), list("cdef"), list("efgh"), ["good"],
    ]  # fmt: skip
    assert found["example"] == [0, 0, 0, 1]
    assert [row[1:-1] for row in found["target_word"]] == [[1, 2, 3, 0], [0, 4, 5, 0], [0, 6, 7, 8], [1]]
    assert [row[1:-1] for row in found["labels"]] == [[0, 1, 2, -100], [-100, 3, 4, -100], [-100, 5, 6, 7], [9]]
    assert found["truncated"] == [False] * 4


@pytest.mark.parametrize("name", ["BERT", "RoBERTa", "DeBERTa-v2", "GPT-2"])
@pytest.mark.parametrize("subwords", ["first", "all"])
def test_in_windows_of_any_size_each_word_is_answered_by_its_first_token_once(name, subwords):
    tokenizer, dice = FAMILIES[name].tokenizer(), random.Random(7)
    rows = [dice.choices(ODD, k=dice.randint(1, 30)) for _ in range(20)]
    tags = [[number % 5 for number in range(len(row))] for row in rows]
    wide = TASK.encode({"tokens": rows}, tokenizer, 2000)
    for length, stride in ((8, 0), (9, 3), (16, 100)):
        task = TokenClassification(tokens="tokens", label="t", source="a", stride=stride, label_subwords=subwords)
        found = task.encode({"tokens": rows, "label": tags}, tokenizer, length)
        assert max(map(len, found["input_ids"])) <= length
        for example in range(len(rows)):
            answers = [
                (number, token, tag)
                for feature, owner in enumerate(found["example"]) if owner == example
                for number, token, tag in zip(*(found[key][feature] for key in ("target_word", "input_ids", "labels")), strict=True)
                if number
            ]  # fmt: skip
            expected = [
                (number, token) for number, token in zip(wide["target_word"][example], wide["input_ids"][example], strict=True) if number
            ]  # fmt: skip
            assert sorted(answer[:2] for answer in answers) == expected
            assert all(tag == tags[example][number - 1] for number, _, tag in answers)


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(
        ConfigError, match=r"body: token classification needs a tokenizer that knows .* found SimpleNamespace"
    ):
        TASK.encode({"tokens": [["a"]]}, SimpleNamespace(is_fast=False), 8)


def observed(rows, tokenizer, names, max_length=8, stride=2, seed=0):
    """Return a task with random logits of a feature's tokens, passed through observe() in padded batches of two."""
    task = TokenClassification(tokens="tokens", label="tags", source="a", stride=stride)
    encoded = encode_rows(rows, task, tokenizer, max_length)
    generator = torch.Generator().manual_seed(seed)
    drawn, outputs = [], []
    for start in range(0, len(encoded), 2):
        batch = encoded.collate(np.arange(start, min(start + 2, len(encoded))))
        logits = torch.randn(*batch["input_ids"].shape, len(names), generator=generator)
        outputs += task.observe(None, batch, SimpleNamespace(logits=logits))
        drawn += [
            (ids[mask.bool()].tolist(), each[mask.bool()])
            for ids, mask, each in zip(batch["input_ids"], batch["attention_mask"], logits, strict=True)
        ]
    labels = SimpleNamespace(names=names, count=len(names))
    return task, Observed(outputs, encoded, rows, tokenizer, labels), drawn


@pytest.mark.parametrize("side", ["right", "left"])
def test_answers_are_the_best_tags_of_the_answering_tokens(side):
    tokenizer = tiny_tokenizer(padding_side=side)
    rows = {"id": ["1", "2", "3"], "tokens": [list("abcdefgh"), ["\x01", "b"], ["c"]], "label": [[0] * 8, [2, 1], [1]]}
    task, seen, drawn = observed(rows, tokenizer, ("B-x", "I-x", "O"), 6)
    answers = task.answers(seen)
    where = {
        0: [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 2), (2, 3), (2, 4)],
        2: [(4, 1)],
    }  # (feature, token) by hand
    for example, places in where.items():
        expected = torch.stack([drawn[feature][1][token] for feature, token in places])
        assert answers.predictions[example].tolist() == expected.argmax(-1).tolist()
        assert np.array_equal(answers.outputs[example], expected.numpy())
    assert [row.tolist() for row in answers.references] == rows["label"]


def test_a_word_without_a_token_is_tagged_as_outside_and_counted():
    rows = {"id": ["1"], "tokens": [["film", "\x00", "so"]], "label": [[0, 1, 1]]}
    task, seen, drawn = observed(rows, make_tokenizer(), ("B-x", "O", "I-x"))
    (predicted,) = task.answers(seen).predictions
    assert predicted.tolist() == [int(drawn[0][1][1].argmax()), 1, int(drawn[0][1][2].argmax())]
    assert task.calibrate(seen) == {"tag_of_words_without_tokens": "O", "validation_words_without_tokens": 1}
    task, seen, _ = observed(rows, make_tokenizer(), ("ADJ", "NOUN", "X"))
    settled = task.calibrate(seen)
    assert settled["tag_of_words_without_tokens"] == "NOUN"
    told = Observed(seen.outputs, seen.features, rows, None, seen.labels, settled)
    (result,) = task.results(told)
    assert (result.tags[1], result.scores[1], result.entities) == ("NOUN", pytest.approx(1 / 3), ())


def test_entities_are_those_of_seqeval():
    dice = random.Random(1)
    for names in (["O", "B-a", "I-a", "B-b-c", "I-b-c"], ["O", "B-a", "I-a", "E-a", "S-a", "B-b", "I-b", "E-b", "S-b"]):
        for _ in range(300):
            tags = dice.choices(names, k=dice.randint(1, 9))
            of = sentence([f"w{number}" for number in range(len(tags))])
            found = [(each.label, each.text.split()) for each in entities(of, tags, [0.5] * len(tags))]
            assert found == [(kind, list(of.words[first : last + 1])) for kind, first, last in get_entities(tags)]


def test_tags_that_are_no_scheme_mark_no_entities():
    assert marks_entities(["O", "B-x", "I-x"]) and marks_entities(["B-x", "O", "L-x", "U-x"])
    assert not marks_entities(["NOUN", "O", "X"]) and not marks_entities(["B-x", "I-x"]) and not marks_entities(["O"])


def test_results_tell_words_tags_and_the_characters_of_entities():
    text, names = "Good film, so bad", ("O", "B-x", "I-x")
    given = [text, ["good", "film"], '["good", "film"]']
    rows = {"id": ["1", "2", "3"], "tokens": [TASK.cell("tokens", value) for value in given]}
    task, seen, _ = observed(rows, make_tokenizer(), names, 16)
    logits = [np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]] * 9, *[np.eye(3, dtype=np.float32)[[1, 2]] * 9] * 2]
    plain, listed, spelled = task.results(Observed(logits, seen.features, rows, None, seen.labels))
    assert plain.words == ("Good", "film", ",", "so", "bad") and plain.tags == ("O", "B-x", "I-x", "O", "B-x")
    assert [(each.text, each.start, each.end, each.label) for each in plain.entities] == [
        ("film,", 5, 10, "x"),
        ("bad", 14, 17, "x"),
    ]
    assert text[5:10] == "film,"
    share = float(np.exp(9) / (np.exp(9) + 2))
    assert plain.scores == pytest.approx([share] * 5) and plain.entities[0].score == pytest.approx(share)
    assert listed == spelled and [(each.text, each.start, each.end) for each in listed.entities] == [
        ("good film", 0, 9)
    ]
    assert listed.cells()["entities"] == [
        {"text": "good film", "start": 0, "end": 9, "label": "x", "score": pytest.approx(share)}
    ]
    assert str(listed) == "good/B-x film/I-x"
