"""Runs are children: several at once, and one that dies, errs or is held is one failed run. Exit codes say which."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from headswap import launch, machine
from headswap.cli import main
from headswap.errors import ConfigError
from headswap.launch import folder_of, job_of, run_jobs, train, warm_server
from headswap.overlays import overlay
from headswap.pool import Places
from headswap.records import read_json, read_jsonl
from headswap.spine import HardwareConfig
from tiny_runs import reviews, tiny, words_of
from tiny_tables import written

FEW = ["train.max_steps=1", "output.keep_model=false"]


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    return reviews(tmp_path_factory.mktemp("tables") / "reviews.csv")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("outputs")


def jobs(*configs):
    return [job_of(config, f"job {number}") for number, config in enumerate(configs)]


class Seen(list):
    """Collects (title, kind) of the events of jobs."""

    def __call__(self, job, event):
        self.append((job.title, event["kind"]))

    def of(self, number):
        return [kind for title, kind in self if title == f"job {number}"]


@pytest.fixture(scope="module")
def mixed(table, tiny_body, root):
    """Run six jobs, two at a time: a good one, one killed, one without its column, one with a bug, one held, a good one."""
    broken = ["plugins=[tiny_runs]"]
    made = jobs(
        tiny(table, tiny_body, root, *FEW),
        tiny(table, tiny_body, root, *FEW, *broken, "task._target_=tiny_runs.Killed"),
        tiny(table, tiny_body, root, *FEW, "task.label=stars"),
        tiny(table, tiny_body, root, *FEW, *broken, "task._target_=tiny_runs.Buggy"),
        tiny(table, tiny_body, root, *FEW, "seed=8"),
        tiny(table, tiny_body, root, *FEW, "seed=9"),
    )
    seen = Seen()
    with made[4].folder.locked():
        return made, run_jobs(made, 2, seen), seen


def test_the_others_finish_when_one_child_is_killed(mixed):
    made, outcomes, seen = mixed
    assert [outcome.job for outcome in outcomes] == made
    assert [outcome.finished for outcome in outcomes] == [True, False, False, False, False, True]
    assert all(job.folder.finished == outcome.finished for job, outcome in zip(made, outcomes, strict=True))
    assert seen.of(0)[0] == "started"
    assert seen.of(5)[-1] == "ended"
    assert {"ledger", "train", "validation"} <= set(seen.of(5))
    running, most = 0, 0
    for _, kind in seen:
        running += {"started": 1, "ended": -1}.get(kind, 0)
        most = max(most, running)
    assert most == 2


def test_a_killed_child_is_one_failed_outcome_that_names_the_signal(mixed):
    made, outcomes, seen = mixed
    assert outcomes[1].code == 1
    assert outcomes[1].error == (
        f"{made[1].folder.path}: the run's process was killed; found SIGKILL; "
        "out of memory? set a smaller train.micro_batch_size"
    )
    assert seen.of(1)[-1] == "ended"
    about = read_json(made[1].folder / "run.json")
    assert (about["status"], about["error"]) == ("failed", outcomes[1].error)


def test_a_fault_of_the_data_in_a_child_is_its_one_line_and_code_two(mixed, table):
    made, outcomes, _ = mixed
    assert outcomes[2].code == 2
    assert outcomes[2].error.startswith(f"{table}: ")
    assert "stars" in outcomes[2].error
    assert outcomes[2].error.count("\n") == 0
    assert "Traceback" not in (made[2].folder / "log.txt").read_text()
    assert outcomes[2].error in (made[2].folder / "log.txt").read_text()
    about = read_json(made[2].folder / "run.json")
    assert (about["status"], about["error"]) == ("failed", outcomes[2].error)


def test_a_bug_in_a_child_is_code_one_and_a_traceback_in_its_log(mixed):
    made, outcomes, _ = mixed
    assert outcomes[3].code == 1
    log = made[3].folder / "log.txt"
    assert outcomes[3].error == f"ZeroDivisionError: a bug of the plug; the traceback is in {log}"
    assert "Traceback (most recent call last)" in log.read_text()
    assert "in load" in log.read_text()


def test_a_folder_in_which_another_process_trains_is_refused_with_its_pid(mixed):
    made, outcomes, _ = mixed
    assert outcomes[4].code == 1
    assert (
        f"{made[4].folder.path}: another process trains here; found its lock (pid {os.getpid()} on "
        in outcomes[4].error
    )


def test_what_a_killed_run_left_is_cleared_when_it_is_asked_for_again(mixed):
    made, _, _ = mixed
    (made[1].folder / "metrics.jsonl").write_text('{"kind": "train", "step": 99}\n{"half')
    well = overlay(
        made[1].config, {"task": {**made[1].config.task, "_target_": made[0].config.task["_target_"]}}, "test"
    )
    job = replace(made[1], config=well)
    (again,) = run_jobs([job], 1, Seen())
    assert again.finished
    assert [line["step"] for line in read_jsonl(job.folder / "metrics.jsonl") if line["kind"] == "train"] == [1]


def test_children_end_with_a_parent_that_stops(table, tiny_body, root):
    (job,) = jobs(tiny(table, tiny_body, root, "train.max_steps=1000000", "train.evaluate_every=1000000"))

    def stop(_, event):
        if event["kind"] == "train":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs([job], 1, stop)
    with job.folder.locked():  # nobody trains there any more
        assert not job.folder.finished


def test_training_one_run_from_python_refuses_a_chain(table, tiny_body, root):
    chain = tiny(table, tiny_body, root, *FEW, "stages=[{name: one, overrides: []}]")
    with pytest.raises(ConfigError, match=r"^stages: train\(\) makes one run; found 1 stages"):
        train(chain)


def test_a_finished_run_is_reused_unless_told_otherwise(table, tiny_body, root, tmp_path):
    own = reviews(tmp_path / "own.csv", seed=1)
    (first,) = jobs(tiny(own, tiny_body, root, *FEW))
    assert not run_jobs([first], 1, Seen())[0].reused
    before = {path.name: path.stat().st_mtime_ns for path in first.folder.path.iterdir()}
    seen = Seen()
    (again,) = run_jobs([first], 1, seen)
    assert (again.finished, again.reused, seen) == (True, True, [("job 0", "reused")])
    assert {path.name: path.stat().st_mtime_ns for path in first.folder.path.iterdir()} == before
    (forced,) = jobs(tiny(own, tiny_body, root, *FEW, "output.reuse=false"))
    assert forced.folder.path == first.folder.path
    assert not run_jobs([forced], 1, Seen())[0].reused
    assert (first.folder / "result.json").stat().st_mtime_ns > before["result.json"]
    assert len([line for line in read_jsonl(first.folder / "metrics.jsonl") if line["kind"] == "train"]) == 1
    reviews(tmp_path / "own.csv", seed=2)
    assert folder_of(forced.config).path != first.folder.path


def said(*words, folder):
    """Run the command in a process of its own; return code, output lines and errors."""
    done = subprocess.run(
        [sys.executable, "-m", "headswap", *words], capture_output=True, text=True, timeout=120, cwd=folder, check=False
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def called(capfd, *words):
    """Run the command in this process, whose warm server is there already; return code, output lines and errors."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    out, err = capfd.readouterr()
    return int(caught.value.code or 0), out.splitlines(), err


def test_the_command_trains_a_sweep_and_ends_with_the_folder(table, tiny_body, tmp_path):
    words = [*words_of(table, tiny_body, Path("outputs")), *FEW, "seed=1,2"]
    code, lines, errors = said("train", "-m", *words, folder=tmp_path)
    assert (code, errors) == (0, "")
    folders = sorted((tmp_path / "outputs" / "tiny").iterdir())
    assert [json.loads((folder / "result.json").read_text())["status"] for folder in folders] == ["finished"] * 2
    assert [("seed1-" in folder.name, "seed2-" in folder.name) for folder in folders] == [(True, False), (False, True)]
    assert tmp_path / lines[-1] == folders[1]
    assert sum(line.startswith("test (12 rows): accuracy ") for line in lines) == 2


def test_a_diverged_run_ends_the_command_with_code_one_and_the_rest_of_a_sweep_is_trained(
    capfd, table, tiny_body, tmp_path
):
    words = [*words_of(table, tiny_body, tmp_path), "train.warmup_share=0", "output.keep_model=false"]
    code, _, errors = called(capfd, "train", *words, "train.learning_rate=1e30")
    assert code == 1
    assert errors.startswith("headswap: ")
    assert "diverged" in errors
    assert errors.count("\n") == 1
    code, lines, errors = called(capfd, "train", "-m", *words, "train.learning_rate=1e30,1e-3")
    assert code == 1
    assert errors.splitlines()[0].startswith("Error executing job with overrides: ")  # Hydra says which one it was
    assert errors.splitlines()[1:] == [
        line for line in errors.splitlines() if line.startswith("headswap: ") and "diverged" in line
    ]
    assert sum(line.startswith("test (12 rows): accuracy ") for line in lines) == 1


def test_train_ends_with_its_folder_and_code_zero(capfd, table, tiny_body, root, mixed):
    code, lines, errors = called(capfd, "train", *words_of(table, tiny_body, root), *FEW)
    assert (code, errors) == (0, "")
    assert Path(lines[-1]) == mixed[0][0].folder.path
    assert "[reused, " in lines[-2]


def test_a_fault_of_the_data_ends_the_command_with_code_two(capfd, tiny_body, tmp_path):
    table = written(tmp_path / "one.csv", [("a good film", "pos"), ("a great film", "pos")])
    code, _, errors = called(capfd, "train", *words_of(table, tiny_body, tmp_path / "outputs"), *FEW)
    assert code == 2
    assert errors.startswith(f"headswap: {table}: ")
    assert errors.count("\n") == 1


def test_plan_counts_what_would_run_and_makes_nothing(capfd, table, tiny_body, tmp_path):
    words = [
        *words_of(table, tiny_body, tmp_path / "outputs"),
        "study.sizes=[20]",
        "study.seeds=2",
        "train.max_steps=null",
    ]
    code, lines, errors = called(capfd, "plan", *words, "train.epochs=2")
    assert (code, errors) == (0, "")
    found = {tuple(line.split()[:2]): " ".join(line.split()[2:]) for line in lines}
    assert found["run", "rows"] == "36 train, 12 validation, 12 test"
    assert found["run", "labels"] == "2: neg, pos"
    assert found["run", "steps"].startswith("10 of 8 rows")  # ceil(36 / 8) = 5 a pass
    body = 104 * 32 + 64 * 32 + 2 * 32 + 2 * 32 + 2 * (4 * (32 * 32 + 32) + 2 * 32 + 2 * 37 * 32 + 37 + 32 + 2 * 32)
    below = (104 + 64 + 2 + 2) * 32  # tokens, positions, segments and their norm
    assert (
        found["run", "parameters"] == f"{body + 32 * 32 + 32:,} body ({below:,} embeddings), 66 head"
    )  # and the pooler
    assert found["run", "folder"].startswith(str(tmp_path / "outputs" / "tiny"))
    assert found["study", "runs"] == "4, 0 of them finished already"
    assert [line.split()[1:6] for line in lines if " 20 rows seed " in line] == [
        [arm, "20", "rows", "seed", seed] for seed in "01" for arm in ("scratch", "finetune")
    ]
    assert not (tmp_path / "outputs" / "tiny").exists()


def test_children_inherit_what_a_strategy_says_that_it_imports(table, tiny_body, root, monkeypatch):
    for name in ("HEADSWAP_WARM", "HEADSWAP_WARM_DATA", "HEADSWAP_WARM_IMPORTS"):
        monkeypatch.setenv(name, "")
    warm_server([job_of(tiny(table, tiny_body, root, f"strategy={name}")) for name in ("full", "lora")])
    assert os.environ["HEADSWAP_WARM_IMPORTS"] == "peft"
    code = "import headswap.warm, sys; print('xmlrpc.client' in sys.modules)"
    env = {**os.environ, "HEADSWAP_WARM_DATA": "", "HEADSWAP_WARM_IMPORTS": "no_such_package,xmlrpc.client"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert ended.stdout == "True\n"


@pytest.mark.parametrize(
    ("found", "visible", "each", "runs", "shares"),
    [
        (0, None, 1, 6, ()),
        (1, None, 1, 1, ()),
        (4, None, 1, 4, ("0", "1", "2", "3")),
        (4, None, 2, 2, ("0,1", "2,3")),
        (4, "2,GPU-a1", 1, 2, ("2", "GPU-a1")),
        (4, "", 1, 6, ()),
        (0, None, 2, 3, ()),  # a run's processes share the cores out
        (0, None, 8, 1, ()),
    ],
)
def test_gpus_are_shared_out_one_run_each(found, visible, each, runs, shares, monkeypatch):
    monkeypatch.setattr(machine.Path, "glob", lambda self, pattern: [Path(f"/dev/nvidia{n}") for n in range(found)])
    monkeypatch.setattr(launch, "cores", lambda: 6)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    hardware = HardwareConfig(num_processes=each)
    assert launch.side_by_side(hardware) == runs
    assert launch.places(runs, hardware).devices == shares
    assert launch.places(5, hardware).devices == ()  # more runs than GPUs: each sees all, as asked
    assert launch.places(2, HardwareConfig("cpu")).devices == ()


def test_a_child_sees_its_own_gpu_and_gives_it_back(table, tiny_body, root, tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "places", lambda workers, hardware: Places(2, 1, ("7", "9")))
    words = ["plugins=[tiny_runs]", "task._target_=tiny_runs.Telling", f"task.place={tmp_path}"]
    made = jobs(*(tiny(table, tiny_body, root, *FEW, *words, f"seed={seed}") for seed in (21, 22, 23, 24)))
    assert all(outcome.finished for outcome in run_jobs(made, 2, lambda job, event: None))
    assert {path.name for path in tmp_path.iterdir()} == {"7", "9"}
