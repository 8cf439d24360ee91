"""kill -9 at any moment: the same command, given until the run is finished, ends with the bits of a straight run."""

import contextlib
import multiprocessing
import os
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import faults
from headswap.checkpoint import read_state
from headswap.durable import verify
from headswap.launch import Job, run_jobs
from headswap.records import RunFolder, read_json
from headswap.verify import compare_runs
from tiny_runs import reviews, tiny

SEED = 20
LONG = ["train.max_steps=20", "train.evaluate_every=5", "train.micro_batch_size=4"]
SHORT = ["train.max_steps=6", "train.evaluate_every=4", "task._target_=faults.Faulty", "plugins=[faults]"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("kills")


@pytest.fixture(scope="module")
def table(place) -> str:
    return reviews(place / "reviews.csv", 48)


def job(place, table, body, name, *overrides):
    return Job(tiny(table, body, place, *overrides), RunFolder(place / name), name)


@pytest.fixture(scope="module")
def straight(place, table, tiny_body):
    """Run both trainings that are killed below straight through, without a save."""
    jobs = [
        job(place, table, tiny_body, "long", *LONG, "train.save_every.seconds=null"),
        job(place, table, tiny_body, "short", *SHORT, "train.save_every.seconds=null"),
    ]
    assert all(outcome.finished for outcome in run_jobs(jobs, 2, lambda job, event: None))
    return [made.folder.path for made in jobs]


def different(first: Path, second: Path) -> list[str]:
    found = compare_runs(first, second)
    return [] if found.same else found.lines


@dataclass
class Killer:
    """Kills each run's process some milliseconds after the nth event of a kind, as planned for it."""

    plans: dict[str, tuple[str, int, float]]
    kills: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, made, event):
        if made.title not in self.plans:
            return
        kind, ordinal, delay = self.plans[made.title]
        if event["kind"] != kind:
            return
        if ordinal > 1:
            self.plans[made.title] = (kind, ordinal - 1, delay)
            return
        del self.plans[made.title]
        time.sleep(delay)
        pid = int((made.folder / ".lock").read_text().split()[1])
        if pid in {child.pid for child in multiprocessing.active_children()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.kills.append((made.title, kind))


def drawn(dice: random.Random) -> tuple[str, int, float]:
    """Draw when to kill: while data loads, a step, an evaluation or a save runs, or while the end is written down."""
    kind = dice.choice(["ledger", "saving", "saving", "saved", "saved", "validation", "validation"])
    ordinal = 1 if kind in ("ledger", "validation") else dice.randint(1, 4)
    return kind, ordinal, dice.choice([0.0, dice.uniform(0, 0.01), dice.uniform(0, 0.03), dice.uniform(0, 0.1)])


def test_runs_killed_at_random_moments_end_as_if_they_had_not_been(straight, place, table, tiny_body):
    dice = random.Random(SEED)
    going, done, killed, struck = [], [], 0, []
    while killed < faults.RANDOM_KILLS or going:
        while killed < faults.RANDOM_KILLS and len(going) < 2:
            number = len(going) + len(done)
            every = f"train.save_every.steps={1 + number % 2}"
            going.append(job(place, table, tiny_body, f"killed{number}", *LONG, every))
        left = faults.RANDOM_KILLS - killed
        killer = Killer({made.title: drawn(dice) for made in going[:left]})
        outcomes = run_jobs(going, 2, killer)
        codes = {outcome.job.title: outcome for outcome in outcomes if not outcome.finished}
        assert all("the run's process was killed; found SIGKILL" in found.error for found in codes.values())
        killed += len(codes)
        struck += [kind for title, kind in killer.kills if title in codes]
        done += [outcome.job for outcome in outcomes if outcome.finished]
        going = [outcome.job for outcome in outcomes if not outcome.finished]
    faults.injected("kill -9", killed)
    for made in done:
        faults.resumed(different(straight[0], made.folder.path))
        assert not (made.folder / "checkpoint").exists()
        assert not list(made.folder.path.rglob("*.tmp"))
    assert {"saving", "saved", "validation"} <= set(struck)


def test_a_run_killed_within_every_kind_of_write_is_gone_on_with(straight, place, table, tiny_body):
    """One run, killed at each place of the list in turn: in a torn write, before and after a rename, at the end."""
    made = job(place, table, tiny_body, "torn", *SHORT, "train.save_every.steps=1")
    reached = []
    for where in faults.KILLED_AT:
        order = faults.order_fault(table, where)
        (outcome,) = run_jobs([made], 1, lambda job, event: None)
        assert not order.exists()
        assert "found SIGKILL" in outcome.error, where
        faults.injected("kill -9")
        whole = sorted((made.folder / "checkpoint").glob("step-*"))
        for folder in whole:  # a folder that has its name is whole
            verify(folder)
        reached.append(read_state(whole[-1])["step"] if whole else 0)
        assert made.folder.finished == (where == ("_rename", "result.json", "after"))
    assert reached == [0, 0, 1, 2, 2, 3, 4, *[5] * 10]
    (outcome,) = run_jobs([made], 1, lambda job, event: None)
    assert (outcome.finished, outcome.reused) == (True, True)
    faults.resumed(different(straight[1], made.folder.path))


def test_a_finished_run_says_nothing_of_the_kills_before(straight, place, table, tiny_body):
    made = job(place, table, tiny_body, "once", *SHORT, "train.save_every.steps=1")
    faults.order_fault(table, ("_rename", "checkpoint/step-00000003", "after"))
    (outcome,) = run_jobs([made], 1, lambda job, event: None)
    faults.injected("kill -9")
    about = read_json(made.folder / "run.json")
    assert (about["status"], about["error"]) == ("failed", outcome.error)
    assert run_jobs([made], 1, lambda job, event: None)[0].finished
    about = read_json(made.folder / "run.json")
    assert about["status"] == "finished"
    assert "error" not in about
    assert [(note["step"], note["exact"], note["differs"]) for note in about["resumed"]] == [(3, True, {})]
