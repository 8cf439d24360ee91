"""What a night's sweep takes, what it survives, and the same settings as a loop of Trainer scripts.

    python bench/sweep_night.py [--trials 40] [--rows 500] [--probe] [--parts sweep pruned faults trainer] [OVERRIDES]

`sweep` is `headswap sweep sweep=tpe`, `pruned` the same with successive halving, each in a folder without caches;
`faults` is `pruned` once more, with three training processes and then the sweep itself killed (SIGKILL) and the sweep
resumed; `trainer` runs the settings of `sweep` one after another as bench/trainer_trial.py, each with all cores, on the
same rows. All parts in one run, on a machine that does nothing else. Overhead a trial: ((wall - the
start of the first run) x workers - the seconds of the runs) / trials.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from headswap import config as configuration
from scripted import run_script, write_rows

SPACE = (
    "sweep.space.train.learning_rate=tag(log,interval(1e-5,1e-3))",
    "sweep.space.train.weight_decay=interval(0,0.1)",
    "sweep.space.train.batch_size=choice(16,32)",
)
KILLS = 3


def words(flags: argparse.Namespace, root: Path) -> list[str]:
    return [
        f"task={flags.task}", f"body={flags.body}", f"strategy={'probe' if flags.probe else 'full'}",
        f"data.train_rows={flags.rows}", "data.validation_rows=200", "data.test_rows=200", "hardware=cpu",
        "output.keep_model=false", f"output.root={root}", *flags.overrides,
    ]  # fmt: skip


def command(flags: argparse.Namespace, root: Path, *more: str) -> list[str]:
    given = [*words(flags, root), "sweep=tpe", f"sweep.trials={flags.trials}", *SPACE, *more]
    return [sys.executable, "-m", "headswap", "sweep", *given]


def pruned(flags: argparse.Namespace, root: Path) -> list[str]:
    return command(flags, root, "sweep.pruner=halving")


def told(root: Path) -> dict[str, Any]:
    return json.loads(next(root.glob("*/sweep-*/sweep.json")).read_text(encoding="utf-8"))


def timed(given: list[str]) -> tuple[float, float]:
    """Return when a command started (seconds since the epoch) and how long it took."""
    started, clock = time.time(), time.perf_counter()
    subprocess.run(given, check=True, stdout=subprocess.DEVNULL)
    return started, time.perf_counter() - clock


def print_sweep(name: str, times: tuple[float, float], root: Path, workers: int) -> None:
    started, wall = times
    trials = told(root)["trials"]
    states = {state: sum(each["state"] == state for each in trials) for state in ("complete", "pruned", "fail", "lost")}
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in root.glob("*/*/result.json")]
    print(f"{name}: {wall:.1f} s, {states}")
    if states["complete"] == len(trials):
        used = sum(run["seconds"]["total"] for run in runs)
        begun = min(path.stat().st_mtime for path in root.glob("*/*seed0*/*lock*")) - started
        over = ((wall - begun) * workers - used) / len(runs)
        print(
            f"  first run after {begun:.1f} s; runs {used:.1f} s, {workers} side by side; overhead a trial {over:.2f} s"
        )
    best = max((each for each in trials if each["values"]), key=lambda each: each["values"][0])
    print(f"  best: validation {best['values'][0]:.4f} with {best['settings']}")


def survived(flags: argparse.Namespace, root: Path) -> None:
    """Kill three trials, then the sweep itself halfway; resume it and say what the journal holds."""
    started, killed = time.time(), 0
    process = subprocess.Popen(pruned(flags, root), stdout=subprocess.DEVNULL)
    while (ended := done(root)) < flags.trials // 2:
        if process.poll() is not None:
            raise SystemExit(f"the sweep ended early with {process.returncode}")
        if killed < KILLS and ended >= (killed + 1) * flags.trials // (2 * KILLS + 2) and (pid := in_training(root)):
            os.kill(pid, signal.SIGKILL)
            killed += 1
        time.sleep(0.1)
    process.kill()
    process.wait()
    print(f"faults: {killed} trials and, with {done(root)} ended, the sweep itself killed")
    subprocess.run(pruned(flags, root), check=True, stdout=subprocess.DEVNULL)
    print_sweep("faults, resumed", (started, time.time() - started), root, flags.workers)
    trials = [each for each in told(root)["trials"] if each["state"] != "lost"]
    distinct = len({json.dumps(each["settings"], sort_keys=True) for each in trials})
    print(f"  {len(trials)} trials counted, {distinct} different settings")
    print(f"  failed: {sorted({each['error'].split(';')[1].strip() for each in trials if each['error']})}")


def done(root: Path) -> int:
    """Return how many runs have ended in some way."""
    statuses = [json.loads(path.read_text(encoding="utf-8")).get("status") for path in root.glob("*/*/run.json")]
    return sum(status in ("finished", "failed", "pruned") for status in statuses)


def in_training(root: Path) -> int | None:
    """Return the process of a run that is training."""
    for path in root.glob("*/*/metrics.jsonl"):
        lock = next(path.parent.glob("*lock*")).read_text(encoding="utf-8")
        running = json.loads((path.parent / "run.json").read_text(encoding="utf-8")).get("status") == "running"
        if running and (found := re.search(r"pid (\d+)", lock)):
            return int(found.group(1))
    return None


def scripts(flags: argparse.Namespace, settings: list[dict[str, str]], place: Path) -> float:
    """Run the settings as Trainer scripts, one after another; return the wall seconds."""
    body = write_rows(configuration.compose(words(flags, place)), place)
    started = time.perf_counter()
    for each in settings:
        given = [f"--{key.removeprefix('train.').replace('_', '-')}={word}" for key, word in each.items()]
        run_script(place, body, [*given, *(["--probe"] if flags.probe else [])])
    return time.perf_counter() - started


def main() -> None:
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    parser = argparse.ArgumentParser(description="a night's sweep, and the same settings as Trainer scripts")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--task", default="tweets")
    parser.add_argument("--body", default="minilm")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--probe", action="store_true")
    parser.add_argument(
        "--scripts", type=int, help="how many of the settings run as Trainer scripts; all where not given"
    )
    parser.add_argument("--parts", nargs="+", default=["sweep", "pruned", "faults", "trainer"])
    parser.add_argument("overrides", nargs="*")
    flags = parser.parse_intermixed_args()
    if "trainer" in flags.parts and "sweep" not in flags.parts:
        parser.error("--parts trainer runs the settings of the part sweep; name both")
    place = Path(tempfile.mkdtemp(prefix="sweep_night"))
    what = f"{flags.trials} trials of {flags.task}, {flags.rows} rows, {'probe' if flags.probe else 'full'}"
    print(f"{what}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    times = (0.0, 0.0)
    if "sweep" in flags.parts:
        times = timed(command(flags, place / "sweep"))
        print_sweep("sweep", times, place / "sweep", flags.workers)
    if "pruned" in flags.parts:
        print_sweep("pruned", timed(pruned(flags, place / "pruned")), place / "pruned", flags.workers)
    if "faults" in flags.parts:
        survived(flags, place / "faults")
    if "trainer" in flags.parts:
        settings = [each["settings"] for each in told(place / "sweep")["trials"]][: flags.scripts]
        scripted = scripts(flags, settings, place)
        ratio = scripted / len(settings) / (times[1] / flags.trials)
        print(f"trainer: {scripted:.1f} s for {len(settings)} of the settings; {ratio:.1f} times the sweep, a trial")


if __name__ == "__main__":
    main()
