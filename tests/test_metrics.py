"""Metrics equal scikit-learn's, work without a network, and combine as evaluate modules do."""

import evaluate
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from headswap.errors import ConfigError
from headswap.metrics.classification import Accuracy, MacroF1, Matthews
from headswap.metrics.module import EvaluateModule

RNG = np.random.default_rng(0)
REFERENCES = RNG.integers(0, 3, 200)
PREDICTIONS = np.where(RNG.random(200) < 0.6, REFERENCES, RNG.integers(0, 3, 200))


def test_metrics_equal_scikit_learn():
    assert Accuracy().compute(PREDICTIONS, REFERENCES, 3) == accuracy_score(REFERENCES, PREDICTIONS)
    assert MacroF1().compute(PREDICTIONS, REFERENCES, 3) == f1_score(REFERENCES, PREDICTIONS, average="macro")
    assert Matthews().compute(PREDICTIONS, REFERENCES, 3) == matthews_corrcoef(REFERENCES, PREDICTIONS)


def test_macro_f1_counts_a_label_that_nothing_has_as_zero():
    ones = np.ones(10, dtype=np.int64)
    assert MacroF1().compute(ones, ones, 4) == 0.25


def test_ours_combine_like_any_evaluate_module():
    both = evaluate.combine([Accuracy().module(), Matthews().module()])
    result = both.compute(predictions=PREDICTIONS, references=REFERENCES)
    assert result["accuracy"] == accuracy_score(REFERENCES, PREDICTIONS)
    assert result["matthews"] == matthews_corrcoef(REFERENCES, PREDICTIONS)


def test_a_local_evaluate_module_serves_as_a_metric(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "cache"))
    script = tmp_path / "misses.py"
    script.write_text(
        "import datasets\nimport evaluate\n\n"
        "class Misses(evaluate.Metric):\n"
        "    def _info(self):\n"
        "        value = datasets.Value('int64')\n"
        "        return evaluate.MetricInfo(description='', citation='', inputs_description='',\n"
        "            features=datasets.Features({'predictions': value, 'references': value}))\n"
        "    def _compute(self, predictions, references):\n"
        "        return {'misses': sum(a != b for a, b in zip(predictions, references))}\n"
    )
    metric = EvaluateModule(path=str(script), key="misses", greater_is_better=False)
    assert metric.compute(PREDICTIONS, REFERENCES, 3) == float((PREDICTIONS != REFERENCES).sum())
    with pytest.raises(ConfigError, match=r"no such value; found 'hits'; .* returns misses"):
        EvaluateModule(path=str(script), key="hits").compute(PREDICTIONS, REFERENCES, 3)


def test_a_missing_metric_script_is_named():
    with pytest.raises(ConfigError, match=r"no such file; found nowhere\.py"):
        EvaluateModule(path="nowhere.py").module()
