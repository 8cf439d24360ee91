"""Sweeps: trials are runs, the journal remembers, and neither a killed trial nor a killed sweep loses a night."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headswap.cli import main
from headswap.config import compose, load
from headswap.curve import ends
from headswap.errors import ConfigError, RunError
from headswap.launch import job_of
from headswap.records import RunFolder, read_json
from headswap.search_space import parse
from headswap.spine import SweepConfig
from headswap.sweep.confirm import confirm
from headswap.sweep.execute import plan, reopened, summary, sweep
from headswap.sweep.search import Objective, Search
from tiny_runs import reviews, words_of

RATE = "sweep.space.train.learning_rate=tag(log,interval(1e-4,1e-2))"
QUICK = ["output.keep_model=false", "train.max_steps=6", "train.evaluations=3"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return reviews(tmp_path_factory.mktemp("table") / "reviews.csv")


@pytest.fixture
def planned(table, tiny_body, tmp_path):
    def make(*words):
        given = [*words_of(table, tiny_body, tmp_path), *QUICK, "sweep.workers=2", *words]
        return plan(compose(given), given, [])

    return make


def done(made, events=None):
    return sweep(made, lambda job, event: None if events is None else events.append((job.title, event["kind"])))


def test_a_sweep_runs_its_total_selects_on_validation_and_goes_on_to_a_higher_one(planned):
    made = planned(RATE, "sweep.trials=3")
    search = done(made)
    results = [read_json(Path(trial.user_attrs["folder"]) / "result.json") for trial in search.study.trials]
    assert [trial.value for trial in search.study.trials] == [
        each["scores"]["validation"]["accuracy"] for each in results
    ]
    assert search.best()[0].value == max(each["scores"]["validation"]["accuracy"] for each in results)
    rates = [trial.params["train.learning_rate"] for trial in search.study.trials]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates) and len(set(rates)) == 3
    told = read_json(made.folder / "sweep.json")
    assert [trial["state"] for trial in told["trials"]] == ["complete"] * 3
    ran = [load(Path(trial["folder"]) / "config.yaml").sweep.trial for trial in told["trials"]]
    assert ran == [f"{number} {made.folder.resolve()}" for number in range(3)]
    ends_of = [set(ends(RunFolder(Path(trial["folder"])), trial=True)) for trial in told["trials"]]
    assert ends_of == [{"seconds/train", "seconds/total"}] * 3  # a tracker hears no test score of a trial
    assert "test/accuracy" in ends(RunFolder(Path(told["trials"][0]["folder"])), trial=False)

    more = done(reopened(made.folder, ["sweep.trials=5"]))
    again = [trial.params["train.learning_rate"] for trial in more.study.trials]
    assert again[:3] == rates and len(set(again)) == 5  # a sampler that began anew would propose the first ones again


def test_a_trial_that_is_a_finished_run_costs_nothing(planned):
    events = []
    done(planned("sweep=grid", "sweep.space.train.learning_rate=1e-4,1e-3"), events)
    assert [kind for _, kind in events].count("started") == 2
    events.clear()
    search = done(planned("sweep=grid", "sweep.space.train.learning_rate=1e-4,1e-3,3e-3"), events)
    kinds = [kind for _, kind in events]
    assert (kinds.count("started"), kinds.count("reused"), len(search.counted)) == (1, 2, 3)


def test_a_grid_is_every_combination_once_and_sets_groups_too(planned):
    made = planned("sweep=grid", "sweep.space.strategy=full,probe", "sweep.space.train.max_steps=range(2,4)")
    search = done(made)
    asked = sorted(tuple(trial.user_attrs["words"].values()) for trial in search.study.trials)
    assert asked == [("full", "2"), ("full", "3"), ("probe", "2"), ("probe", "3")]
    found = [read_json(Path(trial.user_attrs["folder"]) / "result.json") for trial in search.study.trials]
    assert sorted(each["steps"] for each in found) == [2, 2, 3, 3]
    assert {each["parameters"]["trainable"] == each["parameters"]["head"] for each in found} == {True, False}


def test_failed_trials_are_told_and_the_others_go_on(planned):
    made = planned("sweep=grid", "sweep.space.train.learning_rate=1e-3,1e30,3e-3", "train.warmup_share=0")
    search = done(made)
    states = {trial.user_attrs["words"]["train.learning_rate"]: trial for trial in search.counted}
    assert [states[rate].state.name for rate in ("0.001", "1e+30", "0.003")] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert "diverged" in states["1e+30"].user_attrs["error"] or "NaN" in states["1e+30"].user_attrs["error"]


def test_a_combination_that_cannot_be_composed_is_a_failed_trial_with_its_reason(planned):
    made = planned("sweep=grid", "sweep.space.train.batch_size=4,0")
    search = done(made)
    errors = [trial.user_attrs.get("error", "") for trial in search.counted]
    assert sorted(bool(error) for error in errors) == [False, True]
    assert any(error.startswith("train.batch_size: must be above 0") for error in errors)


def test_a_hopeless_sweep_gives_up(planned):
    made = planned("sweep=grid", "sweep.space.train.batch_size=4,0,-1,-2,-3", "sweep.max_failures=2")
    with pytest.raises(
        RunError, match=r"^sweep\.max_failures: so many trials failed that the sweep gave up; found 2 of 3"
    ):
        done(made)


def test_trials_that_take_too_long_have_failed(planned):
    made = planned("sweep=grid", "sweep.space.train.max_steps=5000,2", "sweep.seconds=4", "sweep.workers=1")
    search = done(made)
    ended = {trial.user_attrs["words"]["train.max_steps"]: trial for trial in search.counted}
    assert (ended["2"].state.name, ended["5000"].state.name) == ("COMPLETE", "FAIL")
    assert "took longer than it may; found more than 4 s" in ended["5000"].user_attrs["error"]


def test_a_trial_that_somebody_stops_is_a_failed_one_while_the_sweep_goes_on(planned):
    made, hit = planned("sweep=grid", "sweep.space.train.max_steps=5000,2", "sweep.workers=1"), []

    def stop_it(job, event):
        if not hit and event["kind"] == "train" and event["total"] == 5000:
            hit.append(job)
            os.kill(int((job.folder / ".lock").read_text().split()[1]), signal.SIGTERM)

    search = sweep(made, stop_it)
    assert [trial.state.name for trial in search.counted] == ["FAIL", "COMPLETE"]
    assert "stopped by SIGTERM after step" in search.counted[0].user_attrs["error"]
    assert list((hit[0].folder / "checkpoint").iterdir())


def test_several_objectives_give_the_pareto_set(planned):
    made = planned("sweep=grid", "sweep.space.train.max_steps=1,6,12", "sweep.objectives=[loss,parameters]")
    search = done(made)
    losses = {trial.values[0] for trial in search.study.trials}
    assert [trial.values[0] for trial in search.best()] == [min(losses)]  # all have as many weights: one is best


def test_a_plug_says_which_keys_a_trial_has(planned, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    made = planned(
        "sweep=grid", "plugins=[own_conditions]", "+sweep.conditions._target_=own_conditions.OnlyFull",
        "sweep.space.strategy=full,probe", "sweep.space.train.ema=0.5,0.9",
    )  # fmt: skip
    search = done(made)
    asked = {json.dumps(trial.user_attrs["words"]) for trial in search.study.trials}
    assert asked == {
        '{"strategy": "probe"}', '{"strategy": "full", "train.ema": "0.5"}', '{"strategy": "full", "train.ema": "0.9"}'
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "sweep.space: nothing to choose from"),
        (["sweep.space.train.lerning_rate=1,2"], "train.lerning_rate: no such key"),
        (["sweep.space.train.epochs=interval(1,2)", "sweep=grid"], "sweep.space.train.epochs: a grid needs choices"),
        ([RATE, "sweep.objectives=[acuracy]"], "sweep.objectives: no such objective; found 'acuracy'"),
        ([RATE, "sweep.objectives=[loss,loss]"], "sweep.objectives: one stands twice"),
        (["sweep.space.output.root=a,b"], "sweep.space.output.root: no setting of a run"),
        ([RATE, "hardware.launcher=slurm"], "hardware.launcher: "),
        ([RATE, "sweep=grind"], "sweep: no such option; found grind"),
    ],
)
def test_a_mistaken_sweep_is_refused_before_a_trial(planned, words, said):
    with pytest.raises(ConfigError) as found:
        planned(*words)
    assert said in str(found.value)


def test_a_sweep_folder_goes_on_with_its_own_sweep_alone(planned, tmp_path):
    made = planned("sweep=grid", "sweep.space.train.max_steps=1,2")
    done(made)
    with pytest.raises(ConfigError, match="these words make another sweep; found sweep=random"):
        reopened(made.folder, ["sweep=random"])
    with pytest.raises(RunError, match=r"not a sweep folder; found no command\.json"):
        reopened(tmp_path)


def pruning(**changes):
    how = SweepConfig(sampler="random", pruner="halving", first_rung=0.25, keep_one_in=2, **changes)
    return Search(how, parse({"x": "interval(0,1)"}), [Objective("accuracy", True)], 0)


def scored(accuracy, share):
    return {"kind": "validation", "accuracy": accuracy, "step": round(1000 * share), "total": 1000}


def test_halving_ends_trials_that_are_behind_at_a_rung_and_none_before_it():
    """Rungs at 25, 50 and 100 hundredths; of those that come to a rung, one in two goes on."""
    search = pruning()
    first, second = search.ask()[0], search.ask()[0]
    assert not search.behind(first, scored(0.9, 0.1))  # before the first rung
    assert not search.behind(second, scored(0.1, 0.1))
    assert not search.behind(first, scored(0.9, 0.3))
    assert search.behind(second, scored(0.1, 0.3))
    search.prune(second)
    assert [trial.state.name for trial in search.counted] == ["RUNNING", "PRUNED"]


def test_a_pruned_trial_ends_early_and_its_run_could_go_on(planned):
    """A rate that learns nothing keeps its loss; rates that wreck the body are behind it at the first rung."""
    made = planned(
        "sweep=grid", "sweep.pruner=halving", "sweep.first_rung=0.1", "sweep.keep_one_in=2", "sweep.workers=1",
        "sweep.objectives=[loss]", "sweep.space.train.learning_rate=1e-9,0.3,0.2", "train.max_steps=400",
        "train.evaluate_every=10",
    )  # fmt: skip
    search = done(made)
    assert [trial.state.name for trial in search.counted] == ["COMPLETE", "PRUNED", "PRUNED"]
    for trial in search.counted[1:]:
        folder = Path(trial.user_attrs["folder"])
        assert read_json(folder / "run.json")["status"] == "pruned"
        assert not (folder / "result.json").exists() and list((folder / "checkpoint").iterdir())
        assert 10 <= max(trial.intermediate_values) < 100


def test_what_was_running_when_a_process_died_is_asked_again():
    search = pruning()
    trial, words = search.ask()
    assert search.recover() == 1
    _, repeated = search.ask()
    assert repeated == words and len(search.counted) == 1
    assert summary(search)["trials"][trial.number]["state"] == "lost"


def test_a_waiting_setting_whose_process_died_while_it_was_asked_for_is_asked_again():
    search = pruning()
    search.study.enqueue_trial({"x": 0.375})
    search.study.ask()
    assert search.recover() == 1
    assert search.ask()[1] == {"x": "0.375"}


def test_a_sweep_that_is_killed_goes_on_to_its_total_without_a_repeated_point(table, tiny_body, tmp_path):
    words = [*words_of(table, tiny_body, Path("outputs")), *QUICK, RATE, "sweep.trials=6", "sweep.workers=2"]
    command = [sys.executable, "-m", "headswap", "sweep", *words]
    first = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert first.stdout is not None
    for line in first.stdout:
        if line.startswith("[2/6]"):
            break
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    first.stdout.close()
    time.sleep(0.5)
    (folder,) = (tmp_path / "outputs" / "tiny").glob("sweep-*")
    resume = [sys.executable, "-m", "headswap", "sweep", "--resume", str(folder.relative_to(tmp_path))]
    second = subprocess.run(resume, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    told = read_json(folder / "sweep.json")["trials"]
    counted = [trial for trial in told if trial["state"] != "lost"]
    assert [trial["state"] for trial in counted] == ["complete"] * 6
    rates = [trial["settings"]["train.learning_rate"] for trial in counted]
    assert len(set(rates)) == 6
    top = subprocess.run(
        [sys.executable, "-m", "headswap", "top", str(folder)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert top.returncode == 0 and "6 finished" in top.stdout and "validation accuracy" in top.stdout


def test_the_best_settings_are_run_again_on_seeds_that_the_sweep_never_saw(planned):
    made = planned(
        "sweep=grid", "sweep.space.train.learning_rate=1e-4,1e-3,3e-3", "sweep.confirm=2", "sweep.confirm_seeds=2"
    )
    search = done(made)
    events = []
    found = confirm(made, search, lambda job, event: events.append((job.title, event["kind"])))
    best = search.best()[:2]
    assert {each.trial for each in found} == {trial.number for trial in best}
    assert sorted(title for title, kind in events if kind == "ended") == sorted(
        f"trial {trial.number} seed {seed}" for trial in best for seed in (1, 2)
    )
    for each in found:
        (trial,) = (trial for trial in best if trial.number == each.trial)
        words = [f"{key}={word}" for key, word in each.settings.items()]
        runs = [job_of(made.composed([*words, f"seed={seed}"])).folder.result()["scores"] for seed in (1, 2)]
        assert each.again == tuple(scores["validation"]["accuracy"] for scores in runs)
        assert each.test == tuple(scores["test"]["accuracy"] for scores in runs)
        assert each.fell == pytest.approx(sum(each.again) / 2 - trial.value)
    assert found[0].mean >= found[1].mean


def test_a_journal_that_a_kill_left_torn_and_locked_is_mended(planned):
    made = planned(RATE, "sweep.trials=1")
    done(made)
    journal = made.folder / "trials.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "wor')
    (made.folder / "trials.journal.lock").symlink_to(journal)
    began = time.monotonic()
    search = done(reopened(made.folder, ["sweep.trials=2"]))
    assert [trial.state.name for trial in search.counted] == ["COMPLETE"] * 2
    assert journal.read_bytes().startswith(whole)
    assert all(json.loads(line) for line in journal.read_text().splitlines())
    assert time.monotonic() - began < 29  # the half minute for which Optuna waits for a dead process's lock


def test_a_database_that_cannot_be_opened_is_named(planned):
    made = planned(RATE, "sweep.trials=1", "sweep.storage='nosuch://place/base'")
    with pytest.raises(ConfigError, match=r"^sweep\.storage: cannot be opened; found \w+: .*nosuch"):
        done(made)


def test_a_database_keeps_the_study_in_place_of_the_journal(planned, tmp_path):
    made = planned(RATE, "sweep.trials=2", f"sweep.storage='sqlite:///{tmp_path}/trials.db'")
    assert len(done(made).counted) == 2
    assert not (made.folder / "trials.journal").exists()
    assert len(done(made).counted) == 2  # found again


def test_hydras_own_sweep_and_ours_are_not_mixed(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "-m", "sweep.space.seed=1,2"])
    assert ended.value.code == 2
    assert capfd.readouterr().err.startswith("headswap: -m: headswap sweep chooses from sweep.space; found -m;")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sampler", ["tpe", "random", "quasi_random"])
def test_a_sampler_goes_on_in_a_new_process_without_a_repeated_point(sampler, tmp_path):
    space = parse({"x": "interval(0,1)", "n": "int(interval(1,1000))", "kind": "a,b"})
    found = []
    for _ in range(3):  # as three processes after one another, of eight trials each
        search = Search(SweepConfig(sampler=sampler, startup=4), space, [Objective("loss", False)], 0, tmp_path)
        for _ in range(8):
            trial, words = search.ask()
            assert 0 <= float(words["x"]) <= 1 and 1 <= int(words["n"]) <= 1000 and words["kind"] in "ab"
            found.append((words["x"], words["n"]))
            search.tell(trial, {"scores": {"validation": {"loss": (float(words["x"]) - 0.3) ** 2}}})
    assert len(set(found)) == 24 and len(search.counted) == 24
    xs = sorted(float(x) for x, _ in found)
    if sampler == "tpe":  # it looks where it was good: near 0.3
        assert sum(abs(x - 0.3) < 0.2 for x in xs) > 12
    if sampler == "quasi_random":  # a scrambled Sobol sequence has a point in every eighth of its first 16
        assert {int(8 * float(x)) for x, _ in found[:16]} == set(range(8))


def test_hyperband_ends_a_trial_behind_the_others_of_its_bracket_and_none_before_the_first_rung():
    how = SweepConfig(sampler="random", pruner="hyperband", first_rung=0.25, keep_one_in=2)
    search = Search(how, parse({"x": "interval(0,1)"}), [Objective("accuracy", True)], 0)
    ended = []
    for number in range(24):
        trial, _ = search.ask()
        score = 0.9 if number < 12 else 0.1  # all that come late are worse
        assert not search.behind(trial, scored(score, 0.1))
        ended.append(any(search.behind(trial, scored(score, share)) for share in (0.3, 0.6)))
        search.prune(trial) if ended[-1] else search.tell(trial, {"scores": {"validation": {"accuracy": score}}})
    assert not any(ended[:12])
    assert sum(ended[12:]) >= 6
