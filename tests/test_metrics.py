"""Metrics of one label an example, any evaluate module, and what holds for every metric of ours."""

import dataclasses
import re
import socket
from pathlib import Path

import evaluate
import numpy as np
import pytest
import yaml
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from headswap.answers import Answers, Labels
from headswap.composition import options
from headswap.config import build
from headswap.contracts import Metric
from headswap.errors import ConfigError
from headswap.metrics.classification import Accuracy, MacroF1, Matthews
from headswap.metrics.module import EvaluateModule

RNG = np.random.default_rng(0)
REFERENCES = RNG.integers(0, 3, 200)
PREDICTIONS = np.where(RNG.random(200) < 0.6, REFERENCES, RNG.integers(0, 3, 200))
THREE = Answers(PREDICTIONS, REFERENCES, Labels(("a", "b", "c")))
LABELS = Labels(("O", "B-X", "I-X"), "token_classification")
WORDS = [np.array(row) for row in ([0, 1, 2], [1], [0, 0])]
SPANS = Answers(["in the park", "", "red"], [["park", "a park"], [], ["blue"]], Labels(()))
INDICATORS = RNG.random((2, 30, 4)) < 0.4
EXAMPLES = {
    "single_label_classification": THREE,
    "multiple_choice": Answers(PREDICTIONS, REFERENCES, Labels((), "multiple_choice")),
    "multi_label_classification": Answers(*INDICATORS, Labels(tuple("abcd")), list(RNG.normal(size=(30, 4)))),
    "regression": Answers(RNG.normal(size=30), RNG.normal(size=30), Labels(("score",), "regression")),
    "token_classification": Answers(WORDS, [WORDS[0], np.array([0]), np.array([1, 0])], LABELS),
    "question_answering": SPANS,
    "sequence_to_sequence": Answers(
        ["a red dog", "", "x"],
        [["a dog"], ["b", "c"], ["x"]],
        Labels((), "sequence_to_sequence"),
        list(RNG.random((3, 3)) + 1),
    ),
    "masked_language_modeling": Answers(RNG.random((5, 3)) + 1, np.empty((5, 0)), Labels(())),
    "causal_language_modeling": Answers(RNG.random((5, 3)) + 1, np.empty((5, 0)), Labels(())),
}
OPTIONS = options("metric", [])
OURS = [name for name in OPTIONS if name != "evaluate"]


def built(name):
    return build(yaml.safe_load(OPTIONS[name].read_text()), f"metric.{name}", Metric)


def test_metrics_equal_scikit_learn():
    assert Accuracy().compute(THREE) == accuracy_score(REFERENCES, PREDICTIONS)
    assert MacroF1().compute(THREE) == f1_score(REFERENCES, PREDICTIONS, average="macro")
    assert Matthews().compute(THREE) == matthews_corrcoef(REFERENCES, PREDICTIONS)


def test_macro_f1_counts_a_label_that_nothing_has_as_zero():
    ones = np.ones(10, dtype=np.int64)
    assert MacroF1().compute(Answers(ones, ones, Labels(tuple("abcd")))) == 0.25


def test_matthews_of_one_label_alone_is_zero():
    ones = np.ones(10, dtype=np.int64)
    assert Matthews().compute(Answers(ones, ones, Labels(("a", "b")))) == 0
    assert Matthews().compute(Answers(ones, np.arange(10) % 2, Labels(("a", "b")))) == 0


def test_ours_combine_like_any_evaluate_module():
    both = evaluate.combine([Accuracy().module(), Matthews().module()])
    result = both.compute(predictions=PREDICTIONS, references=REFERENCES)
    assert result["accuracy"] == accuracy_score(REFERENCES, PREDICTIONS)
    assert result["matthews"] == matthews_corrcoef(REFERENCES, PREDICTIONS)


def test_a_module_takes_batches_as_any_evaluate_module_does():
    module = Accuracy().module()
    for rows in np.array_split(np.arange(200), 7):
        module.add_batch(predictions=PREDICTIONS[rows], references=REFERENCES[rows])
    assert module.compute() == {"accuracy": accuracy_score(REFERENCES, PREDICTIONS)}


@pytest.mark.parametrize("name", OURS)
def test_a_metric_is_one_number_of_every_problem_it_reads_and_needs_no_network(name, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a metric went to the network"))
    metric = built(name)
    assert isinstance(metric, Metric)
    assert metric.name == name
    assert metric.problems
    for problem in metric.problems:
        answers = EXAMPLES[problem]
        value = metric.compute(answers)
        assert isinstance(value, float) and np.isfinite(value)
        assert metric.module().compute(**metric.given(answers)) == {name: value}
        each = metric.values(answers)
        assert (each is not None) == metric.per_example
        if each is not None:
            assert each.shape == (len(answers.predictions),)
            assert each.mean() == value


def test_every_problem_has_a_metric():
    assert {problem for name in OURS for problem in built(name).problems} == EXAMPLES.keys()


def test_the_page_of_metrics_has_a_true_row_of_each():
    page = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| `(\w+)` \| [^|]+ \| (yes|no) \| (more|less) \|", page, re.MULTILINE)
    metrics = [built(name) for name in OURS]
    told = [
        (one.name, "yes" if one.per_example else "no", "more" if one.greater_is_better else "less") for one in metrics
    ]
    assert sorted(found) == sorted(told)


SCRIPT = """import datasets
import evaluate

class Misses(evaluate.Metric):
    def _info(self):
        value = datasets.Value('int64')
        return evaluate.MetricInfo(description='', citation='', inputs_description='',
            features=datasets.Features({'predictions': value, 'references': value}))

    def _compute(self, predictions, references, factor=1):
        each = [float(factor * (a != b)) for a, b in zip(predictions, references)]
        return {'misses': sum(each), 'rate': sum(each) / len(each), 'each': each}
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "misses.py"
    path.write_text(SCRIPT)
    return str(path)


def test_a_local_evaluate_module_serves_as_a_metric(script):
    metric = EvaluateModule(path=script, key="misses", greater_is_better=False)
    missed = PREDICTIONS != REFERENCES
    assert metric.compute(THREE) == missed.sum()
    assert metric.values(THREE) is None
    assert dataclasses.replace(metric, options={"factor": 3}).compute(THREE) == 3 * missed.sum()
    with pytest.raises(ConfigError, match=r"no such value; found 'hits'; .* returns misses, rate, each"):
        EvaluateModule(path=script, key="hits").compute(THREE)


@pytest.mark.parametrize("key", ["rate", "each"])
def test_an_evaluate_module_that_is_a_mean_over_examples_gives_one_value_an_example(script, key):
    few = Answers(PREDICTIONS[:12], REFERENCES[:12], Labels(("a", "b", "c")))
    metric = EvaluateModule(path=script, key=key, per_example=True)
    values = metric.values(few)
    assert np.array_equal(values, PREDICTIONS[:12] != REFERENCES[:12])
    assert metric.compute(few) == values.mean()


def test_a_missing_metric_script_is_named():
    with pytest.raises(ConfigError, match=r"no such file; found nowhere\.py"):
        EvaluateModule(path="nowhere.py").module()
