"""Files are whole or absent, a folder has one writer, and a finished run is known by its last file."""

import json
import multiprocessing
import os

import pytest

from headswap import records
from headswap.errors import RunError
from headswap.records import RunFolder


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    records.write_json(path, {"a": 1})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"run\.json: cannot be written; No space left on device"):
        records.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["run.json"]


def test_not_a_number_is_not_written_as_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.write_json(tmp_path / "x.json", {"a": float("nan")})


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [line["step"] for line in records.read_jsonl(path)] == [1, 2]


def hold(path, held, leave):
    with RunFolder(path).locked():
        held.set()
        leave.wait(20)


def test_a_second_process_is_refused_with_the_first_ones_pid(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, leave = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path / "run", held, leave))
    process.start()
    assert held.wait(60)
    with (
        pytest.raises(RunError, match=f"another process trains here; found its lock \\(pid {process.pid} on "),
        RunFolder(tmp_path / "run").locked(),
    ):
        pass
    leave.set()
    process.join()
    with RunFolder(tmp_path / "run").locked():
        pass


def test_only_the_result_makes_a_run_finished(tmp_path):
    folder = RunFolder(tmp_path)
    folder.log_metrics({"kind": "train", "step": 1})
    assert not folder.finished
    with pytest.raises(RunError, match="has not finished"):
        folder.result()
    folder.finish({"status": "finished"})
    assert folder.finished
    assert folder.result() == {"status": "finished"}


def test_clearing_keeps_configuration_and_log(tmp_path):
    for name in ("config.yaml", "log.txt", "metrics.jsonl"):
        (tmp_path / name).write_text("x")
    (tmp_path / "model").mkdir()
    RunFolder(tmp_path).clear()
    assert sorted(os.listdir(tmp_path)) == ["config.yaml", "log.txt"]
