"""A tag for each word: what is read and refused, and a whole run that plain transformers reads."""

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
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

from headswap.config import compose
from headswap.contracts import DataRequest, Task
from headswap.errors import ConfigError, DataError
from headswap.records import read_json
from headswap.tasks.token_classification import TokenClassification
from tiny_runs import ran
from tiny_tables import SEEDS, written

TASK = TokenClassification(tokens="tokens", label="tags", source="a.jsonl")


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
    assert f1_score(true, found) > 0.5  # nothing but O has 0
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
