"""Tasks drawn from a seed: targets by oracles written here, chance, nesting, tokens, and whole runs."""

from collections import Counter
from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import AutoTokenizer

from headswap.answers import Observed
from headswap.config import compose
from headswap.contracts import DataRequest
from headswap.encoded import encode_rows
from headswap.errors import ConfigError, DataError
from headswap.measure_commands import measured_configs
from headswap.measures.bodies import sizes, subjects
from headswap.metrics.tokens import TokenAccuracy
from headswap.records import read_json
from headswap.seeds import Seeds
from headswap.study.plan import Arm
from headswap.tasks.synthetic import Adding, AssociativeRecall, Copy, Parity, Recall
from tiny_runs import ran

SYMBOLS = files("headswap") / "tokenizers" / "symbols"
KINDS = {"recall": Recall, "associative_recall": AssociativeRecall, "adding": Adding, "copy": Copy, "parity": Parity}


def loaded(task, seed=0, **request):
    return task.load(DataRequest(**request), Seeds(seed))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(str(SYMBOLS))


def labelled(task):
    """Return the words of each training row, and its label by name."""
    splits = loaded(task)
    rows = splits.train[:]
    return [(text.split(), splits.labels.names[label]) for text, label in zip(rows["text"], rows["label"], strict=True)]


def test_recall_asks_for_the_one_marked_digit_of_the_first_quarter():
    for words, label in labelled(Recall(length=40, rows=200)):
        marked = [place for place, word in enumerate(words) if word.startswith("*")]
        assert len(words) == 40 and words[-1] == "?" and len(marked) == 1 and marked[0] < 10
        assert words[marked[0]] == "*" + label


def test_adding_asks_for_the_sum_of_the_marked_digits_one_in_each_half():
    for words, label in labelled(Adding(length=30, rows=200)):
        first, second = (place for place, word in enumerate(words) if word.startswith("*"))
        assert len(words) == 30 and words[-1] == "?" and first < 15 <= second
        assert int(words[first][1]) + int(words[second][1]) == int(label)


def test_associative_recall_asks_for_the_digit_that_stood_after_the_letter():
    for words, label in labelled(AssociativeRecall(length=24, rows=200, pairs=6)):
        pairs = {words[place]: words[place + 1] for place in range(22) if words[place].isalpha()}
        assert len(words) == 24 and words[-2] == "?" and len(pairs) == 6
        assert sum(word != "." for word in words[:22]) == 12 and pairs[words[-1]] == label


def test_the_densest_associative_recall_is_pairs_alone():
    for words, label in labelled(AssociativeRecall(length=14, rows=50, pairs=6)):
        assert "." not in words and words[words.index(words[-1]) + 1] == label


def test_copy_has_the_given_words_under_its_question_marks():
    splits = loaded(Copy(length=11, rows=100))
    for words, labels in zip(splits.train["tokens"], splits.train["label"], strict=True):
        assert words[6:] == ["?"] * 5 and [str(label) for label in labels[6:]] == words[:5]


def test_parity_is_counted_after_every_bit():
    splits = loaded(Parity(length=17, rows=100))
    assert splits.labels.names == ("even", "odd")
    for words, labels in zip(splits.train["tokens"], splits.train["label"], strict=True):
        ones = 0
        for word, label in zip(words, labels, strict=True):
            ones += int(word)
            assert label == ones % 2


@pytest.mark.parametrize(("task", "chance"), [(Recall, 0.1), (AssociativeRecall, 0.1), (Adding, 0.1), (Parity, 0.5)])
def test_always_naming_the_commonest_label_gets_what_chance_gives(task, chance):
    labels = np.concatenate([np.atleast_1d(each) for each in loaded(task(length=64, rows=3000)).train["label"]])
    commonest = max(Counter(labels.tolist()).values()) / len(labels)
    assert commonest == pytest.approx(chance, abs=4 * (chance * (1 - chance) / 3000) ** 0.5)


@pytest.mark.parametrize("kind", KINDS.values())
def test_rows_hang_on_the_seed_alone_and_the_test_rows_on_the_split_seed(kind):
    task = kind(length=32, rows=120, held_out=20)
    first, again, other = loaded(task, 1), loaded(task, 1), loaded(task, 2)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert first.test[:] == other.test[:] != loaded(task, 1, split_seed=5).test[:]
    assert first.train[:] != other.train[:] and first.validation[:] != other.validation[:]
    fewer = loaded(task, 1, train_rows=40, test_rows=7)
    assert fewer.train[:] == first.train[:40] and fewer.test[:] == first.test[:7]
    assert len({" ".join(row[task.inputs[0]]) for row in first.train}) == len(first.train) == 120


def test_more_rows_than_there_are_and_impossible_tasks_are_refused():
    with pytest.raises(DataError, match=r"data.train_rows: more than there are; found 99 of 50; raise task.rows"):
        loaded(Recall(rows=50), train_rows=99)
    with pytest.raises(ConfigError, match=r"task.length: must be 8 tokens or more; found 4"):
        Copy(length=4)
    with pytest.raises(
        ConfigError, match=r"task.pairs: must be 1 to 7 at this length; found 8; lower it, or raise task"
    ):
        AssociativeRecall(length=16)
    with pytest.raises(ConfigError, match=r"task.held_out: must be 1 or more; found 0"):
        Parity(held_out=0)


@pytest.mark.parametrize("kind", KINDS.values())
def test_every_word_is_one_token_that_the_shipped_tokenizer_knows(kind, tokenizer):
    task = kind(length=40, rows=50, held_out=5)
    found = task.encode(loaded(task).train[:], tokenizer, 40)
    assert {len(row) for row in found["input_ids"]} == {40} and not any(found["truncated"])
    assert tokenizer.unk_token_id not in {token for row in found["input_ids"] for token in row}
    assert len(set(tokenizer.get_vocab().values())) == len(tokenizer) == 52


def test_texts_that_would_be_cut_are_refused(tokenizer):
    task = Recall(length=40, rows=5, held_out=5)
    with pytest.raises(
        ConfigError, match=r"data.max_length: shorter than .* found 32 for 40 tokens; set data.max_length=40"
    ):
        task.encode(loaded(task).train[:], tokenizer, 32)


def observed(task, tokenizer, answer):
    """Return the test split with outputs that name `answer(row's labels)` for its words."""
    splits = loaded(task)
    rows = splits.test[:]
    outputs = [np.eye(splits.labels.count, dtype=np.float32)[answer(labels)] for labels in rows["label"]]
    encoded = encode_rows(rows, task, tokenizer, task.length)
    return Observed(outputs, encoded, rows, tokenizer, splits.labels)


def test_copy_learns_and_scores_what_is_asked_for_alone(tokenizer):
    task = Copy(length=12, rows=20, held_out=50)
    labels = task.encode(loaded(task).train[:], tokenizer, 12)["labels"]
    assert all(row[:6] == [-100] * 6 and -100 not in row[6:] for row in labels)
    right = observed(task, tokenizer, lambda row: [0] * 6 + row[6:])
    assert TokenAccuracy().compute(task.answers(right)) == 1.0
    assert {len(each.words) for each in task.results(right)} == {6}
    always = observed(task, tokenizer, lambda row: [3] * 12)
    zeros = np.mean([label == 3 for row in loaded(task).test["label"] for label in row[6:]])
    assert TokenAccuracy().compute(task.answers(always)) == pytest.approx(zeros)


@pytest.mark.parametrize(("option", "metric"), [("recall", "accuracy"), ("copy", "token_accuracy")])
def test_the_arms_of_the_experiment_train_and_score_like_any_other_run(option, metric, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ["experiment=length", f"task={option}", "task.length=16", "task.rows=24", "task.held_out=10"]
    config = compose([*words, "train.batch_size=8", "hardware=cpu", f"output.root={tmp_path}"])
    for arm in ("transformer", "lstm_chrono"):
        made = Arm(config, arm, None, 0, None).final()
        assert ran(tmp_path / arm, made)["kind"] == "finished"
        result = read_json(tmp_path / arm / "result.json")
        assert result["primary"] == metric and result["steps"] == 3 and 0 <= result["scores"]["test"][metric] <= 1


@pytest.mark.parametrize(("study", "within"), [("length", 0.02), ("initialisations", 0.03)])
def test_the_bodies_of_a_study_have_as_many_parameters(study, within, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ["experiment=length", f"study={study}"]
    found = subjects(measured_configs(words, SimpleNamespace(config_dir=[], arms=())))
    counts = {each.name: sizes(each.drawn(0)) for each in found}
    for mine in zip(*counts.values(), strict=True):
        assert max(mine) <= (1 + within) * min(mine), counts
    settings = [each.config.to_dict() for each in found if each.name.startswith(("lstm", "gru", "tanh"))]
    assert all(not each["bidirectional"] and each["pooling"] == "last" for each in settings)
    assert {each["chrono_length"] for each in settings} == {None, 64}
