"""A frozen body's outputs, computed once: the head that learns on them is the one that the body itself would teach."""

import functools
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForTokenClassification,
)

from exact import BASE, STEPS, TWO_PHASES, go, mismatches
from headswap import frozen as module
from headswap.architecture import body_modules
from headswap.errors import Stopped
from headswap.losses import CrossEntropy, SpanCrossEntropy
from headswap.records import read_json
from headswap.stopping import Stop
from headswap.tasks.question_answering import QuestionAnswering
from headswap.tasks.token_classification import TokenClassification
from tiny_frozen import PROBE, STILL, assert_close, calls_of, ended, frozen_on, learned, net_of, served
from tiny_runs import ran, reviews, tiny
from tiny_training import PLAIN, batches, model, training

KEPT = {
    "bert": "pooler_output", "albert": "pooler_output", "roberta": "first", "electra": "first", "distilbert": "first",
    "deberta-v2": "first", "mpnet": "first", "modernbert": "first", "gpt2": "last", "llama": "last", "xlnet": "last",
    "t5": "last",
}  # fmt: skip


@pytest.mark.parametrize("kind", KEPT)
def test_a_head_learns_from_the_smallest_part_of_a_familys_output_what_it_would_learn_from_the_body(kind, tmp_path):
    given, facts, net = served(ended, "left" if kind == "xlnet" else "right"), {}, net_of(kind)
    bare = learned(net_of(kind), given)
    seen = calls_of(net)
    cached = learned(net, given, frozen_on(tmp_path, given, facts))
    assert (facts["served"], facts["kept"], facts["computed"]) == (True, KEPT[kind], ["train", "validation"])
    assert len(seen) == 1 + 8 + 3 + 1  # a trial, 29 and 10 features in passes of 4, a check; none in training
    assert_close(bare, cached)


def token_labels(encoded):
    """Give each token a label, the first of each row none."""
    tokens, offsets = encoded.columns["input_ids"]
    labels = (tokens % 3).astype(np.int32)
    labels[offsets[:-1]] = -100
    words = ((tokens % 2).astype(np.int32), offsets)
    return replace(encoded, numbers={}, columns={**encoded.columns, "labels": (labels, offsets), "target_word": words})


def span_targets(encoded):
    places = {"target_start": encoded.lengths // 3, "target_end": encoded.lengths - 1}
    return replace(encoded, numbers={name: values.astype(np.int64) for name, values in places.items()})


HEADS_OVER_TOKENS = {
    "tags": (
        AutoModelForTokenClassification, token_labels, CrossEntropy(),
        TokenClassification(tokens="tokens", label="tags", source="nowhere.jsonl"),
    ),
    "spans": (AutoModelForQuestionAnswering, span_targets, SpanCrossEntropy(), QuestionAnswering(train="nowhere")),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["bert", "deberta-v2"])
@pytest.mark.parametrize("head", HEADS_OVER_TOKENS)
def test_a_head_over_tokens_learns_from_the_states_of_real_tokens(head, kind, tmp_path):
    auto, change, loss, task = HEADS_OVER_TOKENS[head]
    given, facts = served(change), {}
    parts = {"loss": loss, "forward": task.forward}
    bare = learned(net_of(kind, auto, num_labels=2 if head == "spans" else 3), given, **parts)
    frozen = frozen_on(tmp_path, given, facts, task=task, loss=loss)
    cached = learned(net_of(kind, auto, num_labels=2 if head == "spans" else 3), given, frozen, **parts)
    tokens = sum(int(given.of(split).lengths.sum()) for split in ("train", "validation"))
    assert (facts["kept"], facts["bytes"]) == ("last_hidden_state", tokens * 16 * 4)  # padding is not stored
    assert_close(bare, cached)


def test_dropout_of_the_head_draws_the_same_numbers(tmp_path):
    for kind, key in (
        ("bert", "classifier_dropout"),
        ("deberta-v2", "pooler_dropout"),
        ("distilbert", "seq_classif_dropout"),
    ):
        given = served()
        settings: dict[str, Any] = {key: 0.5}
        bare = learned(net_of(kind, **settings), given)
        assert_close(bare, learned(net_of(kind, **settings), given, frozen_on(tmp_path, given)))
        assert not torch.equal(bare["classifier.weight"], learned(net_of(kind), given)["classifier.weight"])


@pytest.mark.parametrize("stops", [[1], [2], [4, 5], list(range(1, STEPS + 1))])
@pytest.mark.parametrize("phases", [PROBE, TWO_PHASES], ids=["probe", "probe, then all"])
@pytest.mark.parametrize("again", ["found on disk", "computed again"])
def test_a_stopped_probe_goes_on_to_the_bit(again, phases, stops, tmp_path):
    def changed(place):
        if again == "computed again":
            shutil.rmtree(place / "features", ignore_errors=True)
        given = batches(seeds=training(model()).seeds)
        return {"batches": given, "frozen": frozen_on(place / "features", given), **STILL, "phases": phases}

    whole = go(tmp_path / "whole", BASE, **changed(tmp_path / "first"))
    for step in stops:
        go(tmp_path / "pieces", BASE, step, **changed(tmp_path / "second"))
    assert mismatches(whole, go(tmp_path / "pieces", BASE, **changed(tmp_path / "second"))) == []


def test_the_tables_end_with_the_phase_in_which_the_body_stays(tmp_path):
    """LP-FT: the second phase computes every batch, and ends where it would have without tables."""
    given, facts, net = served(), {}, net_of("bert")
    bare = learned(net_of("bert"), given, phases=TWO_PHASES, train=BASE)
    seen, own = calls_of(net), body_modules(net)[0].forward
    cached = learned(net, given, frozen_on(tmp_path, given, facts), phases=TWO_PHASES, train=BASE)
    assert facts["served"]
    assert len(seen) >= 4 * 3  # four steps of three micro-batches, beside the tables
    assert body_modules(net)[0].forward is own
    assert_close(bare, cached)


def test_a_body_that_has_moved_is_not_served(tmp_path):
    backwards = (replace(TWO_PHASES[1], share=0.5), replace(TWO_PHASES[0], share=0.5))
    given, facts = served(), {}
    learned(net_of("bert"), given, frozen_on(tmp_path, given, facts), phases=backwards)
    assert facts == {}


def test_a_model_can_be_prepared_again_and_again_under_half_precision():
    """accelerate marks a prepared model; with the mark left on, a second phase would train in float32."""
    code = (
        "import sys; sys.path.insert(0, 'tests'); import torch; from tiny_training import model;"
        "from headswap.hardware import start; from headswap.spine import HardwareConfig, TrainConfig;"
        "hardware = start(HardwareConfig('cpu', threads=1), TrainConfig(precision='bf16')); net, found = model(), [];"
        "net.classifier.register_forward_hook(lambda layer, given, output: found.append(output.dtype));"
        "ids = torch.ones(2, 3, dtype=torch.long);"
        "again = [lambda: hardware.place(net), lambda: hardware.prepare(net, torch.optim.AdamW(net.parameters()))[0]];"
        "[(placed := make(), placed(input_ids=ids, attention_mask=ids), hardware.plain(placed)) for make in again * 2];"
        "print(found == [torch.bfloat16] * 4)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "True\n"


def test_too_short_a_phase_computes_as_ever(tmp_path):
    given, facts = served(), {}
    learned(net_of("bert"), given, frozen_on(tmp_path, given, facts), train=replace(PLAIN, max_steps=2))
    assert facts == {"served": False, "why": "the frozen phase reads 24 of 29 training features"}


def company(net):
    """Let the body's output hang on the batch, as that of a body with batch statistics would."""
    base = body_modules(net)[0]
    compute = base.forward

    @functools.wraps(compute)
    def forward(*args, **named):
        output = compute(*args, **named)
        output.pooler_output = output.pooler_output + output.pooler_output.mean(dim=0)
        return output

    base.forward = forward


class Masking:
    """A collator that draws anew in every epoch."""

    def __call__(self, batch, split, features, epoch):
        return {**batch, "input_ids": (batch["input_ids"] + epoch) % 40}


@pytest.mark.parametrize(
    ("kind", "change", "more", "why"),
    [
        ("bert", company, {}, "what the body gives for a feature hangs on the batch around it"),
        ("bert", None, {"collator": Masking()}, "what the body is given changes from epoch to epoch"),
    ],
)
def test_what_cannot_be_served_is_computed_and_said(kind, change, more, why, tmp_path):
    given, facts, nets = replace(served(), **more), {}, [net_of(kind), net_of(kind)]
    for net in nets if change else ():
        change(net)
    bare, cached = learned(nets[0], given), learned(nets[1], given, frozen_on(tmp_path, given, facts))
    assert facts == {"served": False, "why": why}
    assert all(torch.equal(value, cached[name]) for name, value in bare.items())


def test_a_head_that_reads_padding_is_not_served(tmp_path):
    """GPT-2's reads the last token that is not its padding token; here batches are padded with another one."""
    given, facts = batches(), {}
    learned(net_of("gpt2"), given, frozen_on(tmp_path, given, facts))
    assert facts["why"].startswith("the head reads more of the body's output than a table holds")


def test_a_table_that_would_not_fit_is_not_made(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    given, facts = served(), {}
    learned(net_of("bert"), given, frozen_on(tmp_path, given, facts))
    assert facts["why"] == "the outputs of train would take 1,856 bytes on disk; at most 1,000 are taken"


def test_a_damaged_table_is_computed_again(tmp_path):
    given, facts = served(), {}
    whole = learned(net_of("bert"), given, frozen_on(tmp_path, given, facts))
    learned(net_of("bert"), given, frozen_on(tmp_path, given, facts))
    assert facts["computed"] == []
    for path in tmp_path.glob("*/values.bin"):
        path.write_bytes(bytes(path.stat().st_size))
    again = learned(net_of("bert"), given, frozen_on(tmp_path, given, facts))
    assert facts["computed"] == ["train", "validation"]
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_another_body_length_or_batch_has_tables_of_its_own(tmp_path):
    facts = {}

    def computed(given, **more):
        learned(net_of("bert", **more.pop("settings", {})), given, frozen_on(tmp_path, given, facts, **more))
        return facts["computed"]

    given = served()
    both = ["train", "validation"]
    assert computed(given) == both
    assert computed(replace(given, batch_size=6)) == []
    assert computed(given, about={"weights": "others"}) == both
    assert computed(given, settings={"layer_norm_eps": 1e-6}) == both
    assert computed(replace(given, evaluation_size=5)) == both
    assert computed(served(train=28)) == ["train"]


def test_a_stop_is_heard_while_tables_are_computed(tmp_path):
    given = served()
    frozen = frozen_on(tmp_path, given, stop=Stop(reason="a test"))
    with pytest.raises(Stopped, match="stopped by a test while the body's outputs for train were computed"):
        learned(net_of("bert"), given, frozen)
    assert not list(tmp_path.glob("*/"))


@pytest.fixture(scope="module")
def runs(tiny_body, tmp_path_factory):
    """A probe as a whole run: without tables, with new ones, with those found."""
    root = tmp_path_factory.mktemp("probes")
    table, done = reviews(root / "reviews.csv", 100), {}
    for name, extra in {
        "without": ["train.cache_features=false"],
        "new": [],
        "found": ["train.weight_decay=0.01"],
    }.items():
        words = ["strategy=probe", "train.max_steps=20", "train.evaluations=3", *extra]
        done[name] = root / name
        ended = ran(done[name], tiny(table, tiny_body, root / "out", *words))
        assert ended["kind"] == "finished", ended
    return done


def logits_of(run):
    return np.stack(pq.read_table(run / "predictions.parquet")["logits"].to_pylist())


@pytest.mark.parametrize("name", ["new", "found"])
def test_a_run_predicts_and_saves_what_it_would_without_tables(name, runs):
    assert np.abs(logits_of(runs[name]) - logits_of(runs["without"])).max() < 1e-5
    first, second = (load_file(runs[each] / "model" / "model.safetensors") for each in (name, "without"))
    assert_close(first, second)
    assert torch.equal(first["bert.pooler.dense.weight"], second["bert.pooler.dense.weight"])


def test_run_json_says_what_was_computed_and_found(runs):
    new, found = (read_json(runs[name] / "run.json")["features"] for name in ("new", "found"))
    counts = {"train": 60, "validation": 20, "test": 20}
    assert (new["kept"], new["features"], new["computed"]) == ("pooler_output", counts, list(counts))
    assert (found["features"], found["computed"], found["bytes"]) == (counts, [], 100 * 32 * 4)
    assert "features" not in read_json(runs["without"] / "run.json")
    assert np.array_equal(logits_of(runs["new"]), logits_of(runs["found"]))
