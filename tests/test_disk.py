"""A disk that is full, broken or read-only: the state before stays valid, nothing is torn, and the end is not silent."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import faults
from exact import BASE, STEPS, every, go, mismatches
from headswap import config as configuration
from headswap.checkpoint import Checkpoints, State, load
from headswap.durable import verify
from headswap.errors import RunError
from headswap.records import MetricsLog, RunFolder, read_json, write_text
from headswap.spine import SaveConfig
from headswap.stopping import Stop
from headswap.verify import compare_runs
from headswap.worker import outcome
from tiny_runs import ran, reviews, tiny

NO_ROOM = os.strerror(errno.ENOSPC)
TOO_LARGE = "not saved; found File too large; training goes on and tries again later: free space"


def small_state(step: int) -> State:
    tensors = {"a": torch.full((2, 2), float(step)), "b": torch.tensor(step)}
    return State(
        step, {"metrics_lines": 0}, tensors, {f"exp_avg/{name}": tensors[name] for name in "ab"}, tensors, step
    )


@pytest.mark.parametrize("code", faults.ERRNOS)
@pytest.mark.parametrize("call", faults.CALLS_OF_A_SAVE)
def test_whichever_call_of_a_save_fails_the_state_before_stays_valid(call, code, tmp_path):
    told = []
    for nth in range(1, faults.CALLS_OF_A_SAVE[call] + 1):
        folder = tmp_path / str(nth)
        checkpoints = Checkpoints(folder, SaveConfig(steps=1), told.append)
        assert checkpoints.save(small_state(1))
        told.clear()
        with faults.failing(call, nth, code) as seen:
            assert not checkpoints.save(small_state(2)), (call, nth)
        assert len(seen) == nth
        faults.injected("disk full or I/O error")
        assert [event["kind"] for event in told] == ["saving", "warning"]
        said = f"{folder}: checkpoint of step 2 not saved; found {os.strerror(code)}; training goes on and tries again"
        assert told[1]["text"].startswith(said)
        left = {path.name for path in folder.iterdir()}
        assert not [name for name in left if name.startswith(".")]  # no litter
        for name in left:  # step 2 has its name only when the last fsync, that of the rename, was what failed
            verify(folder / name)
        again = Checkpoints(folder, SaveConfig(), told.append)
        found = again.newest(0)
        assert found is not None
        state = load(found)
        assert torch.equal(state.weights["a"], torch.full((2, 2), float(state.step)))
        assert again.rejected == []
        assert checkpoints.save(small_state(3))
        assert Checkpoints(folder, SaveConfig(), told.append).newest(0) == folder / "step-00000003"


def test_every_call_of_a_save_was_made_to_fail(tmp_path):
    for call, count in faults.CALLS_OF_A_SAVE.items():
        checkpoints = Checkpoints(tmp_path / call, SaveConfig(), lambda event: None)
        with faults.failing(call, 0, 0) as seen:
            checkpoints.save(small_state(1))
        assert len(seen) == count, call


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return go(tmp_path_factory.mktemp("straight"))


@pytest.mark.parametrize(("call", "nth"), faults.FAILED_IN_TRAINING)
def test_a_training_goes_on_when_a_save_fails_and_resumes_from_the_one_before(call, nth, straight, tmp_path):
    train = replace(BASE, save_every=every(1))
    with faults.failing(call, nth, errno.ENOSPC, "/checkpoint"):
        left = go(tmp_path, train, STEPS - 1)
    faults.injected("disk full or I/O error")
    assert sum(event["kind"] == "warning" for event in left.events) == 1
    assert left.stopped.startswith(f"stopped by request at step {STEPS - 1}")
    faults.resumed(mismatches(straight, go(tmp_path, train)))


def test_a_stop_whose_save_fails_says_so_and_the_state_before_is_gone_on_with(straight, tmp_path):
    go(tmp_path, BASE, 3)
    with faults.failing("_write", 1, errno.EIO, "/checkpoint"):
        left = go(tmp_path, BASE, 5)
    faults.injected("disk full or I/O error")
    assert left.stopped.endswith("after step 5 of 8; its state could not be saved")
    faults.resumed(mismatches(straight, go(tmp_path)))


def test_lines_wait_in_memory_while_the_kernel_refuses_them_and_none_is_lost_or_torn(straight, tmp_path):
    """Real refusals: a limit on the size of files, half a line into metrics.jsonl, lifted three steps later."""
    limits, path = [], tmp_path / "metrics.jsonl"

    def tell(line):
        if (line["kind"], line.get("step")) == ("train", 3):
            limits.append(faults.no_more_than(path.stat().st_size + 40))
            limits[0].__enter__()
        if (line["kind"], line.get("step")) == ("train", 6):
            torn = path.read_text().rpartition("\n")[2]
            assert 0 < len(torn) <= 40
            limits[0].__exit__(None, None, None)

    left = go(tmp_path, replace(BASE, save_every=every(1)), tell=tell)
    warnings = [event["text"] for event in left.events if event["kind"] == "warning"]
    faults.injected("disk full or I/O error", len(warnings))
    refused = [3, 4, 4, 5]  # step 4 is tried again once it is judged
    assert warnings == [f"{tmp_path / 'checkpoint'}: checkpoint of step {step} {TOO_LARGE}" for step in refused]
    faults.resumed(mismatches(straight, left))
    assert [line["step"] for line in left.lines if line["kind"] == "train"] == list(range(1, STEPS + 1))


def test_a_metrics_log_that_never_gets_room_says_so_at_the_end(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.add({"step": 1})
    assert (log.refused, log.lines) == (NO_ROOM, 1)
    faults.injected("disk full or I/O error")
    with pytest.raises(RunError, match=r"metrics\.jsonl: cannot be written; .*; free space or change output\.root"):
        log.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("disk")


@pytest.fixture(scope="module")
def config(place, tiny_body):
    table = reviews(place / "reviews.csv", 48)
    return tiny(table, tiny_body, place, "train.micro_batch_size=4", "train.save_every.steps=2")


@pytest.fixture(scope="module")
def finished(place, config):
    assert ran(place / "straight", config)["kind"] == "finished"
    return place / "straight"


@pytest.mark.parametrize("end", faults.REFUSED_AT_THE_END)
def test_a_final_save_that_is_refused_fails_the_run_and_room_mends_it(end, finished, config, tmp_path, capfd):
    folder = tmp_path / "run"
    with faults.failing_at(end, errno.ENOSPC) as hit:
        ended = ran(folder, config)
    assert hit
    faults.injected("disk full or I/O error")
    assert (ended["kind"], ended["code"], ended["status"]) == ("failed", 1, "failed")
    named = folder / end.removesuffix(".tmp/model.safetensors")
    assert ended["error"] == f"{named}: cannot be written; {NO_ROOM}; free space or change output.root"
    assert capfd.readouterr().err.splitlines()[-1] == ended["error"]
    assert not RunFolder(folder).finished
    about = read_json(folder / "run.json")
    assert (about["status"], about["error"]) == ("failed", ended["error"])
    assert not [path for path in folder.rglob("*") if path.name.endswith(".tmp")]
    assert ran(folder, config)["kind"] == "finished"
    assert [note["step"] for note in read_json(folder / "run.json")["resumed"]] == [2]
    found = compare_runs(finished, folder)
    faults.resumed([] if found.same else found.lines)


def test_a_model_that_the_kernel_refuses_half_way_fails_the_run(finished, config, tmp_path):
    """The weights are written by safetensors' own writer, in Rust: a real limit, not a simulated one."""
    folder, limit = tmp_path / "run", faults.no_more_than(30_000)

    def report(line):
        if line["kind"] == "validation" and line["step"] == 4:
            limit.__enter__()

    try:
        ended = ran(folder, config, report)
    finally:
        limit.__exit__(None, None, None)
    faults.injected("disk full or I/O error")
    assert (ended["kind"], ended["code"]) == ("failed", 1)
    assert ended["error"].startswith(f"{folder / 'model'}: cannot be written; ")
    assert "File too large" in ended["error"]
    assert "free space or change output.root" in ended["error"]
    assert not (folder / "model").exists()
    assert ran(folder, config)["kind"] == "finished"
    found = compare_runs(finished, folder)
    faults.resumed([] if found.same else found.lines)


def test_a_full_disk_at_the_start_is_one_clear_line(config, tmp_path):
    folder = tmp_path / "run"
    write_text(folder / "config.yaml", configuration.dump(config))
    with faults.no_more_than(0):
        ended = outcome(RunFolder(folder), lambda line: None, Stop())
    faults.injected("full or read-only outputs")
    assert ended["code"] == 1
    assert (
        ended["error"] == f"{folder / 'run.json'}: cannot be written; File too large; free space or change output.root"
    )
