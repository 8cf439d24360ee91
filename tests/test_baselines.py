"""Baselines: the numbers are scikit-learn's own, the folder is a run's, and what needs a model says that there is none."""

import argparse
import csv
import json
import random
import re
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.special import expit, softmax
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline, make_union

from headswap import cli, verify
from headswap.answers import Labels
from headswap.baselines.majority import Majority
from headswap.baselines.tfidf import TfIdf
from headswap.bodyfiles import checkpoint_folder
from headswap.config import build_plugs, compose, load
from headswap.contracts import DataRequest
from headswap.errors import ConfigError, DataError, RunError, WeightsError
from headswap.fitted import Fitted
from headswap.launch import folder_of, run_jobs, train
from headswap.overlays import overlay
from headswap.overview import run_plan
from headswap.predict import Predictor
from headswap.prepare import prepare
from headswap.records import read_json, read_jsonl
from headswap.seeds import Seeds
from headswap.stages import stage_configs
from odd_trackers import Book
from tiny_runs import ran, reviews

STRENGTHS = [10.0, 1.0, 0.1, 0.01]
WORD = r"(?u)\b\w+\b"
MARKS = {"pos": ["good", "fine", "great"], "neg": ["bad", "dull", "poor"], "odd": ["so", "but", "and"]}
FILLER = ["the", "a", "film", "plot", "was", "is", "very", "not", "it", "this", "movie"]


def texts(count, names=("pos", "neg", "odd"), seed=0):
    """Return different (text, label) rows; every seventh label is not what the text's word says."""
    dice, rows = random.Random(seed), {}
    while len(rows) < count:
        name = names[len(rows) % len(names)]
        words = [*dice.choices(FILLER, k=dice.randint(3, 9)), dice.choice(MARKS[name])]
        dice.shuffle(words)
        rows.setdefault(" ".join(words), dice.choice(names) if len(rows) % 7 == 0 else name)
    return list(rows.items())


def write(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def one_label(place, names=("pos", "neg", "odd")):
    table = write(place / "one.csv", ["text", "label"], texts(120, names))
    return ["task=text", f"task.source={table}", "task.text=[text]", "task.label=label"]


def pairs(place):
    first, second = texts(120), texts(120, seed=1)
    rows = [(a, b, label) for (a, label), (b, _) in zip(first, second, strict=True)]
    table = write(place / "pairs.csv", ["left", "right", "label"], rows)
    return ["task=pair", f"task.source={table}", "task.text=[left,right]", "task.label=label"]


def several_labels(place):
    rows = [
        {"text": text, "labels": sorted({label, "long"} if len(text) > 40 else {label})} for text, label in texts(120)
    ]
    path = place / "several.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["task=multi_label", f"task.source={path}", "task.text=[text]", "task.label=[labels]"]


def numbers(place):
    rows = [(text, len(text) / 10, {"pos": 1, "neg": -1, "odd": 0}[label]) for text, label in texts(120)]
    table = write(place / "numbers.csv", ["text", "length", "mood"], rows)
    return ["task=regression", f"task.source={table}", "task.text=[text]", "task.label=[length,mood]", "metric=[rmse]"]


def configured(place, words, *more):
    fixed = ["task.validation_share=0.2", "task.test_share=0.2", f"output.root={place / 'outputs'}", "name=cheap"]
    return compose([*words, *fixed, *more])


def run_of(place, words, *more):
    """Run a baseline in this process; return its folder, result, and splits by name with outputs [rows, outputs]."""
    config = configured(place, words, *more)
    folder = folder_of(config).path
    ended = ran(folder, config)
    assert ended["kind"] == "finished", ended
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    outputs = {
        split: np.array([row["logits"] for row in rows if row["split"] == split]) for split in ("validation", "test")
    }
    task = build_plugs(config).task
    return folder, read_json(folder / "result.json"), task.load(DataRequest(), Seeds(config.seed)), outputs


def logistic(strength):
    return LogisticRegression(C=1 / strength, max_iter=1000)


def word_pairs():
    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=WORD)


def chosen(models, splits, columns, score, target="label"):
    """Fit every model on the training rows; return the place of the one that scores best on validation, and it."""
    train, validation = splits.train.to_pandas(), splits.validation.to_pandas()
    fitted = [model.fit(train[columns], train[target].tolist()) for model in models]
    scores = [score(validation[target].tolist(), model.predict(validation[columns])) for model in fitted]
    return int(np.argmax(scores)), fitted, scores


@pytest.mark.parametrize("names", [("pos", "neg", "odd"), ("pos", "neg")])
def test_tfidf_of_one_label_is_scikit_learns_chosen_by_validation_accuracy(tmp_path, names):
    strengths = [3000.0, 10.0, 0.1]  # the first leaves little but the intercept
    words = one_label(tmp_path, names)
    _, result, splits, outputs = run_of(tmp_path, words, "baseline=tfidf", f"baseline.strengths={strengths}")
    models = [make_pipeline(word_pairs(), logistic(strength)) for strength in strengths]
    best, fitted, scores = chosen(models, splits, "text", accuracy_score)
    tried = result["baseline"]["tried"]
    assert [each["strength"] for each in tried] == strengths
    assert [each["accuracy"] for each in tried] == pytest.approx(scores)
    assert best > 0 and result["baseline"]["strength"] == strengths[best]
    for split in ("validation", "test"):
        rows = splits.of(split).to_pandas()
        expected = fitted[best].predict_proba(rows["text"])
        np.testing.assert_allclose(softmax(outputs[split].astype(float), axis=1), expected, atol=1e-6)
        found = result["scores"][split]
        assert found["accuracy"] == pytest.approx(accuracy_score(rows["label"], expected.argmax(axis=1)))
        assert found["loss"] == pytest.approx(log_loss(rows["label"], expected), rel=1e-5)
    linear = fitted[best][-1]
    assert result["parameters"] == {"trainable": linear.coef_.size + linear.intercept_.size}
    assert result["baseline"]["features"] == linear.coef_.shape[1]


def test_a_pair_is_two_blocks_of_features_and_letters_may_be_counted_too(tmp_path):
    words = [*pairs(tmp_path), "baseline=tfidf", "baseline.characters=[2,4]", "baseline.strengths=[0.5]"]
    _, result, splits, outputs = run_of(tmp_path, words)

    def block():
        return make_union(word_pairs(), TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True))

    blocks = make_column_transformer((block(), "left"), (block(), "right"))
    _, (model,), _ = chosen([make_pipeline(blocks, logistic(0.5))], splits, ["left", "right"], accuracy_score)
    expected = model.predict_proba(splits.test.to_pandas()[["left", "right"]])
    np.testing.assert_allclose(softmax(outputs["test"].astype(float), axis=1), expected, atol=1e-6)
    assert result["baseline"]["features"] == model[0].transform(splits.test.to_pandas()).shape[1]


def test_tfidf_of_several_labels_is_one_against_the_rest(tmp_path):
    words = [*several_labels(tmp_path), "baseline=tfidf", "baseline.strengths=[0.3]", "baseline.balanced=true"]
    _, result, splits, outputs = run_of(tmp_path, words)
    rest = OneVsRestClassifier(LogisticRegression(C=1 / 0.3, max_iter=1000, class_weight="balanced"))
    train = splits.train.to_pandas()
    model = make_pipeline(word_pairs(), rest).fit(train["text"], np.stack(train["label"]).astype(int))
    expected = model.predict_proba(splits.test.to_pandas()["text"])
    np.testing.assert_allclose(expit(outputs["test"].astype(float)), expected, atol=1e-6)
    assert set(result["calibration"]["thresholds"]) == {"long", "neg", "odd", "pos"}  # the task's own answers


def test_tfidf_of_numbers_is_a_ridge_regression_chosen_by_the_least_error(tmp_path):
    _, result, splits, outputs = run_of(tmp_path, numbers(tmp_path), "baseline=tfidf")
    models = [make_pipeline(word_pairs(), Ridge(alpha=strength, tol=1e-9)) for strength in STRENGTHS]

    def error(truth, found):
        return -np.mean(np.sqrt(mean_squared_error(truth, found, multioutput="raw_values")))

    best, fitted, scores = chosen(models, splits, "text", error)
    assert [each["rmse"] for each in result["baseline"]["tried"]] == pytest.approx([-each for each in scores], rel=1e-4)
    assert result["baseline"]["strength"] == STRENGTHS[best]
    np.testing.assert_allclose(outputs["test"], fitted[best].predict(splits.test.to_pandas()["text"]), atol=1e-4)


def test_the_majority_answers_with_the_training_shares_or_means(tmp_path):
    for make in (one_label, several_labels):
        _, result, splits, outputs = run_of(tmp_path, make(tmp_path), "baseline=majority")
        train = splits.train.to_pandas()
        several = make is several_labels
        targets = np.stack(train["label"]).astype(int) if several else train["label"]
        dummy = DummyClassifier(strategy="prior").fit(train["text"], targets)
        expected = dummy.predict_proba(splits.test.to_pandas()["text"])
        expected = np.column_stack([column[:, 1] for column in expected]) if several else expected
        found = outputs["test"].astype(float)
        np.testing.assert_allclose(expit(found) if several else softmax(found, axis=1), expected, atol=1e-6)
        assert result["collapsed"] is True
        assert result["baseline"]["tried"] == [{result["primary"]: result["scores"]["validation"][result["primary"]]}]
    _, _, splits, outputs = run_of(tmp_path, numbers(tmp_path), "baseline=majority")
    dummy = DummyRegressor().fit(splits.train["text"], np.asarray(splits.train["label"]))
    np.testing.assert_allclose(outputs["test"], dummy.predict(splits.test["text"]), atol=1e-5)


THREE = Labels(("a", "b", "c"))


@pytest.mark.parametrize("labels", [[0, 2, 0, 2], [2, 2, 2, 2]])
def test_labels_that_no_training_row_has_are_never_answered(labels):
    rows = {"id": list("1234"), "text": ["good film", "bad film", "good plot", "bad plot"], "label": labels}
    for baseline in (TfIdf(), Majority()):
        for fitted in baseline.fits(rows, ["text"], THREE):
            outputs = fitted.outputs({"id": ["5"], "text": ["good bad"]})
            assert outputs.shape == (1, 3) and np.isfinite(outputs).all()
            assert set(range(3)) - set(labels) <= set(np.argsort(outputs[0])[: 3 - len(set(labels))].tolist())


def test_a_label_that_all_training_rows_have_or_none_gets_its_odds():
    rows = {
        "id": list("1234"),
        "text": ["good", "bad", "fine", "dull"],
        "label": [[1.0, 0.0, 0.0], [1.0, 0.0, 1.0]] * 2,
    }
    several = Labels(("all", "none", "some"), "multi_label_classification")
    for fitted in TfIdf().fits(rows, ["text"], several):
        outputs = fitted.outputs({"id": ["5"], "text": ["good"]})
        assert outputs[0, 0] == pytest.approx(np.log(7)) and outputs[0, 1] == pytest.approx(-np.log(7))  # 3.5 to 0.5


def test_texts_without_words_are_told_with_the_way_out():
    rows = {"id": ["1", "2"], "text": ["!!!", "?!"], "label": [0, 1]}
    with pytest.raises(
        DataError, match=r"^baseline.words: the training texts of column 'text' have none to count; .*!!!"
    ):
        next(TfIdf().fits(rows, ["text"], THREE))
    fitted = next(TfIdf(words=None, characters=[1, 2]).fits(rows, ["text"], THREE))
    assert fitted.outputs(rows).shape == (2, 3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["baseline.words=[2,1]"], "baseline.words: must be the shortest and the longest run, from 1 on; found [2, 1]"),
        (["baseline.words=null"], "baseline.words: nothing is counted; found null for words and characters"),
        (["baseline.strengths=[]"], "baseline.strengths: must be different numbers above 0; found []"),
        (["baseline.strengths=[1,-1]"], "baseline.strengths: must be different numbers above 0; found [1, -1]"),
        (["baseline.strengths=much"], "baseline.strengths: must be list[float]; found 'much'"),
        (["baseline.word=[1,2]"], "baseline.word: no such key (did you mean baseline.words?)"),
        (["baseline=tfdif"], "baseline: no such option; found tfdif (did you mean tfidf?)"),
    ],
)
def test_what_is_misspelt_or_impossible_is_told(words, said):
    with pytest.raises(ConfigError) as caught:
        compose(["baseline=tfidf", *words])
    assert str(caught.value).startswith(said)


def test_a_task_that_no_baseline_serves_is_refused_before_anything_is_read():
    words = ["task=token_classification", "task.source=absent.jsonl", "task.tokens=tokens", "task.label=tags"]
    for name, kind in (("tfidf", "TfIdf"), ("majority", "Majority")):
        with pytest.raises(ConfigError) as caught:
            folder_of(compose([*words, f"baseline={name}"]))
        assert str(caught.value) == (
            f"baseline: {kind} cannot serve this task; found token_classification, it serves "
            "single_label_classification, multi_label_classification, regression; set baseline=none, or leave its arm "
            "out of the study"
        )


def test_a_run_is_found_again_whatever_is_said_of_a_body_and_its_training(tmp_path):
    words = one_label(tmp_path)

    def folder(*more):
        return folder_of(configured(tmp_path, words, *more)).path

    known = folder("baseline=tfidf", "body=transformer", f"body.source={tmp_path / 'absent'}")
    assert known.parent.name == "cheap" and known.name.startswith("text-tfidf-seed0-")
    others = [
        ["body=minilm", "body.init=random", "strategy=probe", "head=keep", "train.epochs=9", "data.max_length=7"],
        ["data.bucket=false", "hardware=cpu", "hardware.threads=2", "run=somewhere", "tracker=tensorboard"],
    ]
    assert {folder("baseline=tfidf", *more) for more in others} == {known}
    different = (["baseline.words=[1,1]"], ["seed=1"], ["data.train_rows=40"], ["metric=[macro_f1]"])
    assert len({known, *(folder("baseline=tfidf", *more) for more in different)}) == 5
    trained = configured(tmp_path, words, "body=transformer", f"body.source={tmp_path}")
    arm = {"baseline": {"_target_": "headswap.baselines.tfidf.TfIdf"}, "train": {"epochs": 2}}
    assert folder_of(overlay(trained, arm, "arm")).path.name.startswith("text-tfidf-seed0-")


def test_a_baselines_folder_is_a_runs_without_what_training_makes(tmp_path):
    folder, result, splits, _ = run_of(tmp_path, one_label(tmp_path), "baseline=tfidf")
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {"config.yaml", "run.json", "predictions.parquet", "result.json"}
    assert result["status"] == "finished" and result["problem"] == "single_label_classification"
    assert (result["steps"], result["planned_steps"], result["examples"]) == (0, 0, len(splits.train))
    assert result["labels"] == ["neg", "odd", "pos"] and result["rows"]["test"] == 24
    assert set(result["seconds"]) == {"data", "fit", "score", "save", "train", "total"}
    assert set(result["sha256"]) == {"predictions.parquet"}
    about = read_json(folder / "run.json")
    assert about["status"] == "finished" and about["data"]["fingerprint"] == splits.fingerprint
    assert about["versions"]["scikit-learn"] and about["lineage"] == []
    again, same, *_ = run_of(tmp_path, one_label(tmp_path), "baseline=tfidf", "hardware.threads=2")
    assert again == folder and same["sha256"] == result["sha256"]


def test_a_child_runs_it_in_one_process_and_a_rerun_is_the_same_to_the_bit(tmp_path):
    config = configured(tmp_path, one_label(tmp_path), "baseline=tfidf", "hardware.num_processes=2")
    folder = train(config)
    assert read_json(folder / "result.json")["processes"] == 1
    seen = []
    assert verify.rerun(folder, lambda job, event: seen.append(event["kind"])).folder.finished
    assert {"baseline", "started", "ended"} <= set(seen)
    compared = verify.compare_runs(folder, folder.with_name(f"{folder.name}-rerun"))
    assert compared.same, compared.lines
    outcome = run_jobs([verify.job_in(folder)], 1, lambda job, event: None)[0]
    assert outcome.reused


def test_the_command_line_says_what_it_fitted(tmp_path, capsys):
    words = [*one_label(tmp_path), f"output.root={tmp_path}", "baseline=majority"]
    with pytest.raises(SystemExit, match="0"):
        cli.main(["train", *words])
    out = capsys.readouterr().out
    assert "rows: 96 train, 12 validation, 12 test" in out and "fitted on cpu]" in out and "head swap" not in out
    with pytest.raises(SystemExit, match="0"):
        cli.main(["plan", *words])
    assert "study" not in capsys.readouterr().out
    lines = dict(run_plan(compose(words)))
    assert lines["baseline"] == "majority, which trains no body" and "finished" in lines["folder"]
    assert not {"steps", "parameters", "phases"} & set(lines)


def test_what_needs_a_model_says_that_a_baseline_has_none(tmp_path):
    folder, *_ = run_of(tmp_path, one_label(tmp_path), "baseline=tfidf")
    with pytest.raises(
        RunError, match=r"a baseline's run has no model; found baseline=tfidf, whose answers are in its"
    ):
        Predictor(folder)  # predict, evaluate, export and --push find their model here
    with pytest.raises(
        WeightsError, match=r"a baseline's run has no body; found no model/; name a run that trained one"
    ):
        checkpoint_folder(folder)  # embed, and body=from_run
    config = load(folder / "config.yaml")
    with pytest.raises(ConfigError, match=r"^baseline: has no steps to stop between; found baseline=tfidf"):
        verify.verify_resume(config, lambda job, event: None)
    with pytest.raises(ConfigError, match=r"^baseline: needs no launcher, it takes seconds on one core"):
        prepare(replace(config, hardware=replace(config.hardware, launcher="slurm")))


def test_a_chain_of_stages_is_refused():
    words = ["experiment=self_pretrain", "baseline=tfidf"]
    flags = argparse.Namespace(overrides=words, config_dir=[])
    with pytest.raises(
        ConfigError, match=r"^baseline: has no body to hand on to the next stage; found tfidf and 2 stages"
    ):
        next(stage_configs(compose(words), flags))


def test_a_tracker_is_told_the_scores(tmp_path):
    book = tmp_path / "book"
    words = ["plugins=[odd_trackers]", "+tracker.odd._target_=odd_trackers.Book", f"+tracker.odd.path={book}"]
    folder, result, *_ = run_of(tmp_path, one_label(tmp_path), "baseline=majority", *words)
    told = Book(str(book)).told()
    assert [each[0] for each in told] == ["open", "log", "close"] and told[-1] == ["close", "finished"]
    assert told[1][1] == 0 and told[1][2]["test/accuracy"] == result["scores"]["test"]["accuracy"]
    assert read_jsonl(folder / "metrics.jsonl") == []


@dataclass(frozen=True)
class Odd:
    """A baseline of somebody's own, with outputs that no task reads."""

    what: str = "shape"
    problems: ClassVar[tuple[str, ...]] = ("single_label_classification",)

    def fits(self, rows, inputs, labels):
        outputs = {"shape": np.zeros((3, 2)), "nan": np.full((12, 2), np.nan)}
        if self.what in outputs:
            yield Fitted(lambda given: outputs[self.what], 0)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("shape", r"rows x outputs of the task \[12, 2\]; found the shape \[3, 2\]"),
        ("nan", r"found NaN or Inf; mend its fits\(\)"),
        ("nothing", r"baseline: Odd fitted nothing; found no setting"),
    ],
)
def test_outputs_that_no_task_reads_are_refused(tmp_path, what, said):
    table = reviews(tmp_path / "reviews.csv")
    words = ["task=text", f"task.source={table}", "task.text=[text]", "task.label=label", "plugins=[test_baselines]"]
    arm = {"baseline": {"_target_": "test_baselines.Odd", "what": what}}
    config = overlay(configured(tmp_path, words), arm, "arm")
    ended = ran(tmp_path / "run", config)
    assert ended["kind"] == "failed" and ended["error"].startswith("baseline: ")
    assert re.search(said, ended["error"])


def test_the_shipped_options_are_the_classes_own_defaults():
    for name, made in (("tfidf", TfIdf()), ("majority", Majority())):
        assert build_plugs(compose([f"baseline={name}"])).baseline == made
    assert compose([]).baseline is None
