"""One number a text, or several: what is read, learned and answered."""

import numpy as np
import pytest
import torch

from headswap.answers import Observed
from headswap.config import build_plugs, compose
from headswap.contracts import DataRequest
from headswap.errors import ConfigError, DataError
from headswap.tasks.regression import Regression
from tiny_tables import SEEDS, output, written

TASK = Regression(text=["text"], label=["score"], source="a.csv")


def test_half_precision_outputs_are_summed_in_float32():
    loss = TASK.loss(None)
    logits, batch = torch.full((300, 1), 30.0, dtype=torch.float16), {"labels": torch.zeros(300, 1)}
    assert float(loss(output(logits), batch)) == 300 * 900.0  # beyond float16's 65,504
    assert float(loss.weight(batch)) == 300.0


@pytest.mark.parametrize("outputs", [1, 3])
def test_squared_error_is_that_of_torch(outputs):
    loss, dice = TASK.loss(None), torch.Generator().manual_seed(0)
    logits = torch.randn(8, outputs, dtype=torch.float64, generator=dice)
    batch = {"labels": torch.randn(8, outputs, dtype=torch.float64, generator=dice)}
    expected = torch.nn.MSELoss()(logits, batch["labels"])
    assert float(loss(output(logits), batch) / loss.weight(batch)) == pytest.approx(float(expected), rel=1e-14)


def test_one_number_a_row_is_read_and_answered(tmp_path):
    source = written(tmp_path / "a.csv", [(f"text {n}", n / 4) for n in range(20)], ("text", "score"))
    task = Regression(text=["text"], label=["score"], source=source)
    splits = task.load(DataRequest(), SEEDS)
    assert (splits.labels.names, splits.labels.problem) == (("score",), "regression")
    rows = {row["id"]: row["label"] for split in ("train", "validation", "test") for row in splits.of(split)}
    assert rows == {str(n + 1): [n / 4] for n in range(20)}
    observed = Observed([np.array([0.5]), np.array([2.0])], None, {"label": [[1.0], [2.5]]}, None, splits.labels)
    answers = task.answers(observed)
    assert (answers.predictions.tolist(), answers.references.tolist()) == ([0.5, 2.0], [1.0, 2.5])
    assert [(result.value, result.values) for result in task.results(observed)] == [
        (0.5, {"score": 0.5}), (2.0, {"score": 2.0}),
    ]  # fmt: skip


def test_several_numbers_a_row_stay_apart_by_name(tmp_path):
    rows = [(f"text {n}", n / 4, -n) for n in range(20)]
    source = written(tmp_path / "a.csv", rows, ("text", "joy", "fear"))
    task = Regression(text=["text"], label=["joy", "fear"], source=source)
    splits = task.load(DataRequest(), SEEDS)
    assert splits.labels.names == ("joy", "fear")
    assert {row["id"]: row["label"] for row in splits.train}.items() <= {
        str(n + 1): [n / 4, -n] for n in range(20)
    }.items()
    answers = task.answers(Observed([np.array([0.5, 1.0])], None, {"label": [[1.0, 2.0]]}, None, splits.labels))
    assert (answers.predictions.tolist(), answers.references.tolist()) == ([[0.5, 1.0]], [[1.0, 2.0]])
    (result,) = task.results(Observed([np.array([0.5, 1.0])], None, {}, None, splits.labels))
    assert result.cells() == {"predicted_joy": 0.5, "predicted_fear": 1.0}


def test_what_is_no_number_is_told_with_its_rows(tmp_path):
    source = written(tmp_path / "a.csv", [("t", "1.5"), ("u", "high"), ("v", "inf")], ("text", "score"))
    with pytest.raises(DataError, match=r"no finite number in column 'score'; rows 2, 3 \(the first at line 3\)"):
        Regression(text=["text"], label=["score"], source=source).load(DataRequest(), SEEDS)


def test_the_option_brings_its_own_metrics_and_refuses_those_of_labels():
    given = ["task=regression", "task.source=a.csv", "task.text=[a]", "task.label=[b]"]
    assert [metric.name for metric in build_plugs(compose(given)).metrics] == ["pearson", "spearman", "rmse"]
    with pytest.raises(ConfigError, match="metric: does not fit the task; found accuracy for regression"):
        build_plugs(compose([*given, "metric=accuracy"]))


def test_labels_must_be_named():
    with pytest.raises(ConfigError, match=r"task\.label: must name one column of numbers or more; found none"):
        Regression(text=["text"], label=[], source="a.csv")
