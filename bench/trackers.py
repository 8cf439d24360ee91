"""What trackers cost a short run: seconds from its process's start to its end, medians over rounds.

    python bench/trackers.py [--rounds 6] [--trackers trackio tensorboard wandb mlflow]

Runs of a frozen body on 60 rows, by the same warm server, trackers in turn; the first round warms up and is left out.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import Any

from headswap.config import compose
from headswap.launch import job_of, run_jobs


def seconds(tracker: str, seed: int, root: str) -> float:
    """Return how long a run's process lived."""
    given = [
        "task=tweets", "body=minilm", "strategy=probe", "data.train_rows=60", "data.validation_rows=60",
        "data.test_rows=60", "hardware=cpu", f"output.root={root}", "output.keep_model=false", "name=trackers",
        f"seed={seed}", f"tracker=[{tracker}]",
    ]  # fmt: skip
    times: dict[str, float] = {}

    def hear(job: Any, event: Any) -> None:
        times[event["kind"]] = time.perf_counter()

    (outcome,) = run_jobs([job_of(compose(given))], 1, hear)
    if not outcome.finished:
        raise SystemExit(outcome.error)
    return times["ended"] - times["started"]


def main() -> None:
    parser = argparse.ArgumentParser(description="what trackers cost a short run")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--trackers", nargs="*", default=["trackio", "tensorboard", "wandb", "mlflow"])
    flags = parser.parse_args()
    names, seed = ["", *flags.trackers], 0
    found: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="trackers") as root:
        for _ in range(flags.rounds + 1):
            for name in names:
                seed += 1  # a finished run would not be trained again
                found[name].append(seconds(name, seed, root))
        time.sleep(6)  # trackers that linger write into the folder
    for name, each in found.items():
        print(f"{name or 'none':<12} {statistics.median(each[1:]):.2f} s")


if __name__ == "__main__":
    main()
