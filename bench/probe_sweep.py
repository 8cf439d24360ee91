"""What a sweep of probe settings costs beside one frozen forward pass over its rows.

    python bench/probe_sweep.py [--settings 100] [--rows 2000] [--workers 2] [--uncached 2] [--out FOLDER]

The sweep is `headswap train -m strategy=probe` over learning rates x weight decays, in a folder without caches, as a
user types it, one run after another; with `--workers` launch.run_jobs makes it, the first run alone and the others side
by side, as a study makes its runs. The forward pass is over the same features under the same precision, in a process of
its own, before and after the sweep. `--uncached` runs of the same sweep with train.cache_features=false say what a run
costs without. Every run's parts are averaged from its result.json. Asked: sweep <= 1.3 x one forward pass + 60 s.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def words(flags: argparse.Namespace, root: Path) -> list[str]:
    train = flags.rows * 3 // 5
    rest = (flags.rows - train) // 2
    return [
        f"task={flags.task}", f"body={flags.body}", "strategy=probe", f"data.train_rows={train}",
        f"data.validation_rows={rest}", f"data.test_rows={rest}", f"train.precision={flags.precision}",
        "hardware=cpu", f"output.root={root}", "output.keep_model=false", *flags.overrides,
    ]  # fmt: skip


def settings(count: int) -> list[str]:
    """Return overrides of a grid of `count` settings: ten learning rates at most, and as many weight decays."""
    rates = [f"{1e-4 * 2**step:.1e}" for step in range(min(10, count))]
    decays = [f"{0.01 * step:.2f}" for step in range(-(-count // len(rates)))]
    return [f"train.learning_rate={','.join(rates)}", f"train.weight_decay={','.join(decays)}"]


def forward_seconds(given: list[str], answers: multiprocessing.Queue) -> None:
    """Time one pass of the frozen model over all features, without what comes before it."""
    import torch

    from headswap import config as configuration
    from headswap.data import make_batches
    from headswap.encoded import pad_token_id
    from headswap.hardware import start
    from headswap.model import join
    from headswap.run_data import data_request
    from headswap.seeds import Seeds
    from headswap.taskconfig import SpecialTokens

    config = configuration.compose(given)
    plugs, seeds = configuration.build_plugs(config), Seeds(0)
    hardware = start(config.hardware, config.train)
    splits, tokenizer = plugs.task.load(data_request(config), seeds), plugs.body.tokenizer()
    batches = make_batches(splits, plugs.task, tokenizer, config, seeds)
    tokens = SpecialTokens.of(tokenizer, pad_token_id(tokenizer))
    model, _ = join(plugs.body, plugs.head, splits.labels, seeds, plugs.task.auto_class, tokens)
    hardware.choose_attention(model, config.train.attention, config.data.max_length)
    placed = hardware.place(model).eval()
    every = [(split, rows) for split in ("train", "validation", "test") for rows in batches.evaluation(split)]
    with torch.inference_mode():
        plugs.task.forward(placed, batches.collate(*every[0]))  # kernels are chosen at the first call
        started = time.perf_counter()
        for split, rows in every:
            plugs.task.forward(placed, batches.collate(split, rows))
    answers.put(time.perf_counter() - started)


def timed_forward(given: list[str]) -> float:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=forward_seconds, args=(given, answers))
    process.start()
    found = answers.get()
    process.join()
    return found


def swept(given: list[str], workers: int = 0, by_command: bool = False) -> float:
    """Run a sweep, as a user does or with workers; return its wall seconds."""
    started = time.perf_counter()
    if workers and not by_command:
        side_by_side(given, workers)
        return time.perf_counter() - started
    command = [sys.executable, "-m", "headswap", "train", "-m", *given]
    if workers:
        space = [f"sweep.space.{word}" for word in given[-2:]]
        command = [*command[:3], "sweep", *given[:-2], "sweep=grid", f"sweep.workers={workers}", *space]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def side_by_side(given: list[str], workers: int) -> None:
    """Run a grid as a study runs its cells: the first run makes the tables with all cores, the others read them."""
    from headswap.config import compose
    from headswap.launch import job_of, run_jobs
    from headswap.overlays import overlay

    base, grid = compose(given[:-2]), [word.removeprefix("train.").split("=") for word in given[-2:]]
    names, values = [name for name, _ in grid], [[float(value) for value in row.split(",")] for _, row in grid]
    changes = [{"train": dict(zip(names, setting, strict=True))} for setting in itertools.product(*values)]
    jobs = [job_of(overlay(base, change, "grid")) for change in changes]
    outcomes = run_jobs(jobs[:1], 1, lambda job, event: None) + run_jobs(jobs[1:], workers, lambda job, event: None)
    if lost := [outcome.error for outcome in outcomes if not outcome.finished]:
        raise SystemExit(lost[0])


def parts(root: Path) -> tuple[int, dict[str, float]]:
    """Return how many runs finished under `root`, and the mean seconds of their parts."""
    found = [json.loads(path.read_text())["seconds"] for path in root.glob("*/*/result.json")]
    return len(found), {name: sum(each[name] for each in found) / len(found) for name in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description="a sweep of probe settings beside one forward pass")
    parser.add_argument("--settings", type=int, default=100)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--sweep", action="store_true", help="with --workers: headswap sweep")
    parser.add_argument("--uncached", type=int, default=0)
    parser.add_argument("--task", default="tweets")
    parser.add_argument("--body", default="minilm")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--out", type=Path)
    parser.add_argument("overrides", nargs="*")
    flags = parser.parse_intermixed_args()
    root = flags.out or Path(tempfile.mkdtemp(prefix="probe_sweep"))
    given = words(flags, root / "sweep")
    before, load = timed_forward(words(flags, root / "forward")), os.getloadavg()
    wall = swept([*given, *settings(flags.settings)], flags.workers, flags.sweep)
    after = timed_forward(words(flags, root / "forward"))
    count, seconds = parts(root / "sweep")
    forward = (before + after) / 2
    print(f"load {load[0]:.1f} before and {os.getloadavg()[0]:.1f} after, {os.cpu_count()} cores, {flags.precision}")
    print(f"one forward pass over {flags.rows} rows   {before:7.1f} s before, {after:.1f} s after the sweep")
    print(f"sweep of {count} runs                   {wall:7.1f} s; a run {wall / count:.2f} s")
    print("  a run's parts: " + ", ".join(f"{name} {value:.3f}" for name, value in seconds.items()))
    print(f"asked: 1.3 x forward + 60 s             {1.3 * forward + 60:7.1f} s; "
          f"found 1.3 x forward + {wall - 1.3 * forward:.1f} s")  # fmt: skip
    if flags.uncached:
        bare = words(flags, root / "uncached")
        alone = swept([*bare, "train.cache_features=false", *settings(flags.uncached)])
        print(f"without the cache                       {alone / flags.uncached:7.1f} s a run ({flags.uncached} runs)")
    if flags.out is None:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
