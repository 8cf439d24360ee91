"""Whole runs in two processes under torch elastic: one result, one message when a rank fails, exact to the bit after it."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from headswap.cli import main
from headswap.launch import Job, job_of, run_jobs
from headswap.records import RunFolder, read_json, read_jsonl
from headswap.verify import compare_runs
from tiny_runs import reviews, tiny, words_of
from troubled import SEEN

TWO = ["hardware.num_processes=2", "plugins=[troubled]", "task._target_=troubled.Troubled"]
RECIPE = ["train.max_steps=8", "train.evaluate_every=3", "train.save_every.steps=2"]


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    return reviews(tmp_path_factory.mktemp("tables") / "reviews.csv", 80)


def ordered(place: Path, *words: str, **orders) -> list[str]:
    """Return the overrides of a run in two processes whose trouble is asked for in `place`/orders.json."""
    place.mkdir(exist_ok=True)
    if orders:
        (place / "orders.json").write_text(json.dumps(orders))
    return [*TWO, f"+task.orders={place / 'orders.json'}", *RECIPE, *words]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def ended(root, table, tiny_body):
    """Run, two at a time: a good run, one with a bug in one rank, one with bad data, one that runs out of memory."""

    def job(name, *words, **orders):
        return job_of(tiny(table, tiny_body, root / name, *ordered(root / name, *words, **orders)), name)

    jobs = [
        replace(job("chain"), folder=RunFolder(root / "straight"), title="straight"),
        job("bug", where="load", rank="1", do="bug"),
        job("data", where="load", do="data"),
        job("memory", "train.find_batch_size=true", where="step", rank="1", above=2, do="memory"),
    ]
    said = []
    outcomes = run_jobs(jobs, 2, lambda job, event: said.append((job.title, event)))
    return {outcome.job.title: outcome for outcome in outcomes}, said


def seen(place, world=2):
    """Return the rows of every step since the last look, those of the ranks joined, as tokens."""
    files = [place / SEEN.format(rank) for rank in range(world)]
    shares = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    for file in files:
        file.unlink()
    steps = []
    for parts in zip(*shares, strict=True):
        joined = [None] * sum(len(part) for part in parts)
        for rank, part in enumerate(parts):
            joined[rank::world] = part
        steps.append(joined)
    return steps


def left(folder) -> list[int]:
    """Return the processes of a run that are there 5 seconds after its end."""
    last = time.monotonic() + 5
    while True:
        processes = psutil.process_iter(["pid", "cmdline"])
        found = [each.info["pid"] for each in processes if str(folder.path) in (each.info["cmdline"] or [])]
        if not found or time.monotonic() > last:
            return found
        time.sleep(0.1)


@pytest.fixture(scope="module")
def chain(ended, root, table, tiny_body):
    """Train what `straight` trained, in links: stop, a killed launcher, a killed rank, a signal to one rank, the rest."""
    place, links = root / "chain", {"straight": (ended[0]["straight"], seen(root / "chain"))}
    given = job_of(tiny(table, tiny_body, place, *ordered(place)))
    ordered(place, where="load", rank="1", do="SIGTERM")  # the rank that hears it must not leave alone
    links["stopped"] = run_jobs([replace(given, stop_at=1)], 1, print)[0], seen(place)
    shutil.copytree(given.folder.path, root / "alone")
    for link, orders in (("orphaned", {"at": 2, "do": "orphan"}), ("killed", {"at": 3, "do": "SIGKILL"})):
        ordered(place, where="step", rank="1", **orders)
        links[link] = run_jobs([given], 1, print)[0], seen(place)
        links[f"left by {link}"] = left(given.folder)
        with given.folder.locked():  # nobody holds it
            pass
    overrides = ordered(place, where="step", rank="1", at=2, do="SIGTERM")
    with pytest.raises(SystemExit) as caught:
        main(["train", *words_of(table, tiny_body, place), *overrides])
    links["signalled"] = caught.value.code, read_json(given.folder / "run.json"), seen(place)
    (place / "orders.json").unlink()
    links["finished"] = run_jobs([given], 1, print)[0], seen(place)
    alone = replace(given.config, hardware=replace(given.config.hardware, num_processes=1))
    links["alone"] = run_jobs([Job(alone, RunFolder(root / "alone"))], 1, print)[0], seen(place, 1)
    return links


def test_a_run_in_two_processes_is_one_result_that_says_so(ended, root):
    outcome = ended[0]["straight"]
    assert (outcome.finished, outcome.error) == (True, "")
    folder = outcome.job.folder
    assert folder.result()["processes"] == read_json(folder / "run.json")["hardware"]["processes"] == 2
    lines = read_jsonl(folder / "metrics.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 9))  # rank 0 alone writes
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [3, 6, 8]
    told = [event["step"] for title, event in ended[1] if (title, event["kind"]) == ("straight", "validation")]
    assert told == [3, 6, 8]
    assert {path.name for path in folder.path.iterdir()} == {
        ".lock", "config.yaml", "ledger.json", "log.txt", "metrics.jsonl", "model", "predictions.parquet", "rank_1.txt",
        "result.json", "run.json",
    }  # fmt: skip


def test_the_scores_of_two_processes_are_those_of_the_saved_model_in_one(ended, table):
    folder = ended[0]["straight"].job.folder
    net = AutoModelForSequenceClassification.from_pretrained(folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    texts = [line.split(",")[0] for line in Path(table).read_text(encoding="utf-8").splitlines()]
    predictions = pyarrow.parquet.read_table(folder / "predictions.parquet").to_pylist()
    for split in ("validation", "test"):
        rows = [row for row in predictions if row["split"] == split]
        assert len({row["id"] for row in rows}) == len(rows) == folder.result()["rows"][split] == 16
        batch = tokenizer([texts[int(row["id"])] for row in rows], padding=True, return_tensors="pt")
        with torch.no_grad():
            logits = net(**batch).logits
        np.testing.assert_allclose([row["logits"] for row in rows], logits.numpy(), rtol=0, atol=1e-5)
        labels, scores = [row["label"] for row in rows], folder.result()["scores"][split]
        assert scores["accuracy"] == pytest.approx(accuracy_score(labels, logits.argmax(dim=1)), abs=1e-12)
        assert scores["loss"] == pytest.approx(log_loss(labels, logits.double().softmax(dim=1)), abs=1e-6)


def test_a_fault_of_one_rank_ends_the_run_with_its_traceback_and_its_log(ended):
    outcome = ended[0]["bug"]
    folder = outcome.job.folder
    first, *trace = outcome.error.splitlines()
    assert (outcome.code, outcome.status) == (1, "failed")
    assert first.startswith(f"{folder.path}: rank 1 failed: ZeroDivisionError: a bug of the plug; ")
    assert first.endswith(f"its log: {folder / 'rank_1.txt'}")
    assert trace[0] == "Traceback (most recent call last):"
    assert trace[-1] == "ZeroDivisionError: a bug of the plug"
    assert "\n".join(trace) in (folder / "rank_1.txt").read_text()
    about = read_json(folder / "run.json")
    assert (about["status"], about["error"]) == ("failed", outcome.error)


def test_a_fault_of_the_data_is_one_line_and_code_two_though_all_ranks_meet_it(ended, root):
    outcome = ended[0]["data"]
    assert (outcome.code, outcome.status) == (2, "failed")
    assert outcome.error == f"{root / 'data' / 'orders.json'}: no rows; found none; name another file"


def test_out_of_memory_on_one_rank_starts_all_again_with_half_the_micro_batch(ended, root):
    outcome, said = ended[0]["memory"], ended[1]
    assert (outcome.finished, outcome.error) == (True, "")
    warnings = [event["text"] for title, event in said if (title, event["kind"]) == ("memory", "warning")]
    assert warnings == ["out of memory: started again with 2 examples a pass and process"]
    assert read_json(outcome.job.folder / "run.json")["micro_batch_size"] == 2
    sizes = [
        len(json.loads(line)) for line in (root / "memory" / SEEN.format(1)).read_text().splitlines()
    ]  # of every forward pass
    assert (sizes[0], max(sizes[1:])) == (4, 2)


def test_a_run_stopped_killed_and_signalled_ends_with_the_bits_of_a_straight_one(chain, root):
    straight, finished = (chain[name][0] for name in ("straight", "finished"))
    assert (finished.finished, finished.error) == (True, "")
    compared = compare_runs(straight.job.folder.path, finished.job.folder.path)
    assert compared.same, compared.lines
    resumed = read_json(finished.job.folder / "run.json")["resumed"]
    assert [(note["step"], note["exact"], note["differs"]) for note in resumed] == [
        (1, True, {}),
        (2, True, {}),
        (4, True, {}),
        (6, True, {}),
    ]


def test_a_stop_asked_of_the_run_reaches_its_ranks(chain):
    outcome, _ = chain["stopped"]
    assert (outcome.finished, outcome.status, outcome.code) == (False, "stopped", 75)
    assert outcome.error.startswith("stopped by request at step 1 after step 1 of 8; its state is saved")


def test_a_killed_rank_ends_the_run_with_one_message_and_leaves_nothing_running(chain):
    outcome, _ = chain["killed"]
    folder = outcome.job.folder
    assert (outcome.finished, outcome.status, outcome.code) == (False, "failed", 1)
    log = folder / "rank_1.txt"
    assert outcome.error == f"{folder.path}: rank 1 was killed; found SIGKILL; out of memory?; its log: {log}"
    assert log.is_file()
    assert chain["left by killed"] == []


def test_ranks_end_with_the_process_that_launched_them(chain):
    outcome, _ = chain["orphaned"]
    assert (outcome.finished, outcome.code) == (False, 1)
    assert outcome.error.startswith(f"{outcome.job.folder.path}: the run's process was killed; found SIGKILL")
    assert chain["left by orphaned"] == []


def test_a_signal_to_one_rank_saves_the_run_and_ends_the_command_with_code_75(chain):
    code, about, _ = chain["signalled"]
    assert code == 75
    assert about["status"] == "stopped"
    assert about["error"].startswith("stopped by SIGTERM after step 6 of 8; its state is saved")


def test_a_run_goes_on_in_another_number_of_processes_with_the_same_examples_in_the_same_order(chain, root):
    outcome, rows = chain["alone"]
    assert (outcome.finished, outcome.error) == (True, "")
    straight = chain["straight"][1]
    assert [len(step) for step in straight] == [8] * 8
    assert chain["stopped"][1] + rows == straight
    links = [chain[link][1] for link in ("stopped", "orphaned", "killed")]
    kept = [*links[0], *links[1][:1], *links[2][:2]]  # the step after, in which the rank was ended, is taken again
    assert kept + chain["signalled"][2] + chain["finished"][1] == straight
    (note,) = read_json(outcome.job.folder / "run.json")["resumed"]
    assert (note["step"], note["exact"]) == (1, False)
    assert note["differs"]["processes"] == [2, 1]
    assert outcome.job.folder.result()["processes"] == 1


def test_a_batch_that_two_processes_cannot_share_is_refused_before_anything_starts(capfd, table, tiny_body, tmp_path):
    words = [*words_of(table, tiny_body, tmp_path), "hardware.num_processes=2"]
    with pytest.raises(SystemExit) as caught:
        main(["train", *words, "train.batch_size=9"])
    assert caught.value.code == 2
    assert capfd.readouterr().err == (
        "headswap: train.batch_size: counts over all processes and must divide; found 9 on 2 processes; "
        "set a multiple of 2\n"
    )
    assert list(tmp_path.iterdir()) == []
