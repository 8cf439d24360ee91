"""`headswap train -m`: Hydra's launchers run the trials of headswap's search, and lose none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headswap.cli import main
from headswap.commandline import _await_the_end, with_sweeper
from headswap.config import compose
from headswap.errors import ConfigError, Stopped
from headswap.launch import job_of, run_jobs
from headswap.records import read_json
from headswap.search_space import swept
from headswap.sweep.batches import sweep_in_batches
from slurm_array import Cluster
from tiny_runs import reviews, words_of

RATE = "train.learning_rate=tag(log,interval(1e-4,1e-2))"
QUICK = ["output.keep_model=false", "train.max_steps=6", "train.evaluations=3"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return reviews(tmp_path_factory.mktemp("table") / "reviews.csv")


@pytest.fixture
def words(table, tiny_body, tmp_path):
    return [*words_of(table, tiny_body, tmp_path / "out"), *QUICK]


def swept_by(words, *more):
    """Run `headswap train -m` in this process; return its exit code and sweep.json."""
    with pytest.raises(SystemExit) as ended:
        main(["train", "-m", *words, *more])
    return ended.value.code, told(words)


def told(words):
    root = Path(next(word for word in words if word.startswith("output.root=")).partition("=")[2])
    return read_json(next(root.glob("tiny/sweep-*/sweep.json")))


def test_words_of_a_multirun_become_space_and_experiment():
    assert swept(["seed=1,2", "task=tweets", "++task.text_column=a", RATE, "data.max_length=[1,2]"]) == (
        ["task=tweets", "++task.text_column=a", "data.max_length=[1,2]"],
        {"seed": "1,2", "train.learning_rate": "tag(log,interval(1e-4,1e-2))"},
    )


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (["seed=1,2"], False),
        ([RATE], True),
        (["sweep=grid", "seed=1,2"], True),
        (["sweep.trials=3", "hydra/sweeper=basic"], False),
    ],
)
def test_headswaps_sweeper_is_chosen_where_the_words_need_it(words, chosen):
    assert ("hydra/sweeper=headswap" in with_sweeper("train", words)) == chosen


@pytest.mark.parametrize(
    ("executor", "number", "waits"), [("slurm", "SIGTERM", 1), ("slurm", "SIGUSR2", 0), ("local", "SIGTERM", 0)]
)
def test_a_job_that_slurm_is_about_to_end_waits_for_it(executor, number, waits, monkeypatch):
    """One that ended by itself would be done for Slurm, and not come back after a preemption."""
    slept = []
    monkeypatch.setenv("SUBMITIT_EXECUTOR", executor)
    monkeypatch.setattr("headswap.commandline.time.sleep", slept.append)
    _await_the_end(Stopped(f"stopped by {number} after step 3 of 9; its state is saved"))
    assert len(slept) == waits


def test_a_study_is_not_searched():
    with pytest.raises(ConfigError, match=r"^headswap compare -m: only runs can be searched; found sweep=tpe"):
        with_sweeper("compare", ["sweep=tpe", "seed=1,2"])


def test_a_multirun_searches_as_headswap_sweep_does_and_either_goes_on_with_the_other(words, capsys):
    code, found = swept_by(words, RATE, "sweep=random", "sweep.trials=3")
    assert (code, [trial["state"] for trial in found["trials"]]) == (0, ["complete"] * 3)
    ran = [read_json(Path(trial["folder"]) / "result.json")["seconds"]["total"] for trial in found["trials"]]
    assert [trial["seconds"] for trial in found["trials"]] == ran  # not those that it waited for its batch
    shown = capsys.readouterr().out
    assert "test accuracy" not in shown and shown.count("validation accuracy") >= 3
    with pytest.raises(SystemExit):
        main(["sweep", *words, f"sweep.space.{RATE}", "sweep=random", "sweep.trials=4"])
    assert [trial["settings"] for trial in told(words)["trials"]][:3] == [t["settings"] for t in found["trials"]]
    code, more = swept_by(words, RATE, "sweep=random", "sweep.trials=6")
    rates = [trial["settings"]["train.learning_rate"] for trial in more["trials"]]
    assert len(rates) == len(set(rates)) == 6


def test_failed_and_pruned_trials_are_told_by_a_launcher_too(words):
    code, found = swept_by(
        words, "train.learning_rate=1e-2,1e-3,1e+30,1e-9", "sweep=grid", "sweep.pruner=halving", "sweep.keep_one_in=2",
        "train.warmup_share=0", "sweep.workers=1", "train.max_steps=30", "train.evaluations=6", "train.select_by=loss",
        "sweep.objectives=[loss]",
    )  # fmt: skip
    states = {trial["settings"]["train.learning_rate"]: trial for trial in found["trials"]}
    assert code == 0 and states["1e+30"]["state"] == "fail" and "diverged" in states["1e+30"]["error"]
    assert {each["state"] for rate, each in states.items() if rate != "1e+30"} == {"complete", "pruned"}
    pruned = [trial for trial in found["trials"] if trial["state"] == "pruned"]
    assert all(read_json(Path(trial["folder"]) / "run.json")["status"] == "pruned" for trial in pruned)
    assert all(trial["scores"] for trial in pruned)


def test_hydras_joblib_launcher_runs_trials_in_processes(words):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="hydra-joblib-launcher is not installed")
    code, found = swept_by(
        words, "seed=1,2", RATE, "sweep.trials=3", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"
    )
    assert (code, [trial["state"] for trial in found["trials"]]) == (0, ["complete"] * 3)
    here = compose([*words, *(f"{key}={word}" for key, word in found["trials"][0]["settings"].items())])
    assert str(job_of(here).folder.path) == found["trials"][0]["folder"]


def test_a_launcher_that_loses_its_jobs_costs_no_trial(words, monkeypatch, tmp_path):
    """A loky process killed in one trial ends joblib's whole batch; both trials are launched again."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="hydra-joblib-launcher is not installed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    code, found = swept_by(
        words, "plugins=[own_loss]", "++task._target_=own_loss.KillsItsLauncher", f"++task.marker={tmp_path}/killed",
        "seed=1,2", "sweep=grid", "sweep.workers=2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
    )  # fmt: skip
    assert (tmp_path / "killed").exists()
    assert (code, [trial["state"] for trial in found["trials"]]) == (0, ["complete"] * 2)


def test_a_launcher_that_starts_nothing_is_told_of_once(words, capsys, monkeypatch):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is not installed")
    monkeypatch.setenv("PATH", "/nowhere")  # no sbatch
    with pytest.raises(SystemExit) as ended:
        main(["train", "-m", *words, "seed=1,2", "sweep=grid", "hydra/launcher=submitit_slurm"])
    assert ended.value.code == 1
    assert (
        'headswap: hydra/launcher: started no job; found RuntimeError: Could not detect "srun"'
        in capsys.readouterr().err
    )


def test_what_an_earlier_sweep_pruned_is_not_taken_for_pruned_by_a_launcher_that_lost_it(words):
    """The launcher dies each time after its jobs began; their folders are those of trials that fell behind once."""
    earlier = [job_of(compose([*words, f"seed={seed}"])).folder for seed in (1, 2)]
    for folder in earlier:
        (folder / "config.yaml").parent.mkdir(parents=True)
        (folder / "config.yaml").touch()
        folder.note(status="pruned")

    def dies(jobs, first):
        raise RuntimeError("lost its node")

    sweep_in_batches([*words, "sweep=grid", "seed=1,2"], [], dies, lambda line: None)
    found = told(words)["trials"]
    assert [Path(trial["folder"]).name for trial in found] == [folder.path.name for folder in earlier]
    assert [trial["state"] for trial in found] == ["fail", "fail"]


def test_preempted_jobs_of_a_slurm_array_are_put_back_and_go_on_to_the_bit(words, tmp_path, monkeypatch):
    """Slurm is a stub (slurm_array.py); sbatch's file, submitit's processes and what they do at a signal are real."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is not installed")
    cluster, orders = Cluster(tmp_path / "cluster"), tmp_path / "orders.json"
    orders.write_text(json.dumps({"where": "step", "rank": 0, "do": "wait", "at": 60}))  # for the signals
    words = [*words, "train.max_steps=400", "train.evaluations=2", "plugins=[troubled]"]
    words += ["task._target_=troubled.Troubled", f"+task.orders={orders}"]
    monkeypatch.setitem(cluster.environment, "PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    command = [sys.executable, "-m", "headswap", "train", "-m", *words, "seed=1,2", "sweep=grid"]
    command += ["hydra/launcher=submitit_slurm", "hydra.launcher.array_parallelism=2", "hydra.launcher.partition=gpu"]
    sweep = subprocess.Popen(command, env=cluster.environment, stdout=subprocess.PIPE, text=True)
    try:
        cluster.preempt_once(lambda: all_trained(tmp_path / "out", 2, steps=20))
        orders.unlink()
        said, _ = sweep.communicate(timeout=120)
    finally:
        sweep.kill()
    assert sweep.returncode == 0, said
    assert {"#SBATCH --array=0-1%2", "#SBATCH --partition=gpu", "#SBATCH --signal=USR2@120"} <= cluster.options
    assert cluster.requeued == ["1_0", "1_1"]
    found = told(words)["trials"]
    assert [trial["state"] for trial in found] == ["complete"] * 2
    for trial in found:
        about = read_json(Path(trial["folder"]) / "run.json")
        assert [(each["exact"], each["step"] >= 20) for each in about["resumed"]] == [(True, True)]
    straight = run_here(compose([*words, "seed=1", f"output.root={tmp_path / 'straight'}"]))
    assert result_of(Path(found[0]["folder"])) == result_of(straight)


def all_trained(root: Path, count: int, steps: int) -> bool:
    """Whether so many runs have made so many steps."""
    lines = [[json.loads(line) for line in path.read_text().splitlines()] for path in root.rglob("metrics.jsonl")]
    return sum(any(line.get("step", 0) >= steps for line in each) for each in lines) == count


def run_here(config) -> Path:
    (outcome,) = run_jobs([job_of(config)], 1, lambda job, event: None)
    assert outcome.finished, outcome.error
    return outcome.job.folder.path


def result_of(folder: Path) -> tuple:
    result = read_json(folder / "result.json")
    return result["scores"], result["best_step"], (folder / "predictions.parquet").read_bytes()


def test_a_launcher_that_hydra_does_not_know_is_refused_with_the_ones_it_does(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "-m", *words, "seed=1,2", "hydra/launcher=basik"])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert (
        "hydra/launcher: no such option; found basik (did you mean basic?); options: basic" in said
        and "Config" not in said
    )
