"""Which sentence a study gets, from fabricated run folders with a known truth."""

from __future__ import annotations

import dataclasses
import json
import re

import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef

from headswap.answers import Answers, Labels
from headswap.errors import RunError
from headswap.metrics.classification import MacroF1, Matthews
from headswap.spine import StudyConfig
from headswap.study import contrasts
from headswap.study.linearised import METHOD
from headswap.study.results import RunRecord, compare, save
from headswap.study.statistics import Interval, t_interval
from headswap.study.units import Unit
from headswap.study.verdict import headline, verdict
from study_folders import NAMES, Made, make_study, write_run

STUDY = StudyConfig(arms={"finetune": {}, "scratch": {}})


def compared(folder, made: Made, study: StudyConfig = STUDY):
    return compare(make_study(folder, made), study, {})


def test_a_clear_gain_reads_better_with_interval_seeds_rows_and_tuning(tmp_path):
    found = compared(tmp_path, Made({"finetune": 0.80, "scratch": 0.66}))
    first = verdict(found)[0]
    assert first.startswith("finetune scored ")
    assert "with 1,600 labels: +" in first
    assert "pp (95 % CI +" in first
    assert "5 paired seeds × 500 test examples; tuning: none, the recipes are given values)" in first
    assert first.endswith("); that is more than the 1 pp you said matters.")
    assert headline(found).startswith("finetune is better than scratch: +")


def test_a_loss_reads_as_transfer_hurt(tmp_path):
    found = compared(tmp_path, Made({"finetune": 0.60, "scratch": 0.68}, sizes=(400,)))
    assert verdict(found)[0].startswith("Transfer hurt here: finetune scored ")
    assert "\N{MINUS SIGN}" in headline(found)


def test_a_small_difference_in_a_big_study_reads_equivalent(tmp_path):
    made = Made({"finetune": 0.70, "scratch": 0.70}, sizes=(400,), seeds=10, rows=5000, seed_deviation=0.002)
    first = verdict(compared(tmp_path, made))[0]
    assert first.startswith("Equivalent within ±1 pp: ")
    assert "90 % CI" in first


def test_an_arm_that_only_learns_faster_bought_speed_and_transfer_is_named_where_there_is_any(tmp_path):
    made = Made(
        {"finetune": 0.70, "scratch": 0.70}, (400,), seeds=10, rows=5000, seed_deviation=0.002, speed={"finetune": 3}
    )
    found = compared(tmp_path, made)
    assert ": here transfer bought speed, not a better end." in " ".join(verdict(found))
    untrained = {arm: {"init": "random"} for arm in ("finetune", "scratch")}
    said = " ".join(verdict(dataclasses.replace(found, ledgers=untrained)))
    assert ": here finetune bought speed, not a better end." in said and "transfer" not in said


def test_a_small_study_without_a_difference_reads_not_settled_with_what_it_could_detect(tmp_path):
    found = compared(tmp_path, Made({"finetune": 0.70, "scratch": 0.69}, sizes=(400,), rows=300))
    first = verdict(found)[0]
    assert first.startswith("Not settled: ")
    assert "; this design detects " in first
    assert " with 80 % power" in first
    assert "no difference" not in " ".join(verdict(found))


def test_fewer_than_ten_seeds_read_exploratory_and_ten_do_not(tmp_path):
    few = verdict(compared(tmp_path / "few", Made({"finetune": 0.8, "scratch": 0.6}, sizes=(100,), seeds=3)))
    many = verdict(compared(tmp_path / "many", Made({"finetune": 0.8, "scratch": 0.6}, sizes=(100,), seeds=10)))
    assert few[1] == "Exploratory: 3 paired seeds, where a study to rely on has 10."
    assert not any("Exploratory" in statement for statement in many)


def test_a_metric_of_the_whole_split_reads_in_plain_numbers_and_provisional(tmp_path):
    statements = verdict(compared(tmp_path, Made({"finetune": 0.8, "scratch": 0.6}, sizes=(100,), metric="macro_f1")))
    assert "pp" not in statements[0]
    assert "finetune scored macro F1 0." in statements[0]
    assert "interval over seeds only" in statements[0]
    assert "provisional" in statements[1]


def test_an_error_that_falls_reads_better_and_one_that_rises_as_transfer_hurt(tmp_path):
    made = Made({"finetune": 0.8, "scratch": 0.66}, sizes=(400,), metric="mae", problem="regression")
    found = compared(tmp_path / "falls", made, dataclasses.replace(STUDY, margin=0.05))
    first = verdict(found)[0]
    assert re.match(
        r"finetune scored MAE 0\.2\d{3} against 0\.3\d{3} for scratch with 400 labelled rows \(less is", first
    )
    assert "is better): \N{MINUS SIGN}0.1" in first
    assert first.endswith("); that is more than the 0.05 you said matters.")
    assert headline(found).startswith("finetune is better than scratch: \N{MINUS SIGN}0.1")
    assert found.contrasts[0].scope == "seeds and examples"
    rises = compared(tmp_path / "rises", dataclasses.replace(made, levels={"finetune": 0.66, "scratch": 0.8}))
    assert verdict(rises)[0].startswith("Transfer hurt here: finetune scored MAE 0.3")
    assert "you said matters" not in verdict(rises)[0]


def test_speed_and_rows_saved_are_turned_where_less_is_better(tmp_path):
    made = Made({"finetune": 0.8, "scratch": 0.72}, slope={"scratch": 0.05}, speed={"finetune": 3})
    same = verdict(compared(tmp_path / "accuracy", made))
    turned = verdict(
        compared(tmp_path / "mae", dataclasses.replace(made, metric="mae", problem="token_classification"))
    )
    assert turned[2] == same[2].replace(" examples", " features")
    assert turned[3] == same[3].replace("labels", "labelled texts")


def test_every_verdict_says_what_is_not_counted_in_at_most_five_statements(tmp_path):
    made = Made({"finetune": 0.8, "scratch": 0.72}, slope={"scratch": 0.05}, speed={"finetune": 3})
    statements = verdict(compared(tmp_path, made))
    assert len(statements) <= 5
    assert "pre-training cost" in statements[-1]
    assert "inherits the pretrained tokenizer" in statements[-1]
    assert any("times fewer" in each or "× fewer" in each for each in statements)
    assert any("labels with finetune were worth" in each for each in statements)


@pytest.mark.parametrize(
    ("ends", "margin", "greater", "expected"),
    [
        ((0.01, 0.03), 0.01, True, "better"),
        ((-0.03, -0.01), 0.01, True, "worse"),
        ((-0.03, -0.01), 0.01, False, "better"),
        ((0.01, 0.03), 0.01, False, "worse"),
        ((-0.002, 0.003), 0.01, True, "equivalent"),
        ((-0.02, 0.03), 0.01, True, "not settled"),
    ],
)
def test_the_four_outcomes_follow_interval_margin_and_direction(ends, margin, greater, expected):
    low, high = ends
    error = (high - low) / 2 / 1.959963985
    interval = Interval((low + high) / 2, low, high, error, 1e6, 0.95, 10)
    fair = contrasts.statistics.equivalence(interval, margin)
    assert contrasts.outcome(interval, fair, greater) == expected


def test_without_an_interval_nothing_is_settled():
    assert contrasts.outcome(t_interval([0.2]), None, True) == "not settled"


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (Made({"finetune": 0.8}, sizes=(100,), seeds=2), "Nothing to compare: only finetune has finished runs"),
        (Made({"finetune": 0.8, "scratch": 0.6}, sizes=(None,), seeds=1), "no interval: 1 paired seed"),
        (Made({"finetune": 0.8, "scratch": 0.6}, sizes=(None,), seeds=2), "with all 1,600 labels"),
    ],
)
def test_a_study_with_one_arm_one_seed_or_one_size_still_reads(tmp_path, made, text):
    assert text in verdict(compared(tmp_path, made))[0]


def test_a_study_without_finished_runs_says_so(tmp_path):
    failed = [RunRecord(arm, 100, 0, tmp_path / arm, "failed", "out of memory") for arm in ("finetune", "scratch")]
    found = compare(failed, STUDY, {})
    assert verdict(found) == ["Nothing to compare: none of the 2 runs finished."]
    assert found.excluded[0].reason == "failed: out of memory"


def test_failed_and_unpaired_runs_are_excluded_with_their_reasons(tmp_path):
    records = make_study(tmp_path, Made({"finetune": 0.8, "scratch": 0.6}, sizes=(100,)))
    records[1] = dataclasses.replace(records[1], status="failed", reason="killed")
    (records[-1].folder / "result.json").unlink()
    found = compare(records, STUDY, {})
    reasons = {(each.arm, each.seed): each.reason for each in found.excluded}
    assert reasons["finetune", 1] == "failed: killed"
    assert "result.json: cannot be read" in reasons["scratch", 4]
    assert "to pair with" in reasons["scratch", 1]
    assert "to pair with" in reasons["finetune", 4]
    assert [pair.seed for pair in found.contrasts[0].pairs] == [0, 2, 3]
    assert [score.failed for score in found.scores] == [1, 1]


def test_paired_runs_with_other_test_rows_are_refused_naming_both_folders(tmp_path):
    made = Made({"finetune": 0.8, "scratch": 0.6}, sizes=(100,), seeds=2)
    records = make_study(tmp_path, made)
    other = tmp_path / "other"
    write_run(other, dataclasses.replace(made, rows=400), "scratch", 100, 1)
    records[-1] = dataclasses.replace(records[-1], folder=other)
    with pytest.raises(RunError, match=r"finetune-100-seed0 and .*other: .*500 and 400 test ids, 400 in common"):
        compare(records, STUDY, {})


def test_predictions_that_are_not_those_scored_are_refused(tmp_path):
    records = make_study(tmp_path, Made({"finetune": 0.8, "scratch": 0.6}, sizes=(100,), seeds=2))
    path = records[0].folder / "result.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    result["scores"]["test"]["accuracy"] = 0.99
    path.write_text(json.dumps(result), encoding="utf-8")
    with pytest.raises(RunError, match=r"predictions.parquet and result.json disagree"):
        compare(records, STUDY, {})


def test_two_runs_of_one_cell_are_refused(tmp_path):
    records = make_study(tmp_path, Made({"finetune": 0.8}, sizes=(100,), seeds=1))
    with pytest.raises(RunError, match="two runs of one arm, size and seed"):
        compare([*records, *records], STUDY, {})


def test_collapsed_runs_are_told_apart_and_stay_in_the_mean(tmp_path):
    found = compared(tmp_path, Made({"finetune": 0.8, "scratch": 0.30}, sizes=(100,)))
    finetune, scratch = found.scores
    assert (finetune.collapsed, scratch.collapsed) == ((), (0, 1, 2, 3, 4))
    sentence = "Collapsed runs test no better than always naming the commonest label; they count in the means: "
    assert f"{sentence}scratch at 100 labels, 5 of 5 runs (seeds 0, 1, 2, 3, 4)." in found.warnings
    assert scratch.mean == pytest.approx(sum(scratch.scores.values()) / 5)


@pytest.mark.parametrize("seeds", [2, 10])
def test_a_whole_split_metric_that_sums_give_has_an_interval_over_seeds_and_examples(tmp_path, seeds):
    made = Made({"finetune": 0.8, "scratch": 0.7}, sizes=(100,), seeds=seeds, metric="macro_f1")
    records = make_study(tmp_path, made)
    _rescore(records, lambda labels, predictions: f1_score(labels, predictions, average="macro"), "macro_f1")
    _summed(records, MacroF1())
    found = compare(records, STUDY, {}, MacroF1()).contrasts[0]
    assert (found.scope, found.interval.method) == ("seeds and examples", METHOD)
    assert found.interval.mean == pytest.approx(found.seeds_interval.mean)


def test_the_matthews_correlation_from_sums_is_scikit_learns(tmp_path):
    records = make_study(tmp_path, Made({"finetune": 0.8, "scratch": 0.7}, sizes=(100,), seeds=10, metric="matthews"))
    _rescore(records, matthews_corrcoef, "matthews")
    _summed(records, Matthews())
    assert compare(records, STUDY, {}, Matthews()).contrasts[0].interval.method == METHOD
    assert compare(records, STUDY, {}, MacroF1()).contrasts[0].interval.method == "t over seeds"


def test_sums_that_are_not_those_of_the_score_are_refused(tmp_path):
    records = make_study(tmp_path, Made({"finetune": 0.8, "scratch": 0.7}, sizes=(100,), seeds=10, metric="matthews"))
    _rescore(records, lambda labels, predictions: 0.5, "matthews")
    _summed(records, Matthews())
    with pytest.raises(RunError, match=r"predictions.parquet and result.json disagree; test matthews 0\.\d+ and 0\.5"):
        compare(records, STUDY, {}, Matthews())


def _summed(records, metric):
    """Write what each example adds to the metric's sums, as a run does."""
    for record in records:
        path = record.folder / "predictions.parquet"
        rows = pq.read_table(path)
        answers = Answers(rows["prediction"].to_numpy(), rows["label"].to_numpy(), Labels(tuple(NAMES)))
        pq.write_table(rows.append_column(f"sums_{metric.name}", [list(metric.sums(answers))]), path)


def _rescore(records, metric, name):
    for record in records:
        rows = pq.read_table(record.folder / "predictions.parquet", filters=[("split", "==", "test")])
        path = record.folder / "result.json"
        result = json.loads(path.read_text(encoding="utf-8"))
        result["per_example"][name] = False
        result["scores"]["test"][name] = float(metric(rows["label"].to_numpy(), rows["prediction"].to_numpy()))
        path.write_text(json.dumps(result), encoding="utf-8")
        lines = (record.folder / "metrics.jsonl").read_text(encoding="utf-8").replace('"macro_f1"', f'"{name}"')
        (record.folder / "metrics.jsonl").write_text(lines, encoding="utf-8")


def test_the_comparison_is_saved_as_json_that_any_reader_takes(tmp_path):
    found = compared(tmp_path / "runs", Made({"finetune": 0.8, "scratch": 0.6}, seeds=2))
    saved = json.loads(save(found, tmp_path).read_text(encoding="utf-8"))
    assert saved["contrasts"][-1]["interval"]["mean"] == pytest.approx(found.contrasts[-1].interval.mean)
    assert saved["labels"] == NAMES


@pytest.mark.parametrize(
    ("metric", "score", "difference", "gap", "margin"),
    [
        ("accuracy", "84.2 %", "+3.1 pp", "3.1 pp", 0.01),
        ("exact_match", "84.2 %", "+3.1 pp", "3.1 pp", 0.01),
        ("token_accuracy", "84.2 %", "+3.1 pp", "3.1 pp", 0.01),
        ("squad_f1", "84.2 %", "+3.1 pp", "3.1 pp", 0.01),
        ("entity_f1", "0.842", "+0.031", "0.031", 0.01),
        ("matthews", "0.842", "+0.031", "0.031", 0.01),
        ("rougel", "0.842", "+0.031", "0.031", 0.01),
        ("pearson", "0.842", "+0.031", "0.031", 0.01),
        ("bleu", "0.8", "0.0", "0.0", 1.0),
        ("perplexity", "0.8420", "+0.0312", "0.0312", 0.0),
        ("my_own", "0.8420", "+0.0312", "0.0312", 0.0),
    ],
)
def test_shares_read_in_percent_bounded_metrics_plainly_and_others_by_their_own_size(
    metric, score, difference, gap, margin
):
    unit = Unit(metric)
    assert (unit.score(0.842), unit.difference(0.0312), unit.gap(0.0312)) == (score, difference, gap)
    assert unit.usual_margin == margin


def test_numbers_without_a_range_keep_four_digits_and_rounded_zeros_have_no_sign():
    assert [Unit("rmse").score(value) for value in (123456.7, 18.3421, 0.0012345, 0.0)] == [
        "123,457",
        "18.34",
        "0.001234",
        "0.000",
    ]
    assert Unit("accuracy").difference(-0.0004) == "0.0 pp"
    assert Unit("rmse").difference(-1.5) == "\N{MINUS SIGN}1.50"
    assert (Unit("bleu").score(27.31), Unit("bleu").difference(-2.04)) == ("27.3", "\N{MINUS SIGN}2.0")
