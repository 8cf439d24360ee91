"""Losses against torch, transformers and the papers' formulas written out."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import BertForSequenceClassification

from conftest import tiny_config
from headswap.errors import DataError
from headswap.losses import IGNORED, BinaryCrossEntropy, CrossEntropy, FocalLoss, positive_weights, weighting_faults
from tiny_tables import output


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def mean(loss, logits, labels) -> float:
    batch = {"labels": labels}
    return float(loss(output(logits), batch) / loss.weight(batch))


def test_focal_loss_of_values_done_by_hand():
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, math.log(4.0)]], dtype=torch.float64)  # p of 0: 3/4 and 1/5
    labels = torch.tensor([0, 0])
    right = [0.75, 0.2]
    expected = sum(-((1 - p) ** 2) * math.log(p) for p in right) / 2
    assert mean(FocalLoss(2.0), logits, labels) == pytest.approx(expected, rel=1e-14)
    weighed = sum(-0.25 * (1 - p) ** 2 * math.log(p) for p in right) / 0.5
    assert mean(FocalLoss(2.0, (0.25, 0.75)), logits, labels) == pytest.approx(weighed, rel=1e-14)


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.25)])
def test_focal_loss_of_gamma_0_is_cross_entropy_of_torch_and_ignores_what_it_does(weights):
    logits, labels = drawn(4, 5, 3), torch.arange(20).reshape(4, 5) % 3
    labels[1, 2:] = IGNORED
    given = torch.tensor(weights, dtype=torch.float64) if weights else None
    expected = cross_entropy(logits.flatten(0, 1), labels.flatten(), given)
    assert mean(FocalLoss(0.0, weights), logits, labels) == pytest.approx(float(expected), rel=1e-12)
    assert mean(CrossEntropy(weights), logits, labels) == pytest.approx(float(expected), rel=1e-12)


def test_binary_cross_entropy_is_that_of_torch_and_of_transformers():
    labels = (drawn(6, 4, seed=1) > 0.3).float()
    names = {0: "a", 1: "b", 2: "c", 3: "d"}
    model = BertForSequenceClassification(tiny_config(id2label=names, problem_type="multi_label_classification")).eval()
    with torch.inference_mode():
        said = model(torch.arange(42).reshape(6, 7), labels=labels)
    assert mean(BinaryCrossEntropy(), said.logits, labels) == pytest.approx(float(said.loss), rel=1e-6)
    logits, weights = drawn(6, 4), (0.5, 2.0, 1.0, 7.0)
    given = torch.tensor(weights, dtype=torch.float64)
    expected = binary_cross_entropy_with_logits(logits, labels.double(), pos_weight=given)
    assert mean(BinaryCrossEntropy(weights), logits, labels) == pytest.approx(float(expected), rel=1e-14)


def test_binary_focal_loss_is_the_papers_written_out():
    logits, labels = drawn(5, 3, seed=2), (drawn(5, 3, seed=3) > 0).float()
    chances = logits.sigmoid()
    right = torch.where(labels == 1, chances, 1 - chances)
    expected = -((1 - right) ** 1.5) * right.log()
    assert mean(BinaryCrossEntropy(gamma=1.5), logits, labels) == pytest.approx(float(expected.mean()), rel=1e-12)


@pytest.mark.parametrize("loss", [FocalLoss(0.5), BinaryCrossEntropy(gamma=0.5)])
def test_gradients_of_focal_losses_are_finite_where_the_model_is_certain(loss):
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    labels = torch.tensor([0, 0]) if isinstance(loss, FocalLoss) else torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    summed = loss(output(logits), {"labels": labels})
    summed.backward()
    assert float(summed.detach()) == (400.0 if isinstance(loss, FocalLoss) else 200.0)
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", [FocalLoss(2.0), BinaryCrossEntropy((2.0, 3.0), 2.0), BinaryCrossEntropy((2.0, 3.0))])
def test_losses_of_half_precision_add_up_over_micro_batches_in_float32(loss):
    logits = drawn(9, 2, dtype=torch.float32).bfloat16()
    labels = torch.arange(9) % 2 if isinstance(loss, FocalLoss) else (drawn(9, 2, seed=1) > 0).float()
    parts = [
        loss(SimpleNamespace(logits=logits[part]), {"labels": labels[part]}) for part in (slice(0, 2), slice(2, 9))
    ]
    whole = loss(output(logits), {"labels": labels})
    assert whole.dtype == torch.float32
    assert float(sum(parts)) == pytest.approx(float(whole), rel=1e-6)


def test_balanced_positive_weights_are_absent_to_present_and_capped():
    rows = [[1.0, 0.0, 0.0, 1.0]] + [[0.0, 0.0, 0.0, 1.0]] * 200
    rows[5] = [1.0, 1.0, 0.0, 0.0]
    assert positive_weights("balanced", "abcd", rows) == (199 / 2, 100.0, 1.0, 1 / 200)
    assert positive_weights({"b": 2, "a": 1}, "ab", rows) == (1.0, 2.0)
    assert positive_weights(None, "ab", rows) is None
    with pytest.raises(DataError, match=r"task.class_weights: must name every label; found a; the labels are a, b"):
        positive_weights({"a": 1.0}, "ab", [])


def test_what_cannot_weigh_is_told():
    assert list(weighting_faults(None, None)) == list(weighting_faults({"a": 2}, 0.0)) == []
    assert [fault.split(";")[0] for fault in weighting_faults("even", -1.0)] == [
        "class_weights: must be null, balanced or {name: weight above 0}",
        "focal_gamma: must be null, or 0 or more",
    ]
