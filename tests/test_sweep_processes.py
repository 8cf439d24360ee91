"""Sweeps whose trials are several processes each: one sampler here, an elastic launch for every trial."""

from pathlib import Path

import pytest

from headswap.config import compose
from headswap.launch import job_of, run_jobs
from headswap.records import read_json
from headswap.sweep.execute import plan, sweep, workers
from tiny_runs import reviews, words_of


def test_trials_of_two_processes_give_what_single_processes_give(tiny_body, variant, tmp_path, monkeypatch):
    """Without dropout, whose masks are each rank's own, only the order of the sums differs."""
    monkeypatch.setattr("headswap.launch.cores", lambda: 2)
    body = variant(tiny_body, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    table = reviews(tmp_path / "reviews.csv")
    rates = ["0.001", "0.03"]
    two = [*words_of(table, body, tmp_path / "two"), "hardware.num_processes=2", "sweep=grid"]
    made = plan(compose([*two, f"sweep.space.train.learning_rate={','.join(rates)}"]), two, [])
    assert workers(made.config) == 1  # two cores, two processes a trial
    search = sweep(made, lambda job, event: None)
    assert [trial.state.name for trial in search.counted] == ["COMPLETE"] * 2

    one = words_of(table, body, tmp_path / "one")
    singles = [job_of(compose([*one, f"train.learning_rate={rate}"])) for rate in rates]
    assert all(outcome.finished for outcome in run_jobs(singles, 2, lambda job, event: None))
    expected = {rate: job.folder.result() for rate, job in zip(rates, singles, strict=True)}
    for trial in search.counted:
        folder = Path(trial.user_attrs["folder"])
        found, same = read_json(folder / "result.json"), expected[trial.user_attrs["words"]["train.learning_rate"]]
        assert read_json(folder / "run.json")["hardware"]["processes"] == 2
        assert (found["best_step"], found["steps"]) == (same["best_step"], same["steps"])
        for split in ("validation", "test"):
            assert found["scores"][split] == pytest.approx(same["scores"][split], abs=1e-6)
    losses = {result["scores"]["test"]["loss"] for result in expected.values()}
    assert max(losses) - min(losses) > 1e-4  # the settings matter more than the tolerance
