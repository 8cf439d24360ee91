"""Predictions against transformers itself: its pipeline, and tokenizer + model + softmax one text at a time."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2ForSequenceClassification, pipeline

from conftest import make_tokenizer
from finished_runs import CUT, LABELS, PAIRS, TEXTS, close, make_number_run, make_run, manual, probabilities
from headswap import Predictor
from headswap.errors import ConfigError, DataError, HeadswapError, RunError, WeightsError


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_classifier) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "texts", tiny_classifier)


@pytest.fixture(scope="module")
def pair_run(tmp_path_factory, tiny_classifier) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "pairs", tiny_classifier, "task.text=[premise,hypothesis]")


@pytest.fixture(scope="module")
def number_run(tmp_path_factory) -> Path:
    return make_number_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def predictor(run) -> Predictor:
    return Predictor(run)


def test_predictions_equal_tokenizer_model_softmax_one_text_at_a_time(run, predictor):
    answers = predictor(TEXTS)
    assert close(probabilities(answers), manual(run / "model", TEXTS, CUT))
    for answer in answers:
        assert tuple(answer.scores) == LABELS
        assert answer.score == max(answer.scores.values()) == answer.scores[answer.label]
        assert sum(answer.scores.values()) == pytest.approx(1, abs=1e-6)


def test_predictions_equal_the_pipeline_of_transformers(run, predictor):
    short = [text for text in TEXTS if len(text) < 8]  # a pipeline does not cut long texts by itself
    classify = pipeline("text-classification", model=str(run / "model"), top_k=None)
    for answer, expected in zip(predictor(short), classify(short), strict=True):
        assert answer.scores == pytest.approx({each["label"]: each["score"] for each in expected}, abs=1e-5)
        assert answer.label == expected[0]["label"]


def test_texts_are_cut_where_the_run_cut_them(run, predictor):
    whole = manual(run / "model", TEXTS[4:5], 64)
    assert not close(probabilities(predictor(TEXTS[4:5])), whole)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_answers_depend_neither_on_batches_nor_on_order(run, predictor, batch_size):
    other = Predictor(run, batch_size=batch_size)(list(reversed(TEXTS)))
    assert close(probabilities(other)[::-1], probabilities(predictor(TEXTS)))


def test_blocks_of_rows_keep_their_order(monkeypatch, predictor):
    expected = probabilities(predictor(TEXTS))
    monkeypatch.setattr("headswap.predict.predictor.ROWS_AT_ONCE", 4)
    assert close(probabilities(predictor(TEXTS)), expected)


def test_pairs_are_encoded_as_pairs(pair_run):
    assert close(probabilities(Predictor(pair_run)(PAIRS)), manual(pair_run / "model", PAIRS, CUT))


def test_a_number_is_answered_with_its_columns_name(number_run):
    answers = Predictor(number_run)(TEXTS)
    assert close([[answer.value] for answer in answers], manual(number_run / "model", TEXTS, CUT))
    assert answers[0].values == {"stars": answers[0].value}


def test_any_checkpoint_of_a_classifier_serves_and_is_cut_at_its_positions(tiny_classifier):
    texts, pairs = [*TEXTS, "good " * 100], [("good " * 50, "bad " * 50), *PAIRS]
    predictor = Predictor(str(tiny_classifier))
    assert close(probabilities(predictor(texts)), manual(tiny_classifier, texts, 64))
    assert close(probabilities(predictor(pairs)), manual(tiny_classifier, pairs, 64))
    named = [{"text": one, "text_pair": two} for one, two in PAIRS]
    assert close(probabilities(predictor(named)), manual(tiny_classifier, PAIRS, 64))
    assert close(probabilities(predictor(texts)), manual(tiny_classifier, texts, 64))


def test_the_model_folder_of_a_run_is_that_run(run, predictor):
    inside = Predictor(run / "model")
    assert inside.task.inputs == ("review",)
    assert probabilities(inside(TEXTS)) == probabilities(predictor(TEXTS))


def test_a_decoder_without_a_padding_token_is_served_in_batches(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    tokenizer.save_pretrained(tmp_path)
    shape = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "num_labels": 3}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = GPT2ForSequenceClassification(
            GPT2Config(vocab_size=len(tokenizer), bos_token_id=2, eos_token_id=3, **shape)
        )
    model.save_pretrained(tmp_path)
    expected = manual_last_token(tmp_path)
    assert close(probabilities(Predictor(tmp_path)(TEXTS)), expected)


def manual_last_token(folder: Path) -> list[list[float]]:
    """Return the softmax at the last token that is not [SEP], which ends every text and also fills batches."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = GPT2ForSequenceClassification.from_pretrained(folder).eval()
    rows = []
    for text in TEXTS:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=32)["input_ids"]
        with torch.no_grad():
            hidden = model.transformer(inputs).last_hidden_state[0, -2]
            rows.append(model.score(hidden).softmax(dim=-1).tolist())
    return rows


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "inputs: nothing to predict; found an empty list; give one input or more"),
        ("good", "inputs: one input alone; found 'good'; give a list of inputs"),
        (["good", " \n"], r"inputs[1]: empty text; found ' \n'; fill or remove it"),
        (["good", None], "inputs[1]: not a text; found None; give a str"),
        ([3], "inputs[0]: not a text; found 3; give a str"),
        ([("good", 3)], "inputs[0]: not a text; found ('good', 3); give a str"),
        ([{"text": "a"}], "inputs[0]: wrong columns; found 'text'; give 'review'"),
    ],
)
def test_what_is_not_text_is_refused_with_its_place(predictor, texts, message):
    with pytest.raises(DataError) as caught:
        predictor(texts)
    assert str(caught.value) == message


def test_one_text_for_a_task_of_pairs_is_refused(pair_run):
    with pytest.raises(DataError) as caught:
        Predictor(pair_run)(["good"])
    assert str(caught.value) == (
        "inputs[0]: wrong number of values; found 1 where this model takes 2 (premise, hypothesis); give a (premise, "
        "hypothesis) tuple"
    )


def refusal(folder: Path | str, kind: type[HeadswapError], batch_size: int = 64) -> str:
    with pytest.raises(kind) as caught:
        Predictor(folder, batch_size)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_that_is_not_there_is_told_with_the_nearest(tmp_path):
    (tmp_path / "tweets-seed0").mkdir()
    path = tmp_path / "tweets-seed1"
    assert refusal(path, ConfigError) == (
        f"{path}: no such folder; found nothing there (did you mean tweets-seed0?); "
        "name the folder that headswap train printed"
    )
    file = tmp_path / "file"
    file.touch()
    assert refusal(file, ConfigError).startswith(f"{file}: no such folder; found a file;")


def test_a_run_that_has_not_finished_is_refused(tmp_path, tiny_classifier):
    folder = make_run(tmp_path / "run", tiny_classifier)
    (folder / "result.json").unlink()
    assert refusal(folder, RunError) == (
        f"{folder}: this run has not finished; found no result.json; give the same headswap train command again"
    )


def test_a_run_that_kept_no_model_is_refused(tmp_path):
    folder = make_run(tmp_path / "run", None, "output.keep_model=false")
    assert refusal(folder, RunError) == (
        f"{folder}: this run has no saved model; found output.keep_model=false; "
        "run it again with output.keep_model=true output.reuse=false"
    )
    other = make_run(tmp_path / "other", None)
    assert "found no model/config.json" in refusal(other, RunError)


def test_a_study_folder_is_refused_and_one_of_its_runs_named(tmp_path, tiny_classifier):
    run = make_run(tmp_path / "run", tiny_classifier)
    study = tmp_path / "study-tweets"
    study.mkdir()
    (study / "runs.json").write_text(json.dumps([{"folder": "../gone"}, {"folder": "../run"}]))
    assert refusal(study, ConfigError) == (
        f"{study}: a study's folder, not a run's; found runs.json; name one of its runs, such as {run}"
    )


def test_any_other_folder_is_refused(tmp_path):
    assert refusal(tmp_path, ConfigError) == (
        f"{tmp_path}: neither a run nor a checkpoint; found no config.yaml and no config.json; "
        "name the folder that headswap train printed, or one that save_pretrained wrote"
    )


def test_a_body_without_a_classifier_is_refused_rather_than_given_a_random_head(tiny_body, variant):
    assert refusal(tiny_body, ConfigError).startswith(
        f"{tiny_body / 'config.json'}: says no task that can be predicted; found architecture 'BertModel'; name a run's "
    )
    folder = variant(tiny_body, architectures=["BertForSequenceClassification"])
    assert refusal(folder, WeightsError) == (
        f"{folder}: weights of the model are missing; found no classifier.bias, classifier.weight; "
        "name a fine-tuned model: headswap train makes one from a body"
    )


def test_a_checkpoint_without_weights_is_refused(tmp_path, tiny_classifier):
    shutil.copytree(tiny_classifier, tmp_path / "copy")
    (tmp_path / "copy" / "model.safetensors").unlink()
    message = refusal(tmp_path / "copy", WeightsError)
    assert message.startswith(
        f"{tmp_path / 'copy'}: no AutoModelForSequenceClassification loads from it; found OSError: "
    )
    assert message.endswith("name a run's folder, or a transformers checkpoint in safetensors with its tokenizer")


def test_a_batch_holds_at_least_one_text(run):
    assert refusal(run, ConfigError, 0) == "--batch-size: must be 1 or more; found 0; set a number such as 64"
