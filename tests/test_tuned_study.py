"""A study that tunes its arms first: nothing is trained twice, a stop loses nothing, no test score is chosen by."""

import dataclasses
import os
import shutil
import signal
import statistics
from pathlib import Path

import pytest

from headswap.cli import dispatch
from headswap.config import load
from headswap.errors import RunError, Stopped
from headswap.records import read_json
from headswap.study import execute
from headswap.study.plan import study_folder
from headswap.study.tuned import read
from headswap.study.tuning import known, sweeps, tune
from headswap.sweep.execute import reopened
from tiny_runs import reviews, tiny, words_of

FAST = ["study.sizes=[20]", "study.seeds=1", "study.workers=2", "train.max_steps=3", "output.keep_model=false"]
TUNED = ["study.tuning=quick", "study.tuning.trials=2", "study.tuning.sizes=largest"]
TUNED += [
    f"study.tuning.spaces.{arm}.train.learning_rate=tag(log,interval(1e-4,1e-2))" for arm in ("finetune", "scratch")
]
RATE = "train.learning_rate"


class Seen(list):
    def __call__(self, job, event):
        if event["kind"] in ("started", "reused"):
            self.append((job.title, event["kind"]))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return reviews(tmp_path_factory.mktemp("tables") / "reviews.csv", 80)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def config(table, tiny_body, root):
    return tiny(table, tiny_body, root, *FAST, *TUNED)


@pytest.fixture(scope="module")
def study(config):
    """The study, after its tuning was stopped when its second trial began."""
    seen = Seen()

    def stop(job, event):
        seen(job, event)
        if len(seen) == 2 and event["kind"] == "started":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match=r"^stopped by SIGTERM: \d of 4 tuning trials have ended; the same command goes"):
        execute.execute(config, None, stop)
    assert known(config, sweeps(config)) is None and not study_folder(config).exists()
    seen.clear()
    made = execute.execute(config, None, seen)
    trials = [title for title, _ in seen if "trial" in title]
    assert 2 <= len(trials) <= 4 and len(seen) == len(trials) + 2
    return made


def test_the_best_validation_score_of_equal_trials_is_what_the_studys_runs_have(study, root):
    found = read(study.folder)
    assert [(each.arm, each.size, len(each.trials)) for each in found.arms] == [("finetune", 20, 2), ("scratch", 20, 2)]
    for each in found.arms:
        told = read_json(root / "tiny" / each.folder / "sweep.json")["trials"]
        told = [trial for trial in told if trial["state"] == "complete"]
        results = [read_json(root / "tiny" / trial["folder"].rsplit("/", 1)[1] / "result.json") for trial in told]
        scores = [result["scores"]["validation"] for result in results]
        best = max(range(2), key=lambda place: (scores[place]["accuracy"], -scores[place]["loss"]))
        assert each.chosen[RATE] == told[best]["settings"][RATE]
        assert {result["rows"]["train"] + result["rows"]["validation"] for result in results} == {20}
        runs = [one for one in read_json(study.folder / "runs.json") if one["arm"] == each.arm]
        configs = [load((study.folder / one["folder"]).resolve() / "config.yaml") for one in runs]
        assert [made.train.learning_rate for made in configs] == [pytest.approx(float(each.chosen[RATE]))]
        assert {made.seed for made in configs} == {0}  # and the trials' is another
        seeds = {load(root / "tiny" / trial["folder"].rsplit("/", 1)[1] / "config.yaml").seed for trial in told}
        assert seeds == {-1}


def test_no_test_score_of_a_trial_is_kept_with_the_tuning(study, root):
    found = read(study.folder)
    for each in found.arms:
        told = read_json(root / "tiny" / each.folder / "sweep.json")
        values = {
            trial["settings"][RATE]: trial["values"][0] for trial in told["trials"] if trial["state"] == "complete"
        }
        assert {trial.settings[RATE]: trial.score for trial in each.trials} == values
    assert "test" not in (study.folder / "tuning.json").read_text()


def test_the_verdict_the_page_and_comparison_json_tell_the_tuning(study):
    told = read_json(study.folder / "comparison.json")
    assert [each["arm"] for each in told["tuning"]["arms"]] == ["finetune", "scratch"]
    assert len(told["tuning"]["curves"][0]["middle"]) == 2
    rates = {each["arm"]: float(each["trials"][each["best"]]["settings"][RATE]) for each in told["tuning"]["arms"]}
    assert {arm: made["train"]["learning_rate"] for arm, made in told["overlays"].items()} == pytest.approx(rates)
    page = study.report.read_text(encoding="utf-8")
    assert "2 random trials an arm at 20 rows" in page and "Tuning curves" in page
    assert statistics.mean(len(each["trials"]) for each in told["tuning"]["arms"]) == 2


def test_a_second_call_and_a_study_that_shares_an_arm_tune_nothing_again(study, config, table, tiny_body, root):
    seen = Seen()
    again = execute.execute(config, None, seen)
    assert again.folder == study.folder and {kind for _, kind in seen} == {"reused"} and len(seen) == 2
    more = tiny(table, tiny_body, root, *FAST, *TUNED, "study.tuning.spaces.scratch=null")
    seen.clear()
    found = tune(more, sweeps(more), seen)
    assert found is not None and seen == [] and found.given == ("scratch",)
    assert found.arms[0] == read(study.folder).arms[0]


def test_more_trials_go_on_from_the_fewer_ones(study, table, tiny_body, root):
    more = tiny(table, tiny_body, root, *FAST, *TUNED, "study.tuning.trials=3", "study.tuning.spaces.finetune=null")
    seen = Seen()
    found = tune(more, sweeps(more), seen)
    assert found is not None and len(seen) == 1
    assert found.arms[0].trials[:2] == read(study.folder).arms[1].trials and len(found.arms[0].trials) == 3


def test_a_report_is_made_again_from_the_files_alone_also_by_a_relative_path(study, root, tmp_path, monkeypatch):
    shutil.copytree(root / "tiny", tmp_path / "moved")
    for sweep in (tmp_path / "moved").glob("tuning-*"):
        shutil.rmtree(sweep)
    monkeypatch.chdir(tmp_path)
    again = execute.remake(Path("moved", study.folder.name))
    assert again.comparison.excluded == ()
    assert [each.scores for each in again.comparison.scores] == [each.scores for each in study.comparison.scores]
    assert again.comparison.tuning == study.comparison.tuning
    assert "at 20 rows" in again.report.read_text(encoding="utf-8")


def test_the_audit_takes_the_tuned_keys_as_declared_and_counts_the_trials(study, monkeypatch):
    config, records = execute.read(study.folder)
    undeclared = dataclasses.replace(
        config, study=dataclasses.replace(config.study, may_differ=["body.init", "train.epochs"])
    )
    asked, audit = [], execute.audit

    def heard(runs, design, trials):
        asked.append((design.may_differ, trials))
        return audit(runs, design, trials)

    monkeypatch.setattr(execute, "audit", heard)
    assert "tuning trials" in execute.compared(undeclared, study.folder, records).audit.keys
    ((declared, trials),) = asked
    assert trials == {"finetune": 2, "scratch": 2}
    assert set(declared) == {"body.init", "train.epochs"}.union(*(each.chosen for each in read(study.folder).arms))
    assert RATE in declared


def test_an_arms_trials_have_a_page_and_are_listed_by_top(study, root, capsys):
    each = read(study.folder).arms[1]
    assert (root / "tiny" / each.folder / "report.html").is_file()
    assert dispatch(["top", str(root / "tiny" / each.folder)]) == 0
    assert "validation accuracy" in capsys.readouterr().out
    with pytest.raises(
        RunError, match=r"the tuning of a study's arm; found no words of its own; the study's command goes"
    ):
        reopened(root / "tiny" / each.folder)


def test_a_setting_is_tried_on_every_trial_seed(table, tiny_body, tmp_path):
    words = [*FAST, *TUNED, "study.tuning.seeds=[7,8]", "study.tuning.spaces.scratch=null"]
    config = tiny(table, tiny_body, tmp_path, *words)
    seen = Seen()
    found = tune(config, sweeps(config), seen)
    assert found is not None and len(seen) == 4
    told = read_json(tmp_path / "tiny" / found.arms[0].folder / "sweep.json")["trials"]
    for each in found.arms[0].trials:
        own = {
            one["settings"]["seed"]: one["values"][0] for one in told if one["settings"][RATE] == each.settings[RATE]
        }
        assert own.keys() == {"7", "8"} and each.score == pytest.approx(statistics.mean(own.values()))


def test_halving_and_tpe_tune_too(table, tiny_body, tmp_path):
    words = [*FAST, *TUNED, "study.tuning.sampler=tpe", "study.tuning.pruner=halving"]
    config = tiny(table, tiny_body, tmp_path, *words, "study.tuning.trials=3", "study.tuning.spaces.finetune=null")
    found = tune(config, sweeps(config), Seen())
    assert found is not None and len(found.arms[0].trials) == 3
    assert {trial.state for trial in found.arms[0].trials} <= {"complete", "pruned"}


def test_the_commands_plan_and_compare_list_the_trials_and_name_what_they_chose(table, tiny_body, tmp_path, capsys):
    words = [*words_of(table, tiny_body, tmp_path), *FAST, *TUNED]
    assert dispatch(["plan", *words]) == 0
    before = capsys.readouterr().out
    assert before.count("to train  train.learning_rate=") == 4
    assert "tuning finetune 20 rows" in before and "folders are known once the trials have ended" in before
    assert dispatch(["compare", *words]) == 0
    out = capsys.readouterr().out
    assert "tuning: 4 trials, 2 for each of finetune and scratch at 20 rows" in out
    assert out.count("validation accuracy") == 4 and out.count("test accuracy") >= 2
    assert "2 random trials an arm at 20 rows" in " ".join(out.split())
    assert dispatch(["plan", *words]) == 0
    after = capsys.readouterr().out
    listed = [line for line in after.splitlines() if line.startswith(("tuning", "study"))]
    assert not any("to train" in line for line in listed) and sum("2 have ended" in line for line in listed) == 2
    assert any(line.startswith("study  runs") and "2, 2 of them finished already" in line for line in listed)
