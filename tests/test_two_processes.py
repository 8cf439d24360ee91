"""Data parallel over gloo: two and three ranks compute what one process computes, and decide together when to stop."""

import functools
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import ranks
from headswap.errors import RunError
from headswap.step import micro_batches
from tiny_training import PLAIN, batches, hardware, model, same
from tiny_training import logits as logits_of


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Let two ranks play every scenario."""
    return ranks.played(list(ranks.SCENARIOS), tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    return ranks.played(["served", "stops"], tmp_path_factory.mktemp("three"), world=3)


@functools.cache
def alone(scenario):
    """Return what one process makes of a scenario."""
    return ranks.SCENARIOS[scenario](None)


def agree(found, expected):
    """Weights, losses and norms agree in float64, up to the order of sums."""
    for name, value in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], value, rtol=0, atol=1e-9, msg=name)
    for key in ("losses", "norms", "validation"):
        np.testing.assert_allclose(found[key], expected[key], rtol=0, atol=1e-9, err_msg=key)


@pytest.mark.parametrize(("rows", "size", "loss"), ranks.WINDOWS)
def test_two_ranks_train_as_one_process_does_on_uneven_windows(pair, rows, size, loss):
    expected = alone("windows")[rows, size, loss]
    assert len(expected["losses"]) == PLAIN.max_steps
    for found in pair["windows"]:
        agree(found[rows, size, loss], expected)


@pytest.mark.parametrize("loss", ranks.LOSSES)
def test_the_loss_of_a_step_is_the_mean_that_plain_torch_gives_over_all_ranks(pair, loss):
    served = batches(29)
    batch = served.collate("train", served.epoch(0)[0])
    logits = model().double()(batch["input_ids"], batch["attention_mask"]).logits
    each = torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="none").detach().numpy()
    weights = {
        "per row": np.ones(12),
        "class weights": np.array([0.5, 1.0, 4.0])[batch["labels"]],
        "per token": batch["attention_mask"].sum(dim=1).numpy(),
    }[loss]
    shares = weights[0::2].sum(), weights[1::2].sum()
    assert loss == "per row" or shares[0] != shares[1]
    assert pair["windows"][1][29, 4, loss]["losses"][0] == pytest.approx(np.average(each, weights=weights), abs=1e-9)


@pytest.mark.parametrize("name", ["frozen body", "two phases", "unused weights"])
def test_two_ranks_train_as_one_process_does_with_weights_that_do_not_move(pair, name):
    expected = alone("strategies")[name]
    for found in pair["strategies"]:
        agree(found[name], expected)


@pytest.mark.parametrize("name", ["pull", "gradual", "adapters"])
def test_two_ranks_pull_average_unfreeze_and_adapt_as_one_process_does(pair, name):
    """A pull of 300 x a rate of 1e-3 takes a third of the way back at each step; the kept weights are a running mean."""
    expected = alone("strategies")[name]
    for found in pair["strategies"]:
        agree(found[name], expected)
    plain = trained_plainly()
    weight = "bert.encoder.layer.0.output.dense.weight"
    if name != "adapters":
        assert not torch.allclose(expected["weights"][weight], plain[weight], atol=1e-5)
    else:
        assert any("lora_B" in key and value.any() for key, value in expected["weights"].items())


@functools.cache
def trained_plainly():
    return ranks.trained(model().double(), ranks.DICED)["weights"]


def test_a_weight_without_a_gradient_stays_and_one_that_few_rows_use_moves(pair):
    weights = pair["strategies"][1]["unused weights"]["weights"]
    assert weights["never"].tolist() == [1.0, 1.0]
    assert all(weights["seldom"].abs() > 1e-5)
    served = batches()
    uses = [
        [
            [(served.collate("train", part)["input_ids"] == ranks.RARE).any().item() for part in (mine[:3], mine[3:])]
            for mine in (rows[0::2], rows[1::2])
        ]
        for rows in served.epoch(0)
        if len(rows) == 12
    ]
    nowhere = [[False, False], [False, False]]
    before_the_exchange = [[True, False], [False, False]]  # and in no rank's pass that exchanges gradients
    assert uses == [nowhere, before_the_exchange]


def test_nine_examples_are_scored_exactly_once_by_two_ranks_in_batches_of_five(pair):
    for count in (9, 1):
        (expected, rows), found = alone("scores")[count], [rank[count] for rank in pair["scores"]]
        assert Counter(rows) == Counter(range(count))
        assert Counter(found[0][1] + found[1][1]) == Counter(range(count))
        assert [len(seen) for _, seen in found] == ([5, 4] if count == 9 else [1, 0])
        for scores, _ in found:
            assert np.array_equal(logits_of(scores), logits_of(expected))  # to the bit
            assert scores.ids == tuple(f"example{row}" for row in range(count))
            assert (scores.values, scores.loss) == (expected.values, pytest.approx(expected.loss, abs=1e-12))


def test_every_world_size_serves_the_same_rows_in_the_same_order(pair, three):
    for rows in (29, 25):
        steps = [[row for part, _ in parts for row in part] for parts in alone("served")[rows]]
        assert sorted(steps[0] + steps[1] + steps[2]) == list(range(rows))
        assert sorted(steps[3] + steps[4] + steps[5]) == list(range(rows))
        for world, made in ((2, pair["served"]), (3, three["served"])):
            for number, expected in enumerate(steps):
                shares = [rank[rows][number] for rank in made]
                assert len({len(parts) for parts in shares}) == 1  # the exchange of gradients needs all of them
                joined = np.full(len(expected), -1)
                for rank, parts in enumerate(shares):
                    joined[rank::world] = [row for part, counts in parts for row in part if counts]
                assert joined.tolist() == expected


def test_a_rank_without_rows_of_its_own_computes_on_one_that_counts_for_nothing():
    class Third:
        world, rank = 3, 2

    constants = SimpleNamespace(hardware=Third())
    assert [(part.tolist(), counts) for part, counts in micro_batches(np.array([8, 5]), constants, 4)] == [([8], False)]
    shares = [([3, 9], True), ([4], True)]
    found = micro_batches(np.array([1, 2, 3, 7, 8, 9, 5, 6, 4, 0]), constants, 2)
    assert [(part.tolist(), counts) for part, counts in found] == shares


def test_dropout_differs_between_ranks_and_repeats_between_runs(pair):
    first, second = pair["dropout"]
    for rank in (first, second):
        assert rank[0]["seeds"] == rank[1]["seeds"]
        assert len(set(rank[0]["seeds"])) == len(rank[0]["seeds"]) == 2 * (2 + 2 + 1)  # micro-steps of two epochs
        assert same(rank[0]["weights"], rank[1]["weights"])
        assert rank[0]["losses"] == rank[1]["losses"]
    assert not set(first[0]["seeds"]) & set(second[0]["seeds"])
    assert same(first[0]["weights"], second[0]["weights"])


@pytest.mark.parametrize("at", range(1, PLAIN.max_steps))
@pytest.mark.parametrize("world", [2, 3])
def test_a_training_stopped_after_any_step_ends_with_the_bits_of_a_straight_one(request, world, at):
    for found in request.getfixturevalue("pair" if world == 2 else "three")["stops"]:
        (straight, _), (resumed, said) = found["straight"], found[at]
        assert said.startswith(f"stopped by request at step {at} after step {at} of 6; its state is saved")
        assert same(resumed["weights"], straight["weights"])
        assert resumed["losses"] == straight["losses"][at:]


@pytest.mark.parametrize("struck", [0, 1])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2"])
def test_a_signal_to_one_rank_stops_all_of_them_at_the_same_step(pair, name, struck):
    straight, _ = pair["stops"][0]["straight"]
    for found in pair["signals"]:
        resumed, said = found[name, struck]
        assert said.startswith(f"stopped by {name} after step 3 of 6; its state is saved")
        assert same(resumed["weights"], straight["weights"])
        assert resumed["losses"] == straight["losses"][3:]


def test_bf16_and_gradient_checkpointing_change_what_they_should(pair):
    for rank, found in enumerate(pair["halves"]):
        plain, checkpointed, again = found.values()
        for other in (checkpointed, again, pair["halves"][1 - rank][False, 0]):
            assert same(plain["weights"], other["weights"])
            assert plain["losses"] == other["losses"]
        single = pair["stops"][rank]["straight"][0]["losses"]
        assert plain["losses"] != single
        np.testing.assert_allclose(plain["losses"], single, rtol=2e-2)


def test_every_rank_computes_with_the_threads_it_was_given(pair):
    """Without OMP_NUM_THREADS accelerate sets a number of its own, on several CPU processes only."""
    assert [(place["processes"], place["threads"]) for place in pair["places"]] == [(2, 1), (2, 1)]


def test_processes_that_do_not_see_one_another_are_refused(monkeypatch):
    hardware()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match=r"^hardware: WORLD_SIZE is 2 but accelerate sees 1 process\(es\); each would"):
        hardware()
