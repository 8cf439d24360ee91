"""A whole study beside the same runs as a loop of Trainer scripts: wall seconds, their ratio, and both ways' scores.

    python bench/study_ratio.py [OVERRIDES]        # 2 arms x 5 seeds x 3 sizes of tweets: experiment=demo study.seeds=5

`headswap compare` runs in a folder without caches, its report included. Then every run of the study, with its rows,
rate, epochs, batch size and length, as bench/trainer_trial.py, one after another, each with all cores. On a machine
that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from headswap import config as configuration
from headswap.spine import Config
from headswap.study.plan import plan
from scripted import run_script, write_rows

DEFAULT = ("experiment=demo", "study.seeds=5")


def compare(words: list[str]) -> float:
    """Return the wall seconds of the study as a person would start it."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "headswap", "compare", *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def options(config: Config) -> list[str]:
    """Return a run's configuration in the words of bench/trainer_trial.py."""
    train = config.train
    given = {
        "learning-rate": train.learning_rate, "weight-decay": train.weight_decay, "batch-size": train.batch_size,
        "epochs": train.epochs, "max-length": config.data.max_length, "seed": config.seed,
    }  # fmt: skip
    start = ["--scratch"] if config.body.get("init") == "random" else []
    return [f"--{key}={value}" for key, value in given.items()] + start


def loop(config: Config, place: Path) -> tuple[float, dict[str, list[float]]]:
    """Return the wall seconds of the scripts alone, and their test accuracies by arm and size."""
    seconds, scores = 0.0, {}
    for number, cell in enumerate(plan(config)):
        rows = place / f"rows{number}"
        body = write_rows(cell.job.config, rows)
        started = time.perf_counter()
        found = run_script(rows, body, options(cell.job.config))
        seconds += time.perf_counter() - started
        scores.setdefault(f"{cell.arm} {cell.size} rows", []).append(found["test"])
    return seconds, scores


def ours(config: Config) -> dict[str, list[float]]:
    """Return the study's test accuracies by arm and size."""
    scores: dict[str, list[float]] = {}
    for cell in plan(config):
        told = json.loads((cell.job.folder.path / "result.json").read_text(encoding="utf-8"))
        scores.setdefault(f"{cell.arm} {cell.size} rows", []).append(told["scores"]["test"]["accuracy"])
    return scores


def main() -> None:
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    parser = argparse.ArgumentParser(description="a study, and the same runs as Trainer scripts")
    parser.add_argument("overrides", nargs="*", default=DEFAULT)
    flags = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="study_ratio"))
    words = [*flags.overrides, "hardware=cpu", "output.keep_model=false", f"output.root={place / 'outputs'}"]
    config = configuration.compose(words)
    print(
        f"{' '.join(flags.overrides)}: {len(plan(config))} runs; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    wall = compare(words)
    print(f"headswap compare: {wall:.1f} s, its report included")
    scripted, theirs = loop(config, place)
    print(f"Trainer scripts: {scripted:.1f} s, one after another; {scripted / wall:.1f} times the study")
    print("mean test accuracy: headswap, Trainer")
    for name, scores in ours(config).items():
        print(f"  {name}: {sum(scores) / len(scores):.3f}, {sum(theirs[name]) / len(theirs[name]):.3f}")


if __name__ == "__main__":
    main()
