"""Real signals to the real command, in processes of their own: side by side, because each takes seconds to start."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import faults
from headswap.errors import RunError
from headswap.launch import Job, folder_of, run_jobs
from headswap.records import RunFolder, read_json
from headswap.verify import compare_runs
from tiny_runs import reviews, tiny, words_of

STEPS = 200
SETTINGS = [f"train.max_steps={STEPS}", "train.evaluations=2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("command")


@pytest.fixture(scope="module")
def table(place) -> str:
    return reviews(place / "reviews.csv", 48)


def lines_of(folder: RunFolder) -> int:
    path = folder.metrics.path
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(done, seconds=90):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def starting(process, folder):
    """The server that imports torch has been started, no child trains."""
    return len(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()) > 1


def training(process, folder):
    return lines_of(folder) > 5


SCENES = {  # when, what is sent, and to whom: Ctrl-C and a batch system reach the whole group
    "before it trains": (starting, signal.SIGTERM, os.killpg),
    "Ctrl-C": (training, signal.SIGINT, os.killpg),
    "batch system": (training, signal.SIGUSR1, os.killpg),
    "parent killed": (training, signal.SIGKILL, os.kill),
}


@pytest.fixture(scope="module")
def ended(place, table, tiny_body):
    """Start the command once a scene, signal each in its own way, and return how each ended."""
    begun = {}
    for scene in SCENES:
        root = place / scene.replace(" ", "-")
        process = subprocess.Popen(
            [sys.executable, "-m", "headswap", "train", *words_of(table, tiny_body, root), *SETTINGS],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place, start_new_session=True,
        )  # fmt: skip
        begun[scene] = (process, RunFolder(folder_of(tiny(table, tiny_body, root, *SETTINGS)).path))
    waiting, end = set(SCENES), time.monotonic() + 120
    while waiting:
        assert time.monotonic() < end, waiting
        time.sleep(0.02)
        for scene in list(waiting):
            ready, number, send = SCENES[scene]
            if ready(*begun[scene]):
                send(begun[scene][0].pid, number)
                faults.injected("signal" if number != signal.SIGKILL else "kill -9")
                waiting.remove(scene)
    found = {}
    for scene, (process, folder) in begun.items():
        out, errors = process.communicate(timeout=90)
        found[scene] = (process.returncode, out, errors, folder)
    return found


@pytest.mark.parametrize(("scene", "name"), [("Ctrl-C", "SIGINT"), ("batch system", "SIGUSR1")])
def test_the_command_saves_says_so_and_ends_with_75(scene, name, ended):
    code, _out, errors, folder = ended[scene]
    assert code == 75
    told = rf"headswap: stopped by \w+ after step \d+ of {STEPS}; its state is saved: the same command goes on from there\n"
    assert re.fullmatch(told, errors)
    about = read_json(folder / "run.json")
    assert about["status"] == "stopped"
    assert list((folder / "checkpoint").glob("step-*"))


def test_a_command_stopped_before_it_trains_loses_nothing_and_ends_with_75(ended):
    code, _out, errors, folder = ended["before it trains"]
    assert code == 75, errors
    assert re.fullmatch(r"headswap: [^\n]*the same command starts[^\n]*\n", errors)
    assert not (folder / "checkpoint").exists()


def test_a_run_whose_parent_was_killed_saves_and_lets_go_of_its_folder(ended):
    code, _out, _errors, folder = ended["parent killed"]
    assert code == -signal.SIGKILL
    wait_for(lambda: free(folder), 30)
    about = read_json(folder / "run.json")
    assert about["status"] == "stopped"
    assert about["error"].startswith("stopped by the loss of the process that started this run after step ")
    assert list((folder / "checkpoint").glob("step-*"))
    wait_for(lambda: ended_or_unreaped(about["pid"]), 30)


def ended_or_unreaped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def free(folder: RunFolder) -> bool:
    try:
        with folder.locked():
            return True
    except RunError:
        return False


def test_the_same_commands_go_on_to_the_bit(ended, place, table, tiny_body):
    straight = Job(tiny(table, tiny_body, place, *SETTINGS), RunFolder(place / "straight"))
    jobs = [replace(straight, folder=folder) for _, _, _, folder in ended.values()]
    for job in jobs:
        wait_for(lambda job=job: free(job.folder), 30)
    assert all(outcome.finished for outcome in run_jobs([straight, *jobs], 2, lambda job, event: None))
    for job in jobs:
        found = compare_runs(straight.folder.path, job.folder.path)
        faults.resumed([] if found.same else found.lines)
