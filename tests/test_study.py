"""A study plans fair pairs, refuses unfair ones, survives a failed run, and can be drawn again without training."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from headswap import launch
from headswap.errors import ConfigError, DataError, RunError
from headswap.records import read_json
from headswap.study import execute
from headswap.study.plan import plan, study_folder
from headswap.study.workers import workers_of
from tiny_runs import reviews, tiny

SIZES, SEEDS = [20, 35], 2


def configured(table, body, root, *overrides):
    """Return a study of 2 arms, 2 sizes and 2 seeds, each run of a few steps."""
    fixed = [
        "study.sizes=[20,35]",
        f"study.seeds={SEEDS}",
        "output.keep_model=false",
        "study.workers=2",
        "train.max_steps=3",
    ]
    return tiny(table, body, root, *fixed, *overrides)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    return reviews(tmp_path_factory.mktemp("tables") / "reviews.csv", 80)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def config(table, tiny_body, root):
    return configured(table, tiny_body, root)


class Seen(list):
    def __call__(self, job, event):
        if event["kind"] in ("started", "reused", "ended"):
            self.append(event["kind"])


@pytest.fixture(scope="module")
def study(config):
    seen = Seen()
    made = execute.execute(config, None, seen)
    assert sorted(seen) == ["ended"] * 8 + ["started"] * 8
    return made


def test_a_plan_is_arms_by_sizes_by_paired_seeds_with_a_seeds_long_runs_first(table, tiny_body, tmp_path):
    arms = ["study.arms.finetune.train.learning_rate=2e-4", "study.arms.scratch.train.learning_rate=6e-4"]
    cells = plan(configured(table, tiny_body, tmp_path, "seed=5", "study.sizes=[10,100,1600]", "study.seeds=3", *arms))
    assert [(cell.seed, cell.size, cell.arm) for cell in cells] == [
        (seed, size, arm) for seed in (5, 6, 7) for size in (1600, 100, 10) for arm in ("scratch", "finetune")
    ]
    for cell in cells:
        made = cell.job.config
        assert made.seed == cell.seed
        rows = {10: (8, 2), 100: (80, 20), 1600: (1280, 320)}[cell.size]
        assert (made.data.train_rows, made.data.validation_rows) == rows
        assert made.body["init"] == {"finetune": "pretrained", "scratch": "random"}[cell.arm]
        assert made.train.learning_rate == {"finetune": 2e-4, "scratch": 6e-4}[cell.arm]
    assert len({cell.job.folder.path for cell in cells}) == 18


def test_without_sizes_all_rows_are_used(table, tiny_body, tmp_path):
    cells = plan(configured(table, tiny_body, tmp_path, "study.sizes=[]"))
    assert [(cell.size, cell.job.config.data.train_rows) for cell in cells] == [(None, None)] * 4


def test_a_study_of_stages_needs_the_command_lines_words(table, tiny_body, tmp_path):
    with pytest.raises(ConfigError, match=r"^stages: a chain is composed of the command line's words; found none"):
        plan(configured(table, tiny_body, tmp_path, "experiment=two_to_three"))


def test_an_undeclared_difference_between_the_arms_is_refused_by_name(table, tiny_body, tmp_path):
    changed = ["++study.arms.scratch.train.batch_size=4", "++study.arms.scratch.data.max_length=16"]
    with pytest.raises(ConfigError) as caught:
        plan(configured(table, tiny_body, tmp_path, *changed))
    assert str(caught.value) == (
        "study.may_differ: arms finetune and scratch differ in keys it does not name; found data.max_length (32 against "
        "16), train.batch_size (8 against 4); give both arms one value, or declare the difference there"
    )
    declared = "study.may_differ=[body.init,train,data.max_length]"  # a group's name declares all its keys
    assert len(plan(configured(table, tiny_body, tmp_path, *changed, declared))) == 8


def test_a_prefix_of_a_keys_name_declares_nothing(table, tiny_body, tmp_path):
    words = [
        "++study.arms.scratch.train.evaluate_every=1",
        "study.may_differ=[body.init,train.learning_rate,train.epochs,train.evaluat]",
    ]
    with pytest.raises(ConfigError, match=r"found train.evaluate_every \(None against 1\)"):
        plan(configured(table, tiny_body, tmp_path, *words))


def test_an_arm_that_names_an_unknown_key_is_refused(table, tiny_body, tmp_path):
    with pytest.raises(
        ConfigError, match=r"study.arms.finetune: no such key; found train.epoch .*did you mean train.epochs"
    ):
        plan(configured(table, tiny_body, tmp_path, "++study.arms.finetune.train.epoch=1"))


def records_of(study):
    return {(each["arm"], each["size"], each["seed"]): each for each in read_json(study.folder / "runs.json")}


def folder_of(study, arm, size, seed):
    return (study.folder / records_of(study)[arm, size, seed]["folder"]).resolve()


def test_a_study_writes_its_runs_its_comparison_and_its_report(study, config):
    assert study.folder == study_folder(config)
    records = records_of(study)
    assert sorted(records) == sorted(
        (arm, size, seed) for arm in ("finetune", "scratch") for size in SIZES for seed in range(SEEDS)
    )
    assert {each["status"] for each in records.values()} == {"finished"}
    comparison = read_json(study.folder / "comparison.json")
    assert [(each["size"], len(each["pairs"])) for each in comparison["contrasts"]] == [(20, 2), (35, 2)]
    assert comparison["excluded"] == []
    assert comparison["test_rows"] == 16
    page = (study.folder / "report.html").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "finetune" in page


def test_the_scores_of_the_comparison_are_those_of_the_runs(study):
    comparison = read_json(study.folder / "comparison.json")
    for contrast in comparison["contrasts"]:
        for pair in contrast["pairs"]:
            for arm, key in (("finetune", "treatment"), ("scratch", "control")):
                rows = pq.read_table(
                    folder_of(study, arm, contrast["size"], pair["seed"]) / "predictions.parquet"
                ).to_pylist()
                right = [row["label"] == row["prediction"] for row in rows if row["split"] == "test"]
                assert pair[key] == pytest.approx(np.mean(right), abs=1e-12)


def test_a_run_uses_the_labels_it_was_given_and_no_more(study):
    for (arm, size, seed), _ in records_of(study).items():
        rows = read_json(folder_of(study, arm, size, seed) / "result.json")["rows"]
        assert rows == {"train": {20: 16, 35: 28}[size], "validation": {20: 4, 35: 7}[size], "test": 16}


def test_both_runs_of_a_pair_have_the_same_head_and_rows_and_all_runs_the_same_test(study):
    tests, heads = set(), {}
    for arm, size, seed in records_of(study):
        folder = folder_of(study, arm, size, seed)
        entries = read_json(folder / "ledger.json")["entries"]
        heads[arm, size, seed] = {
            each["name"]: each["sha256"] for each in entries if each["part"] == "head" and each["fate"] != "dropped"
        }
        table = pq.read_table(folder / "predictions.parquet").to_pylist()
        tests.add(tuple((row["id"], row["label"]) for row in table if row["split"] == "test"))
        heads[arm, size, seed]["validation"] = tuple(row["id"] for row in table if row["split"] == "validation")
        heads[arm, size, seed]["data"] = read_json(folder / "run.json")["data"]["fingerprint"]
    assert len(tests) == 1
    for size in SIZES:
        assert heads["finetune", size, 0] == heads["scratch", size, 0]
        assert heads["finetune", size, 1] == heads["scratch", size, 1]
        assert heads["finetune", size, 0]["classifier.weight"] != heads["finetune", size, 1]["classifier.weight"]
        assert heads["finetune", size, 0]["data"] != heads["finetune", size, 1]["data"]


def test_only_the_body_starts_otherwise(study):
    for size in SIZES:
        first, second = (
            {
                each["name"]: each
                for each in read_json(folder_of(study, arm, size, 0) / "ledger.json")["entries"]
                if each["part"] == "body"
            }
            for arm in ("finetune", "scratch")
        )
        assert {each["fate"] for each in first.values()} == {"kept"}
        assert {each["fate"] for each in second.values()} <= {"new", "dropped"}
        name = "bert.encoder.layer.0.output.dense.weight"
        assert first[name]["sha256"] != second[name]["sha256"]


def test_a_second_execution_reuses_every_run(study, config):
    before = read_json(study.folder / "comparison.json")
    seen = Seen()
    again = execute.execute(config, None, seen)
    assert seen == ["reused"] * 8
    assert again.folder == study.folder
    assert all(each["reused"] for each in records_of(again).values())
    after = read_json(study.folder / "comparison.json")
    assert [each["pairs"] for each in after["contrasts"]] == [each["pairs"] for each in before["contrasts"]]
    assert [each["interval"] for each in after["contrasts"]] == [each["interval"] for each in before["contrasts"]]


def test_a_report_is_made_again_without_training(study, monkeypatch):
    before = (study.folder / "comparison.json").read_bytes()
    (study.folder / "comparison.json").unlink()
    (study.folder / "report.html").unlink()
    monkeypatch.setattr(execute, "run_jobs", lambda *given: pytest.fail("it trains"))
    again = execute.remake(study.folder)
    assert (study.folder / "comparison.json").read_bytes() == before
    assert again.report.is_file()
    with pytest.raises(RunError, match=r"not a study folder; found no runs\.json"):
        execute.remake(study.folder.parent)


def test_a_study_can_be_moved_with_its_runs(study, tmp_path, monkeypatch):
    shutil.copytree(study.folder.parent, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    again = execute.remake(Path("elsewhere", study.folder.name))  # as one types it
    assert len(again.comparison.contrasts) == 2
    assert again.comparison.excluded == ()


def test_a_study_is_named_from_where_one_stands(study, monkeypatch):
    monkeypatch.chdir(study.folder.parent)
    again = execute.remake(Path(study.folder.name))
    assert len(again.comparison.contrasts) == 2
    assert again.comparison.excluded == ()


def test_a_failed_run_is_excluded_with_its_reason_and_the_study_ends(study, table, tiny_body, root):
    """Of a third seed's four new runs one folder is held, as by another process."""
    more = configured(table, tiny_body, root, "study.seeds=3")
    cells = plan(more)
    held = next(cell for cell in cells if (cell.arm, cell.size, cell.seed) == ("scratch", 20, 2))
    seen = Seen()
    with held.job.folder.locked():
        made = execute.execute(more, cells, seen)
    assert (seen.count("reused"), seen.count("ended")) == (8, 4)
    assert made.folder != study.folder
    record = records_of(made)["scratch", 20, 2]
    assert record["status"] == "failed"
    assert "another process trains here; found its lock (pid " in record["reason"]
    comparison = json.loads((made.folder / "comparison.json").read_text())
    excluded = {(each["arm"], each["size"], each["seed"]): each["reason"] for each in comparison["excluded"]}
    assert set(excluded) == {("scratch", 20, 2), ("finetune", 20, 2)}
    assert "another process trains here" in excluded["scratch", 20, 2]
    assert "no finished control run" in excluded["finetune", 20, 2]
    assert [(each["size"], len(each["pairs"])) for each in comparison["contrasts"]] == [(20, 2), (35, 3)]
    assert "another process trains here" in (made.folder / "report.html").read_text(encoding="utf-8")


def test_a_study_of_which_no_run_finished_is_an_error(tiny_body, table, tmp_path):
    body = shutil.copytree(tiny_body, tmp_path / "cut")
    (body / "tokenizer.json").write_text("{", encoding="utf-8")
    config = configured(table, body, tmp_path, "study.sizes=[20]", "study.seeds=1")
    with pytest.raises(RunError, match=r"no run of the study finished; the first one said: .*cut"):
        execute.execute(config)


def test_what_the_data_lack_is_said_before_anything_trains(tiny_body, table, tmp_path):
    config = configured(table, tiny_body, tmp_path, "task.label=stars", "study.sizes=[20]", "study.seeds=1")
    with pytest.raises(DataError, match="no column 'stars'"):
        execute.execute(config)
    assert not list(tmp_path.rglob("result.json")) and not list(tmp_path.rglob("runs.json"))


def test_without_a_number_of_workers_each_core_has_a_run(config, monkeypatch):
    monkeypatch.setattr(launch, "cores", lambda: 6)
    assert workers_of(config) == 2
    assert workers_of(replace(config, study=replace(config.study, workers=None))) == 6
