"""Runs as tasks of a local Ray cluster: what dies is begun again, what is ended saves, and the results are those of home."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib import util
from pathlib import Path

import psutil
import pytest

from headswap.config import compose
from headswap.errors import ConfigError
from headswap.launch import Job, job_of, run_jobs, side_by_side
from headswap.prepare import prepare
from headswap.ray_pool import connected, require_ray
from headswap.ray_task import Errand, perform, places_of
from headswap.records import RunFolder, read_json
from headswap.spine import RayConfig
from headswap.sweep.execute import plan, sweep
from headswap.verify import compare_runs
from tiny_runs import reviews, tiny, words_of

ON_RAY = ["hardware=ray", "hardware.device=cpu", "hardware.threads=1"]
SAVING = ["train.evaluations=2", "train.save_every.steps=20", "train.save_every.max_share=0.9"]
LONG = 80
HUNTED = ["plugins=[troubled]", "task._target_=troubled.Troubled"]
WAITS = {
    "where": "step",
    "at": 60,
    "do": "wait",
}  # after the validation at 40 and its save: only the long run gets there


def ray_or_skip():
    if util.find_spec("ray") is None:
        pytest.skip('needs the extra: pip install "headswap[ray]"')
    return require_ray()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster of two cores and two GPUs that are not there, which all tests' runs share; started and ended here."""
    ray = ray_or_skip()
    place = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)  # its sockets need a short path
    with place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", place.name)
        patch.setenv("RAY_AUTH_TOKEN", "0" * 64)  # else Ray leaves one in the home folder
        patch.setenv("RAY_task_oom_retries", "0")
        before = signal.getsignal(signal.SIGTERM)
        ray.init(
            "local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
            object_store_memory=100 * 2**20,
        )  # fmt: skip
        signal.signal(signal.SIGTERM, before)
        yield ray
        ray.shutdown()
        os.environ.pop("RAY_AUTH_MODE", None)  # which Ray has set


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return reviews(tmp_path_factory.mktemp("table") / "reviews.csv")


@pytest.fixture
def planned(cluster, table, tiny_body, tmp_path):
    def make(*words):
        given = [*words_of(table, tiny_body, tmp_path), *ON_RAY, "sweep=grid", *words]
        return plan(compose(given), given, [])

    return make


class Hunter:
    """Kills a process of the long run, which waits for it: the Ray worker above it, or the child that trains."""

    def __init__(self, place: Path, worker: bool, number: int = signal.SIGKILL) -> None:
        self.orders = place / "orders.json"
        self.orders.write_text(json.dumps(WAITS))
        self.words = [*SAVING, *HUNTED, f"+task.orders={self.orders}"]
        self.worker, self.number = worker, number
        self.hit: Job | None = None
        self.events: list[tuple[str, str]] = []

    def __call__(self, job, event):
        self.events.append((job.title, event.get("text", event["kind"])))
        if self.hit is None and event["kind"] == "validation" and event["total"] == LONG:
            child = psutil.Process(int((job.folder / ".lock").read_text().split()[1]))
            server = child.parent()
            assert server is not None
            above = server.parent()
            assert above is not None and above.name().startswith("ray::")
            os.kill(above.pid if self.worker else child.pid, self.number)
            self.hit = job
            self.orders.unlink()


def at_home(job, place):
    """Return the folder of the same run, trained in a child of this process."""
    config = replace(job.config, hardware=replace(job.config.hardware, launcher="headswap"))
    again = Job(config, RunFolder(place / job.folder.path.name))
    assert run_jobs([again], 1, lambda job, event: None)[0].finished
    return again.folder.path


def test_eight_trials_on_two_workers_outlive_a_killed_worker(planned, tmp_path):
    hunter = Hunter(tmp_path, worker=True)
    made = planned(f"sweep.space.train.max_steps={LONG},2,3,4,5,6,7,8", *hunter.words)
    search = sweep(made, hunter)
    assert [trial.state.name for trial in search.counted] == ["COMPLETE"] * 8
    assert hunter.hit is not None
    told = [said for title, said in hunter.events if title == hunter.hit.title]
    assert any(said.startswith("its Ray worker is gone; begun again on") for said in told) and "resumed" in told
    said = compare_runs(hunter.hit.folder.path, at_home(hunter.hit, tmp_path / "home"))
    assert said.same, said.lines


def test_a_child_that_is_killed_is_one_failed_trial(planned, tmp_path):
    hunter = Hunter(tmp_path, worker=False)
    search = sweep(planned(f"sweep.space.train.max_steps={LONG},2,3", *hunter.words), hunter)
    assert sorted(trial.state.name for trial in search.counted) == ["COMPLETE", "COMPLETE", "FAIL"]
    (failed,) = (trial for trial in search.counted if trial.state.name == "FAIL")
    assert failed.user_attrs["error"].endswith(
        "the run's process was killed; found SIGKILL; out of memory? set a smaller train.micro_batch_size"
    )


def test_a_run_whose_worker_died_too_often_has_failed_with_a_reason(cluster, table, tiny_body, tmp_path):
    hunter = Hunter(tmp_path, worker=True)
    words = [*ON_RAY, *hunter.words, f"train.max_steps={LONG}", "hardware.ray.retries=0"]
    job = job_of(tiny(table, tiny_body, tmp_path, *words))
    outcome = run_jobs([job], 1, hunter)[0]
    assert not outcome.finished and outcome.code == 1
    assert outcome.error.startswith(f"{job.folder.path}: Ray could not do it; found The worker died unexpectedly")
    assert "it was begun once" in outcome.error and "hardware.ray.retries" in outcome.error
    with job.folder.locked(60):  # the child that lost its worker saves its state
        pass
    again = run_jobs([job], 1, lambda job, event: None)[0]
    assert again.finished and not again.reused
    assert compare_runs(job.folder.path, at_home(job, tmp_path / "home")).same


def test_a_worker_that_is_told_to_end_hands_its_run_on(cluster, table, tiny_body, tmp_path):
    """As Ray tells it before it takes a node away."""
    hunter = Hunter(tmp_path, worker=True, number=signal.SIGTERM)
    job = job_of(tiny(table, tiny_body, tmp_path, *ON_RAY, *hunter.words, f"train.max_steps={LONG}"))
    assert run_jobs([job], 1, hunter)[0].finished
    said = [text for _, text in hunter.events]
    assert "resumed" in said and any(text.startswith("its Ray worker is gone; begun again on") for text in said)


def test_a_node_that_does_not_see_the_folder_says_so(cluster, tmp_path):
    task = cluster.remote(perform).options(num_cpus=0)
    nowhere, here = Errand("", "run", "/nowhere", (), 1, False), Errand("", "run", str(tmp_path), (), 1, False)
    for errand, named in ((nowhere, "/nowhere"), (here, "run")):
        finished, error, code, status = cluster.get(task.remote(errand, None))
        assert (finished, code, status) == (False, 1, "failed")
        assert error.startswith(f"{named}: it is not on ") and error.endswith("must be on a disk that all nodes see")


def test_a_trial_on_ray_is_ended_early_and_its_state_is_saved(planned, tmp_path):
    orders = tmp_path / "orders.json"
    orders.write_text(json.dumps(WAITS | {"at": 380, "seconds": 3}))  # for the word to arrive
    made = planned(
        *HUNTED, f"+task.orders={orders}",
        "sweep.pruner=halving", "sweep.first_rung=0.1", "sweep.keep_one_in=2", "sweep.workers=1",
        "sweep.objectives=[loss]", "sweep.space.train.learning_rate=1e-9,0.3", "train.max_steps=400",
        "train.evaluate_every=10",
    )  # fmt: skip
    search = sweep(made, lambda job, event: None)
    assert [trial.state.name for trial in search.counted] == ["COMPLETE", "PRUNED"]
    folder = Path(search.counted[1].user_attrs["folder"])
    assert read_json(folder / "run.json")["status"] == "pruned"
    assert not (folder / "result.json").exists() and list((folder / "checkpoint").iterdir())


@pytest.mark.parametrize(("shared", "gpus", "seen"), [(True, 0.5, ("0",)), (True, 0, ("-1",)), (False, 0, ())])
def test_a_run_sees_the_gpus_that_ray_gave_it_and_none_other(shared, gpus, seen, cluster):
    errand = Errand("", "", "", (), 3, shared)
    places = cluster.get(cluster.remote(places_of).options(num_cpus=0, num_gpus=gpus).remote(errand))
    assert (places.count, places.threads, places.devices) == (1, 3, seen)


def test_a_folder_that_is_in_use_is_not_given_to_ray(cluster, table, tiny_body, tmp_path):
    job = job_of(tiny(table, tiny_body, tmp_path, *ON_RAY))
    with job.folder.locked():
        outcome = run_jobs([job], 1, lambda job, event: None)[0]
    assert not outcome.finished and "another process trains here" in outcome.error


def test_what_no_node_has_is_refused(cluster, table, tiny_body, tmp_path):
    job = job_of(tiny(table, tiny_body, tmp_path, *ON_RAY, "+hardware.ray.resources.tpu=1", "hardware.ray.cpus=64"))
    said = r"^hardware\.ray: no node of the cluster has what a run asks for, CPU 64, tpu 1; found CPU 2, tpu 0; ask for"
    with pytest.raises(ConfigError, match=said):
        run_jobs([job], 1, lambda job, event: None)


def test_a_stopped_command_saves_on_a_cluster_of_its_own(cluster, table, tiny_body, tmp_path):
    words = [*words_of(table, tiny_body, Path("outputs")), *ON_RAY, "train.max_steps=2000", "hardware.ray.cpus=1"]
    command = [sys.executable, "-m", "headswap", "train", *words]
    home = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")} | {
        "HOME": str(tmp_path)
    }
    first = subprocess.Popen(command, cwd=tmp_path, env=home, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    for line in first.stdout:
        if "validation" in line:
            first.send_signal(signal.SIGTERM)
            break
    first.stdout.read()
    first.stdout.close()
    assert first.wait(60) == 75
    (folder,) = (tmp_path / "outputs" / "tiny").iterdir()
    about = read_json(folder / "run.json")
    assert about["status"] == "stopped" and list((folder / "checkpoint").iterdir())
    assert not (tmp_path / ".ray").exists()  # Ray's token of that cluster is not left in the home folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hardware.ray.address=ray://head:10001"], "hardware.ray.address: no address of a cluster; found 'ray://"),
        (["hardware.ray.cpus=0"], "hardware.ray.cpus: must be above 0; found 0"),
        (["hardware.ray.memory_gib=-1"], "hardware.ray.memory_gib: must be above 0; found -1"),
        (["hardware.ray.gpus=1.5"], "hardware.ray.gpus: a share of one GPU or whole ones; found 1.5"),
        (["hardware.ray.gpus=-1"], "hardware.ray.gpus: a share of one GPU or whole ones; found -1"),
        (["hardware.ray.gpus=1", "hardware.num_processes=2"], "hardware.ray.gpus: every process needs one; found 1"),
        (["hardware.ray.gpus=0", "hardware.device=cuda"], "hardware.ray.gpus: hardware.device=cuda computes on one"),
        (["hardware.ray.retries=-1"], "hardware.ray.retries: must not be negative; found -1"),
        (["+hardware.ray.resources.GPU=1"], "hardware.ray.resources.GPU: an amount above 0 of what nodes offer by a"),
        (["hardware.ray.cpu=2"], "cpu"),
        (["hardware.num_machines=2", "hardware.num_processes=2"], "hardware.launcher: ray starts plain DDP on one"),
    ],
)
def test_mistaken_settings_of_ray_are_refused(words, said):
    with pytest.raises(ConfigError) as found:
        compose(["hardware=ray", *words])
    assert said in str(found.value)


def test_a_cluster_that_does_not_answer_is_named_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(ray_or_skip(), "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    began = time.monotonic()
    for address, said in (
        ("127.0.0.1:1", "at 127.0.0.1:1; found"),
        ("auto", "at this machine; found neither RAY_ADDRESS nor"),
    ):
        with (
            pytest.raises(ConfigError, match=rf"^hardware\.ray\.address: no Ray cluster answers {said}"),
            connected(RayConfig(address)),
        ):
            pass
    assert time.monotonic() - began < 5


def test_without_the_extra_ray_is_asked_for_by_name(monkeypatch, table, tiny_body, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r'needs Ray; found none; pip install "headswap\[ray\]"$'):
        run_jobs([job_of(tiny(table, tiny_body, tmp_path, "hardware=ray"))], 1, lambda job, event: None)


def test_ray_is_asked_how_many_runs_go_side_by_side_and_there_is_nothing_to_prepare(table, tiny_body, tmp_path):
    config = tiny(table, tiny_body, tmp_path, "hardware=ray")
    assert side_by_side(config.hardware) == 0
    with pytest.raises(ConfigError, match="nothing to prepare, headswap starts this run itself; found ray"):
        prepare(config)
