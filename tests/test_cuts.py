"""A body frozen from below: its lowest layers computed once, the rest trained as if they had been computed each time."""

import functools

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from exact import BASE, STEPS, go, mismatches
from headswap import cuts
from headswap.body_output import Given, Unserved
from headswap.layers import layers
from headswap.model import role_names
from headswap.phases import Phase, Rule
from headswap.records import read_json
from tiny_frozen import STILL, assert_close, ended, frozen_on, learned, net_of, served
from tiny_runs import ran, reviews, tiny
from tiny_training import batches, model, training

CALM = {
    "bert": {"num_hidden_layers": 3, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "roberta": {"num_hidden_layers": 3, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "distilbert": {"n_layers": 3, "dropout": 0.0, "attention_dropout": 0.0},
    "electra": {"num_hidden_layers": 3, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "modernbert": {"num_hidden_layers": 3},
    "llama": {"num_hidden_layers": 3},
    "gpt2": {"n_layer": 3, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
}


def bottom(net, count):
    """Return one phase in which embeddings and the lowest `count` layers stay as they are."""
    roles = list(role_names(net).values())
    numbers = "|".join(str(number) for number in range(count))
    frozen = rf"^body\.((?!.*\.\d+\.).*(emb|wte|wpe)|.*\.({numbers})\.)"
    assert len(layers(roles)) == 3
    return [Phase("freeze", 1.0, (Rule(frozen, None), Rule("", 1.0)))]


def layer_calls(net, count):
    """Return a list that grows with every batch that one of the lowest layers computes."""
    seen = []

    def counted(compute, *args, **named):
        seen.append(1)
        return compute(*args, **named)

    for layer in cuts.above_layers(net.base_model, list(role_names(net).values()), count).lowest:
        layer.forward = functools.wraps(layer.forward)(functools.partial(counted, layer.forward))
    return seen


@pytest.mark.parametrize("kind", CALM)
@pytest.mark.parametrize("count", [1, 2])
def test_layers_over_frozen_ones_learn_what_they_would_without_tables(kind, count, tmp_path):
    given, facts, net = served(ended), {}, net_of(kind, **CALM[kind])
    phases = bottom(net, count)
    bare = learned(net_of(kind, **CALM[kind]), given, phases=phases)
    cached = learned(net, given, frozen_on(tmp_path, given, facts), phases=phases)
    told = facts["lowest_layers"][str(count)]
    assert (told["served"], told["kept"], told["computed"]) == (True, "last_hidden_state", ["train", "validation"])
    tokens = sum(int(given.of(split).lengths.sum()) for split in ("train", "validation"))
    assert told["bytes"] == tokens * 16 * 4
    assert_close(bare, cached)
    start = net_of(kind, **CALM[kind]).state_dict()
    moved = {name for name, value in cached.items() if name in start and not torch.equal(value, start[name])}
    assert any(".2." in name for name in moved)
    assert not any(".0." in name and name.startswith(net.base_model_prefix) for name in moved)


def test_no_frozen_layer_computes_while_others_train(tmp_path):
    given, net = served(), net_of("bert", **CALM["bert"])
    phases = bottom(net, 2)
    learned(net_of("bert", **CALM["bert"]), given, frozen_on(tmp_path, given), phases=phases)
    seen = layer_calls(net, 2)
    learned(net, given, frozen_on(tmp_path, given, facts := {}), phases=phases)
    assert facts["lowest_layers"]["2"]["computed"] == []
    # Watched once, in evaluation and in training mode, on trial, and to check what is kept; in no step and no scoring
    assert len(seen) == 2 * 5


def test_dropout_above_the_frozen_layers_draws_the_same_numbers(tmp_path):
    settings = CALM["bert"] | {"classifier_dropout": 0.5}
    given, net = served(), net_of("bert", **settings)
    phases = bottom(net, 2)
    bare = learned(net_of("bert", **settings), given, phases=phases)
    assert_close(bare, learned(net, given, frozen_on(tmp_path, given), phases=phases))


def test_layers_with_dropout_in_them_are_computed_at_every_step(tmp_path):
    settings = CALM["bert"] | {"attention_probs_dropout_prob": 0.1}
    given, facts, net = served(), {}, net_of("bert", **settings)
    phases = bottom(net, 2)
    bare = learned(net_of("bert", **settings), given, phases=phases)
    cached = learned(net, given, frozen_on(tmp_path, given, facts), phases=phases)
    why = "the layers that stay as they are give something else in training: dropout lies in them"
    assert facts == {"lowest_layers": {"2": {"served": False, "why": why}}}
    assert all(torch.equal(value, cached[name]) for name, value in bare.items())
    assert not list(tmp_path.glob("*/"))


def test_layers_that_share_one_set_of_weights_are_computed_at_every_step(tmp_path):
    """ALBERT runs one layer three times; a rule that freezes all but the pooler leaves a bottom of no layer."""
    names = list(role_names(net_of("albert", num_hidden_layers=3)).values())
    base = net_of("albert", num_hidden_layers=3, hidden_dropout_prob=0.0).base_model.eval()
    ids = torch.tensor([[3, 4, 5]])
    with pytest.raises(Unserved, match="do not hand on their states one to the next"):
        cuts.above_layers(base, names, 1).learn(lambda: base(input_ids=ids, attention_mask=torch.ones_like(ids)))


def test_what_no_table_has_is_computed_by_the_layers_that_waited():
    net = net_of("bert", **CALM["bert"]).eval()
    cut = cuts.above_layers(net.base_model, list(role_names(net).values()), 2)
    ids = torch.tensor([[3, 4, 5, 6], [7, 8, 1, 1]])
    batch = {"input_ids": ids, "attention_mask": (ids != 1).long()}
    cut.learn(lambda: net(**batch))
    seen = []

    def say(given: Given | None, compute):
        assert given is not None
        seen.append(given.real.tolist())
        return compute()

    expected = net(**batch).logits
    with cut.through(say):
        assert torch.equal(net(**batch).logits, expected)
    assert seen == [batch["attention_mask"].bool().tolist()]
    assert torch.equal(net(**batch).logits, expected)


@pytest.mark.parametrize("stops", [[1], [3], list(range(1, STEPS + 1))])
def test_a_stopped_training_over_frozen_layers_goes_on_to_the_bit(stops, tmp_path):
    def net():
        return net_of("bert", **CALM["bert"])

    def changed(place):
        given = batches(seeds=training(model()).seeds)
        return {"batches": given, "frozen": frozen_on(place / "features", given), **STILL, "phases": bottom(net(), 2)}

    whole = go(tmp_path / "whole", BASE, make=net, **changed(tmp_path / "first"))
    for step in stops:
        go(tmp_path / "pieces", BASE, step, make=net, **changed(tmp_path / "second"))
    assert mismatches(whole, go(tmp_path / "pieces", BASE, make=net, **changed(tmp_path / "second"))) == []


def test_a_run_over_frozen_layers_ends_where_it_would_without_tables(tiny_body, tmp_path):
    table, done = reviews(tmp_path / "reviews.csv", 100), {}
    calm = "body.config_overrides={hidden_dropout_prob: 0, attention_probs_dropout_prob: 0}"
    words = ["strategy=freeze", r"strategy.frozen=['^body.embeddings','layer.0.']", calm, "train.max_steps=20"]
    for name, extra in {"without": "train.cache_features=false", "with": "train.cache_features=true"}.items():
        done[name] = tmp_path / name
        assert ran(done[name], tiny(table, tiny_body, tmp_path / "out", *words, extra))["kind"] == "finished"
    facts = read_json(done["with"] / "run.json")["features"]["lowest_layers"]["1"]
    assert (facts["served"], facts["features"]) == (True, {"train": 60, "validation": 20})
    first, second = (load_file(done[name] / "model" / "model.safetensors") for name in ("with", "without"))
    assert_close(first, second)
    scores = [read_json(done[name] / "result.json")["scores"]["test"]["loss"] for name in ("with", "without")]
    assert np.isclose(*scores, atol=1e-5)
