"""Whole runs of language models in little: exact, readable by plain transformers, and the body of the next run."""

import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, pipeline

import faults
import headswap
from exact import without_clocks
from headswap.config import compose
from headswap.encoded import encode_rows
from headswap.predict import Predictor
from headswap.predict.score import evaluate
from headswap.records import RunFolder, read_json, read_jsonl
from headswap.seeds import Seeds
from headswap.tasks.language_modeling import MaskedLanguageModeling
from headswap.verify import compare_runs
from tiny_families import FAMILIES, config_of, saved
from tiny_runs import ran, reviews
from tiny_runs import words_of as tiny_words

LENGTH = 10  # some of the texts are longer: they become two features


def words_of(kind: str, table: str, body: Path, root: Path) -> list[str]:
    return [
        f"task={kind}_language_modeling", f"task.source={table}", "task.text=[text]", "task.stratify=label",
        "task.validation_share=0.2", "task.test_share=0.2", "body=transformer", f"body.source={body}",
        f"data.max_length={LENGTH}", "train.max_steps=4", "train.batch_size=8", "train.evaluations=2",
        "train.learning_rate=1e-3", "train.precision=fp32", "hardware=cpu", "hardware.threads=1", f"output.root={root}",
        "name=tiny",
    ]  # fmt: skip


def language_model(name: str, auto, folder: Path) -> Path:
    tokenizer = FAMILIES[name].tokenizer()
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return saved(auto.from_config(config_of(name, tokenizer, max_position_embeddings=64)), tokenizer, folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("language")


@pytest.fixture(scope="module")
def table(place) -> str:
    return reviews(place / "reviews.csv", 48)


@pytest.fixture(scope="module")
def masked(place, table):
    """A finished run that went on with a RoBERTa's own masked language model."""
    body = language_model("RoBERTa", AutoModelForMaskedLM, place / "roberta")
    assert ran(place / "masked", compose(words_of("masked", table, body, place)))["kind"] == "finished"
    return RunFolder(place / "masked")


@pytest.fixture(scope="module")
def causal(place, table):
    body = language_model("GPT-2", AutoModelForCausalLM, place / "gpt2")
    assert ran(place / "causal", compose(words_of("causal", table, body, place)))["kind"] == "finished"
    return RunFolder(place / "causal")


def of_test(folder, table):
    """Return the rows of test in predictions.parquet with their texts."""
    texts = [line.rpartition(",")[0] for line in Path(table).read_text().splitlines()]
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    return [(texts[int(row["id"])], row["prediction"]) for row in rows if row["split"] == "test"]


def test_a_causal_run_is_scored_as_plain_transformers_scores_its_model(causal, table):
    tokenizer = AutoTokenizer.from_pretrained(causal / "model")
    model = AutoModelForCausalLM.from_pretrained(causal / "model").eval()
    total = count = 0
    for text, (lost, _, targets) in of_test(causal, table):
        ids = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
        assert ids.shape[1] - 1 == targets
        if ids.shape[1] <= LENGTH:
            loss = float(model(input_ids=ids, labels=ids).loss.detach()) * targets
            assert lost == pytest.approx(loss, rel=1e-4)
        total, count = total + lost, count + targets
    scores = causal.result()["scores"]["test"]
    assert scores["token_loss"] == pytest.approx(total / count, rel=1e-6)
    assert scores["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-6)


def test_a_masked_run_is_scored_as_plain_transformers_scores_its_model(masked, table):
    tokenizer = AutoTokenizer.from_pretrained(masked / "model")
    model = AutoModelForMaskedLM.from_pretrained(masked / "model").eval()
    task = MaskedLanguageModeling(text=["text"], source="a.csv")
    rows = of_test(masked, table)
    of = encode_rows(
        {"id": [str(n) for n in range(len(rows))], "text": [text for text, _ in rows]}, task, tokenizer, LENGTH
    )
    assert len(of) > len(rows)
    batch = task.collator(tokenizer, Seeds(0))(of.collate(np.arange(len(of))), "test", np.arange(len(of)), 0)
    loss = float(model(**batch).loss.detach())
    assert masked.result()["scores"]["test"]["token_loss"] == pytest.approx(loss, rel=1e-4)
    targets = (batch["labels"] != -100).sum(dim=1).numpy()
    assert [sums[2] for _, sums in rows] == np.bincount(of.example, targets).tolist()


def fates(folder):
    return {(each["part"], each["fate"]) for each in read_json(folder / "ledger.json")["entries"]}


def test_a_language_models_head_goes_on_and_a_body_without_one_gets_a_new_one(masked, causal, place, table, tiny_body):
    assert fates(masked) == {("body", "kept"), ("head", "kept")}
    assert fates(causal) == {("body", "kept")}  # its head is the embeddings
    words = words_of("masked", table, tiny_body, place)
    assert ran(place / "bare", compose([*words, "train.max_steps=1"]))["kind"] == "finished"
    assert fates(place / "bare") == {("body", "kept"), ("body", "dropped"), ("head", "new")}  # dropped: the pooler


def test_fill_mask_of_transformers_names_the_likeliest_token(masked):
    tokenizer = AutoTokenizer.from_pretrained(masked / "model")
    model = AutoModelForMaskedLM.from_pretrained(masked / "model").eval()
    text = f"the film was{tokenizer.mask_token} and the plot was fine"
    encoded = tokenizer(text, return_tensors="pt")
    hidden = encoded["input_ids"][0] == tokenizer.mask_token_id
    with torch.inference_mode():
        probabilities = model(**encoded).logits[0][hidden].softmax(dim=-1)[0]
    found = pipeline("fill-mask", model=str(masked / "model"), device="cpu")(text, top_k=3)
    assert [each["token"] for each in found] == probabilities.topk(3).indices.tolist()
    assert [each["score"] for each in found] == pytest.approx(probabilities.topk(3).values.tolist(), rel=1e-4)


def test_text_generation_of_transformers_goes_on_with_the_likeliest_token(causal):
    tokenizer = AutoTokenizer.from_pretrained(causal / "model")
    model = AutoModelForCausalLM.from_pretrained(causal / "model").eval()
    ids = tokenizer("the film was", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        likeliest = int(model(ids).logits[0, -1].argmax())
    write = pipeline("text-generation", model=str(causal / "model"), device="cpu")
    (found,) = write("the film was", max_new_tokens=1, do_sample=False, return_tensors=True)
    assert found["generated_token_ids"] == [*ids[0].tolist(), likeliest]


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_a_loaded_run_tells_of_texts_what_it_was_scored_by(kind, table, request):
    folder = request.getfixturevalue(kind)
    rows = of_test(folder, table)
    found = headswap.load(folder.path, batch_size=3)([text for text, _ in rows])
    expected = [[lost / targets, right / targets, targets] for _, (lost, right, targets) in rows]
    assert [[each.loss, each.accuracy, each.tokens] for each in found] == [
        pytest.approx(each, rel=1e-4) for each in expected
    ]


def test_new_texts_without_labels_are_scored(causal, tmp_path):
    (tmp_path / "new.jsonl").write_text('{"text": "the film was good"}\n{"text": "a dull plot"}\n')
    scores = {each.name: each.value for each in evaluate(Predictor(causal.path), str(tmp_path / "new.jsonl"))}
    one, other = headswap.load(causal.path)(["the film was good", "a dull plot"])
    loss = (one.loss * one.tokens + other.loss * other.tokens) / (one.tokens + other.tokens)
    assert scores["token_loss"] == pytest.approx(loss, rel=1e-5)
    assert scores.keys() == {"perplexity", "token_loss", "target_accuracy"}


def test_the_next_run_takes_the_adapted_body_to_the_bit(masked, place, table):
    words = tiny_words(table, place, place)
    kept = [word for word in words if not word.startswith("body")]
    config = compose([*kept, "body=from_run", f"run={masked.path}", "head=fresh", "strategy=probe"])
    assert ran(place / "classified", config)["kind"] == "finished"
    adapted, classified = (
        load_file(folder / "model" / "model.safetensors") for folder in (masked.path, place / "classified")
    )
    body = [name for name in adapted if name.startswith("roberta.")]
    assert len(body) > 30
    assert all(torch.equal(adapted[name], classified[name]) for name in body)


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_a_run_that_was_stopped_ends_as_the_one_that_was_not(kind, place, table, request):
    straight = request.getfixturevalue(kind)
    config = compose(words_of(kind, table, place / {"masked": "roberta", "causal": "gpt2"}[kind], place))
    pieces = place / f"{kind}-in-pieces"
    for step in (1, 3):
        assert ran(pieces, config, stop_at=step)["status"] == "stopped"
    assert ran(pieces, config)["kind"] == "finished"
    found = compare_runs(straight.path, pieces)
    faults.resumed([] if found.same else found.lines)
    assert found.same


def test_masks_and_loss_do_not_hang_on_micro_batches(masked, place, table):
    words = words_of("masked", table, place / "roberta", place)
    dropless = ["body.config_overrides={hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0}"]
    lines = []
    for size in ("null", "2"):
        folder = place / f"micro-{size}"
        assert ran(folder, compose([*words, *dropless, f"train.micro_batch_size={size}"]))["kind"] == "finished"
        lines.append([without_clocks(line) for line in read_jsonl(folder / "metrics.jsonl") if line["kind"] == "train"])
    whole, small = ([line["loss"] for line in each] for each in lines)
    assert small == pytest.approx(whole, rel=1e-4)
