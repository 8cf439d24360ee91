"""headswap against transformers' Trainer, row by row of settings.py, over seeds; prints a markdown table.

    python bench/tasks/compare.py --data DIR [--rows sst2,mrpc] [--seeds 0,1,2] [--results FILE]
                                  [--headswap-only | --reference-only | --table-only]

Every run is a process of its own, one after another; its JSON line is appended to the results file, and a run whose
line stands there with the same recipe is not made again.

The judgement: the two sides share rows, recipe and body, but no random numbers, so seeds are not pairs. With two seeds
and more a row is within noise when the 95 % interval of Welch's t for the difference of the two means over seeds
contains 0. The interval is printed, because few seeds make it wide: what it excludes is what the comparison shows.
Beside it stands the difference in standard errors of the test rows alone, where the score is a share or a correlation:
two models as good as each other differ by that much on so many rows, whatever seeds add. One seed a side is judged by
that, below 2 is within noise; it is the stricter rule, because seeds only add to it. Of 20 rows that are alike one is
outside by chance.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scipy import stats
from settings import ROWS
from small_body import make as make_body

SIDES = ("reference", "headswap")
CONFIDENCE = 0.95
RECIPE = ("steps", "batch_size", "learning_rate", "max_length", "head_learning_rate")

Line = dict[str, Any]


def run_reference(name: str, data: Path, seed: int) -> Line:
    """Return the line that reference.py prints."""
    script = Path(__file__).with_name("reference.py")
    command = [sys.executable, str(script), name, "--data", str(data), "--seed", str(seed)]
    return json.loads(_output(command).strip().splitlines()[-1])


def run_headswap(name: str, data: Path, seed: int) -> Line:
    """Return a line of the same form from the result.json of a run in a folder of its own."""
    row = ROWS[name]
    with tempfile.TemporaryDirectory() as folder:
        threads = [f"hardware.threads={count}"] if (count := os.environ.get("OMP_NUM_THREADS")) else []
        body = make_body(row, data, Path(folder) / "body") if row.small_body else ""
        command = [sys.executable, "-m", "headswap", "train", *row.overrides(data, seed, body), *threads]
        started = time.perf_counter()
        _output([*command, f"output.root={folder}", "output.keep_model=false"])
        seconds = time.perf_counter() - started
        result = json.loads(next(Path(folder).rglob("result.json")).read_text(encoding="utf-8"))
    found = result["scores"]["test"]
    return {
        "side": "headswap", "row": name, "seed": seed,
        "scores": {score: found[metric] for score, metric in row.scores.items()},
        "seconds": round(seconds, 1), **{key: getattr(row, key) for key in RECIPE},
        "precision": result["precision"], "threads": result["threads"],
    }  # fmt: skip


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"exit {done.returncode}: {' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def read(results: Path) -> dict[tuple[str, str, int], Line]:
    """Return the last line of each (side, row, seed) whose recipe is the row's present one."""
    if not results.exists():
        return {}
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {
        (line["side"], line["row"], line["seed"]): line
        for line in lines
        if line["row"] in ROWS and all(line.get(key) == getattr(ROWS[line["row"]], key) for key in RECIPE)
    }


def table(lines: Iterable[Line], names: Sequence[str], data: Path) -> str:
    """Return the markdown table, one line a score."""
    heads = (
        "row",
        "score",
        "trivial",
        "reference",
        "headswap",
        "difference",
        "95 % interval",
        "in SEs of the test rows",
        "within noise",
    )
    text = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in names:
        own = [line for line in lines if line["row"] == name]
        text += [f"| {' | '.join(_cells(name, score, own, data))} |" for score in ROWS[name].scores]
    return "\n".join(text)


def _cells(name: str, score: str, lines: Sequence[Line], data: Path) -> list[str]:
    values = {side: [line["scores"][score] for line in lines if line["side"] == side] for side in SIDES}
    trivial = next((line["trivial"] for line in lines if line["side"] == "reference"), {})
    told = ", ".join(f"{scores[score]:.4g} ({baseline})" for baseline, scores in trivial.items() if score in scores)
    means = [_mean(values[side]) for side in SIDES]
    found = [values["reference"], values["headswap"]]
    error = sampling_error(name, score, [statistics.mean(each) for each in found if each], data)
    return [name, score, told, *means, *judged(values["reference"], values["headswap"], error)]


def sampling_error(name: str, score: str, means: Sequence[float], data: Path) -> float | None:
    """Return the standard error of a difference that comes of the test rows alone; None where the score has no formula.

    Of a share p of n rows sqrt(2 p (1 - p) / n), of a correlation r sqrt(2 / (n - 3)) (1 - r^2) (Fisher): as if the two
    sides had been tested on other rows, which is wider than for the same ones. For values between 0 and 1 a row, such
    as an answer's F1, it is an upper bound.
    """
    row = ROWS[name]
    if not means or row.problem not in ("classes", "choices", "spans", "numbers", "words"):
        return None
    with (data / row.folder / f"{row.test}.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    mean = statistics.mean(means)
    if score in ("accuracy", "exact", "f1"):
        units = sum(len(each[row.target]) for each in rows) if row.problem == "words" else len(rows)
        return math.sqrt(2 * mean * (1 - mean) / units)
    return math.sqrt(2 / (len(rows) - 3)) * (1 - mean**2) if score in ("pearson", "spearman") else None


def _mean(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4g}{spread} (n={len(values)})"


def judged(reference: Sequence[float], headswap: Sequence[float], error: float | None) -> list[str]:
    """Return difference of means, Welch's interval of it, the difference in standard errors, and the judgement."""
    if not reference or not headswap:
        return ["", "", "", ""]
    difference = statistics.mean(headswap) - statistics.mean(reference)
    told = f"{difference:+.3g}"
    in_errors = f"{difference / error:+.1f}" if error else ""
    if min(len(reference), len(headswap)) < 2:
        alike = "" if error is None else "yes" if abs(difference) < 2 * error else "**no**"
        return [told, "", in_errors, alike or "one seed: not judged"]
    interval = stats.ttest_ind(headswap, reference, equal_var=False).confidence_interval(CONFIDENCE)
    low, high = float(interval.low), float(interval.high)
    if math.isnan(low):  # neither side varies
        low = high = difference
    return [told, f"{low:+.3g} to {high:+.3g}", in_errors, "yes" if low <= 0 <= high else "**no**"]


def commands(names: Sequence[str], data: Path) -> str:
    """Return the headswap command of each row, seed 0."""
    return "\n\n".join(f"{name}: headswap train {' '.join(ROWS[name].overrides(data, 0))}" for name in names)


def make(flags: argparse.Namespace, names: Sequence[str]) -> list[str]:
    """Run what the results file lacks; return what failed."""
    sides = {"reference": run_reference, "headswap": run_headswap}
    wanted = [side for side in SIDES if flags.only in (None, side)]
    failed = []
    for seed in (int(seed) for seed in flags.seeds.split(",")):
        for name in names:
            for side in wanted:
                if (side, name, seed) in read(flags.results):
                    continue
                try:
                    line = sides[side](name, flags.data, seed)
                except RuntimeError as error:
                    failed.append(f"{side} {name} seed {seed}: {error}")
                    print(failed[-1], file=sys.stderr, flush=True)
                    continue
                with flags.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(f"{side} {name} seed {seed}: {line['scores']} in {line['seconds']} s", flush=True)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description="headswap against transformers' Trainer on every task")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--results", type=Path, default=Path("outputs/tasks.jsonl"))
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--headswap-only", dest="only", action="store_const", const="headswap")
    only.add_argument("--reference-only", dest="only", action="store_const", const="reference")
    only.add_argument("--table-only", dest="only", action="store_const", const="neither")
    flags = parser.parse_args()
    names = flags.rows.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"--rows: no such row; found {', '.join(unknown)}; choose from {', '.join(ROWS)}")
    flags.results.parent.mkdir(parents=True, exist_ok=True)
    failed = make(flags, names)
    print(f"\n{table(list(read(flags.results).values()), names, flags.data)}\n\n{commands(names, flags.data)}")
    if failed:
        sys.exit(f"{len(failed)} runs failed")


if __name__ == "__main__":
    main()
