"""Any number of labels a text: what is read, learned, answered, and where thresholds lie."""

import json
import random
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import f1_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

import headswap
from headswap.answers import Labels, Observed
from headswap.config import build_plugs, compose
from headswap.contracts import DataRequest, Task
from headswap.encoded import encode_rows
from headswap.errors import ConfigError, DataError
from headswap.records import read_json
from headswap.tasks.multi_label import MultiLabel, best_threshold
from tiny_runs import ran
from tiny_tables import SEEDS, written
from tiny_tokenizer import tiny_tokenizer

FIELDS = {"text": ["text"], "label": ["labels"], "source": "a.jsonl"}
NAMES = Labels(("joy", "love", "fear"), "multi_label_classification")
WORD_OF = {"good": "praise", "bad": "blame", "film": "film", "plot": "plot"}


def jsonl(path, rows) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def posts(count, **changes):
    """Return rows of which every third has no label, and the others `a`, or `a` and `b`."""
    return [{"text": f"t {n}", "labels": [[], ["a"], ["b", "a"]][n % 3], **changes} for n in range(count)]


def loaded(request=None, **fields):
    return MultiLabel(**{**FIELDS, **fields}).load(request or DataRequest(), SEEDS)


def by_text(splits):
    return {row["text"]: row["label"] for split in ("train", "validation", "test") for row in splits.of(split)}


def observed(logits, truth=None, calibration=None):
    rows = {} if truth is None else {"label": truth}
    return Observed(list(np.asarray(logits, np.float32)), None, rows, None, NAMES, calibration or {})


def test_importing_the_plug_imports_nothing_heavy():
    code = (
        "import sys, headswap.tasks.multi_label as plug; plug.MultiLabel(text=['a'], label=['b'], source='a.csv');"
        "print([name for name in ('torch', 'transformers', 'datasets', 'pandas', 'numpy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label": []}, "task.label: must name one column of lists, or a column a label; found none"),
        ({"label": ["text"]}, "task.text: text, label and id must be different columns"),
        ({"labels": ["a", "a"]}, "task.labels: must be different names"),
        ({"label": ["a", "b"], "labels": ["a", "b"]}, "task.labels: belong to one column of lists; found 2 columns"),
        ({"separator": ""}, "task.separator: must be text between labels; found ''"),
        ({"class_weights": "even"}, "task.class_weights: must be null, balanced or"),
        ({"focal_gamma": -1.0}, "task.focal_gamma: must be null, or 0 or more"),
        ({"thresholds": 1.0}, r"task.thresholds: must be tuned, or one number in \(0, 1\); found 1.0"),
        ({"thresholds": "best"}, "task.thresholds: must be tuned"),
    ],
)
def test_a_field_that_cannot_stand_is_named(fields, message):
    assert isinstance(MultiLabel(**FIELDS), Task)
    with pytest.raises(ConfigError, match=message):
        MultiLabel(**{**FIELDS, **fields})


def test_lists_json_texts_separated_texts_and_columns_say_the_same(tmp_path):
    rows = posts(30)
    lists = loaded(source=jsonl(tmp_path / "a.jsonl", rows))
    cells = [(row["text"], json.dumps(row["labels"])) for row in rows]
    spelled = loaded(source=written(tmp_path / "b.csv", cells, ("text", "labels")))
    cells = [(row["text"], "; ".join(row["labels"])) for row in rows]
    apart = loaded(source=written(tmp_path / "c.csv", cells, ("text", "labels")), separator=";")
    cells = [(row["text"], int("a" in row["labels"]), "b" in row["labels"]) for row in rows]
    flags = loaded(source=written(tmp_path / "d.csv", cells, ("text", "a", "b")), label=["a", "b"])
    assert lists.labels == Labels(("a", "b"), "multi_label_classification")
    assert lists.fingerprint == spelled.fingerprint == apart.fingerprint == flags.fingerprint
    assert by_text(lists) == {row["text"]: [float(name in row["labels"]) for name in "ab"] for row in rows}
    counts = lists.notes["class_counts"]
    assert {name: sum(counts[split][name] for split in counts) for name in "ab"} == {"a": 20, "b": 10}
    assert sum(lists.notes["rows_without_label"].values()) == 10


def test_numbers_count_the_listed_names_and_raw_values_are_mapped(tmp_path):
    source = jsonl(tmp_path / "a.jsonl", [{"text": f"t {n}", "labels": [n % 3, "2"]} for n in range(30)])
    assert loaded(source=source).labels.names == ("0", "1", "2")
    listed = loaded(source=source, labels=["joy", "love", "fear"])
    mapped = loaded(source=source, label_map={"0": "joy", "1": "love", "2": "fear"})
    assert (listed.labels.names, mapped.labels.names) == (("joy", "love", "fear"), ("fear", "joy", "love"))
    assert by_text(listed) == {f"t {n}": [float(n % 3 == 0), float(n % 3 == 1), 1.0] for n in range(30)}
    assert by_text(mapped)["t 0"] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("row", "fields", "message"),
    [
        ({"labels": None}, {}, r"no list in column 'labels'; row 3 \(the first at line 3\); write a list"),
        ({"labels": 1}, {}, "no list in column 'labels'; row 3"),
        ({"labels": "['a', 'b']"}, {}, "no list in column 'labels'; row 3"),
        ({"labels": ["a", None]}, {}, "a list with an empty label, with null or with a list in it in column 'labels'; row 3"),
        ({"labels": "a,,b"}, {}, "a list with an empty label"),
        ({"labels": ["a", "bb"]}, {"labels": ["a", "b"]}, r"unlisted label 'bb', did you mean 'b'\?.*row 3 .*known: a, b|unlisted label 'bb'.*row 3"),
        ({"labels": [7]}, {"labels": ["a", "b"]}, "unlisted label '7'"),
        ({"text": " "}, {}, "empty text in column 'text'; row 3"),
        ({}, {"labels": ["a", "b", "rare"]}, "task.labels: no training row has the label 'rare'; found a, b in .*leave it out"),
        ({}, {"class_weights": {"a": 1.0}}, "task.class_weights: must name every label; found a; the labels are a, b"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_learned_is_named(row, fields, message, tmp_path):
    rows = posts(12)
    rows[2] |= row
    with pytest.raises(DataError, match=message):
        loaded(source=jsonl(tmp_path / "a.jsonl", rows), **fields)


def test_flags_are_0_or_1_and_labels_are_somewhere(tmp_path):
    cells = [("one", 0, 1), ("two", 2, 1), ("three", "", 0)]
    source = written(tmp_path / "a.csv", cells, ("text", "a", "b"))
    with pytest.raises(DataError, match=r"neither 0 nor 1 in column 'a'; rows 2, 3 \(the first at line 3\)"):
        loaded(source=source, label=["a", "b"])
    with pytest.raises(DataError, match="nothing to learn; found no label in any of 16 training rows; correct"):
        loaded(source=jsonl(tmp_path / "b.jsonl", posts(20, labels=[])))


def test_a_split_may_lack_a_label_but_not_have_one_that_training_lacks(tmp_path):
    train = jsonl(tmp_path / "train.jsonl", posts(30))
    few = jsonl(tmp_path / "few.jsonl", [{"text": "new", "labels": ["b"]}])
    odd = jsonl(tmp_path / "odd.jsonl", [{"text": "new", "labels": ["b"]}, {"text": "newer", "labels": ["odd", "a"]}])
    splits = loaded(source=None, train=train, test=few)
    assert splits.notes["class_counts"]["test"] == {"a": 0, "b": 1}
    message = r"odd.jsonl: test has labels that training lacks; found 'odd' in 1 rows \(ids 2\); add training rows"
    with pytest.raises(DataError, match=message):
        loaded(source=None, train=train, test=odd)
    task = MultiLabel(**FIELDS)
    assert list(task.read(few, Labels(("b", "a")))["label"]) == [[1.0, 0.0]]
    with pytest.raises(DataError, match="the file has labels that training lacks; found 'odd'"):
        task.read(odd, Labels(("b", "a")))


def test_splits_and_subsets_keep_rare_labels_in_training(tmp_path):
    dice = random.Random(0)
    rows = [{"text": f"t {n}", "labels": sorted(dice.sample("abcdefgh", dice.randint(0, 4)))} for n in range(200)]
    rows[17]["labels"], rows[90]["labels"] = ["once", "a"], ["a", "c", "twice"]
    rows[91]["labels"] = ["twice"]
    source = jsonl(tmp_path / "a.jsonl", rows)
    whole, part = loaded(source=source), loaded(DataRequest(train_rows=12, validation_rows=12), source=source)
    assert set(whole.labels.names) == {*"abcdefgh", "once", "twice"}
    assert all(whole.notes["class_counts"]["train"].values())
    assert part.notes["class_counts"]["train"]["once"] == 1
    assert set(part.train["text"]) <= set(whole.train["text"])
    with pytest.raises(DataError, match=r"data.train_rows: too few rows for"):
        loaded(DataRequest(train_rows=3), source=source)


def test_repeats_count_as_conflicts_where_their_sets_differ(tmp_path):
    train = jsonl(tmp_path / "train.jsonl", [*posts(30), {"text": "T 2", "labels": ["a", "b"]}])
    test = jsonl(tmp_path / "test.jsonl", [{"text": "t 1", "labels": ["a"]}, {"text": "t 4", "labels": []}])
    splits = loaded(source=None, train=train, test=test)
    assert splits.notes["texts_with_conflicting_labels"] == 1
    assert splits.notes["rows_dropped_as_repeats"]["train"] == 3


def test_features_have_a_float_a_label_and_none_without_targets():
    task, tokenizer = MultiLabel(**FIELDS), tiny_tokenizer()
    rows = {"id": ["1", "2"], "text": ["a b c", "good"], "label": [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]}
    batch = encode_rows(rows, task, tokenizer, 16).collate(np.array([1, 0]))
    assert batch["labels"].dtype == torch.float32
    assert batch["labels"].tolist() == [[0.0, 0.0, 0.0], [1.0, 0.0, 1.0]]
    assert "labels" not in task.encode({"text": ["a"]}, tokenizer, 16)


@pytest.mark.parametrize("seed", range(20))
def test_thresholds_have_the_best_f1_of_all(seed):
    dice = np.random.default_rng(seed)
    scores = dice.choice(dice.random(dice.integers(1, 30)), 30).round(dice.integers(1, 6))
    present = dice.random(30) < dice.choice([0.05, 0.3, 0.9])
    found = best_threshold(scores, present)
    cuts = [0.5, *scores]
    best = max(f1_score(present, scores >= cut, zero_division=0) for cut in cuts)
    assert f1_score(present, scores >= found, zero_division=0) == pytest.approx(best, abs=1e-15)
    around = np.unique([*scores, 0.0])
    assert found in [0.0, 0.5, *((around[1:] + around[:-1]) / 2)]
    assert found == 0.5 or f1_score(present, scores >= 0.5, zero_division=0) < best


def test_thresholds_done_by_hand():
    present = np.array([True, False, True, False])
    assert best_threshold(np.array([0.4, 0.1, 0.2, 0.15]), present) == pytest.approx((0.2 + 0.15) / 2)
    assert best_threshold(np.array([0.9, 0.8, 0.85, 0.6]), present) == pytest.approx((0.85 + 0.8) / 2)
    assert best_threshold(np.array([0.9, 0.1, 0.6, 0.2]), present) == 0.5
    assert best_threshold(np.array([0.3, 0.3, 0.3, 0.3]), present) == 0.15
    assert best_threshold(np.array([0.3, 0.9]), np.array([False, False])) == 0.5


def test_answers_reach_the_threshold_of_their_label():
    task, logits = MultiLabel(**FIELDS), [[0.0, -1.0, 3.0], [-4.0, -0.5, -3.0]]
    truth = [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    plain = task.answers(observed(logits, truth))
    assert plain.predictions.tolist() == [[True, False, True], [False, False, False]]
    assert plain.references.tolist() == [[True, False, True], [False, True, False]]
    settled = {"thresholds": {"joy": 0.6, "love": 0.3, "fear": 0.01}}
    tuned = task.answers(observed(logits, truth, settled))
    assert tuned.predictions.tolist() == [[False, False, True], [False, True, True]]
    first, second = task.results(observed(logits, calibration=settled))
    assert (first.labels, second.labels) == (("fear",), ("love", "fear"))
    assert first.scores == pytest.approx(
        dict(zip(NAMES.names, torch.tensor(logits[0]).sigmoid().tolist(), strict=True))
    )
    fixed = MultiLabel(**FIELDS, thresholds=0.02)
    assert fixed.results(observed(logits, calibration=settled))[1].labels == ("love", "fear")
    assert fixed.calibrate(observed(logits, truth)) == {"thresholds": dict.fromkeys(NAMES.names, 0.02)}


def test_thresholds_are_settled_label_by_label():
    dice = np.random.default_rng(0)
    logits, truth = dice.normal(size=(40, 3)).astype(np.float32), dice.random((40, 3)) < 0.3
    truth[:, 2] = False
    task = MultiLabel(**FIELDS)
    settled = json.loads(json.dumps(task.calibrate(observed(logits, truth.tolist()))))
    assert settled["thresholds"]["fear"] == 0.5
    given = task.answers(observed(logits, truth.tolist(), settled)).predictions
    for label in (0, 1):
        best = max(f1_score(truth[:, label], logits[:, label] >= cut) for cut in logits[:, label])
        assert f1_score(truth[:, label], given[:, label]) == pytest.approx(best)


def test_the_option_brings_its_own_metrics():
    given = ["task=multi_label", "task.source=a.csv", "task.text=[a]", "task.label=[b]", "task.thresholds=0.4"]
    plugs = build_plugs(compose(given))
    assert plugs.metrics[0].name == "multi_label_macro_f1" and len(plugs.metrics) == 3
    assert plugs.task.thresholds == 0.4


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_body):
    """Return the folder of a run that learned which words a text holds, and its labels' names."""
    root = tmp_path_factory.mktemp("multi_label")
    dice, texts = random.Random(0), set()
    while len(texts) < 200:
        texts.add(" ".join(dice.choices([*WORD_OF, "the", "a", "was", "very"], k=dice.randint(3, 8))))
    rows = [
        {"text": text, "labels": [WORD_OF[word] for word in WORD_OF if word in text.split()]} for text in sorted(texts)
    ]
    config = compose([
        "task=multi_label", f"task.source={jsonl(root / 'a.jsonl', rows)}", "task.text=[text]", "task.label=[labels]",
        "task.validation_share=0.2", "task.test_share=0.2", "task.class_weights=balanced", "task.focal_gamma=1.0",
        "body=transformer", f"body.source={tiny_body}", "data.max_length=32", "train.max_steps=60",
        "train.batch_size=16", "train.evaluations=2", "train.learning_rate=1e-2", "train.precision=fp32", "hardware=cpu",
        "hardware.threads=1", f"output.root={root}", "name=tiny",
    ])  # fmt: skip
    folder = root / "run"
    ran(folder, config)
    return folder


def test_a_run_learns_labels_and_writes_them_down(finished):
    result = read_json(finished / "result.json")
    names = sorted(WORD_OF.values())
    assert (result["labels"], sorted(result["calibration"]["thresholds"])) == (names, names)
    rows = pq.read_table(finished / "predictions.parquet").to_pylist()
    truth, given = (np.array([row[name] for row in rows if row["split"] == "test"]) for name in ("label", "prediction"))
    assert result["scores"]["test"]["multi_label_micro_f1"] == pytest.approx(f1_score(truth, given, average="micro"))
    everything = f1_score(truth, np.ones_like(truth), average="micro")
    assert result["scores"]["test"]["multi_label_micro_f1"] > everything + 0.03
    assert result["scores"]["test"]["multi_label_macro_f1"] == pytest.approx(f1_score(truth, given, average="macro"))


def test_plain_transformers_and_its_pipeline_agree_with_the_run(finished, tmp_path):
    texts, model = ["the film was good", "very bad plot", "the a"], finished / "model"
    thresholds = read_json(finished / "result.json")["calibration"]["thresholds"]
    results = headswap.load(finished)(texts)
    plain, tokenizer = AutoModelForSequenceClassification.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    with torch.inference_mode():
        chances = plain(**tokenizer(texts, padding=True, return_tensors="pt")).logits.sigmoid().tolist()
    ask = pipeline("text-classification", model=str(model), top_k=None, device="cpu")
    for result, row, said in zip(results, chances, ask(texts), strict=True):
        by_hand = dict(zip(plain.config.id2label.values(), row, strict=True))
        assert result.scores == pytest.approx(by_hand, abs=1e-5)
        assert {each["label"]: each["score"] for each in said} == pytest.approx(by_hand, abs=1e-5)
        assert result.labels == tuple(name for name, chance in by_hand.items() if chance >= thresholds[name])
    alone = headswap.load(shutil.copytree(model, tmp_path / "alone"))(texts)
    assert [each.labels for each in alone] == [tuple(n for n, c in each.scores.items() if c >= 0.5) for each in alone]
