"""Predicting a file that was stopped goes on where it was; and scoring a run on new labelled rows."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

import headswap
from finished_runs import CUT, LABELS, TEXTS, make_run, manual
from headswap import cli
from headswap.errors import ConfigError, DataError
from headswap.predict import Predictor, evaluate, predict_file


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_classifier) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "texts", tiny_classifier)


def texts_file(path: Path, texts=TEXTS, **columns) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["review", *columns], *zip(texts, *columns.values(), strict=True)])
    return path


def counted(predictor, monkeypatch) -> list[int]:
    """Return the numbers of rows of which the model is asked from here on."""
    seen: list[int] = []
    observed = Predictor.observed
    monkeypatch.setattr(Predictor, "observed", lambda self, rows: seen.append(len(rows["id"])) or observed(self, rows))
    return seen


def test_a_stopped_prediction_goes_on_where_it_was(run, tmp_path, monkeypatch):
    monkeypatch.setattr("headswap.predict.files.ROWS_AT_ONCE", 2)
    source, predictor = texts_file(tmp_path / "in.csv"), headswap.load(run)
    predict_file(predictor, source, tmp_path / "whole.csv")

    def stop(done, of):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_file(predictor, source, tmp_path / "out.csv", tell=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv.part", "whole.csv"]
    with open(tmp_path / "out.csv.part", "a") as part:
        part.write('[{"predicted_label": "torn')  # killed while it wrote
    seen = counted(predictor, monkeypatch)
    assert predict_file(predictor, source, tmp_path / "out.csv") == len(TEXTS)
    assert seen == [2]
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not (tmp_path / "out.csv.part").exists()


def test_what_was_predicted_of_another_file_or_by_another_model_is_not_taken(
    run, tmp_path, tiny_classifier, monkeypatch
):
    monkeypatch.setattr("headswap.predict.files.ROWS_AT_ONCE", 2)

    def stop(done, of):
        if done == 4:
            raise KeyboardInterrupt

    source, predictor = texts_file(tmp_path / "in.csv"), Predictor(run)
    with pytest.raises(KeyboardInterrupt):
        predict_file(predictor, source, tmp_path / "out.csv", tell=stop)
    seen = counted(predictor, monkeypatch)
    texts_file(source, [*TEXTS[:-1], "another"])
    with pytest.raises(KeyboardInterrupt):
        predict_file(predictor, source, tmp_path / "out.csv", tell=stop)
    assert seen == [2, 2]
    other = Predictor(make_run(tmp_path / "other", tiny_classifier, "task.labels=[a,b,c]"))
    assert predict_file(other, source, tmp_path / "out.csv") == len(TEXTS)
    assert seen == [2, 2, 2, 2, 2]


def test_what_was_predicted_of_another_column_is_not_taken(run, tmp_path, monkeypatch):
    monkeypatch.setattr("headswap.predict.files.ROWS_AT_ONCE", 2)

    def stop(done, of):
        if done == 4:
            raise KeyboardInterrupt

    source, predictor = texts_file(tmp_path / "in.csv", other=TEXTS[::-1]), Predictor(run)
    with pytest.raises(KeyboardInterrupt):
        predict_file(predictor, source, tmp_path / "out.csv", ["review"], stop)
    predict_file(predictor, source, tmp_path / "out.csv", ["other"])
    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as file:
        assert [row["predicted_label"] for row in csv.DictReader(file)] == [
            answer.label for answer in predictor(TEXTS[::-1])
        ]


def test_a_run_is_scored_on_new_rows_with_its_own_metrics(run, tmp_path):
    truth = [LABELS[place % 3] for place in range(len(TEXTS))]
    source = texts_file(tmp_path / "new.csv", stars=truth)
    right = [LABELS.index(name) for name in truth]
    guessed = np.argmax(manual(run / "model", TEXTS, CUT), axis=1)
    found = {score.name: score for score in evaluate(Predictor(run), str(source))}
    assert found["accuracy"].value == pytest.approx(sklearn_metrics.accuracy_score(right, guessed))
    assert found["macro_f1"].value == pytest.approx(sklearn_metrics.f1_score(right, guessed, average="macro"))
    hits, z = np.mean(guessed == right), stats.norm.ppf(0.975)
    middle, reach = (
        (hits + z**2 / 12) / (1 + z**2 / 6),
        z * np.sqrt(hits * (1 - hits) / 6 + z**2 / 144) / (1 + z**2 / 6),
    )
    low, high = middle - reach, middle + reach  # Wilson 1927, of six rows
    assert (found["accuracy"].low, found["accuracy"].high) == pytest.approx((low, high))
    assert found["macro_f1"].low is None


def test_new_rows_with_an_unknown_label_are_refused_with_their_place(run, tmp_path):
    source = texts_file(tmp_path / "new.csv", stars=["positive"] * 4 + ["superb", "negative"])
    with pytest.raises(
        DataError, match=r"new.csv: the file has labels that training lacks; found 'superb' in 1 rows \(ids 5\)"
    ):
        evaluate(Predictor(run), str(source))


def test_a_plain_checkpoint_names_no_metrics(tiny_classifier, tmp_path):
    with pytest.raises(ConfigError, match="only a run knows what it is scored by"):
        evaluate(Predictor(tiny_classifier), str(texts_file(tmp_path / "new.csv")))


def test_the_command_scores(run, tmp_path, capsys):
    source = texts_file(tmp_path / "new.csv", stars=[LABELS[place % 3] for place in range(len(TEXTS))])
    with pytest.raises(SystemExit) as caught:
        cli.main(["evaluate", str(run), "--data", str(source), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (caught.value.code, set(found)) == (0, {"rows", "accuracy", "macro_f1", "matthews"})
    with pytest.raises(SystemExit):
        cli.main(["evaluate", str(run), "--data", str(source)])
    assert capsys.readouterr().out.startswith("6 rows\naccuracy 0.")


def test_values_of_several_columns_are_given_by_name(tmp_path, tiny_classifier, capsys):
    run = make_run(tmp_path / "pairs", tiny_classifier, "task.text=[premise,hypothesis]")
    (expected,) = Predictor(run)([("good", "bad")])
    with pytest.raises(SystemExit) as caught:
        cli.main(["predict", str(run), "--field", "hypothesis=bad", "--field", "premise=good"])
    assert (caught.value.code, capsys.readouterr().out.strip()) == (0, str(expected))
    with pytest.raises(SystemExit):
        cli.main(["predict", str(run), "--text", "good"])
    assert "--text: this model takes 2 values (premise, hypothesis)" in capsys.readouterr().err
    for words, said in [
        (
            ["--field", "premise=a", "--field", "premise=b"],
            "--field: one example at a time; found premise more than once",
        ),
        (["--text", "good", "--output", str(tmp_path / "out.csv")], "headswap predict: --output goes with --input"),
        (["--text", "good", "--column", "premise"], "headswap predict: --column goes with --input"),
    ]:
        with pytest.raises(SystemExit) as caught:
            cli.main(["predict", str(run), *words])
        assert (caught.value.code, said in capsys.readouterr().err) == (2, True)
