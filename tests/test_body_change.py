"""What training changed in a body: CKA against its definition, changes by hand, and a run that it does not touch."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from headswap.body_change import (
    Unmeasured,
    body_groups,
    cka,
    layer_modules,
    layer_outputs,
    likeness,
    measured,
    relative_changes,
    sample,
)
from headswap.errors import Stopped, WeightsError
from headswap.launch import folder_of
from headswap.ledger import Ledger
from headswap.records import read_json
from headswap.stopping import Stop
from headswap.training import Keeper
from tiny_bodies import saved
from tiny_families import FAMILIES
from tiny_runs import ran, reviews, tiny
from tiny_training import model as tiny_model
from tiny_training import training
from tiny_translations import batch_of, model_of, task

DICE = np.random.default_rng(7)
LEDGER = Ledger("here", "Bert", "pretrained", (), ())


def hsic(first, second):
    """Return the U-statistic of order 4 that HSIC's unbiased estimator is, term by term (Song et al. 2012, 2.4)."""
    left, right = first @ first.T, second @ second.T
    terms = [
        left[i, j] * right[i, j] + left[i, j] * right[q, r] - 2 * left[i, j] * right[i, q]
        for i, j, q, r in itertools.permutations(range(len(first)), 4)
    ]
    return sum(terms) / len(terms)


@pytest.mark.parametrize(("texts", "widths"), [(4, (3, 2)), (6, (2, 5)), (7, (9, 9))])
def test_cka_is_the_ratio_of_u_statistics(texts, widths):
    first, second = (DICE.normal(size=(texts, width)) + 3 for width in widths)
    second[:, :2] += first[:, :2]
    expected = hsic(first, second) / (hsic(first, first) * hsic(second, second)) ** 0.5
    assert cka(first, second) == pytest.approx(expected, rel=1e-9)


def test_cka_does_not_change_with_rotation_scale_or_origin_and_is_1_of_the_same():
    first, second = DICE.normal(size=(20, 8)), DICE.normal(size=(20, 8))
    second += first
    turned = np.linalg.qr(DICE.normal(size=(8, 8)))[0]
    assert cka(first, first) == pytest.approx(1, abs=1e-12)
    assert cka(first, 7 * first @ turned - 2) == pytest.approx(1, abs=1e-12)
    assert cka(first, -0.1 * second @ turned + 4) == pytest.approx(cka(first, second), rel=1e-9)
    assert cka(second, first) == pytest.approx(cka(first, second), rel=1e-12)
    stretched = first * np.linspace(0.1, 3, 8)
    assert cka(first, stretched) < 0.99


def test_cka_of_strangers_is_about_0_where_the_biased_one_is_near_1():
    """With fewer texts than dimensions, as with few labels; the biased one by its formula with a centring matrix."""
    pairs = [(DICE.normal(size=(20, 384)), DICE.normal(size=(20, 384))) for _ in range(200)]
    found = np.array([cka(*pair) for pair in pairs])
    assert abs(found.mean()) < 4 * found.std() / 200**0.5
    centring = np.eye(20) - 1 / 20

    def biased(first, second):
        left, right = centring @ first @ first.T @ centring, centring @ second @ second.T @ centring
        return (left * right).sum() / np.sqrt((left * left).sum() * (right * right).sum())

    assert np.mean([biased(*pair) for pair in pairs[:20]]) > 0.9
    assert abs(found.mean()) < 0.01


def test_cka_of_a_constant_is_unknown():
    assert cka(DICE.normal(size=(6, 3)), np.full((6, 3), 2.5, dtype=np.float32)) is None


def test_the_texts_compared_are_all_or_128_at_even_distances():
    assert sample(5).tolist() == [0, 1, 2, 3, 4]
    places = sample(1000)
    assert (len(places), places[0], places[-1]) == (128, 0, 999)
    assert set(np.diff(places)) == {7, 8}


def test_relative_changes_are_those_of_plain_numpy():
    start, end = tiny_model(1), tiny_model(2)
    groups = body_groups(start)
    assert list(groups) == ["embeddings", "layer 0"]
    found = relative_changes(start, end, groups)
    before, after = ({name: each.numpy() for name, each in net.state_dict().items()} for net in (start, end))
    for layer, part in (("embeddings", "bert.embeddings."), ("layer 0", "bert.encoder."), ("layer 0", "bert.pooler.")):
        assert [name for name in groups[layer] if name.startswith(part)] == [
            name for name in before if name.startswith(part)
        ]
    for layer, names in groups.items():
        apart = np.concatenate([(after[name] - before[name]).ravel() for name in names]).astype(np.float64)
        size = np.concatenate([before[name].ravel() for name in names]).astype(np.float64)
        assert found[layer] == pytest.approx(np.sqrt((apart**2).sum() / (size**2).sum()), rel=1e-5)
    assert relative_changes(start, start, groups) == {"embeddings": 0.0, "layer 0": 0.0}


def test_layer_outputs_are_transformers_hidden_states_meant_over_real_tokens():
    net = tiny_model(3).eval()
    made = training(net)
    places = np.array([0, 3, 4, 7, 9])
    found = layer_outputs(net, made, places)
    rows = places[np.argsort(-made.batches.of("validation").lengths[places], kind="stable")]
    for place, row in enumerate(rows):  # one text at a time: no padding, so a plain mean
        batch = made.batches.collate("validation", np.array([row]))
        with torch.inference_mode():
            states = net(input_ids=batch["input_ids"], output_hidden_states=True).hidden_states
        for layer, state in zip(("embeddings", "layer 0"), states, strict=True):
            assert np.allclose(found[layer][place], state[0].mean(dim=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "distilbert", "albert", "gpt2", "llama", "modernbert", "electra", "mpnet"])
def test_layers_are_found_in_bodies_of_many_families(family, tmp_path):
    folder = saved(family, tmp_path)
    net = AutoModelForSequenceClassification.from_pretrained(folder, pad_token_id=1, num_labels=3).eval()
    if family == "modernbert":
        net.set_attn_implementation("eager")
    found = layer_outputs(net, training(net), np.arange(6))
    assert {layer: value.shape for layer, value in found.items()} == {
        "embeddings": (6, 16), "layer 0": (6, 16)
    }  # fmt: skip
    assert cka(found["layer 0"], found["layer 0"]) == pytest.approx(1)


@pytest.mark.parametrize("family", ["T5", "BART"])
def test_a_decoders_outputs_are_meant_over_the_targets_tokens(family):
    tokenizer = FAMILIES[family].tokenizer()
    net, made = model_of(family, tokenizer), task()
    batch = batch_of(made, tokenizer)
    batches = SimpleNamespace(
        evaluation_size=4, of=lambda split: SimpleNamespace(lengths=np.ones(4)), collate=lambda split, rows: batch
    )
    plain = replace(training(tiny_model()), batches=batches, forward=made.forward)
    found = layer_outputs(net, plain, np.arange(4))
    assert list(found) == ["embeddings", *layer_modules(net)]
    assert [layer for layer in found if layer.startswith("decoder")] == ["decoder layer 0", "decoder layer 1"]
    with torch.inference_mode():
        states = net(
            **{name: batch[name] for name in ("input_ids", "attention_mask", "labels")}, output_hidden_states=True
        )
    real = batch["labels"] != -100
    expected = [state[mask].mean(dim=0) for state, mask in zip(states.decoder_hidden_states[1], real, strict=True)]
    assert np.allclose(found["decoder layer 0"], torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_measured_is_said_and_the_rest_stands():
    start, end = tiny_model(1), tiny_model(2)
    made = training(end)
    few = SimpleNamespace(**{**vars(made.batches), "of": lambda split: range(3)})
    for given, said in (
        (replace(made, batches=few), "no outputs were compared: 4 validation texts are needed, there are 3"),
        (replace(made, hardware=SimpleNamespace(in_pieces=True)), "no outputs were compared: this engine shares"),
    ):
        report = measured(end, given, LEDGER, lambda: (start, LEDGER))
        assert report["absent"].startswith(said)
        assert [layer["cka"] for layer in report["layers"]] == [None, None]
        assert all(layer["relative_change"] > 0.1 for layer in report["layers"])

    def gone():
        raise WeightsError("body: not there any more")

    for again, said in (
        (gone, "the start could not be made again: body: not there any more"),
        (lambda: (start, replace(LEDGER, entries=(SimpleNamespace(part="body", name="w", sha256="ab"),))), "the start could not be made again: the body's files changed while the run trained"),
    ):  # fmt: skip
        report = measured(end, made, LEDGER, again)
        assert report["absent"] == said
        assert [layer["relative_change"] for layer in report["layers"]] == [None, None]


def test_a_pass_that_does_not_fit_into_memory_loses_no_run():
    def full(model, batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(Unmeasured, match="did not fit into memory"):
        likeness(tiny_model(1), tiny_model(2), replace(training(tiny_model()), forward=full), np.arange(6))


def test_a_stop_is_heard_while_it_is_measured():
    asked = Stop()
    asked.reason = "SIGTERM"
    with pytest.raises(Stopped, match="stopped by SIGTERM while the body's change was measured"):
        layer_outputs(tiny_model(), replace(training(tiny_model()), keeper=Keeper(stop=asked)), np.arange(6))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return reviews(tmp_path_factory.mktemp("tables") / "reviews.csv", 80)


MEASURE = "train.measure_change=true"
TRAINED = ("train.max_steps=6", "train.keep=last")


@pytest.fixture(scope="module")
def run(table, tiny_body, tmp_path_factory):
    """Return a measured run's folder."""
    folder = tmp_path_factory.mktemp("runs") / "measured"
    assert ran(folder, tiny(table, tiny_body, folder.parent, MEASURE, *TRAINED))["kind"] == "finished"
    return folder


def test_measuring_changes_no_bit_of_a_run_and_its_file_is_hashed(run, table, tiny_body, tmp_path):
    other = tmp_path / "plain"
    assert ran(other, tiny(table, tiny_body, tmp_path, *TRAINED))["kind"] == "finished"
    assert not (other / "body.json").exists()
    first, second = (read_json(folder / "result.json") for folder in (run, other))
    assert set(first["sha256"]) - set(second["sha256"]) == {"body.json"}
    assert {name: first["sha256"][name] for name in second["sha256"]} == second["sha256"]
    assert first["scores"] == second["scores"]
    assert "model.safetensors" in second["sha256"]


def test_a_runs_changes_are_those_between_the_bodys_file_and_the_saved_model(run, tiny_body):
    report = read_json(run / "body.json")
    assert [layer["layer"] for layer in report["layers"]] == ["embeddings", "layer 0", "layer 1"]
    assert (report["moved"], report["texts"], report["absent"]) == (True, 16, "")
    start, end = load_file(tiny_body / "model.safetensors"), load_file(run / "model" / "model.safetensors")
    layer = [name for name in start if name.startswith("encoder.layer.0.")]
    apart = sum(float(((end[f"bert.{name}"] - start[name]).double() ** 2).sum()) for name in layer)
    size = sum(float((start[name].double() ** 2).sum()) for name in layer)
    assert report["layers"][1]["weights"] == sum(start[name].numel() for name in layer)
    assert report["layers"][1]["relative_change"] == pytest.approx((apart / size) ** 0.5, rel=1e-5)
    assert all(0 < layer["cka"] < 1 for layer in report["layers"])
    assert report["layers"][0]["cka"] > 0.9


def test_a_run_that_was_stopped_and_gone_on_with_measures_from_its_own_start(run, table, tiny_body, tmp_path):
    config = tiny(table, tiny_body, tmp_path, MEASURE, *TRAINED)
    assert ran(tmp_path / "halves", config, stop_at=3)["status"] == "stopped"
    assert not (tmp_path / "halves" / "body.json").exists()
    assert ran(tmp_path / "halves", config)["kind"] == "finished"
    assert (tmp_path / "halves" / "body.json").read_bytes() == (run / "body.json").read_bytes()


def layers_of(folder, config):
    assert ran(folder, config)["kind"] == "finished"
    report = read_json(folder / "body.json")
    return report, {layer["layer"]: (layer["relative_change"], layer["cka"]) for layer in report["layers"]}


def test_a_frozen_body_changed_by_nothing_and_one_from_random_weights_from_its_own(table, tiny_body, tmp_path):
    report, found = layers_of(tmp_path / "probe", tiny(table, tiny_body, tmp_path, MEASURE, "strategy=probe"))
    assert not report["moved"]
    assert set(found.values()) == {(0.0, 1.0)}
    report, found = layers_of(tmp_path / "random", tiny(table, tiny_body, tmp_path, MEASURE, "body.init=random"))
    assert report["moved"] and all(0 < change < 0.5 and alike > 0 for change, alike in found.values())


def test_layers_that_begin_anew_are_measured_from_where_they_began(table, tiny_body, tmp_path):
    words = [MEASURE, "strategy=reinit_top", "strategy.layers=1", "train.learning_rate=1e-8", "output.keep_model=false"]
    _, found = layers_of(tmp_path / "anew", tiny(table, tiny_body, tmp_path, *words))
    assert all(change < 1e-5 and alike > 0.999 for change, alike in found.values())


def test_adapters_are_measured_after_they_were_merged(table, tiny_body, tmp_path):
    words = [MEASURE, "strategy=lora", "train.learning_rate=1e-2", "train.keep=last"]
    _, found = layers_of(tmp_path / "lora", tiny(table, tiny_body, tmp_path, *words))
    assert found["embeddings"] == (0.0, pytest.approx(1.0))
    assert found["layer 0"][0] > 0 and found["layer 1"][0] > 0


def test_only_a_run_that_measures_has_a_hash_of_its_own(table, tiny_body, tmp_path):
    plain, measuring = (tiny(table, tiny_body, tmp_path, *words) for words in ([], [MEASURE]))
    assert folder_of(plain).path != folder_of(measuring).path
