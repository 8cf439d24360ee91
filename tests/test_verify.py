"""verify-resume and rerun --verify: they say the same where it is, and name the first thing that differs where not."""

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from headswap.errors import ConfigError, RunError
from headswap.launch import Job, run_jobs
from headswap.losses import CrossEntropy
from headswap.provenance import variables
from headswap.records import RunFolder, read_json, read_jsonl
from headswap.tasks.text_classification import TextClassification
from headswap.verify import compare_runs, job_in, rerun, verify_resume
from tiny_runs import reviews, tiny, words_of


@dataclass(frozen=True)
class Drifting(TextClassification):
    """A task whose loss hangs on the process that computes it: what a resume must not hide."""

    def loss(self, splits):
        return Scaled(1.0 + os.getpid() % 1000 / 1e4)


class Scaled(CrossEntropy):
    def __init__(self, factor):
        object.__setattr__(self, "factor", factor)
        super().__init__()

    def __call__(self, output, batch):
        return super().__call__(output, batch) * self.factor


def quiet(job, event):
    """Watch nothing."""


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    return reviews(tmp_path_factory.mktemp("tables") / "reviews.csv")


@pytest.fixture(scope="module")
def finished(table, tiny_body, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("outputs")
    job = Job(tiny(table, tiny_body, root), RunFolder(root / "tiny" / "first"))
    assert run_jobs([job], 1, quiet)[0].finished
    return job.folder.path


def test_a_resumed_run_is_the_straight_one_to_the_bit(table, tiny_body, tmp_path):
    said = verify_resume(tiny(table, tiny_body, tmp_path), quiet)
    assert said.same
    assert said.lines == [
        "4 steps straight against 2 + 2 in a fresh process",
        "metrics      the same to the bit",
        "weights      the same to the bit",
        "predictions  the same to the bit",
    ]
    assert not list((tmp_path / "tiny" / "verify").iterdir())


def test_a_run_that_does_not_repeat_is_caught_with_the_first_value_and_tensor(table, tiny_body, tmp_path):
    words = ["plugins=[test_verify]", "task._target_=test_verify.Drifting"]
    said = verify_resume(tiny(table, tiny_body, tmp_path, *words), quiet)
    assert not said.same
    assert said.lines[1].startswith("metrics      differ, first at step 1 (train): loss ")
    assert said.lines[2].startswith("weights      differ, first in bert.")
    kept = Path(said.lines[-1].removeprefix("both runs are kept in "))
    assert sorted(path.name for path in kept.iterdir()) == ["resumed", "straight"]
    assert len(read_json(kept / "resumed" / "run.json")["resumed"]) == 1
    assert "resumed" not in read_json(kept / "straight" / "run.json")


def test_one_step_cannot_be_halved(table, tiny_body, tmp_path):
    with pytest.raises(ConfigError, match=r"train\.max_steps: nothing to stop in the middle of; found 1 step"):
        verify_resume(tiny(table, tiny_body, tmp_path, "train.max_steps=1"), quiet)


def test_a_rerun_repeats_a_finished_run_to_the_bit_and_leaves_it_alone(finished):
    before = {path.name: path.stat().st_mtime_ns for path in finished.rglob("*")}
    again = rerun(finished, quiet)
    assert again.folder.path == finished.with_name("first-rerun")
    assert compare_runs(finished, again.folder.path).same
    assert {path.name: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    assert read_json(again.folder / "run.json")["hardware"]["threads"] == 1


def test_a_comparison_names_the_first_value_tensor_and_row_and_where_it_was_computed(finished, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    lines = read_jsonl(other / "metrics.jsonl")
    lines[2]["loss"] = lines[2]["loss"] + 1e-12
    (other / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tensors = load_file(other / "model" / "model.safetensors")
    name = sorted(tensors)[5]
    bits = tensors[name].view(torch.int32)
    bits.view(-1)[0] ^= 1
    save_file(tensors, other / "model" / "model.safetensors", metadata={"format": "pt"})
    rows = pq.read_table(other / "predictions.parquet").to_pylist()
    about = read_json(other / "run.json")
    about["hardware"]["threads"] = 7
    (other / "run.json").write_text(json.dumps(about))
    said = compare_runs(finished, other)
    assert not said.same
    step = lines[2]["step"]
    assert said.lines[0].startswith(f"metrics      differ, first at step {step} ({lines[2]['kind']}): loss ")
    assert said.lines[1].startswith(f"weights      differ, first in {name}: sha256 ")
    assert said.lines[2] == "predictions  the same to the bit"
    assert said.lines[3] == "not the same: hardware.threads: 1 and 7"
    assert len(rows) == len({(row["split"], row["id"]) for row in rows})


def test_what_is_no_run_or_not_finished_is_refused(finished, tmp_path):
    with pytest.raises(ConfigError, match=r"not a run folder; found no config\.yaml of a run"):
        job_in(tmp_path)
    shutil.copytree(finished, tmp_path / "half")
    (tmp_path / "half" / "result.json").unlink()
    with pytest.raises(RunError, match=r"has not finished; found no result\.json; headswap resume "):
        rerun(tmp_path / "half", quiet)


def test_run_json_holds_what_a_repetition_needs(finished):
    about = read_json(finished / "run.json")
    assert about["versions"]["torch"] == torch.__version__
    assert about["git"] is None or {"commit", "dirty"} == set(about["git"])  # none where the tests lie in no repository
    assert len(about["data"]["fingerprint"]) == 64
    assert (about["hardware"]["threads"], about["hardware"]["device"], about["hardware"]["processes"]) == (1, "cpu", 1)
    assert about["variables"]["TOKENIZERS_PARALLELISM"] == "false"


def test_only_variables_that_matter_are_recorded():
    given = {"OMP_NUM_THREADS": "2", "HF_TOKEN": "x", "HOME": "/root", "NCCL_API_KEY": "y", "MKL_CBWR": "AVX2"}
    assert variables(given) == {"MKL_CBWR": "AVX2", "OMP_NUM_THREADS": "2"}


def test_the_verbs_say_it_and_end_with_a_code(capfd, table, tiny_body, tmp_path):
    from headswap.cli import main

    def called(*words):
        with pytest.raises(SystemExit) as caught:
            main(words)
        return int(caught.value.code or 0), capfd.readouterr()

    words = words_of(table, tiny_body, tmp_path)
    code, said = called("verify-resume", *words)
    assert (code, said.out.splitlines()[-3:]) == (
        0,
        [f"{what:<12} the same to the bit" for what in ("metrics", "weights", "predictions")],
    )
    code, said = called("verify-resume", *words, "plugins=[test_verify]", "task._target_=test_verify.Drifting")
    assert code == 1
    config = tiny(table, tiny_body, tmp_path)
    job = Job(config, RunFolder(tmp_path / "tiny" / "stopped"), stop_at=3)
    assert run_jobs([job], 1, quiet)[0].code == 75
    code, said = called("resume", str(job.folder.path))
    assert (code, said.out.splitlines()[-1]) == (0, str(job.folder.path))
    code, said = called("rerun", str(job.folder.path), "--verify")
    assert (code, said.out.splitlines()[-3]) == (0, "metrics      the same to the bit")
    code, said = called("resume", str(tmp_path))
    assert code == 2
    assert replace(job, stop_at=None).folder.finished
