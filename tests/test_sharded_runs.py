"""Whole runs under FSDP2, two gloo processes in place of two GPUs: the run that DDP makes, and exact in two halves.

They pull towards the pretrained weights and keep a running mean, so that both are known to work on pieces.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from headswap.config import compose, dump
from headswap.engines import engine_environment
from headswap.launch import train
from headswap.records import RunFolder, read_jsonl, write_text
from tiny_runs import reviews, words_of

SCRIPT = Path(__file__).parent / "sharded_run.py"


PULL = ["strategy=l2_sp", "strategy.alpha=10", "train.ema=0.6"]
IN_PHASES = ["strategy=gradual", "train.keep=last"]


@dataclass(frozen=True)
class Runs:
    """Under DDP; in pieces, straight; in pieces, stopped after step 4 and gone on with."""

    ddp: RunFolder
    straight: RunFolder
    halves: RunFolder
    phases: tuple[RunFolder, RunFolder]
    """DDP and pieces, under a strategy of several phases."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_body) -> Runs:
    root = tmp_path_factory.mktemp("sharded")
    given = [
        *words_of(reviews(root / "reviews.csv", count=75), tiny_body, root), "train.max_steps=10", "train.evaluations=4",
        "train.micro_batch_size=2", "train.eval_batch_size=5", "train.learning_rate=1e-2",
    ]  # fmt: skip
    words = [word for word in given if not word.startswith("hardware") and word != "train.max_steps=4"]
    words += ["hardware=multi", "hardware.threads=1"]
    ddp, in_phases = (RunFolder(train(compose([*words, *more]))) for more in (PULL, IN_PHASES))
    folders, pieces = {"phases": IN_PHASES, "straight": PULL, "halves": PULL}, {}
    for name, more in folders.items():
        config = compose([*words, *more, "hardware.engine=fsdp2", "hardware.launcher=slurm"])
        pieces[name] = RunFolder(root / name)
        write_text(pieces[name] / "config.yaml", dump(config))
    env = os.environ | engine_environment(config)
    env |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    command += [str(folder.path) for folder in pieces.values()]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return Runs(ddp, pieces["straight"], pieces["halves"], (in_phases, pieces["phases"]))


def weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.parametrize("kind", ["pull and mean", "phases"])
def test_weights_in_pieces_learn_what_whole_ones_do(runs, kind):
    whole, pieces = runs.phases if kind == "phases" else (runs.ddp, runs.straight)
    # Attention's softmax is blind to the bias of the keys: its gradient is 0 but for rounding, which AdamW blows up.
    learned = {name: value for name, value in weights(whole).items() if not name.endswith(".key.bias")}
    found = weights(pieces)
    apart = [name for name, value in learned.items() if not torch.allclose(value, found[name], atol=1e-6)]
    assert apart == []
    losses = [folder.result()["scores"]["test"]["loss"] for folder in (whole, pieces)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_run_in_pieces_goes_on_to_the_bit(runs):
    straight, halves = runs.straight, runs.halves
    assert all(torch.equal(value, weights(halves)[name]) for name, value in weights(straight).items())
    kept = [
        [line for line in read_jsonl(folder / "metrics.jsonl") if line["kind"] == "train"]
        for folder in (straight, halves)
    ]
    losses = [[(line["step"], line["loss"], line["gradient_norm"]) for line in lines] for lines in kept]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 10
