"""A training stopped anywhere and gone on with is the training that was never stopped, to the bit: atol is 0."""

import time
from dataclasses import replace

import pytest
import torch

from exact import BASE, STEPS, TWO_PHASES, Points, every, go, in_pieces, mismatches, saved_files, wandering
from headswap.errors import RunError, Stopped
from headswap.spine import SaveConfig
from headswap.stopping import Stop
from headswap.strategies.l2_sp import L2Sp


def checkpointed(net):
    """As run.py does, by the name that the installed transformers has for it."""
    enable = getattr(net, "activation_checkpointing_enable", None) or net.gradient_checkpointing_enable
    enable({"use_reentrant": False})


WANDERING = {"score": wandering, "metric": Points()}
SETTINGS = {  # the first two are judged by accuracy on validation rows
    "accumulation, best weights": (BASE, {}),
    "one pass a step, log-spaced marks": (replace(BASE, micro_batch_size=None, evaluate_every=None, evaluations=3), {}),
    "last weights": (replace(BASE, keep="last"), WANDERING),
    "two phases": (BASE, {"phases": TWO_PHASES, **WANDERING}),
    "two phases, always judged": (replace(BASE, evaluate_every=1), {"phases": TWO_PHASES, **WANDERING}),
    "patience": (replace(BASE, evaluate_every=1, patience=2), WANDERING),
    "gradient checkpointing": (BASE, {"change": checkpointed, **WANDERING}),
    "no clipping, constant rate, warm-up": (
        replace(BASE, max_grad_norm=None, schedule="constant", warmup_share=0.5),
        WANDERING,
    ),
    "a mean of the weights": (replace(BASE, ema=0.7), {"phases": TWO_PHASES, **WANDERING}),
    "a pull towards the start": (BASE, {"correct": L2Sp(100.0).correct, **WANDERING}),
}
STOPS = {
    "first step": [1],
    "evaluation mark": [2],
    "end of an epoch": [3],
    "between two phases": [4],
    "mid-epoch, inside the second phase": [5],
    "end of the second epoch, at a mark": [6],
    "last step": [STEPS],
    "twice in a row": [2, 5],
    "after every step": list(range(1, STEPS + 1)),
}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Trainings that nobody stopped and that saved nothing."""
    made = {}

    def of(name):
        if name not in made:
            train, changed = SETTINGS[name]
            made[name] = go(tmp_path_factory.mktemp("straight"), train, **changed)
            assert not (made[name].folder / "checkpoint").exists()
        return made[name]

    return of


@pytest.mark.parametrize("stops", STOPS.values(), ids=STOPS)
@pytest.mark.parametrize("name", SETTINGS)
def test_a_stopped_training_goes_on_to_the_bit(name, stops, straight, tmp_path):
    train, changed = SETTINGS[name]
    whole = straight(name)
    reached = [step for step in stops if step <= whole.progress.step]  # patience ends a training early
    pieces = in_pieces(tmp_path, reached, train, **changed)
    assert mismatches(whole, pieces) == []
    assert pieces.progress.best_step == whole.progress.best_step
    assert pieces.progress.trainable == whole.progress.trainable
    assert pieces.progress.stopped_early == whole.progress.stopped_early


@pytest.mark.parametrize("name", SETTINGS)
def test_the_last_state_of_a_stopped_training_is_that_of_a_straight_one(name, straight, tmp_path):
    """Optimizer, best weights and progress too, byte by byte."""
    train, changed = SETTINGS[name]
    last = straight(name).progress.step
    go(tmp_path / "whole", train, last, **changed)
    for step in (1, 4, last):
        go(tmp_path / "pieces", train, step, **changed)
    first, second = (saved_files(tmp_path / place, last) for place in ("whole", "pieces"))
    assert first == second
    assert {"model.safetensors", "optimizer.safetensors"} <= {name.split("step-")[0] for name in first}


def test_the_settings_are_not_idle(straight):
    """The best step lies in the middle, patience ends the training, dropout and the settings change the weights."""
    assert 0 < straight("two phases, always judged").progress.best_step < STEPS
    early = straight("patience").progress
    assert early.stopped_early
    assert 2 < early.step < STEPS
    names = ["last weights", "two phases", "no clipping, constant rate, warm-up"]
    weights = [straight(name).weights["classifier.weight"] for name in names]
    assert not any(torch.equal(weights[0], other) for other in weights[1:])
    lines = [straight(name).lines for name in ("gradient checkpointing", "last weights")]
    assert [{**line, "flops": 0} for line in lines[0]] == [{**line, "flops": 0} for line in lines[1]]  # same dropout


@pytest.mark.parametrize("name", ["accumulation, best weights", "two phases, always judged"])
def test_saving_after_every_step_changes_no_bit(name, straight, tmp_path):
    train, changed = SETTINGS[name]
    saved = go(tmp_path, replace(train, save_every=every(1)), **changed)
    assert mismatches(straight(name), saved) == []
    assert saved.checkpoints.count >= STEPS - 1
    assert len(list((tmp_path / "checkpoint").glob("step-*"))) == 2


def test_an_older_best_is_kept_through_saves_and_resumes(straight, tmp_path):
    """The two newest states may count on a best of long ago; what neither counts on is removed."""
    name = "two phases, always judged"
    train, changed = SETTINGS[name]
    best = straight(name).progress.best_step
    train = replace(train, save_every=every(1))
    for step in range(best + 1, STEPS + 1):
        go(tmp_path, train, step, **changed)
        assert f"best-{best:08d}" in {path.name for path in (tmp_path / "checkpoint").iterdir()}
    assert len(list((tmp_path / "checkpoint").glob("best-*"))) <= 2
    assert mismatches(straight(name), go(tmp_path, train, **changed)) == []


def test_a_stop_while_validation_is_scored_saves_what_was_before_it(straight, tmp_path):
    name = "two phases, always judged"
    train, changed = SETTINGS[name]
    for asked in (2, 4, STEPS):  # in a phase, at its end, at the end of all
        folder, stop, seen = tmp_path / str(asked), Stop(), []

        def score(net, split, stop=stop, seen=seen, asked=asked):
            seen.append(split)
            if len(seen) == asked:
                stop.ask("a test")
                raise Stopped("stopped by a test while validation was scored")
            return wandering(net, split)

        left = go(folder, train, stop, **(changed | {"score": score}))
        assert left.stopped.startswith(f"stopped by a test after step {asked} of {STEPS}; its state is saved")
        assert sum(line["kind"] == "validation" for line in left.lines) == asked - 1
        assert mismatches(straight(name), go(folder, train, **changed)) == []


class Fake:
    """A monotonic clock that moves when told."""

    def __init__(self):
        self.now = time.monotonic()

    def __call__(self):
        return self.now


@pytest.mark.parametrize(("took", "due_after"), [(0.0, 300), (1.0, 300), (12.0, 600), (60.0, 3000)])
def test_a_slow_disk_stretches_the_seconds_between_saves(took, due_after, tmp_path, monkeypatch):
    """`max_share` 0.02: a save that took 12 s is worth 600 s of training."""
    clock = Fake()
    monkeypatch.setattr("headswap.checkpoint.time.monotonic", clock)

    def slow(event):
        clock.now += took if event["kind"] == "saving" else 0.0

    train = replace(BASE, save_every=SaveConfig(seconds=300.0))
    left = go(tmp_path, train, 1, tell=slow)
    checkpoints = left.checkpoints
    assert (checkpoints.count, round(checkpoints.seconds, 3)) == (1, took)
    assert not checkpoints.due(1)
    clock.now += due_after - 1
    assert not checkpoints.due(2)
    clock.now += 1.01
    assert checkpoints.due(2)


@pytest.mark.parametrize(
    ("saves", "steps"),
    [
        (every(3), [3, 6]),
        (SaveConfig(seconds=25.0), [3, 6]),
        (SaveConfig(steps=4, seconds=25.0), [3, 4, 7]),
        (SaveConfig(seconds=None), []),
    ],
)
def test_saves_come_by_steps_or_seconds_or_not_at_all(saves, steps, tmp_path, monkeypatch):
    clock = Fake()
    monkeypatch.setattr("headswap.checkpoint.time.monotonic", clock)

    def tick(line):
        clock.now += 10.0 if line["kind"] == "train" else 0.0

    left = go(tmp_path, replace(BASE, save_every=saves), tell=tick)
    assert [event["step"] for event in left.events if event["kind"] == "saved"] == steps


def test_another_training_is_refused_rather_than_gone_on_with(tmp_path):
    go(tmp_path, BASE, 3, facts={"made_of": {"data": "abd"}})
    with pytest.raises(RunError, match=r"step-00000003: saved by another training; found 8 steps, expected 9; remove"):
        go(tmp_path, replace(BASE, max_steps=9))
    with pytest.raises(RunError, match=r"saved by another training; found data abd, expected abc; remove the folder"):
        go(tmp_path, BASE, facts={"made_of": {"data": "abc"}})
