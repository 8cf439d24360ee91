"""A tag for each word: what is read, which token answers for which word, what is learned, scored and told."""

import json
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import sklearn.utils.class_weight
import torch
from seqeval.metrics import f1_score
from seqeval.metrics.sequence_labeling import get_entities
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

from conftest import make_tokenizer
from headswap.answers import Observed
from headswap.config import compose
from headswap.contracts import DataRequest, Task
from headswap.encoded import encode_rows
from headswap.errors import ConfigError, DataError
from headswap.records import read_json
from headswap.tasks.token_classification import TokenClassification
from headswap.words import entities, marks_entities, sentence
from tiny_families import FAMILIES
from tiny_runs import ran
from tiny_tables import SEEDS, written
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


def jsonl(path, rows) -> str:
    lines = [json.dumps({"tokens": words, "tags": tags}, ensure_ascii=False) for words, tags in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def tagged(count, tags=("O", "B-x", "I-x")):
    return [
        ([f"w{number}", "b", "c"], [tags[(number + place) % len(tags)] for place in range(3)])
        for number in range(count)
    ]


def loaded(**fields):
    return TokenClassification(**{"tokens": "tokens", "label": "tags", **fields}).load(DataRequest(), SEEDS)


def test_importing_the_plug_imports_nothing_heavy():
    code = (
        "import sys, headswap.tasks.token_classification as plug; "
        "plug.TokenClassification(tokens='a', label='b', source='a.csv');"
        "print([name for name in ('torch', 'transformers', 'datasets', 'pandas', 'numpy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_it_is_a_task_for_heads_over_tokens():
    assert isinstance(TASK, Task)
    assert (TASK.auto_class, TASK.problem) == ("AutoModelForTokenClassification", "token_classification")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tokens": "tags"}, "task.tokens: tokens, label and id must be different columns; found 'tags', 'tags'"),
        ({"tokens": "label"}, "task.tokens: the names id and label are taken; found 'label'"),
        ({"labels": ["O"]}, r"task.labels: must be two different names or more; found \['O'\]"),
        ({"label_subwords": "last"}, "task.label_subwords: unknown choice; found 'last'; choose one of first, all"),
        ({"stride": -1}, "task.stride: must be 0 or more; found -1"),
        ({"class_weights": "even"}, "task.class_weights: must be null, balanced or"),
    ],
)
def test_a_field_that_cannot_stand_is_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        TokenClassification(**{"tokens": "tokens", "label": "tags", "source": "a.jsonl", **fields})


@pytest.mark.parametrize(
    ("row", "fields", "message"),
    [
        ((["a", "b"], ["O"]), {}, r"a.jsonl: not one tag a word \(found 1 tags for 2 words\) in column 'tags'; row 3 \(.* line 3\); give"),
        ((["a", None], ["O", "O"]), {}, "a list with null, or with a list in it in column 'tokens'; row 3"),
        ((["a", "b"], ["O", " "]), {}, "empty tag in column 'tags'; row 3"),
        (([], []), {}, "no list, or an empty one in column 'tokens'; row 3"),
        ((["", " "], ["O", "O"]), {}, "empty text in column 'tokens'; row 3"),
        ((3, ["O"]), {}, "no list, or an empty one in column 'tokens'; row 3"),
        (("['a', 'b']", ["O", "O"]), {}, "no list, or an empty one in column 'tokens'; row 3"),
        ((["a", "b"], ["O", "B-y"]), {"labels": ["O", "B-x", "I-x"]}, "unlisted tag 'B-y'.* in column 'tags'; row 3 .*correct task.labels"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_learned_is_named(row, fields, message, tmp_path):
    rows = tagged(12)
    with pytest.raises(DataError, match=message):
        loaded(source=jsonl(tmp_path / "a.jsonl", [*rows[:2], row, *rows[2:]]), **fields)


def test_tags_that_training_lacks_are_named_with_their_rows_unless_the_user_lists_them(tmp_path):
    train, other = jsonl(tmp_path / "a.jsonl", tagged(20)), jsonl(tmp_path / "b.jsonl", [(["q", "r"], ["O", "B-new"])])
    with pytest.raises(DataError, match=r"test has tags that training lacks; found 'B-new' in 1 rows \(ids 1\); add"):
        loaded(train=train, test=other)
    names = ["O", "B-x", "I-x", "B-new"]
    splits = loaded(train=train, test=other, labels=names)
    assert (splits.labels.names, splits.test["label"][0]) == (tuple(names), [0, 3])
    assert loaded(train=train, test=other, label_map={"B-new": "O"}).test["label"][0] == [2, 2]
    lacking = loaded(train=train, validation=jsonl(tmp_path / "c.jsonl", [(["q"], ["O"])]))
    assert lacking.validation["label"][0] == [2]  # a validation split without some of the tags is fine
    with pytest.raises(DataError, match="the file has tags that training lacks; found 'B-new' in 1 rows"):
        TASK.read(other, lacking.labels)
    with pytest.raises(DataError, match="one tag only; found 'O' at all 48 training words"):
        loaded(source=jsonl(tmp_path / "d.jsonl", tagged(20, ("O", "O"))))


@pytest.mark.parametrize(
    "cells",
    [
        [('["w0", "b", "c"]', '["O", "B-x", "I-x"]'), ("w1 b  c", "B-x I-x O")],
        [("w0 b c", "0 1 2"), ('["w1", "b", "c"]', "[1, 2, 0]")],
    ],
)
def test_csv_cells_hold_json_lists_or_spaced_words_and_tags_by_name_or_number(cells, tmp_path):
    source = written(tmp_path / "a.csv", cells, ("tokens", "tags"))
    task = TokenClassification(tokens="tokens", label="tags", source="a.csv", labels=["O", "B-x", "I-x"])
    rows = task.read(source, SimpleNamespace(names=("O", "B-x", "I-x")))
    assert (list(rows["tokens"]), list(rows["label"])) == ([["w0", "b", "c"], ["w1", "b", "c"]], [[0, 1, 2], [1, 2, 0]])


def test_words_are_counted_by_tag_and_weighed_as_scikit_learn_does(tmp_path):
    source = jsonl(
        tmp_path / "a.jsonl", [([f"w{n}", "b", "c"], ["O", "O", "B-x" if n % 3 else "O"]) for n in range(40)]
    )
    splits = loaded(source=source)
    flat = [splits.labels.names[tag] for tags in splits.train["label"] for tag in tags]
    assert splits.notes["class_counts"]["train"] == {name: flat.count(name) for name in ("B-x", "O")}
    loss = TokenClassification(tokens="tokens", label="tags", source=source, class_weights="balanced").loss(splits)
    expected = sklearn.utils.class_weight.compute_class_weight("balanced", classes=np.array(["B-x", "O"]), y=flat)
    assert loss.class_weights == pytest.approx(list(expected))


def test_damaged_words_are_removed_without_moving_a_tag(tmp_path):
    rows = [(["caf\x80é", "\x81", "c\nd", "ok"], ["O", "B-x", "I-x", "O"]), *tagged(20)]
    source = jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError, match="control or replacement characters in column 'tokens'; row 1"):
        TASK.read(source, SimpleNamespace(names=("O", "B-x", "I-x")))
    task = TokenClassification(tokens="tokens", label="tags", source=source, damaged="remove")
    first = task.read(source, SimpleNamespace(names=("O", "B-x", "I-x")))[0]
    assert (first["tokens"], first["label"]) == (["caf ", " ", "c d", "ok"], [0, 1, 2, 0])


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


@pytest.mark.parametrize(
    ("name", "options"), [("BERT", {}), ("RoBERTa", {"add_prefix_space": True}), ("ModernBERT", None)]
)
def test_tokens_are_those_of_words_given_one_by_one(name, options, tmp_path):
    words = ["The", "film", "'s", "naïve", "plot", ",", "don't", "2024"]
    tokenizer = FAMILIES[name].tokenizer()
    ours = TASK.encode({"tokens": [words]}, tokenizer, 200)
    tokenizer.save_pretrained(tmp_path)
    if options is None:  # a byte-level tokenizer without a class of its own joins such words without a space
        assert ours["input_ids"] == tokenizer([" ".join(words)])["input_ids"]
        assert ours["input_ids"] != tokenizer([words], is_split_into_words=True)["input_ids"]
        return
    plain = type(tokenizer).from_pretrained(tmp_path, **options)([words], is_split_into_words=True)
    ids, first = plain["input_ids"][0], {}
    for token, word in enumerate(plain.word_ids(0)):
        if word is not None and not plain.token_to_chars(token).start < plain.word_to_chars(word).start:
            first.setdefault(word, token)
    back = 0 if options == {} else len(ids) - len(ours["input_ids"][0])  # a first word after a space has other tokens
    assert ours["input_ids"][0][-8:] == ids[-8:]
    assert [token for token, number in enumerate(ours["target_word"][0]) if number][2:] == [
        token - back for token in list(plain_starts(plain, len(words)))[2:]
    ]


def plain_starts(encoded, count):
    """Return the first token of each word that holds a character of it."""
    for word in range(count):
        tokens = [token for token, number in enumerate(encoded.word_ids(0)) if number == word]
        yield next(
            token for token in tokens if encoded.encodings[0].offsets[token][1] > encoded.encodings[0].offsets[token][0]
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


@pytest.mark.parametrize(("value", "message"), [
    (3, "neither words nor a text; found 3; give a list of str"), (["a", 1], "neither words nor a text; found"),
    ([" "], "no words; found"), ("", "empty text; found"), ("[]", "no words; found"),
])  # fmt: skip
def test_what_is_neither_words_nor_a_text_is_told(value, message):
    with pytest.raises(DataError, match=message):
        TASK.cell("tokens", value)


def test_a_hubs_numbered_tags_come_by_name(monkeypatch):
    names = datasets.ClassLabel(names=["O", "B-x"])
    kinds = {"tokens": datasets.List(datasets.Value("string")), "tags": datasets.List(names)}
    rows = {"tokens": [[f"w{number}", "b"] for number in range(30)], "tags": [[0, 1]] * 30}
    made = datasets.Dataset.from_dict(rows, datasets.Features(kinds))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: {"train": made})
    splits = loaded(source="owner/set")
    assert (splits.labels.names, splits.train["label"][0]) == (("B-x", "O"), [1, 0])


def sentences(count, kinds, seed=0):
    """Return sentences in which one word's own spelling says its tag."""
    dice, rows = random.Random(seed), []
    for number in range(count):
        words = dice.choices(["the", "plot", "was", "very", "not", "but", "it"], k=dice.randint(3, 12))
        kind, word = kinds[number % len(kinds)]
        place = dice.randrange(len(words))
        rows.append(
            (
                [*words[:place], word, "film", *words[place:]],
                ["O"] * place + [f"B-{kind}", f"I-{kind}"] + ["O"] * (len(words) - place),
            )
        )
    return rows


def lines_of(source):
    return [json.loads(line) for line in Path(source).read_text(encoding="utf-8").splitlines()]


def words_of(source, root, *overrides):
    return compose(
        [
            "task=token_classification", f"task.source={source}", "task.tokens=tokens", "task.label=tags", "task.stride=4",
            "data.max_length=12", "train.max_steps=60", "train.batch_size=8", "train.evaluations=2", "task.validation_share=0.2",
            "train.learning_rate=1e-2", "train.precision=fp32", "hardware=cpu", "hardware.threads=1", f"output.root={root}", *overrides,
        ]
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_body):
    root = tmp_path_factory.mktemp("runs")
    source = jsonl(root / "two.jsonl", sentences(60, [("good", "great"), ("bad", "dull")]))
    ended = ran(root / "run", words_of(source, root, "body=transformer", f"body.source={tiny_body}"))
    assert ended["kind"] == "finished", ended
    return root / "run", source


def rows_of(folder, split="test"):
    return [row for row in pq.read_table(folder / "predictions.parquet").to_pylist() if row["split"] == split]


def test_a_run_learns_words_and_writes_a_tag_for_each(finished):
    folder, source = finished
    result = read_json(folder / "result.json")
    assert (result["primary"], result["problem"]) == ("entity_f1", "token_classification")
    names, words = result["labels"], lines_of(source)
    test = rows_of(folder)
    for row in test:
        assert [names[tag] for tag in row["label"]] == words[int(row["id"]) - 1]["tags"]
        assert len(row["prediction"]) == len(row["label"]) and len(row["logits"]) == len(names) * len(row["label"])
    true, found = ([[names[tag] for tag in row[side]] for row in test] for side in ("label", "prediction"))
    assert result["scores"]["test"]["entity_f1"] == pytest.approx(f1_score(true, found))
    assert f1_score(true, found) > 0.8
    assert result["calibration"] == {"tag_of_words_without_tokens": "O", "validation_words_without_tokens": 0}


def test_plain_transformers_and_its_pipeline_give_the_same_tags(finished):
    folder, source = finished
    words = [line["tokens"] for line in lines_of(source)]
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = AutoModelForTokenClassification.from_pretrained(folder / "model").eval()
    names = read_json(folder / "result.json")["labels"]
    tagger = pipeline("token-classification", model=str(folder / "model"), ignore_labels=[])
    short = [row for row in rows_of(folder) + rows_of(folder, "validation") if len(row["label"]) <= 10]  # one window
    assert len(short) >= 5
    for row in short:
        sentence_words = words[int(row["id"]) - 1]
        batch = tokenizer([sentence_words], is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            logits = model(**batch).logits[0]
        first = [batch.word_to_tokens(0, number).start for number in range(len(sentence_words))]
        own = np.asarray(row["logits"], dtype=np.float32).reshape(-1, len(names))
        np.testing.assert_allclose(own, logits[first].numpy(), atol=1e-5)
        starts = dict(
            zip(np.cumsum([0, *(len(word) + 1 for word in sentence_words)]).tolist(), row["prediction"], strict=False)
        )
        found = {each["start"]: each["entity"] for each in tagger(" ".join(sentence_words))}
        assert {start: found[start] for start in starts} == {start: names[tag] for start, tag in starts.items()}


def test_two_sets_of_tags_become_three_and_the_shared_ones_keep_their_rows(finished, tmp_path):
    folder, _ = finished
    source = jsonl(tmp_path / "three.jsonl", sentences(60, [("good", "great"), ("bad", "dull"), ("mild", "so")], 1))
    config = words_of(source, tmp_path, "body=from_run", f"run='{folder}'", "head=by_label", "train.max_steps=1")
    ended = ran(tmp_path / "run", config)
    assert ended["kind"] == "finished", ended
    head = {
        entry["name"]: entry
        for entry in read_json(tmp_path / "run" / "ledger.json")["entries"]
        if entry["part"] == "head"
    }
    old, new = ["B-bad", "B-good", "I-bad", "I-good", "O"], read_json(tmp_path / "run" / "result.json")["labels"]
    assert new == ["B-bad", "B-good", "B-mild", "I-bad", "I-good", "I-mild", "O"]
    pairs = [[row, new.index(name)] for row, name in enumerate(old)]
    assert {name: entry["fate"] for name, entry in head.items()} == {
        "classifier.weight": "rows copied", "classifier.bias": "rows copied",
    }  # fmt: skip
    assert all([list(pair) for pair in entry["rows"]] == pairs for entry in head.values())
