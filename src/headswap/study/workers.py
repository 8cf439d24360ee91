"""How many runs of a study go side by side: as asked, one a core, or what measures faster. Beside execute."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headswap.launch import side_by_side
from headswap.machine import cores, gpus
from headswap.records import read_json, write_json
from headswap.spine import Config
from headswap.study.costs import left, makespan
from headswap.study.plan import Planned
from headswap.study.units import seconds

MEASURED = "workers.json"
AUTO = "auto"

Say = Callable[[str], None]


def workers_of(config: Config) -> int:
    """Return how many runs go side by side where nothing is measured; 0 for as many as Ray has room for."""
    asked = config.study.workers
    return asked if isinstance(asked, int) else side_by_side(config.hardware)


def chosen_workers(config: Config, cells: Sequence[Planned], flags: Any, folder: Path, say: Say = print) -> int:
    """Return how many runs go side by side, and say it where `study.workers=auto` has it measured.

    What was measured is kept in the study's folder and stands while the machine has as many cores.
    """
    count = workers_of(config)
    unfinished = [cell for cell in cells if cell.count > 1 or not cell.job.folder.finished]
    if config.study.workers != AUTO or count < 2 or len(unfinished) < 2 or not _free(config):
        return count
    path = folder / MEASURED
    known = read_json(path) if path.is_file() else {}
    if known.get("cores") != cores():
        known = _measured(config, cells, flags, count)
        write_json(path, known)
    say(known["said"])
    return int(known["workers"])


def _free(config: Config) -> bool:
    """Say whether threads are the study's to share out: on this machine's cores, by nobody's word."""
    hardware = config.hardware
    on_cpu = hardware.device == "cpu" or (hardware.device == "auto" and not gpus())
    return on_cpu and hardware.threads is None and hardware.launcher == "headswap" and hardware.num_processes == 1


def _measured(config: Config, cells: Sequence[Planned], flags: Any, count: int) -> dict[str, Any]:
    """Time the study's first two arms both ways, and take the one that ends sooner."""
    from headswap.study.probe import STEPS, probe

    study = config.study
    arms = {arm: study.arms[arm] for arm in (study.treatment, study.control)}
    pair = dataclasses.replace(config, study=dataclasses.replace(study, arms=arms))
    both = [cell for cell in cells if cell.arm in arms]
    took = {}
    for number in (count, 1):
        found = probe(pair, flags, both, number, known=False)
        timed = [cell for cell in both if cell.arm in found.arms]
        took[number] = makespan(left(timed, found.arms, config), number)
    best = min(took, key=lambda number: took[number])
    shares = {count: f"{count} runs side by side, {max(1, cores() // count)} thread each", 1: "1 run with all threads"}
    said = " against ".join(f"{shares[number]} {seconds(took[number])}" for number in (best, count + 1 - best))
    return {
        "workers": best,
        "cores": cores(),
        "seconds": {str(number): round(found, 1) for number, found in took.items()},
        "said": f"workers: {said}, of {study.treatment} and {study.control}, by {STEPS} steps of each",
    }
