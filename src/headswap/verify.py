"""Prove that a run repeats: resumed against straight, and a finished run against its rerun, to the bit. Floor 5."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headswap import config as configuration
from headswap.errors import ConfigError, RunError, of_status
from headswap.launch import Job, OnEvent, folder_of, run_jobs
from headswap.records import METRICS, RunFolder, read_json, read_jsonl
from headswap.spine import Config

CLOCK = ("time", "seconds")  # what two runs may differ in


@dataclass(frozen=True)
class Compared:
    """What a comparison of two runs found, in lines for a person; `same` when no bit differs."""

    same: bool
    lines: list[str]


def job_in(folder: Path) -> Job:
    """Return the job that goes on with the run of a folder. Raises ConfigError when it is none."""
    if not (folder / "config.yaml").is_file() or (folder / "runs.json").is_file():
        raise ConfigError(
            f"{folder}: not a run folder; found no config.yaml of a run; name the folder that headswap train printed"
        )
    return Job(configuration.load(folder / "config.yaml"), RunFolder(folder))


def verify_resume(config: Config, on_event: OnEvent) -> Compared:
    """Train N steps straight, then N/2 and, in a fresh process, the rest; compare the two runs.

    Both runs are removed when they are the same, and kept for a look when they are not.

    Raises:
        ConfigError: there are fewer than 2 steps, as in a baseline's run.
        HeadswapError: a run failed.
    """
    if config.baseline is not None:
        raise ConfigError(
            f"baseline: has no steps to stop between; found baseline={config.choices.get('baseline', '')}; set "
            "baseline=none, or repeat a finished run: headswap rerun FOLDER --verify"
        )
    own = folder_of(config).path
    place = own.parent / "verify" / own.name
    shutil.rmtree(place, ignore_errors=True)
    config = replace(config, output=replace(config.output, keep_model=True, reuse=True), tracker={})
    straight = Job(config, RunFolder(place / "straight"), "straight")
    _must_finish(straight, on_event)
    steps = straight.folder.result()["steps"]
    if steps < 2:
        raise ConfigError(f"train.max_steps: nothing to stop in the middle of; found {steps} step; set 2 or more")
    halves = Job(config, RunFolder(place / "resumed"), "first half", stop_at=steps // 2)
    outcome = run_jobs([halves], 1, on_event)[0]
    if outcome.status != "stopped":
        raise of_status(outcome.status, outcome.code, outcome.error or "the first half did not stop")
    _must_finish(replace(halves, title="second half", stop_at=None), on_event)
    found = compare_runs(straight.folder.path, halves.folder.path)
    first = f"{steps} steps straight against {steps // 2} + {steps - steps // 2} in a fresh process"
    if found.same:
        shutil.rmtree(place)
        return Compared(True, [first, *found.lines])
    return Compared(False, [first, *found.lines, f"both runs are kept in {place}"])


def rerun(folder: Path, on_event: OnEvent) -> Job:
    """Repeat a finished run beside its folder, with as many threads and processes as it had; return the new job."""
    job = job_in(folder)
    if not job.folder.finished:
        raise RunError(f"{folder}: this run has not finished; found no result.json; headswap resume {folder}")
    about = read_json(folder / "run.json")
    threads = about.get("hardware", {}).get("threads")
    hardware = replace(job.config.hardware, threads=job.config.hardware.threads or threads)
    output = replace(job.config.output, reuse=False, keep_model=(folder / "model").is_dir())
    again = Job(
        replace(job.config, hardware=hardware, output=output), RunFolder(folder.with_name(f"{folder.name}-rerun"))
    )
    _must_finish(again, on_event)
    return again


def compare_runs(first: Path, second: Path) -> Compared:
    """Compare two finished runs: training and validation lines, weights, predictions; and name what differs first."""
    checks = [
        ("metrics", _metrics_differ(first, second)),
        ("weights", _weights_differ(first / "model", second / "model")),
        ("predictions", _predictions_differ(first, second)),
    ]
    lines = [f"{name:<12} {said or 'the same to the bit'}" for name, said in checks]
    same = not any(said for _, said in checks)
    if not same:
        lines += [f"not the same: {line}" for line in _places_differ(first, second)]
    return Compared(same, lines)


def _must_finish(job: Job, on_event: OnEvent) -> None:
    outcome = run_jobs([job], 1, on_event)[0]
    if not outcome.finished:
        raise of_status(outcome.status, outcome.code, outcome.error)


def _metrics_differ(first: Path, second: Path) -> str:
    """Return the first line and value in which two metrics.jsonl differ, clocks left out; empty for none."""
    ours, theirs = read_jsonl(first / METRICS), read_jsonl(second / METRICS)
    for left, right in zip(ours, theirs, strict=False):
        for key in [*left, *(key for key in right if key not in left)]:
            if key not in CLOCK and left.get(key) != right.get(key):
                values = f"{left.get(key)!r} and {right.get(key)!r}"
                return f"differ, first at step {left.get('step')} ({left['kind']}): {key} {values}"
    return "" if len(ours) == len(theirs) else f"differ in length: {len(ours)} and {len(theirs)} lines"


def _weights_differ(first: Path, second: Path) -> str:
    """Return the first tensor of the saved models whose bits differ."""
    ours, theirs = dict(_tensors(first)), dict(_tensors(second))
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        if ours.get(name) != theirs.get(name):
            return f"differ, first in {name}: sha256 {str(ours.get(name))[:12]} and {str(theirs.get(name))[:12]}"
    return ""


def _tensors(folder: Path) -> Iterator[tuple[str, str]]:
    from headswap.ledger import tensor_sha256
    from headswap.weights import open_checkpoint

    with open_checkpoint(sorted(folder.glob("*.safetensors"))) as checkpoint:
        for name in checkpoint.stored:
            yield name, tensor_sha256(checkpoint.read(name))


def _predictions_differ(first: Path, second: Path) -> str:
    import pyarrow.parquet

    ours, theirs = (
        pyarrow.parquet.read_table(folder / "predictions.parquet").to_pylist() for folder in (first, second)
    )
    for left, right in zip(ours, theirs, strict=False):
        if left != right:
            key = next(key for key in left if left[key] != right.get(key))
            return f"differ, first in {left['split']} {left['id']}: {key} {left[key]} and {right.get(key)}"
    return "" if len(ours) == len(theirs) else f"differ in length: {len(ours)} and {len(theirs)} rows"


def _places_differ(first: Path, second: Path) -> Iterator[str]:
    """Yield what was not the same where the two runs computed: the usual cause."""
    ours, theirs = (read_json(folder / "run.json") for folder in (first, second))
    for section in ("versions", "hardware", "variables", "git", "data"):
        left, right = (about.get(section) or {} for about in (ours, theirs))
        for key in sorted(left.keys() | right.keys()):
            if _plain(left.get(key)) != _plain(right.get(key)):
                yield f"{section}.{key}: {left.get(key)} and {right.get(key)}"


def _plain(value: Any) -> Any:
    return value if not isinstance(value, dict) else sorted(value.items(), key=str)
