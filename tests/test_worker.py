"""`python -m headswap.worker`: alone or as one of several ranks; which rank's end is the cause of a run's end."""

from dataclasses import replace

import pytest

from headswap import config as configuration
from headswap import elastic, worker
from headswap.records import RunFolder, write_text
from headswap.spine import Config
from headswap.stopping import Stop
from tiny_runs import reviews, tiny


def alone(monkeypatch, *words):
    """Be `python -m headswap.worker`, started by nobody; return the exit code."""
    monkeypatch.setattr("sys.argv", ["worker", *map(str, words)])
    return worker.main()


def test_a_worker_without_a_launcher_is_one_process(monkeypatch, capfd, tiny_body, tmp_path):
    config = tiny(
        reviews(tmp_path / "reviews.csv"), tiny_body, tmp_path, "train.max_steps=1", "output.keep_model=false"
    )
    folder = RunFolder(tmp_path / "run")
    write_text(folder / "config.yaml", configuration.dump(config))
    assert alone(monkeypatch, folder.path) == 0
    assert folder.result()["processes"] == 1
    two = replace(config, hardware=replace(config.hardware, num_processes=2))
    write_text(folder / "config.yaml", configuration.dump(two))
    assert alone(monkeypatch, folder.path) == 1
    assert "hardware.num_processes: 2 are to train together; found 1; start them with" in capfd.readouterr().err


def test_a_worker_without_a_folder_or_with_another_one_says_so(monkeypatch, capfd, tmp_path):
    assert alone(monkeypatch) == 2
    assert capfd.readouterr().err.startswith("usage: python -m headswap.worker RUN_FOLDER")
    assert alone(monkeypatch, tmp_path / "typo") == 2
    assert f"{tmp_path / 'typo'}: not a run folder; found no config.yaml" in capfd.readouterr().err
    assert not (tmp_path / "typo").exists()


STOPPED = {"kind": "failed", "error": "stopped by SIGTERM after step 3", "code": 75, "status": "stopped"}
ECHO = {"kind": "failed", "error": "RuntimeError: closed by peer", "code": 1, "status": "failed", "traceback": "T"}
BUG = {"kind": "failed", "error": "ZeroDivisionError", "code": 1, "status": "failed", "traceback": "B"}
DONE = {"kind": "finished", "result": {}}


@pytest.mark.parametrize(
    ("ends", "died", "asked", "found"),
    [
        ([(0, ECHO)], [(0, 1), (1, -9)], "", "rank 1 was killed; found SIGKILL"),
        ([(0, STOPPED)], [(1, 3)], "", "rank 1 ended with code 3 and said nothing"),
        ([(1, BUG), (0, ECHO)], [(1, 1), (0, 1)], "", "rank 1 failed: ZeroDivisionError"),
        ([(1, BUG), (0, STOPPED)], [(1, 1)], "", "rank 1 failed: ZeroDivisionError"),
        ([(1, BUG)], [(1, 1), (0, -15)], "", "rank 1 failed: ZeroDivisionError"),  # ended before it listened
        ([(0, ECHO)], [(1, -15), (0, 1)], "", "stopped by SIGTERM before the first step"),
        ([(0, STOPPED), (1, STOPPED)], [], "SIGUSR1", "stopped by SIGTERM after step 3"),
        ([], [], "SIGTERM", "stopped by SIGTERM before the first step"),
    ],
)
def test_the_rank_that_caused_the_end_is_told_apart_from_the_echo_of_the_others(tmp_path, ends, died, asked, found):
    verdict = elastic._verdict(RunFolder(tmp_path), [{"rank": rank, **end} for rank, end in ends], died, asked)
    assert found in verdict["error"]
    assert (verdict["status"], verdict["code"]) == (("stopped", 75) if "stopped" in found else ("failed", 1))


def test_what_is_told_after_the_end_of_a_finished_run_changes_nothing(tmp_path):
    ends = [{"rank": 0, **DONE}, {"rank": 1, **ECHO}]
    assert elastic._verdict(RunFolder(tmp_path), ends, [(1, -11)], "SIGTERM")["kind"] == "finished"


def test_a_signal_that_foreign_code_wraps_is_still_a_stop(monkeypatch, tmp_path):
    def swallowed(*given):
        try:
            given[-1].ask("SIGTERM")
        except Exception as error:
            raise ImportError("half a module") from error

    monkeypatch.setattr("headswap.run.run", swallowed)
    monkeypatch.setattr("headswap.config.load", lambda path: Config())
    write_text(tmp_path / "config.yaml", "")
    ended = worker.outcome(RunFolder(tmp_path), print, Stop())
    assert (ended["status"], ended["code"]) == ("stopped", 75)
    assert ended["error"].startswith("stopped by SIGTERM; nothing was in training")
