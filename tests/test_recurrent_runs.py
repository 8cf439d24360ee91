"""Bodies from settings through headswap's own runs: every task, saving, handing on, and the arms of a study."""

import json
import math

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file

import headswap
from headswap.answers import Labels
from headswap.bodies.scratch import ScratchBody
from headswap.config import build_plugs, compose
from headswap.errors import ConfigError, WeightsError
from headswap.export.graph import form_of
from headswap.model import describe
from headswap.overlays import overlay
from headswap.records import read_json
from headswap.study.plan import audit, differences, plan
from test_launch import called
from tiny_families import two_labels
from tiny_runs import ran, reviews

LITTLE = ["body.settings.embedding_size=12", "body.settings.hidden_size=16"]
PLAIN = ["body.tokenizer_revision=null", "body.tokenizer_sha256=null", "body.tokenizer_mirrors=[]"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "headswap" / "bodies"


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    return reviews(tmp_path_factory.mktemp("tables") / "reviews.csv", 48)


def short(root):
    return [
        "data.max_length=24", "train.max_steps=2", "train.batch_size=8", "train.evaluations=1", "train.precision=fp32",
        "train.learning_rate=1e-3", "hardware=cpu", "hardware.threads=1", f"output.root={root}", "name=tiny",
        "task.validation_share=0.2", "task.test_share=0.2",
    ]  # fmt: skip


def body_of(tokenizer, *settings, name="lstm"):
    return [f"body={name}", f"body.tokenizer_source={tokenizer}", *PLAIN, *settings]


def text(table):
    return ["task=text", f"task.source={table}", "task.text=[text]", "task.label=label"]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def finished(folder, words):
    ended = ran(folder, compose(words))
    assert ended["kind"] == "finished", ended
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, table, tiny_body):
    """A finished run of body=lstm."""
    root = tmp_path_factory.mktemp("lstm")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(root / "cache"))
        return finished(root / "run", [*text(table), *body_of(tiny_body, *LITTLE), *short(root)])


def test_a_trained_lstm_is_an_ordinary_transformers_model(trained):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(trained / "model")
    saved = load_file(trained / "model" / "model.safetensors")
    assert set(saved) == set(model.state_dict())
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    assert type(model).__name__ == "RecurrentForSequenceClassification" and model.config.initialisation == "forget_bias"
    scores = [each.scores for each in headswap.load(trained)(["a good film", "a dull plot", "it was not bad"])]
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained / "model")
    batch = tokenizer(["a good film", "a dull plot", "it was not bad"], padding=True, return_tensors="pt")
    own = model.eval()(**batch).logits.softmax(-1)
    assert [list(each.values()) for each in scores] == [pytest.approx(row, abs=1e-6) for row in own.tolist()]


def test_its_result_tells_parameters_with_and_without_embeddings(trained):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(trained / "model")
    below = sum(each.numel() for each in model.recurrent.embeddings.parameters())
    assert below == len(transformers.AutoTokenizer.from_pretrained(trained / "model")) * 12 + 2 * 12 + 2 * 12
    told = read_json(trained / "result.json")["parameters"]
    body = sum(each.numel() for each in model.recurrent.parameters())
    assert told == {"trainable": body + 16 * 2 + 2, "body": body, "head": 16 * 2 + 2, "embeddings": below}
    assert read_json(trained / "result.json")["flops"] > 0


def test_cells_are_not_exported(trained):
    with pytest.raises(ConfigError, match="recurrent cells are not exported; found RecurrentForSequenceClassification"):
        form_of(trained / "model")


def test_its_ledger_and_body_change_name_every_layer(trained):
    ledger = read_json(trained / "ledger.json")
    assert (ledger["origin"], ledger["init"], ledger["summary"]["coverage"]) == ("recurrent from settings", "random", 0)
    names = [entry["name"] for entry in ledger["entries"] if entry["part"] == "body"]
    assert "recurrent.layers.1.reverse.weight_hh_l0" in names and {entry["fate"] for entry in ledger["entries"]} == {
        "new"
    }


def test_a_trained_lstm_is_the_body_of_the_next_run(trained, table, tmp_path):
    words = [*text(table), "body=from_run", f"run={trained}", "head=keep", *short(tmp_path), "strategy=layer_decay"]
    folder = finished(tmp_path / "run", [*words, "train.measure_change=true"])
    ledger = read_json(folder / "ledger.json")["summary"]
    assert ledger["coverage"] == 1.0 and ledger["counts"]["head"]["kept"]["tensors"] == 2
    told = read_json(folder / "body.json")["layers"]
    assert [each["layer"] for each in told] == ["embeddings", "layer 0", "layer 1"]
    assert all(each["relative_change"] > 0 and each["cka"] < 1 for each in told)


@pytest.mark.parametrize("strategy", ["bias_only", "probe", "gradual"])
def test_strategies_move_the_weights_of_cells(strategy, trained, table, tmp_path):
    words = [*text(table), "body=from_run", f"run={trained}", *short(tmp_path), f"strategy={strategy}"]
    before = load_file(trained / "model" / "model.safetensors")
    after = load_file(finished(tmp_path / "run", words) / "model" / "model.safetensors")
    moved = {name for name in after if name.startswith("recurrent.") and not torch.equal(before[name], after[name])}
    cells = {name for name in after if "bias" in name and name.startswith("recurrent.")}
    assert moved <= cells if strategy == "bias_only" else not moved or strategy == "gradual"
    assert strategy != "bias_only" or "recurrent.layers.0.rnn.bias_hh_l0" in moved


def test_adapters_of_linear_layers_are_refused_where_there_are_none(trained, table, tmp_path):
    ended = ran(
        tmp_path / "run", compose([*text(table), "body=from_run", f"run={trained}", *short(tmp_path), "strategy=lora"])
    )
    assert ended["error"] == (
        "strategy: adapters stand beside linear layers of the body; found RecurrentForSequenceClassification without any; "
        "use strategy=full or strategy=bias_only"
    )


WORDS = ["the film was good", "a bad plot", "it was not very dull", "this movie is great", "loved it", "so poor a film"]


def tasks(root):
    """Return, by name, the words of a task on a few rows."""
    tags = [{"tokens": row.split(), "tags": ["O"] * (len(row.split()) - 1) + ["B-x"]} for row in WORDS * 5]
    asked = [
        {"id": str(n), "question": f"what {n}", "context": row, "answers": {"text": [row.split()[-1]], "answer_start": [row.rindex(" ") + 1]}}
        for n, row in enumerate(f"{row} {n}" for n, row in enumerate(WORDS * 5))
    ]  # fmt: skip
    quiz = [{"a": row, "b": ["good", f"bad {n}"], "label": n % 2} for n, row in enumerate(WORDS * 5)]
    texts = [{"text": f"{row} {n}"} for n, row in enumerate(WORDS * 5)]
    return {
        "token_classification": ["task=token_classification", f"task.source={lines(root / 'tags.jsonl', tags)}", "task.tokens=tokens", "task.label=tags", "data.drop_duplicates=false"],
        "question_answering": ["task=question_answering", f"task.source={lines(root / 'asked.jsonl', asked)}", "task.references=answers"],
        "multiple_choice": ["task=multiple_choice", f"task.source={lines(root / 'quiz.jsonl', quiz)}", "task.context=[a]", "task.choices=[b]", "task.label=label"],
        "masked_language_modeling": ["task=masked_language_modeling", f"task.source={lines(root / 'texts.jsonl', texts)}", "task.text=[text]"],
        "causal_language_modeling": ["task=causal_language_modeling", f"task.source={lines(root / 'texts.jsonl', texts)}", "task.text=[text]"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("token_classification", "gru"),
        ("question_answering", "lstm"),
        ("multiple_choice", "tanh_rnn"),
        ("masked_language_modeling", "lstm"),
        ("causal_language_modeling", "gru"),
    ],
)
def test_every_head_trains_and_predicts(task, name, tiny_body, tmp_path):
    causal = ["body.settings.bidirectional=false"] if task.startswith("causal") else []
    place = two_labels("GPT-2", tmp_path / "gpt2") if causal else tiny_body
    words = [*tasks(tmp_path)[task], *body_of(place, *LITTLE, *causal, name=name), *short(tmp_path)]
    folder = finished(tmp_path / "run", words)
    result = read_json(folder / "result.json")
    assert result["steps"] == 2 and all(math.isfinite(value) for value in result["scores"]["test"].values())
    kind = {"language": "LM"}.get(task.split("_")[1], task.title().replace("_", ""))
    assert read_json(folder / "model" / "config.json")["architectures"][0].endswith(kind)


def test_a_causal_task_refuses_a_body_that_reads_both_ways(tiny_body, tmp_path):
    words = [*tasks(tmp_path)["causal_language_modeling"], *body_of(tiny_body, *LITTLE), *short(tmp_path)]
    ended = ran(tmp_path / "run", compose(words))
    assert ended["kind"] == "failed" and "set body.settings.bidirectional=false" in ended["error"]


def test_a_sequence_to_sequence_task_refuses_an_encoder_of_cells(trained, tmp_path):
    rows = [{"en": row, "de": row[::-1]} for row in WORDS * 5]
    words = [
        "task=translation",
        f"task.source={lines(tmp_path / 'pairs.jsonl', rows)}",
        "task.text=[en]",
        "task.target=de",
    ]
    ended = ran(tmp_path / "run", compose([*words, "body=from_run", f"run={trained}", *short(tmp_path)]))
    assert ended["kind"] == "failed" and "does not serve this architecture" in ended["error"]


def sizes(name, tokenizer):
    words = body_of(tokenizer, "body.settings.vocab_size=30522", name=name)
    body = build_plugs(compose([*text("none.csv"), *words])).body
    found = describe(body, Labels(("a", "b"), "single_label_classification"), "AutoModelForSequenceClassification")
    return found["body"] + found["head"], found["body"] + found["head"] - found["embeddings"]


def test_the_bodies_are_of_one_size_with_and_without_embeddings(tiny_body):
    found = {name: sizes(name, tiny_body) for name in ("lstm", "gru", "tanh_rnn", "small_transformer")}
    for whole, layers in found.values():
        assert whole == pytest.approx(found["lstm"][0], rel=0.05)
        assert layers == pytest.approx(found["lstm"][1], rel=0.05)
    gates = (
        4 * (288 * (256 + 288) + 2 * 288) * 2 + 4 * (288 * (576 + 288) + 2 * 288) * 2
    )  # two directions of two layers
    assert found["lstm"][1] == gates + 2 * 2 * 576 + 576 * 2 + 2  # their norms, and the head


def test_a_body_is_known_by_its_tokenizers_bytes_and_made_once(tiny_body, tmp_path, cache):
    import shutil

    shutil.copytree(tiny_body, tmp_path / "copy")
    bodies = [ScratchBody("recurrent", str(place), {"cell": "gru"}) for place in (tiny_body, tmp_path / "copy")]
    assert bodies[0].identity() == bodies[1].identity()
    folder = bodies[0].locate().folder
    assert folder == bodies[1].locate(weights=False).folder and list(cache.iterdir()) == [folder]
    told = read_json(folder / "config.json")
    assert told == {
        "model_type": "recurrent", "cell": "gru", "vocab_size": 104, "pad_token_id": 0, "bos_token_id": 2,
        "eos_token_id": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"settings": {"hiden_size": 8}}, "body.settings.hiden_size: RecurrentConfig has no such setting; found 8; remove it (did you mean hidden_size?)"),
        ({"settings": {"hidden_size": "wide"}}, "body.settings: the architecture refuses them; found "),
        ({"settings": {"cell": "lsmt"}}, "choose lstm, gru, tanh"),
        ({"settings": {"num_labels": 3}}, "body.settings.num_labels: not the body's to set; found 3"),
        ({"architecture": "recurent"}, "body.architecture: no such architecture; found 'recurent'; use a model type that transformers knows (did you mean recurrent"),
        ({"init": "pretrained"}, "body.init: a body from settings has no weights to start from; found 'pretrained'"),
        ({"tokenizer_mirrors": ["a"]}, "body.tokenizer_mirrors: nothing proves that they hold the source's bytes"),
        ({"tokenizer_sha256": "a"}, "body.tokenizer_sha256: not a sha256"),
        ({"tokenizer_sha256": "a" * 64}, "not the pinned tokenizer; found sha256 "),
        ({"tokenizer_source": "./nowhere"}, "or package:<module>/<path> as body.tokenizer_source"),
    ],
)  # fmt: skip
def test_what_makes_no_body_is_told(fields, said, tiny_body):
    with pytest.raises((ConfigError, WeightsError)) as caught:
        ScratchBody(**{"architecture": "recurrent", "tokenizer_source": str(tiny_body), **fields}).locate()
    assert said in str(caught.value) and "\n" not in str(caught.value)


def arms(table, tiny_body, root, *more):
    words = [
        *text(table),
        "body=transformer",
        f"body.source={tiny_body}",
        *short(root),
        "study=rnn",
        "study.sizes=[20]",
    ]
    return compose([*words, "study.seeds=1", *more])


def test_recurrent_arms_stand_beside_the_pretrained_one_and_its_twin(table, tiny_body, tmp_path):
    config = arms(table, tiny_body, tmp_path)
    made = {cell.arm: cell.job.config for cell in plan(config)}
    assert set(made) == {"finetune", "scratch", "lstm", "gru", "tfidf"}
    for arm, cell, width in (("lstm", "lstm", 576), ("gru", "gru", 672)):
        own = compose([f"body={arm}", *text(table)]).body
        assert made[arm].body == own and own["settings"] | {"cell": cell, "hidden_size": width} == own["settings"]
    assert build_plugs(made["lstm"]).body.identity() == {
        "tokenizer": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
    }
    audit(made, "lstm", "scratch", config.study.may_differ)


def test_two_bodies_from_settings_differ_in_what_is_declared(table, tiny_body, tmp_path):
    first, second = (compose([*text(table), *body_of(tiny_body, name=name)]) for name in ("lstm", "small_transformer"))
    found = differences(first, second, ["body.settings"])
    assert found == {"body.architecture": ("recurrent", "bert")}
    changed = overlay(first, {"body": second.body}, "study.arms.small")
    assert changed.body == second.body  # none of the LSTM's settings is left
    wider = overlay(first, {"body": {"settings": {"hidden_size": 32}}}, "study.arms.wide")
    assert wider.body["settings"] == first.body["settings"] | {"hidden_size": 32}


def test_every_arms_parameters_are_told_before_it_trains(capfd, table, tiny_body, tmp_path):
    little = {"tokenizer_source": str(tiny_body), "tokenizer_sha256": None, "tokenizer_mirrors": []}
    for arm, width in (("lstm", 16), ("gru", 12)):
        own = yaml.safe_load(yaml.safe_dump(compose([f"body={arm}", *text(table)]).body)) | little
        own["settings"] |= {"embedding_size": 12, "hidden_size": width}
        (tmp_path / f"{arm}.json").write_text(json.dumps(own))
    (tmp_path / "study").mkdir()
    lstm, gru = (json.loads((tmp_path / f"{arm}.json").read_text()) for arm in ("lstm", "gru"))
    study = {"arms": {"scratch": {"body": lstm}, "finetune": {"body": gru}}, "may_differ": ["body"], "sizes": [20]}
    (tmp_path / "study" / "cells.yaml").write_text(yaml.safe_dump(study))
    words = [*text(table), "body=transformer", f"body.source={tiny_body}", *short(tmp_path), "study=cells"]
    code, told, errors = called(capfd, "plan", f"--config-dir={tmp_path}", *words, "study.seeds=1")
    said = [line for line in told if line.startswith("study  parameters")]
    assert (code, errors) == (0, "")
    below = 104 * 12 + 2 * 12 + 2 * 12
    first = 2 * 4 * (8 * (12 + 8) + 2 * 8) + 2 * 4 * (8 * (16 + 8) + 2 * 8) + 2 * 2 * 16 + 2 * 16 + 2
    assert f"study  parameters   scratch: {below + first:,}, without embeddings {first:,}" in said
    assert len(said) == 2
    assert [line.split("/tiny/")[1].split("-seed")[0] for line in told if "to train  " in line] == [
        "text-recurrent-full-random"
    ] * 2
