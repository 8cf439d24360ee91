"""NaN and infinity: no weight moves, the batch and the broken weights are on record; fp16 overflows are something else."""

import contextlib
import errno
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import faults
from exact import BASE, Points, every, go, mismatches, wandering
from headswap import config as configuration
from headswap.errors import Diverged
from headswap.loop import fit
from headswap.losses import CrossEntropy
from headswap.records import RunFolder, read_json, read_jsonl, write_text
from headswap.step import LEAST_SCALE
from headswap.stopping import Stop
from headswap.worker import outcome
from tiny_runs import reviews, tiny
from tiny_training import Watched, batches, hardware, model, same, snapshot, training


class BadLoss(CrossEntropy):
    """A loss that answers `value` for the batch with the `wanted` label tensor."""

    def __init__(self, wanted, value):
        super().__init__()
        object.__setattr__(self, "wanted", wanted)
        object.__setattr__(self, "value", value)

    def __call__(self, output, batch):
        summed = super().__call__(output, batch)
        return summed * self.value if torch.equal(batch["input_ids"], self.wanted) else summed


def bad_gradient(net, wanted, value):
    """Make the gradient of one weight bad for the batch with these token ids, and no loss."""
    seen = []
    net.register_forward_pre_hook(lambda _, given, named: seen.append(named["input_ids"]), with_kwargs=True)

    def spoil(gradient):
        return gradient * value if torch.equal(seen[-1], wanted) else gradient

    net.bert.pooler.dense.bias.register_hook(spoil)


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("value", faults.BAD_NUMBERS)
@pytest.mark.parametrize("step", faults.DIVERGED_AT)
def test_a_bad_number_moves_no_weight_and_is_put_on_record(step, value, where):
    served, net = batches(), model(dropout=0.2)
    epoch, position = divmod(step - 1, 3)
    rows = served.epoch(epoch)[position]
    wanted = served.collate("train", rows[:4])["input_ids"]  # the first of the step's micro-batches
    loss = BadLoss(wanted, faults.BAD_NUMBERS[value]) if where == "loss" else CrossEntropy()
    if where == "gradient":
        bad_gradient(net, wanted, faults.BAD_NUMBERS[value])
    seen, start = Watched(net), snapshot(net)
    with pytest.raises(Diverged) as caught:
        fit(net, training(net, BASE, seen, loss=loss, batches=served))
    faults.injected("NaN or infinity")
    assert len(seen.weights) == step - 1
    assert same(snapshot(net), seen.weights[-1] if step > 1 else start)
    facts = caught.value.facts
    assert facts["step"] == step
    assert facts["ids"] == [f"row{row}" for row in rows]
    assert facts["rows"] == rows.tolist()
    broken = facts["weights_with_broken_gradients"]
    if where == "gradient":
        assert broken == ["bert.pooler.dense.bias"]
        assert math.isfinite(float(facts["loss"]))
    else:
        assert {"classifier.weight", "bert.embeddings.word_embeddings.weight"} <= set(broken)
        assert not math.isfinite(float(facts["loss"]))


def test_a_diverged_run_says_so_and_keeps_the_texts_of_its_batch(tiny_body, tmp_path):
    table = reviews(tmp_path / "reviews.csv", 48)
    ended = diverged(tmp_path, tiny(table, tiny_body, tmp_path, *TOO_FAST, "train.evaluations=1"))
    about = read_json(tmp_path / "run" / "run.json")
    assert (about["status"], about["error"]) == ("diverged", ended["error"])
    record = read_json(tmp_path / "run" / "diverged.json")
    taken = [line for line in read_jsonl(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "train"]
    assert record["step"] == len(taken) + 1
    assert len(record["ids"]) == len(record["rows"])
    assert len(record["ids"]) in (8, 4)  # of 28 rows
    texts = (tmp_path / "reviews.csv").read_text()
    assert all(f"{row['text']},{['neg', 'pos'][row['label']]}" in texts for row in record["rows"])
    assert record["weights_with_broken_gradients"]
    assert ended["error"].startswith(f"step {record['step']}: the training diverged; found loss ")
    assert "lower train.learning_rate" in ended["error"]


def test_weights_that_went_bad_are_a_divergence_where_they_are_first_scored(tiny_body, tmp_path):
    """The gradient of the first step is sound, what the rate makes of it is not; validation comes before step 2."""
    table = reviews(tmp_path / "reviews.csv", 48)
    ended = diverged(tmp_path, tiny(table, tiny_body, tmp_path, *TOO_FAST, "train.evaluations=2"))
    assert ended["error"] == "validation: the model answers NaN or Inf; the run diverged; lower train.learning_rate"
    record = read_json(tmp_path / "run" / "diverged.json")
    assert record["split"] == "validation"
    assert len(record["ids"]) == 10  # a fifth of 48 rows, all of them
    assert all(row["text"] in (tmp_path / "reviews.csv").read_text() for row in record["rows"])


def test_a_disk_too_full_for_the_record_does_not_hide_the_divergence(tiny_body, tmp_path):
    table = reviews(tmp_path / "reviews.csv", 48)
    with faults.failing_at("diverged.json", errno.ENOSPC) as refused:
        ended = diverged(tmp_path, tiny(table, tiny_body, tmp_path, *TOO_FAST))
    assert refused
    assert "diverged" in ended["error"]


@pytest.mark.parametrize(("value", "loss"), [(math.nan, 1.0), (math.inf, 1.0), (0.5, math.inf), (math.nan, math.nan)])
def test_a_score_that_is_no_number_is_the_worst_and_can_be_saved(value, loss, tmp_path):
    """A metric of somebody else's that has no value for constant answers, early in a training."""
    seen = []

    def score(net, split):
        seen.append(split)
        scores = wandering(net, split)
        return replace(scores, values={"points": value}, loss=loss) if len(seen) == 1 else scores

    faults.injected("NaN or infinity")
    left = go(tmp_path, replace(BASE, save_every=every(1)), score=score, metric=Points())
    assert left.checkpoints.count == 7  # after every step but the last
    assert left.progress.best_step in (4, 6, 8) or math.isfinite(value)


TOO_FAST = ["train.learning_rate=1e30", "train.warmup_share=0"]


def diverged(place, config):
    """Run as a child does; return how it ended."""
    write_text(place / "run" / "config.yaml", configuration.dump(config))
    ended = outcome(RunFolder(place / "run"), lambda line: None, Stop())
    faults.injected("NaN or infinity")
    assert (ended["code"], ended["status"]) == (1, "diverged")
    return ended


@contextlib.contextmanager
def scaled(init_scale, growth_interval=2000):
    """Give hardware that computes in fp16 with a loss scaler, on the CPU: what `start` refuses for its slowness."""
    made = hardware()
    made.accelerator.state._shared_state["_mixed_precision"] = "fp16"
    made.accelerator.native_amp = True
    made.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=init_scale, growth_interval=growth_interval)
    try:
        yield made
    finally:
        made.accelerator.state._shared_state["_mixed_precision"] = "no"


def fitted(net, train, seen, init_scale):
    """Train as `fit` does on the hardware of `scaled`."""
    made = training(net, train, seen)
    with scaled(init_scale) as place:
        fit(net, replace(made, hardware=place))


def test_an_overflow_in_fp16_skips_the_step_and_halves_the_scale():
    """2 ** 24 overflows the gradient, whose half-precision numbers end at 65504, until it has been halved often enough."""
    net = model()
    seen, start = Watched(net), snapshot(net)
    fitted(net, replace(BASE, max_steps=12), seen, 2.0**24)
    lines = [line for line in seen.lines if line["kind"] == "train"]
    skipped = [line for line in lines if line.get("skipped")]
    assert 0 < len(skipped) < 12
    faults.injected("NaN or infinity", len(skipped))
    assert [line["loss_scale"] for line in skipped] == [2.0 ** (23 - number) for number in range(len(skipped))]
    assert all(line["gradient_norm"] is None for line in skipped)
    before = [start, *seen.weights]
    for line, one, other in zip(lines, before, seen.weights, strict=False):
        assert same(one, other) == ("skipped" in line), line["step"]
        assert "skipped" in line or math.isfinite(line["gradient_norm"])


def test_the_loss_scale_survives_a_stop(tmp_path):
    train = replace(BASE, max_steps=8, keep="last")
    straight = go(tmp_path / "straight", train, place=lambda: scaled(2.0**20, 2))
    scales = [line.get("loss_scale") for line in straight.lines if line["kind"] == "train"]
    assert None in scales
    assert any(scales)
    for step in (1, 3, 6):
        go(tmp_path / "pieces", train, step, place=lambda: scaled(2.0**20, 2))
    faults.resumed(mismatches(straight, go(tmp_path / "pieces", train, place=lambda: scaled(2.0**20, 2))))
    other = go(tmp_path / "other", train, place=lambda: scaled(2.0**10, 2))
    assert mismatches(straight, other)


def test_an_endless_overflow_is_a_divergence():
    net = model()
    net.bert.pooler.dense.bias.register_hook(lambda gradient: gradient * math.inf)
    seen, start = Watched(net), snapshot(net)
    with pytest.raises(Diverged) as caught:
        fitted(net, replace(BASE, max_steps=40), seen, 1.0)
    steps = int(-math.log2(LEAST_SCALE)) + 1
    faults.injected("NaN or infinity", steps + 1)
    assert len(seen.weights) == steps
    assert same(snapshot(net), start)
    assert caught.value.facts["loss_scale"] == LEAST_SCALE / 2
    assert caught.value.facts["weights_with_broken_gradients"] == ["bert.pooler.dense.bias"]
    assert np.isfinite(float(caught.value.facts["loss"]))
