"""Bodies that write, from random weights: whole runs in little, with a tokenizer of their own, beside sacrebleu."""

import json
import random
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import headswap.recurrent
from headswap.answers import Labels
from headswap.byte_pairs import learn, write
from headswap.config import build_plugs, compose
from headswap.errors import ConfigError
from headswap.model import describe
from headswap.study.plan import plan
from tiny_runs import ran

BODIES = ("seq2seq_transformer", "seq2seq_lstm", "seq2seq_gru")
LITTLE = {
    "seq2seq_transformer": [
        "d_model=64", "encoder_layers=1", "decoder_layers=1", "encoder_ffn_dim=64", "decoder_ffn_dim=64", "init_std=0.125",
    ],
    "seq2seq_lstm": ["embedding_size=32", "hidden_size=48", "num_hidden_layers=1"],
    "seq2seq_gru": ["embedding_size=32", "hidden_size=48", "num_hidden_layers=1"],
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """Keep the config.json of bodies from settings out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Return a task to copy sixteen sentences; its rows are those it is tested on."""
    folder, dice = tmp_path_factory.mktemp("copy"), random.Random(0)
    names = ["Männer", "laufen", "schnell", "über", "große", "Straßen", "und", "sehen", "zwei", "Hunde"]
    rows = [" ".join(dice.sample(names, dice.randint(5, 7))) + "." for _ in range(16)]
    (folder / "rows.jsonl").write_text("".join(json.dumps({"en": row, "de": row}) + "\n" for row in rows))
    table = f"{folder / 'rows.jsonl'}"
    given = [
        "task=translation", *(f"task.{split}={table}" for split in ("train", "validation", "test")),
        "task.text=[en]", "task.target=de", "task.max_target_length=24", "data.max_length=24",
        "data.drop_duplicates=false", "train.precision=fp32", "hardware=cpu", "hardware.threads=1", "name=tiny",
    ]  # fmt: skip
    write(folder / "tokenizer", *learn(compose(given), 300))
    return [*given, f"output.root={folder}"], folder / "tokenizer"


def body_of(name, words, *settings):
    given, tokenizer = words
    return [
        *given,
        f"body={name}",
        f"body.tokenizer_source={tokenizer}",
        *(f"body.settings.{each}" for each in settings),
    ]


@pytest.fixture(scope="module")
def trained(words, tmp_path_factory):
    """Return the folder of a finished run of each body."""
    folders = {}
    for name in BODIES:
        folders[name] = tmp_path_factory.mktemp(name)
        config = compose([
            *body_of(name, words, *LITTLE[name], "dropout=0"), "metric=[bleu,chrf,perplexity]",
            *(["train.learning_rate=5e-3", "train.max_steps=120"] if name == "seq2seq_transformer" else ["train.learning_rate=2e-2", "train.max_steps=60"]),
            "train.batch_size=16", "train.evaluations=2", "train.select_by=loss",
        ])  # fmt: skip
        ended = ran(folders[name], config)
        assert ended["kind"] == "finished", ended
    return folders


def told(folder):
    return json.loads((folder / "result.json").read_text())


def scored(folder):
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    return [row for row in rows if row["split"] == "test"]


@pytest.mark.parametrize("name", BODIES)
def test_a_body_from_settings_learns_to_write(trained, name):
    found = told(trained[name])
    assert found["scores"]["test"]["bleu"] > 30
    assert found["flops"] > 0
    assert found["parameters"]["embeddings"] > 0


@pytest.mark.parametrize("name", BODIES)
def test_plain_transformers_writes_the_same_and_loses_the_same(trained, name):
    model = AutoModelForSeq2SeqLM.from_pretrained(trained[name] / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(trained[name] / "model")
    assert headswap.recurrent.RecurrentSeq2SeqConfig.model_type == "recurrent_seq2seq"
    rows = scored(trained[name])
    texts = [row["label"][0] for row in rows]
    given = tokenizer(texts, padding=True, return_tensors="pt")
    written = tokenizer.batch_decode(model.generate(**given), skip_special_tokens=True)
    assert written == [row["prediction"] for row in rows]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    losses = []
    with torch.no_grad():
        for text, row in zip(texts, ids, strict=True):
            labels = torch.tensor([[*row, tokenizer.eos_token_id]])
            loss = model(**tokenizer(text, return_tensors="pt"), labels=labels).loss
            losses += [float(loss)] * labels.shape[1]
    assert told(trained[name])["scores"]["test"]["perplexity"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-5)


def test_bleu_and_chrf_are_those_of_sacrebleus_command_line(trained, tmp_path):
    for name in ("seq2seq_lstm", "seq2seq_gru"):
        rows, scores = scored(trained[name]), told(trained[name])["scores"]["test"]
        (tmp_path / "written").write_text("".join(row["prediction"] + "\n" for row in rows), encoding="utf-8")
        (tmp_path / "right").write_text("".join(row["label"][0] + "\n" for row in rows), encoding="utf-8")
        command = [sys.executable, "-m", "sacrebleu", "right", "-i", "written", "-m", "bleu", "chrf", "-w", "8"]
        said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
        found = {each["name"].lower().removesuffix("2"): each["score"] for each in json.loads(said.stdout)}
        assert scores["bleu"] == pytest.approx(found["bleu"], abs=1e-7)
        assert scores["chrf"] == pytest.approx(found["chrf"], abs=1e-7)


def counts(name, words, *settings):
    body = build_plugs(compose(body_of(name, words, "vocab_size=6000", *settings))).body
    found = describe(body, Labels((), "sequence_to_sequence"), "AutoModelForSeq2SeqLM")
    assert found["head"] == 0  # the output embeddings are the input's
    return found["body"], found["body"] - found["embeddings"]


def test_the_bodies_that_write_are_of_one_size_with_and_without_embeddings(words):
    found = {name: counts(name, words) for name in BODIES} | {"none": counts("seq2seq_lstm", words, "attention=none")}
    for whole, layers in found.values():
        assert whole == pytest.approx(found["seq2seq_transformer"][0], rel=0.05)
        assert layers == pytest.approx(found["seq2seq_transformer"][1], rel=0.05)
    both_ways = sum(2 * (4 * (116 * (width + 116) + 2 * 116)) for width in (128, 232))
    writing = sum(4 * (232 * (width + 232) + 2 * 232) for width in (128, 232))
    norms, mix = 2 * 4 * 232, 128 * (2 * 232) + 128
    assert found["seq2seq_lstm"][1] == both_ways + writing + norms + mix
    assert found["seq2seq_lstm"][0] == found["seq2seq_lstm"][1] + 6000 * 128 + 2 * 2 * 128  # one table, two norms


def test_the_experiment_sets_the_architectures_side_by_side(words):
    given, tokenizer = words
    config = compose(["experiment=translation_rnn", *given[1:], f"body.tokenizer_source={tokenizer}", "study.seeds=2"])
    cells = plan(config)
    assert [(each.arm, each.seed) for each in cells if each.arm == "fixed_state"] == [
        ("fixed_state", 0),
        ("fixed_state", 1),
    ]
    assert len({each.job.folder.path for each in cells}) == len(cells) == 2 * 4
    made = {each.arm: each.job.config for each in cells if each.seed == 1}
    names = {arm: config.body["architecture"] for arm, config in made.items()}
    assert names == {arm: "pegasus" if arm == "transformer" else "recurrent_seq2seq" for arm in made}
    assert {arm: config.body["settings"].get("attention") for arm, config in made.items()} == {
        "transformer": None, "lstm": "dot", "gru": "dot", "fixed_state": "none",
    }  # fmt: skip
    for config in made.values():
        assert (config.task, config.data, config.metric) == tuple(
            getattr(made["lstm"], name) for name in ("task", "data", "metric")
        )
        assert config.body["tokenizer_source"] == str(tokenizer)
        assert config.body["settings"]["dropout"] == 0.2


def test_the_study_asks_for_its_tokenizer_by_the_key_that_sets_it():
    with pytest.raises(ConfigError, match=r"^body\.tokenizer_source: needs a value; found none; set body\.tok"):
        compose(["experiment=translation_rnn", "task.source=pairs.jsonl"])
