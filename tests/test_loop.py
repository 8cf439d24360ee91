"""One loop: equal to plain torch, repeatable, undisturbed by evaluation, honest about best weights and divergence."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny_training
from headswap.answers import Answers, Labels, Scores
from headswap.errors import RunError
from headswap.hardware import Hardware
from headswap.loop import fit
from headswap.losses import CrossEntropy
from headswap.model import role_names
from headswap.phases import Phase, Rule
from headswap.seeds import Seeds
from headswap.strategies.probe import Probe
from swapping import swap
from tiny_training import PLAIN, Watched, batches, model, same, snapshot, training


def fitted(net, train=PLAIN, **changed):
    """Train `net` and return what was seen of it."""
    watched = Watched(net)
    watched.progress = fit(net, training(net, train, watched, **changed))
    return watched


def plain_torch(net, served, train, class_weights=None, body_factor=1.0):
    """Train with torch alone: whole batches, its own loss, clipping and AdamW; return losses, norms and rates."""
    net.train()
    groups = {}
    for name, weight in net.named_parameters():
        factor = body_factor if name.startswith("bert.") else 1.0
        decay = 0.0 if weight.ndim == 1 else train.weight_decay
        groups.setdefault((factor, decay), []).append(weight)
    optimizer = torch.optim.AdamW(
        [{"params": each, "weight_decay": key[1], "factor": key[0]} for key, each in groups.items()]
    )
    criterion = torch.nn.CrossEntropyLoss(class_weights)
    rows = [part for epoch in range(9) for part in served.epoch(epoch)][: train.max_steps]
    warmup = round(train.warmup_share * train.max_steps)
    seen = []
    for step, part in enumerate(rows):
        batch = served.collate("train", part)
        rate = min((step + 1) / warmup if warmup else 1.0, (train.max_steps - step) / (train.max_steps - warmup))
        for group in optimizer.param_groups:
            group["lr"] = train.learning_rate * rate * group["factor"]
        logits = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        loss = criterion(logits, batch["labels"])
        loss.backward()
        limit = math.inf if train.max_grad_norm is None else train.max_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), limit)
        optimizer.step()
        optimizer.zero_grad()
        seen.append((float(loss.detach()), float(norm), train.learning_rate * rate))
    return np.array(seen)


@pytest.mark.parametrize("rows", [27, 29])  # the last window: one short micro-batch, or a whole and a short one
@pytest.mark.parametrize("limit", [None, 0.1])
def test_accumulation_equals_whole_batches_in_plain_torch(rows, limit):
    train = replace(PLAIN, micro_batch_size=4, max_grad_norm=limit, warmup_share=0.34, weight_decay=0.1)
    ours, theirs = model().double(), model().double()
    seen = fitted(ours, train, batches=batches(rows))
    expected = plain_torch(theirs, batches(rows), train)
    assert seen.of("train", "step") == [1, 2, 3, 4, 5, 6]
    assert not same(snapshot(model().double()), snapshot(ours))
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=0, atol=1e-9, msg=name)
    for column, key in enumerate(("loss", "gradient_norm", "learning_rate")):
        np.testing.assert_allclose(seen.of("train", key), expected[:, column], rtol=1e-6, err_msg=key)
    assert limit is None or min(seen.of("train", "gradient_norm")) > limit  # every step was clipped


def test_accumulation_equals_whole_batches_in_float32():
    train = replace(PLAIN, micro_batch_size=4, max_steps=1)
    ours, theirs = model(), model()
    seen = fitted(ours, train)
    # One step: after several, AdamW has blown up the rounding of gradients that are 0 in exact arithmetic (key biases).
    expected = plain_torch(theirs, batches(), train)
    np.testing.assert_allclose(seen.of("train", "loss"), expected[:, 0], rtol=0, atol=1e-6)
    for name, value in theirs.state_dict().items():
        if not name.endswith("key.bias"):
            torch.testing.assert_close(ours.state_dict()[name], value, rtol=0, atol=1e-6, msg=name)


def test_class_weights_are_normalised_over_the_whole_window():
    weights = (0.5, 1.0, 4.0)
    train = replace(PLAIN, micro_batch_size=4)
    ours, theirs = model().double(), model().double()
    seen = fitted(ours, train, loss=CrossEntropy(weights))
    expected = plain_torch(theirs, batches(), train, torch.tensor(weights, dtype=torch.float64))
    np.testing.assert_allclose(seen.of("train", "loss"), expected[:, 0], rtol=1e-6)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=0, atol=1e-9, msg=name)


def test_a_rule_scales_the_learning_rate_of_its_weights():
    phase = Phase("slow body", 1.0, (Rule(r"^body\.", 0.1), Rule("", 1.0)))
    ours, theirs = model().double(), model().double()
    fitted(ours, PLAIN, phases=[phase])
    plain_torch(theirs, batches(), PLAIN, body_factor=0.1)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=0, atol=1e-9, msg=name)


def test_the_rate_of_the_first_step_is_not_zero():
    train = replace(PLAIN, warmup_share=0.5)
    rates = fitted(model(), train).of("train", "learning_rate")
    np.testing.assert_allclose(rates, [1e-3 / 3, 2e-3 / 3, 1e-3, 1e-3, 2e-3 / 3, 1e-3 / 3], rtol=1e-12)
    assert fitted(model(), replace(PLAIN, warmup_share=0.0)).of("train", "learning_rate")[0] == 1e-3


def test_the_loss_falls_on_a_task_that_can_be_learned():
    train = replace(PLAIN, max_steps=150, learning_rate=1e-2)
    net = model()
    seen = fitted(net, train, batches=batches(train=48))
    losses = seen.of("train", "loss")
    assert np.mean(losses[:4]) > 0.9  # near log 3: it knows nothing
    assert np.mean(losses[-4:]) < 0.2


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not():
    train = replace(PLAIN, micro_batch_size=4)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(runs))  # the state before a run does not matter
        net = model(dropout=0.2)
        fitted(net, train, seeds=Seeds(seed))
        runs.append(snapshot(net))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_evaluating_more_often_changes_no_weight():
    first, second = model(dropout=0.2), model(dropout=0.2)
    rarely = fitted(first, replace(PLAIN, evaluations=1))
    often = fitted(second, replace(PLAIN, evaluate_every=1))
    assert rarely.of("validation", "step") == [6]
    assert often.of("validation", "step") == [1, 2, 3, 4, 5, 6]
    assert same(snapshot(first), snapshot(second))
    assert rarely.of("train", "loss") == often.of("train", "loss")
    assert rarely.lines[-1]["loss"] == often.lines[-1]["loss"]


def test_both_arms_of_a_pair_see_the_same_dropout_and_batches(tiny_body, monkeypatch):
    """A pretrained run that is judged often and its random twin that is judged once: masks, seeds and rows agree."""
    seen = {}
    seed_dice = Hardware.seed
    for init, marks in (("pretrained", 6), ("random", 1)):
        net, _ = swap(tiny_body, seed=1, init=init)
        heard = seen[init] = {"seeds": [], "rows": [], "masks": [], "body": snapshot(net.base_model)}
        monkeypatch.setattr(
            Hardware, "seed", lambda self, seed, heard=heard: (heard["seeds"].append(seed), seed_dice(self, seed))[1]
        )

        def hear(module, given, made, heard=heard):
            if module.training:
                heard["masks"].append(made == 0)

        net.bert.embeddings.dropout.register_forward_hook(hear)
        served = batches()
        collate = type(served).collate
        monkeypatch.setattr(
            type(served),
            "collate",
            lambda self, split, rows, epoch=0, heard=heard, collate=collate: (
                heard["rows"].append(rows.tolist()) if split == "train" else None,
                collate(self, split, rows, epoch),
            )[1],
        )
        fitted(net, replace(PLAIN, micro_batch_size=4, evaluations=marks), batches=served)
        monkeypatch.undo()
    first, second = seen["pretrained"], seen["random"]
    assert not same(first["body"], second["body"])
    assert first["seeds"] == second["seeds"]
    assert len(set(first["seeds"])) == len(first["seeds"]) == 2 * (3 + 3 + 2)  # one a micro-step of two epochs
    assert first["rows"] == second["rows"]
    assert all(torch.equal(*pair) for pair in zip(first["masks"], second["masks"], strict=True))
    assert 0.02 < torch.cat([mask.flatten() for mask in first["masks"]]).float().mean() < 0.2  # BERT's rate is 0.1


class Lower:
    """A metric of which less is better."""

    name, greater_is_better, per_example = "error", False, False


class Higher:
    name, greater_is_better, per_example = "points", True, False


def script(metric, values, losses=None):
    """Return a scoring that answers from a list."""
    losses = losses or [1.0] * len(values)
    told = iter(zip(values, losses, strict=True))

    def score(net, split):
        assert split == "validation"
        net.eval()
        value, loss = next(told)
        return Scores({metric.name: value}, loss, (), Answers((), (), Labels(())))

    return score


@pytest.mark.parametrize(
    ("metric", "values", "losses", "best"),
    [
        (Higher(), [0.1, 0.5, 0.3, 0.4, 0.2, 0.1], None, 2),
        (Lower(), [0.9, 0.5, 0.1, 0.4, 0.2, 0.3], None, 3),
        (Higher(), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], None, 6),
        (Higher(), [0.5, 0.5, 0.5, 0.5, 0.4, 0.4], [0.9, 0.6, 0.3, 0.8, 0.1, 0.1], 3),  # a tie goes to the lower loss
        (Lower(), [0.5, 0.5, 0.5, 0.5, 0.6, 0.6], [0.9, 0.3, 0.6, 0.8, 0.1, 0.1], 2),
        (Higher(), [0.5, 0.5, 0.4, 0.4, 0.4, 0.4], [0.3, 0.3, 0.1, 0.1, 0.1, 0.1], 1),  # a full tie to the first
    ],
)
def test_the_best_weights_are_what_they_were_at_the_best_step(metric, values, losses, best):
    net = model()
    train = replace(PLAIN, keep="best", evaluate_every=1)
    seen = fitted(net, train, metric=metric, score=script(metric, values, losses))
    assert seen.progress.best_step == best
    assert seen.progress.step == 6
    assert same(snapshot(net), seen.weights[best - 1])
    flagged = [
        step for step, flag in zip(seen.of("validation", "step"), seen.of("validation", "best"), strict=True) if flag
    ]
    assert flagged[-1] == best


def test_last_weights_are_kept_when_asked_for():
    net = model()
    seen = fitted(net, replace(PLAIN, evaluate_every=1), metric=Higher(), score=script(Higher(), [9, 1, 1, 1, 1, 1]))
    assert seen.progress.best_step == 1
    assert same(snapshot(net), seen.weights[-1])


def test_patience_ends_a_training_that_no_longer_gets_better():
    net = model()
    train = replace(PLAIN, keep="best", evaluate_every=1, patience=2)
    seen = fitted(net, train, metric=Higher(), score=script(Higher(), [0.1, 0.3, 0.2, 0.4, 0.4, 0.4]))
    assert (seen.progress.step, seen.progress.stopped_early) == (6, True)
    seen = fitted(model(), train, metric=Higher(), score=script(Higher(), [0.1, 0.3, 0.2, 0.2, 0.9, 0.9]))
    assert (seen.progress.step, seen.progress.best_step, seen.progress.stopped_early) == (4, 2, True)
    assert same(snapshot(seen.model), seen.weights[1])


def test_the_best_weights_may_be_chosen_by_the_loss_alone():
    judging = tiny_training.judge(batches(), CrossEntropy(), [Higher()])  # Higher cannot compute: it is never asked
    net = model()
    train = replace(PLAIN, keep="best", evaluate_every=1, select_by="loss", learning_rate=0.05)
    seen = fitted(net, train, score=judging.watch("loss"), metric=Higher())
    losses = seen.of("validation", "loss")
    assert seen.progress.best_step == 1 + losses.index(min(losses))
    assert len(set(losses)) > 1 and seen.progress.best_step < 6
    assert same(snapshot(net), seen.weights[seen.progress.best_step - 1])
    assert all(
        set(line) & {"accuracy", "score", "points"} == set() for line in seen.lines if line["kind"] == "validation"
    )


def split_of(net, weights):
    """Return the tensors of body and head."""
    roles = role_names(net)
    body = {name: value for name, value in weights.items() if roles[name].startswith("body.")}
    return body, {name: value for name, value in weights.items() if name not in body}


def test_a_probe_leaves_the_body_as_it_was_in_evaluation_mode():
    net, modes = model(dropout=0.2), []

    class Spy(CrossEntropy):
        def __call__(self, output, batch):
            modes.append((net.training, net.classifier.training, *(each.training for each in net.bert.modules())))
            return super().__call__(output, batch)

    before = snapshot(net)
    phases = Probe().phases(list(role_names(net).values()))
    seen = fitted(net, replace(PLAIN, evaluate_every=2), phases=phases, loss=Spy())
    body, head = split_of(net, before)
    assert same(body, split_of(net, snapshot(net))[0])
    assert not any(torch.equal(value, net.state_dict()[name]) for name, value in head.items())
    trained = [mode for mode in modes if mode[0]]
    assert len(trained) == 6  # and the others are evaluations
    assert all(mode[1] and not any(mode[2:]) for mode in trained)
    assert seen.progress.trainable == 3 * 16 + 3  # the classifier of width 16 for 3 labels


TWO_PHASES = [
    Phase("head", 0.5, (Rule(r"^head\.", 1.0), Rule("", None))),
    Phase("body", 0.5, (Rule(r"^head\.", None), Rule("", 1.0))),
]


def test_each_phase_moves_what_it_says_and_starts_its_schedule_anew():
    net = model()
    start = snapshot(net)
    seen = fitted(net, replace(PLAIN, max_steps=8, warmup_share=0.5), phases=TWO_PHASES)
    body, head = split_of(net, start)
    body_between, head_between = split_of(net, seen.weights[3])
    body_after, head_after = split_of(net, seen.weights[7])
    assert same(body, body_between)
    assert same(head_between, head_after)
    assert not any(torch.equal(value, head_between[name]) for name, value in head.items())
    assert not same(body, body_after)
    half = [0.5e-3, 1e-3, 1e-3, 0.5e-3]
    np.testing.assert_allclose(seen.of("train", "learning_rate"), half + half, rtol=1e-12)
    assert seen.progress.trainable == sum(value.numel() for value in body.values())


@pytest.mark.parametrize("best", [2, 4, 6])
def test_best_weights_of_an_early_phase_are_restored_whole(best):
    """What a later phase moved goes back too."""
    net = model()
    values = [float(step == best) for step in range(1, 9)]
    train = replace(PLAIN, max_steps=8, keep="best", evaluate_every=1)
    seen = fitted(net, train, phases=TWO_PHASES, metric=Higher(), score=script(Higher(), values))
    assert seen.progress.best_step == best
    assert same(snapshot(net), seen.weights[best - 1])


class Broken(CrossEntropy):
    """A loss that turns bad in its third training call."""

    calls = 0

    def __init__(self, value):
        object.__setattr__(self, "value", value)
        super().__init__()

    def __call__(self, output, batch):
        type(self).calls += 1
        return super().__call__(output, batch) * (self.value if self.calls == 3 else 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_diverged_step_is_refused_with_its_examples_and_moves_no_weight(value):
    Broken.calls = 0
    net, served = model(), batches()
    seen = Watched(net)
    with pytest.raises(RunError) as caught:
        fit(net, training(net, PLAIN, seen, loss=Broken(value), batches=served))
    ids = ", ".join(f"row{row}" for row in served.epoch(0)[2][:5])
    assert str(caught.value).startswith(
        f"step 3: the training diverged; found loss {value}, gradient norm nan on examples {ids} ..."
    )
    assert "lower train.learning_rate" in str(caught.value)
    assert len(seen.weights) == 2
    assert same(snapshot(net), seen.weights[-1])
