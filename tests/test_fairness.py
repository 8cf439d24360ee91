"""The runs of a pair are audited by what they wrote down: real tiny runs, alike and unlike."""

import json
import shutil
from dataclasses import replace

import pytest

from headswap.config import dump
from headswap.errors import RunError
from headswap.launch import job_of, run_jobs
from headswap.records import read_json, write_json
from headswap.study import execute
from headswap.study.fairness import audit, recorded
from headswap.study.plan import study_folder
from headswap.study.results import RunRecord
from tiny_runs import reviews, tiny

FEW = ("train.max_steps=3", "output.keep_model=false")
BASE = "study.may_differ=[body.init,train.learning_rate,train.epochs]"
RANDOM = "body.init=random"


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    return reviews(tmp_path_factory.mktemp("tables") / "reviews.csv")


@pytest.fixture(scope="module")
def made(table, tiny_body, tmp_path_factory):
    """Return a function that trains a run in a child and returns its folder, each configuration once."""
    root = tmp_path_factory.mktemp("runs")

    def make(*words):
        job = job_of(tiny(table, tiny_body, root, *FEW, *words))
        assert run_jobs([job], 1, lambda job, event: None)[0].error == ""
        return job.folder.path

    return make


@pytest.fixture(scope="module")
def study(table, tiny_body, tmp_path_factory):
    return tiny(table, tiny_body, tmp_path_factory.mktemp("outputs"), BASE).study


def records(finetune, scratch):
    return [RunRecord(arm, None, 0, place, "finished") for arm, place in (("finetune", finetune), ("scratch", scratch))]


def test_a_pair_that_differs_in_its_start_alone_is_fair_and_its_keys_are_named(made, study):
    found = audit(records(made(), made(RANDOM)), study)
    assert found.pairs == 1
    assert {each.key: each.standing for each in found.differences} == {"config.body.init": "declared"}
    told = {"rows", "rows.train", "rows.validation", "rows.test", "order", "labels", "head", "tokenizer", "precision"}
    told |= {"attention", "device", "threads", "processes", "evaluations", "versions.torch", "config.train.batch_size"}
    assert told <= set(found.keys)
    assert found.said == f"1 pair, {len(found.keys)} keys compared, no undeclared difference"
    assert list(found.warnings) == []


@pytest.mark.parametrize(
    ("words", "keys", "remedy"),
    [
        (("train.precision=bf16",), {"precision (fp32 against bf16)", "train.precision (fp32 against bf16)"}, "train.precision"),
        (("data.split_seed=1",), {"rows (", "rows.train (", "rows.validation (", "rows.test (", "data.split_seed (0 against 1)"}, "data.train_rows"),
        (("seed=1",), {"head (new ", "order (", "seed (0 against 1)"}, "head"),
        (("train.batch_size=16",), {"order (", "train.batch_size (8 against 16)"}, "train.batch_size"),
    ],
)  # fmt: skip
def test_an_unfair_pair_is_refused_with_its_keys_and_both_values(made, study, words, keys, remedy):
    first, second = made(), made(RANDOM, *words)
    with pytest.raises(RunError) as caught:
        audit(records(first, second), study)
    said = str(caught.value)
    assert said.startswith(f"{first} and {second}: the two runs of a pair differ in more than study.may_differ names; ")
    assert all(key in said for key in keys)
    assert "output.reuse=false" in said and remedy in said.rsplit("(", 1)[1]


def test_a_declared_difference_is_kept_and_not_refused(made, study):
    declared = replace(study, may_differ=[*study.may_differ, "train.precision"])
    found = audit(records(made(), made(RANDOM, "train.precision=bf16")), declared)
    assert {(each.key, each.values, each.standing) for each in found.differences} >= {
        ("precision", ("fp32", "bf16"), "declared"),
        ("config.train.precision", ("fp32", "bf16"), "declared"),
    }


def test_what_merely_weakens_a_comparison_is_a_warning_that_names_it(made, study, tmp_path):
    shutil.copytree(made(RANDOM), tmp_path / "run")
    about = read_json(tmp_path / "run" / "run.json")
    about["hardware"]["threads"] = 64
    about["versions"]["torch"] = "1.0"
    write_json(tmp_path / "run" / "run.json", about)
    found = audit(records(made(), tmp_path / "run"), study)
    (said,) = found.warnings
    assert said.startswith("Unlike pairs: finetune and scratch differ in threads (1 against 64), versions.torch (2.")
    assert found.said.endswith("weakened by threads, versions.torch")


def test_evaluations_of_one_length_must_fall_on_the_same_steps(made, study):
    free = replace(study, may_differ=[*study.may_differ, "train.evaluations"])
    found = audit(records(made(), made(RANDOM, "train.evaluations=3")), free)
    assert {each.key: each.values for each in found.differences}["evaluation steps"] == (
        "after 33%, 100%",
        "after 33%, 67%, 100%",
    )


def test_another_tokenizer_under_one_name_is_refused(made, study, tmp_path):
    shutil.copytree(made(RANDOM), tmp_path / "run")
    about = read_json(tmp_path / "run" / "run.json")
    about["data"]["tokenizer"] = "0" * 64
    write_json(tmp_path / "run" / "run.json", about)
    with pytest.raises(RunError, match=r"found tokenizer \([0-9a-f]{8} against 00000000\); "):
        audit(records(made(), tmp_path / "run"), study)


def test_a_head_of_the_checkpoint_belongs_to_what_the_start_brings(made, study, tmp_path):
    shutil.copytree(made(), tmp_path / "run")
    ledger = read_json(tmp_path / "run" / "ledger.json")
    for entry in ledger["entries"]:
        if entry["part"] == "head":
            entry |= {"fate": "kept", "sha256": "1" * 64}
    write_json(tmp_path / "run" / "ledger.json", ledger)
    found = audit(records(tmp_path / "run", made(RANDOM)), study)
    assert {each.key: each.standing for each in found.differences}["head"] == "declared"


def test_further_arms_may_differ_but_it_is_said_in_what(made, study):
    more = RunRecord("probe", None, 0, made("strategy=probe", "train.batch_size=16"), "finished")
    found = audit([*records(made(), made(RANDOM)), more], study)
    (said,) = found.warnings
    assert said.startswith(
        "More than one cause: further arms differ from scratch also in what study.may_differ does not name: probe ("
    )
    assert "strategy._target_" in said and "train.batch_size" in said
    assert found.pairs == 1 and found.said.endswith("no undeclared difference")


def test_the_trials_that_chose_the_recipes_are_compared(made, study):
    pair = records(made(), made(RANDOM))
    assert "tuning trials" in audit(pair, study, {"finetune": 12, "scratch": 12}).keys
    (said,) = audit(pair, study, {"finetune": 12, "scratch": 4}).warnings
    assert said == "Unlike pairs: finetune and scratch differ in tuning trials (12 against 4)."


def test_a_run_that_recorded_less_is_compared_in_what_it_has(made, study, tmp_path):
    shutil.copytree(made(RANDOM), tmp_path / "run")
    for name in ("ledger.json", "metrics.jsonl"):
        (tmp_path / "run" / name).unlink()
    about = read_json(tmp_path / "run" / "run.json")
    for key in ("splits", "order", "tokenizer"):
        about["data"].pop(key)
    write_json(tmp_path / "run" / "run.json", about)
    keys = audit(records(made(), tmp_path / "run"), study).keys
    assert "rows" in keys and not {"head", "order", "tokenizer", "rows.train", "evaluations"} & set(keys)
    (tmp_path / "run" / "run.json").write_text("{")
    assert "rows" not in recorded(tmp_path / "run")


def test_a_study_keeps_its_audit_and_a_report_of_an_unfair_one_is_refused(table, tiny_body, tmp_path):
    arms = ["+study.arms.scratch.train.precision=bf16", "study.may_differ=[body.init,train]"]
    words = ["study.sizes=[20]", "study.seeds=1", "study.workers=2", *arms]
    config = tiny(table, tiny_body, tmp_path, *FEW, *words)
    made = execute.execute(config)
    kept = json.loads((made.folder / "comparison.json").read_text())["audit"]
    assert kept["pairs"] == 1 and "head" in kept["keys"]
    page = (made.folder / "report.html").read_text(encoding="utf-8")
    assert f"1 pair, {len(kept['keys'])} keys compared, no undeclared difference" in page
    narrow = replace(
        config, study=replace(config.study, may_differ=["body.init", "train.learning_rate", "train.epochs"])
    )
    (study_folder(config) / "config.yaml").write_text(dump(narrow), encoding="utf-8")
    with pytest.raises(
        RunError,
        match=r"found precision \(fp32 against bf16\), train\.precision \(fp32 against bf16\)|train\.precision .*precision ",
    ):
        execute.remake(made.folder)
