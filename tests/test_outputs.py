"""Displays that throw, clocks that jump, outputs that cannot be written: a run goes on, or says in one line why not."""

import errno
import itertools
import os
import sys
import time
from pathlib import Path

import pytest

import faults
from headswap.checkpoint import Checkpoints
from headswap.cli import main
from headswap.errors import RunError
from headswap.launch import Job, run_jobs
from headswap.records import RunFolder, read_jsonl
from headswap.verify import compare_runs
from tiny_runs import ran, reviews, tiny, words_of


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def table(place) -> str:
    return reviews(place / "reviews.csv", 48)


@pytest.fixture(scope="module")
def config(place, table, tiny_body):
    return tiny(table, tiny_body, place, "train.max_steps=6", "train.save_every.seconds=0.001")


@pytest.fixture(scope="module")
def straight(place, config):
    assert ran(place / "straight", config)["kind"] == "finished"
    return place / "straight"


def same(first: Path, second: Path) -> None:
    found = compare_runs(first, second)
    assert found.same, found.lines


def thrower(kind, fault):
    """Return a display that works until it is told of `kind`, and then throws at everything."""
    seen = []

    def show(*told):
        seen.append(told[-1]["kind"])
        if kind in seen:
            faults.injected("display that throws")
            raise fault

    return show


@pytest.mark.parametrize("fault", faults.BROKEN_DISPLAYS)
@pytest.mark.parametrize("kind", ["ledger", "train", "saving"])
def test_a_report_that_throws_costs_its_lines_and_not_the_run(kind, fault, config, straight, tmp_path):
    assert ran(tmp_path / "run", config, thrower(kind, fault))["kind"] == "finished"
    same(straight, tmp_path / "run")


@pytest.mark.parametrize("kind", ["started", "train", "ended"])
def test_a_display_that_throws_in_the_parent_is_left_out(kind, config, straight, tmp_path, capfd):
    jobs = [Job(config, RunFolder(tmp_path / name), name) for name in ("one", "two")]
    outcomes = run_jobs(jobs, 2, thrower(kind, ValueError("no such colour")))
    assert all(found.finished for found in outcomes)
    for job in jobs:
        same(straight, job.folder.path)
    said = "headswap: the display failed; runs go on without it: ValueError('no such colour')\n"
    assert capfd.readouterr().err == said


def test_words_that_cannot_be_printed_cost_no_run(config, straight, tmp_path, monkeypatch):
    """The terminal is gone: the display throws, and so does saying that it did."""

    class Gone:
        def write(self, text):
            raise OSError(errno.EIO, "Input/output error")

        def flush(self):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("sys.stderr", Gone())
    monkeypatch.setattr("sys.stdout", Gone())
    job = Job(config, RunFolder(tmp_path / "run"))
    assert run_jobs([job], 1, thrower("started", OSError(errno.EIO, "the terminal is gone")))[0].finished
    assert ran(tmp_path / "again", config, thrower("ledger", OSError(errno.EIO, "gone")))["kind"] == "finished"
    sys.stdout.close()  # what took the place of the terminal
    sys.stderr.close()
    monkeypatch.undo()
    same(straight, tmp_path / "run")


@pytest.mark.parametrize("jump", [-36_000.0, 36_000.0])
def test_a_clock_that_jumps_by_hours_changes_nothing(jump, config, straight, tmp_path, monkeypatch):
    """Saves come by a clock that does not jump; only the `time` of lines shows it."""
    sound, ticks = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: sound() + (jump if next(ticks) % 2 else -jump))
    saves = []
    ended = ran(tmp_path / "run", config, lambda line: saves.append(line) if line["kind"] == "saved" else None)
    assert next(ticks) > 5
    faults.injected("clock jump")
    monkeypatch.undo()
    assert ended["kind"] == "finished"
    same(straight, tmp_path / "run")
    assert ended["result"]["saved"]["checkpoints"] == len(saves) > 0
    assert all(0 <= value < 600 for value in ended["result"]["seconds"].values())
    times = [line["time"] for line in read_jsonl(tmp_path / "run" / "metrics.jsonl")]
    assert max(times) - min(times) > 30_000


def test_the_seconds_between_saves_are_monotonic(tmp_path, config, monkeypatch):
    checkpoints = Checkpoints(tmp_path, config.train.save_every, lambda event: None)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    faults.injected("clock jump")
    time.sleep(0.002)
    assert checkpoints.due(1)


def in_one_line(capfd, words) -> str:
    """Run the command in this process; return its error, which must be one line without a traceback, and code 1."""
    with pytest.raises(SystemExit) as caught:
        main(["train", *words])
    errors = capfd.readouterr().err
    assert caught.value.code == 1
    assert errors.startswith("headswap: ")
    assert errors.count("\n") == 1
    return errors.removeprefix("headswap: ")


@pytest.mark.parametrize("kind", ["below a regular file", "on /proc"])
def test_outputs_that_cannot_be_made_are_named_in_one_line(kind, table, tiny_body, tmp_path, capfd):
    (tmp_path / "file").write_text("in the way")
    root = tmp_path / "file" / "outputs" if kind == "below a regular file" else Path("/proc/headswap")
    error = in_one_line(capfd, words_of(table, tiny_body, root))
    faults.injected("full or read-only outputs")
    assert error.startswith(f"{root / 'tiny'}/text-transformer-full-")
    assert ": cannot be written; " in error
    assert error.endswith("; free space or change output.root\n")


@pytest.mark.parametrize("code", faults.REFUSALS)
@pytest.mark.parametrize("call", ["mkdir", "open"])
def test_a_folder_that_the_system_refuses_is_named(call, code, tmp_path, monkeypatch):
    def refuse(*given, **named):
        faults.injected("full or read-only outputs")
        raise OSError(code, os.strerror(code))

    folder = RunFolder(tmp_path / "run")
    monkeypatch.setattr(*((Path, "mkdir", refuse) if call == "mkdir" else ("builtins.open", refuse)))
    with pytest.raises(RunError) as caught, folder.locked():
        pass
    monkeypatch.undo()
    said = f"{folder.path}: cannot be written; {os.strerror(code)}; free space or change output.root"
    assert str(caught.value) == said


@pytest.mark.parametrize("name", ["log.txt", ".lock"])
def test_a_full_disk_below_log_or_lock_costs_no_run(name, config, straight, tmp_path):
    """Both are /dev/full here: every write is refused."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to("/dev/full")
    assert run_jobs([Job(config, RunFolder(tmp_path / "run"))], 1, lambda job, event: None)[0].finished
    faults.injected("full or read-only outputs")
    same(straight, tmp_path / "run")


def test_a_fault_is_told_even_when_the_log_is_full(table, tiny_body, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.txt").symlink_to("/dev/full")
    job = Job(tiny(table, tiny_body, tmp_path, "task.label=stars"), RunFolder(tmp_path / "run"))
    (found,) = run_jobs([job], 1, lambda job, event: None)
    faults.injected("full or read-only outputs")
    assert found.code == 2
    assert found.error.startswith(f"{table}: ")
