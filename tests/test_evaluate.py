"""Scoring: every example once, numbers that scikit-learn gives too, and no silence when either fails."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

import tiny_training
from headswap.data import Batches
from headswap.errors import RunError
from headswap.losses import CrossEntropy
from headswap.metrics.classification import Accuracy, MacroF1, Matthews
from headswap.seeds import Seeds
from tiny_training import encoded, model
from tiny_training import logits as logits_of

METRICS = [Accuracy(), MacroF1(), Matthews()]
WEIGHTS = (0.5, 1.0, 4.0)


def judge(rows, size=4, loss=None, batches=Batches):
    split = encoded(rows, seed=5, name="example")
    served = batches({"train": encoded(4), "validation": encoded(4), "test": split}, 4, size, Seeds(0))
    return tiny_training.judge(served, loss or CrossEntropy(), METRICS), split


def one_by_one(net, split):
    """Return the logits of transformers' own model, row after row, without padding."""
    net.eval()
    values, offsets = split.columns["input_ids"]
    with torch.no_grad():
        rows = [
            net(torch.tensor(values[offsets[row] : offsets[row + 1]][None].astype(np.int64))).logits
            for row in range(len(split))
        ]
    return torch.cat(rows)


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 9, 16])
def test_every_example_is_scored_exactly_once(rows, monkeypatch):
    judging, split = judge(rows)
    judging = replace(judging, metrics=[Accuracy()])  # correlation has no value for one label
    served = Counter()
    collate = Batches.collate
    monkeypatch.setattr(
        Batches, "collate", lambda self, name, part: (served.update(part.tolist()), collate(self, name, part))[1]
    )
    scores = judging.score(model(), "test")
    assert served == Counter(range(rows))
    assert scores.ids == tuple(f"example{row}" for row in range(rows))
    assert np.array_equal(scores.answers.references, split.numbers["labels"])
    assert logits_of(scores).shape == (rows, 3)


def test_scores_equal_scikit_learn_on_predictions_made_row_by_row():
    judging, split = judge(41)
    net = model(dropout=0.5).train()
    logits = one_by_one(net, split)
    net.train()
    scores = judging.score(net, "test")
    assert not net.training
    guesses = logits.argmax(dim=1).numpy()
    assert len(set(guesses)) > 1
    assert np.array_equal(scores.answers.predictions, guesses)
    np.testing.assert_allclose(logits_of(scores), logits.numpy(), rtol=0, atol=1e-6)
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(split.numbers["labels"], guesses),
        "macro_f1": sklearn_metrics.f1_score(
            split.numbers["labels"], guesses, average="macro", labels=[0, 1, 2], zero_division=0
        ),
        "matthews": sklearn_metrics.matthews_corrcoef(split.numbers["labels"], guesses),
    }
    assert scores.values == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_loss_is_the_mean_over_the_whole_split(weights):
    judging, split = judge(9, loss=CrossEntropy(weights))
    net = model()
    criterion = torch.nn.CrossEntropyLoss(torch.tensor(weights) if weights else None)
    expected = float(criterion(one_by_one(net, split), torch.from_numpy(split.numbers["labels"])))
    assert judging.score(net, "test").loss == pytest.approx(expected, abs=1e-6)


def test_the_batch_size_changes_no_score():
    net = model()
    first, second = (judge(13, size=size)[0].score(net, "test") for size in (1, 13))
    assert first.values == second.values
    np.testing.assert_allclose(logits_of(first), logits_of(second), rtol=0, atol=1e-6)


class Twice(Batches):
    """Serves one example in two batches, as a sampler that fills up its last batch does."""

    def evaluation(self, split):
        return [*super().evaluation(split), np.array([0])]


class Never(Batches):
    """Leaves the last batch out, as drop_last does."""

    def evaluation(self, split):
        return super().evaluation(split)[:-1]


@pytest.mark.parametrize(
    ("batches", "found"), [(Twice, "found 11 scores, 10 of them distinct"), (Never, "found 8 scores, 8")]
)
def test_an_example_scored_twice_or_never_is_refused(batches, found):
    judging, _ = judge(10, batches=batches)
    with pytest.raises(RunError, match=rf"^test: features were not scored exactly once; {found}.* for 10 features"):
        judging.score(model(), "test")


def test_a_model_that_answers_nan_is_refused():
    net = model()
    with torch.no_grad():
        net.classifier.bias[1] = float("nan")
    judging, _ = judge(5)
    with pytest.raises(RunError, match=r"^test: the model answers NaN or Inf; the run diverged"):
        judging.score(net, "test")


def test_several_processes_give_the_scores_of_one():
    """Each process scores its share of the batches; what is gathered is put in order. The gathering is played here."""
    judging, _ = judge(11)
    net = model()
    alone = judging.score(net, "test")
    parts = []

    class Rank:
        world, in_pieces = 3, False

        def __init__(self, rank):
            self.rank = rank

        def move(self, batch):
            return batch

        def gather(self, part):
            parts.append(part)
            return parts

    for rank in range(3):
        shared = replace(judging, hardware=Rank(rank))
        if rank < 2:
            with pytest.raises(RunError, match="not scored exactly once"):
                shared.score(net, "test")
    together = shared.score(net, "test")
    assert together.values == alone.values
    assert np.array_equal(logits_of(together), logits_of(alone))
    assert together.loss == pytest.approx(alone.loss, abs=1e-12)
