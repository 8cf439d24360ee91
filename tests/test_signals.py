"""SIGTERM, SIGINT, SIGUSR1, SIGUSR2: saved at the step boundary, exit code 75, and the same command ends with the same bits."""

import contextlib
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

import faults
import tiny_training
from exact import BASE, go, mismatches
from headswap.errors import Stopped
from headswap.launch import Job, run_jobs
from headswap.losses import CrossEntropy
from headswap.records import RunFolder, read_json
from headswap.stopping import Stop
from headswap.verify import compare_runs
from tiny_runs import reviews, tiny
from tiny_training import batches


@pytest.fixture(autouse=True)
def deaf():
    """Keep a signal that comes late from ending the tests."""
    before = {number: signal.signal(number, lambda *_: None) for number in faults.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return go(tmp_path_factory.mktemp("straight"))


class Interrupting(CrossEntropy):
    """A loss in whose nth call the process is sent a signal."""

    def __init__(self, number, nth):
        super().__init__()
        for name, value in {"number": number, "nth": nth, "calls": []}.items():
            object.__setattr__(self, name, value)

    def __call__(self, output, batch):
        self.calls.append(output.logits.requires_grad)
        if len(self.calls) == self.nth:
            os.kill(os.getpid(), self.number)
        return super().__call__(output, batch)


@pytest.mark.parametrize("number", faults.SIGNALS)
def test_a_signal_in_a_step_is_heard_at_its_end(number, whole, tmp_path):
    stop = Stop()
    with stop.listening():
        left = go(tmp_path, BASE, stop, loss=Interrupting(number, 2))  # in the first of three passes or so of a step
    faults.injected("signal")
    name = signal.Signals(number).name
    assert (
        left.stopped == f"stopped by {name} after step 1 of 8; its state is saved: the same command goes on from there"
    )
    assert [line["step"] for line in left.lines] == [1]
    faults.resumed(mismatches(whole, go(tmp_path)))


@pytest.mark.parametrize("number", faults.SIGNALS)
def test_a_signal_in_an_evaluation_leaves_it_to_the_next_start(number, whole, tmp_path):
    stop, loss = Stop(), CrossEntropy()
    scoring = Interrupting(number, 2)  # in the second of the three passes over validation, after step 2
    score = tiny_training.judge(batches(), scoring, stop=stop).score
    with stop.listening():
        left = go(tmp_path, BASE, stop, score=score, loss=loss)
    faults.injected("signal")
    assert left.stopped.startswith(f"stopped by {signal.Signals(number).name} after step 2 of 8; its state is saved")
    assert len(scoring.calls) == 2  # the third pass was not made any more
    assert [line["kind"] for line in left.lines] == ["train", "train"]
    faults.resumed(mismatches(whole, go(tmp_path)))


def test_outside_training_a_wish_ends_the_run_at_once():
    stop = Stop()
    with stop.listening(), pytest.raises(Stopped, match=r"^stopped by SIGTERM; nothing was in training; the same comm"):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    faults.injected("signal")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("signals")


@pytest.fixture(scope="module")
def config(place, tiny_body):
    words = ["train.max_steps=40", "train.evaluate_every=5", "train.micro_batch_size=4", "train.save_every.steps=3"]
    return tiny(reviews(place / "reviews.csv", 48), tiny_body, place, *words)


@pytest.fixture(scope="module")
def straight(place, config):
    job = Job(config, RunFolder(place / "straight"))
    assert run_jobs([job], 1, lambda job, event: None)[0].finished
    return job.folder.path


def different(first: Path, second: Path) -> list[str]:
    found = compare_runs(first, second)
    return [] if found.same else found.lines


def at(kind, step, act, jobs=1):
    """Return an `on_event` that acts once, when an event of this kind and step has come from so many jobs."""
    seen = set()

    def hear(job, event):
        if event["kind"] == kind and event.get("step") == step and job.title not in seen and len(seen) < jobs:
            seen.add(job.title)
            if len(seen) == jobs:
                act(job)

    return hear


def child_of(job) -> int:
    pid = int((job.folder / ".lock").read_text().split()[1])
    assert pid in {child.pid for child in multiprocessing.active_children()}
    return pid


@pytest.mark.parametrize("kind", ["ledger", "saved"])
@pytest.mark.parametrize("number", faults.OF_A_CHILD)
def test_a_signal_to_the_child_stops_its_run(number, kind, place, config, straight):
    job = Job(config, RunFolder(place / f"child-{number}-{kind}"))
    when = at(kind, 6 if kind == "saved" else None, lambda job: os.kill(child_of(job), number))
    (outcome,) = run_jobs([job], 1, when)
    faults.injected("signal")
    assert (outcome.finished, outcome.status, outcome.code) == (False, "stopped", 75)
    assert outcome.error.startswith(f"stopped by {signal.Signals(number).name}")
    about = read_json(job.folder / "run.json")
    assert (about["status"], about["error"]) == ("stopped", outcome.error)
    (outcome,) = run_jobs([job], 1, lambda job, event: None)
    assert outcome.finished
    about = read_json(job.folder / "run.json")
    assert about["status"] == "finished"
    if kind == "saved":
        assert about["resumed"][0]["step"] >= 6
    faults.resumed(different(straight, job.folder.path))


@pytest.mark.parametrize("number", faults.SIGNALS)
def test_a_signal_to_the_parent_stops_the_runs_of_all_its_children(number, place, config, straight):
    jobs = [Job(config, RunFolder(place / f"parent-{number}-{name}"), name) for name in ("one", "two")]
    with pytest.raises(Stopped) as caught:
        run_jobs(jobs, 2, at("saved", 3, lambda job: os.kill(os.getpid(), number), 2))
    faults.injected("signal")
    assert caught.value.exit_code == 75
    assert str(caught.value) == (
        f"stopped by {signal.Signals(number).name}: 0 of 2 runs finished, 2 saved in the middle; "
        "the same command goes on from there"
    )
    assert [read_json(job.folder / "run.json")["status"] for job in jobs] == ["stopped"] * 2
    assert all(outcome.finished for outcome in run_jobs(jobs, 2, lambda job, event: None))
    for job in jobs:
        faults.resumed(different(straight, job.folder.path))


def test_a_signal_while_a_child_is_being_started_is_not_lost(place, config, straight):
    """Starting the first child takes seconds; the signal comes when there is nobody yet to pass it on to."""
    job = Job(replace(config), RunFolder(place / "early"))
    process = multiprocessing.get_context("forkserver").Process
    start = process.start

    def late(self):
        os.kill(os.getpid(), signal.SIGTERM)
        start(self)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped, match="the same command start"):
        patch.setattr(process, "start", late)
        run_jobs([job], 1, lambda job, event: None)
    faults.injected("signal")
    assert run_jobs([job], 1, lambda job, event: None)[0].finished
    faults.resumed(different(straight, job.folder.path))


def test_a_second_interrupt_ends_at_once(place, config, straight):
    job = Job(config, RunFolder(place / "twice"))

    def twice(job):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_jobs([job], 1, at("saved", 3, twice))
    faults.injected("signal", 2)
    with contextlib.ExitStack() as held:
        held.enter_context(job.folder.locked())  # nobody trains there any more
    assert not job.folder.finished
    assert run_jobs([job], 1, lambda job, event: None)[0].finished
    faults.resumed(different(straight, job.folder.path))
