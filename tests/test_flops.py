"""The FLOPs of a training: a hand computation's number, torch's own counter's number, and no bit of the training else."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from exact import BASE, STEPS, TWO_PHASES, every, go, in_pieces, wandering
from headswap import flops
from headswap.flops import FlopCount, Polynomial, Watch
from headswap.loop import fit
from headswap.losses import CrossEntropy
from headswap.records import read_json, read_jsonl
from headswap.strategies.freeze import Freeze
from headswap.strategies.probe import Probe
from headswap.training import Progress
from tiny_frozen import ended, frozen_on, net_of, served
from tiny_runs import ran, reviews, tiny
from tiny_training import PLAIN, Watched, batches, hardware, model, same, snapshot, training

H, WIDE, LABELS = 16, 20, 3  # tiny_training.model: one layer
EPOCH = replace(PLAIN, max_steps=3)  # 29 rows in batches of 12, 12 and 5


def eager(**settings):
    net = model(**settings)
    net.set_attn_implementation("eager")
    return net


def checkpointed(net):
    """As run.py does, by the name that the installed transformers has for it."""
    enable = getattr(net, "activation_checkpointing_enable", None) or net.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def fitted(net, train=EPOCH, **changed):
    watched = Watched(net)
    watched.progress = fit(net, training(net, train, watched, **changed))
    return watched


def passes(size=12, count=29):
    """Return (rows, width) of every forward pass of the first epoch."""
    given = batches(count)
    parts = [rows[start : start + size] for rows in given.epoch(0) for start in range(0, len(rows), size)]
    return [(len(part), int(given.of("train").lengths[part].max())) for part in parts]


def layers(rows, width):
    """Return the FLOPs of one forward pass through the layers: 2 N D for the linear ones, and attention."""
    linear = 2 * rows * width * (4 * H * H + 2 * H * WIDE)
    return linear, 2 * (2 * rows * width * width * H)


def heads(rows):
    """Return those of the pooler and of the classifier, which see one vector a row."""
    return 2 * rows * H * H, 2 * rows * H * LABELS


def forward(rows, width):
    return sum(layers(rows, width)) + sum(heads(rows))


@pytest.mark.parametrize("size", [12, 5])
def test_a_full_training_computes_three_times_its_forward_passes(size):
    """6 N D and three times attention: each gradient of an input and of a weight costs one more product."""
    seen = fitted(eager(), replace(EPOCH, micro_batch_size=size))
    assert seen.progress.flops == sum(3 * forward(*each) for each in passes(size))
    assert seen.of("validation", "flops") == [seen.progress.flops]


def test_a_frozen_body_is_passed_forward_alone_and_a_served_one_costs_nothing(tmp_path):
    phases = Probe().phases([])
    whole = [(sum(layers(*each)) + heads(each[0])[0], heads(each[0])[1]) for each in passes()]
    frozen = fitted(eager(), phases=phases)
    assert frozen.progress.flops == sum(body + 2 * head for body, head in whole)  # no gradient of the head's input
    given = served()
    net = net_of("bert")
    found = fit(net, training(net, EPOCH, batches=given, phases=phases, frozen=frozen_on(tmp_path, given)))
    assert found.flops == sum(2 * head for _, head in whole)


def test_frozen_lower_layers_cost_no_gradient():
    frozen = Freeze(["^body.embeddings", r"^body\.encoder\.layer\.0\.attention\.self\."]).phases([])
    seen = fitted(eager(), phases=frozen)
    expected = 0
    for rows, width in passes():
        linear, attention = layers(rows, width)
        projections = 2 * rows * width * 3 * H * H  # queries, keys, values: forward only; and so attention above them
        expected += (
            projections + attention + 3 * (linear - projections) - 2 * rows * width * H * H + 3 * sum(heads(rows))
        )
    assert seen.progress.flops == expected


def test_checkpointing_counts_what_is_computed_again():
    net = eager()
    checkpointed(net)
    assert fitted(net).progress.flops == sum(3 * forward(*each) + sum(layers(*each)) for each in passes())


def test_fused_attention_on_a_cpu_is_counted_with_the_scores_that_it_computes_again():
    seen = fitted(model())  # sdpa, without dropout: the fused kernel
    expected = 0
    for rows, width in passes():
        linear, attention = layers(rows, width)
        expected += 3 * (linear + sum(heads(rows))) + attention * 7 // 2  # 2 products forward, 5 back
    assert seen.progress.flops == expected


@pytest.mark.parametrize(
    "kind", ["bert", "distilbert", "deberta-v2", "gpt2", "llama", "modernbert", "xlnet", "bart", "t5"]
)
def test_a_pass_has_the_number_of_torchs_own_counter(kind):
    net = net_of(kind)
    net.set_attn_implementation("eager")
    given = {"input_ids": torch.full((3, 7), 5), "attention_mask": torch.ones(3, 7, dtype=torch.long)}
    given["input_ids"][:, -1] = 2
    found = []
    for counter in (Watch(), FlopCounterMode(display=False)):
        with counter:
            net(**given).logits.sum().backward()
        found.append(counter.flops if isinstance(counter, Watch) else counter.get_total_flops())
    assert found[0] == found[1] > 0


@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "t5", "modernbert"])
def test_shapes_between_counted_ones_are_computed_exactly(kind, monkeypatch):
    """DeBERTa's relative positions cost something once a pass, whatever the rows."""
    train, watched, found = replace(PLAIN, max_steps=16, micro_batch_size=3), [], []
    made = Watch.__init__
    monkeypatch.setattr(Watch, "__init__", lambda self: (made(self), watched.append(1))[0])
    for agreed in (2, float("inf")):
        monkeypatch.setattr(flops, "AGREED", agreed)
        watched.clear()
        net = net_of(kind)
        found.append((fit(net, training(net, train, batches=served(ended, train=100))).flops, len(watched)))
    assert found[0][0] == found[1][0]
    assert found[0][1] < found[1][1]


def test_what_is_no_polynomial_is_counted_shape_by_shape():
    count, windows = Polynomial(), [-(-width // 4) * 4 for width in range(40)]
    for width in (3, 30, 9, 21, 14, 6, 17):
        assert count.told(((8, width),)) is None
        count.learn(((8, width),), 8 * windows[width])
    assert count.told(((8, 10),)) is None


def test_a_polynomial_never_speaks_of_what_lies_outside_the_counted_shapes():
    count = Polynomial()
    for width in (10, 40, 20, 30, 25):
        count.learn(((8, width),), 8 * (7 * width + 3 * width**2))
    assert count.told(((8, 33),)) == 8 * (7 * 33 + 3 * 33**2)
    assert [count.told(((8, width),)) for width in (9, 41)] == [None, None]
    assert count.told(((7, 20),)) is None


def test_counting_changes_no_bit_of_the_training(monkeypatch):
    train = replace(BASE, max_steps=6)
    counted, bare = model(dropout=0.2), model(dropout=0.2)
    first = fitted(counted, train)
    monkeypatch.setattr(FlopCount, "counted", lambda self, batch: contextlib.nullcontext())
    second = fitted(bare, train)
    assert same(snapshot(counted), snapshot(bare))
    assert not same(snapshot(counted), snapshot(model(dropout=0.2)))
    assert first.of("train", "loss") == second.of("train", "loss")
    assert first.progress.flops > 0 == second.progress.flops


@pytest.mark.parametrize("stops", [[1], [2, 5], list(range(1, STEPS + 1))], ids=str)
@pytest.mark.parametrize("phases", [None, TWO_PHASES], ids=["one phase", "two phases"])
def test_a_stopped_training_has_the_count_of_a_straight_one(phases, stops, tmp_path):
    changed = {"phases": phases} if phases else {}
    straight = go(tmp_path / "straight", BASE, **changed)
    (tmp_path / "pieces").mkdir()
    assert in_pieces(tmp_path / "pieces", stops, BASE, **changed).progress.flops == straight.progress.flops
    marks = [line["flops"] for line in straight.lines if line["kind"] == "validation"]
    assert marks == sorted(set(marks))
    assert marks[-1] == straight.progress.flops


def test_a_step_that_is_taken_again_for_memory_counts_once(monkeypatch):
    given = batches()
    collate, failed = type(given).collate, []

    def short(self, split, rows, epoch=0):
        if split == "train" and len(rows) > 6 and not failed:
            failed.append(1)
            raise RuntimeError("out of memory")
        return collate(self, split, rows, epoch)

    monkeypatch.setattr(type(given), "collate", short)
    seen = fitted(eager(), replace(EPOCH, find_batch_size=True), batches=given)
    assert seen.progress.micro_batch_size == 6
    assert seen.progress.flops == sum(3 * forward(*each) for each in passes(6))


def test_a_state_without_a_count_leaves_the_run_without_one():
    progress, said = Progress(4, flops=None), []
    FlopCount(said.append).settle(progress, hardware())
    assert progress.flops is None
    assert said == ["the state that the run went on from holds no count"]


@pytest.fixture(scope="module")
def runs(tiny_body, tmp_path_factory):
    """A run whose operations are known, and one that uses an operation without a formula."""
    root = tmp_path_factory.mktemp("flops")
    table, done = reviews(root / "reviews.csv"), {}
    for name in ("known", "unknown"):
        done[name] = root / name
        with pytest.MonkeyPatch.context() as patch:
            if name == "unknown":
                patch.setitem(flops._FORMULAS, torch.ops.aten.addmm.default, flops.untold)
            outcome = ran(done[name], tiny(table, tiny_body, root / "out"))
        assert outcome["kind"] == "finished", outcome
    return done


def test_a_run_tells_its_count_at_every_evaluation_and_at_the_end(runs):
    lines = [line for line in read_jsonl(runs["known"] / "metrics.jsonl") if line["kind"] == "validation"]
    assert len(lines) == 2
    assert 0 < lines[0]["flops"] < lines[1]["flops"] == read_json(runs["known"] / "result.json")["flops"]
    assert "flops" not in read_json(runs["known"] / "run.json")


def test_a_run_that_cannot_be_counted_tells_none_and_why(runs):
    assert "flops" not in read_json(runs["unknown"] / "result.json")
    assert not any("flops" in line for line in read_jsonl(runs["unknown"] / "metrics.jsonl"))
    why = "not counted: no formula tells the FLOPs of aten.addmm.default"
    assert read_json(runs["unknown"] / "run.json")["flops"] == why


def test_a_fused_kernel_without_a_formula_is_named(monkeypatch):
    monkeypatch.setitem(flops._FORMULAS, torch.ops.aten.mkldnn_rnn_layer.default, flops.untold)
    net = torch.nn.LSTM(4, 4)
    with Watch() as watch:
        net(torch.zeros(3, 2, 4))[0].sum().backward()
    assert watch.untold.startswith("aten.mkldnn_rnn_layer") or watch.flops > 0  # other CPUs have no such kernel


def test_an_exception_in_a_formula_ends_no_training(monkeypatch):
    def broken(*args, **named):
        raise ValueError("shapes")

    monkeypatch.setitem(flops._FORMULAS, torch.ops.aten.mm.default, broken)
    seen = fitted(eager(), score=wandering_accuracy)
    assert seen.progress.flops is None
    assert len(seen.of("train", "loss")) == 3


def wandering_accuracy(net, split):
    found = wandering(net, split)
    return replace(found, values={"accuracy": found.values["points"]})


def test_losses_are_inside_what_is_counted():
    """A loss that multiplies matrices, as a contrast between rows does, costs what it costs."""

    class Contrast(CrossEntropy):
        def __call__(self, output, batch):
            return super().__call__(output, batch) + 0 * (output.logits @ output.logits.T).sum()

    plain, contrast = (fitted(eager(), loss=loss).progress.flops for loss in (CrossEntropy(), Contrast()))
    rows = np.array([rows for rows, _ in passes()])
    assert contrast - plain == int((3 * 2 * rows**2 * LABELS).sum())


def test_saves_hold_the_count(tmp_path):
    left = go(tmp_path, replace(BASE, save_every=every(3)), 3)
    state = read_json(next((tmp_path / "checkpoint").glob("step-*")) / "state.json")
    assert left.stopped
    assert state["progress"]["flops"] > 0
