"""Time short runs of a study's arms, to say how long the study will take. Study chain: plan -> probe (this) -> costs.

A probe is a real run of 20 steps in a folder that is deleted afterwards, as many side by side as the study will run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headswap.errors import RunError
from headswap.launch import places
from headswap.pool import Job
from headswap.records import RunFolder
from headswap.spine import Config, OutputConfig
from headswap.study.costs import Timed, cost_of, mean
from headswap.study.execute import run_cells
from headswap.study.plan import Planned, plan

STEPS = 20
_TOO_FEW_READS = "the frozen phase reads"


@dataclass(frozen=True)
class Probed:
    """What probing found: each arm's stages, and the seconds until the first process had started."""

    arms: dict[str, list[Timed]]
    warming: float = 0.0


def probe(config: Config, flags: Any, cells: Sequence[Planned], workers: int, known: bool = True) -> Probed:
    """Time every arm that has something left to run: by a finished run of it, else by a probe.

    Args:
        flags: the command line, of which a chain's stages are composed.
        cells: the study's plan.
        workers: how many runs go side by side; probes do as well.
        known: whether a finished run tells an arm's cost, so that it needs no probe.

    Raises:
        RunError: a probe failed; the study's runs would.
    """
    wanted = [arm for arm in config.study.arms if any(each.arm == arm and not _done(each) for each in cells)]
    told = {arm: timed for arm in wanted if known and (timed := _known(arm, cells, workers)) is not None}
    new = [arm for arm in wanted if arm not in told]
    if not new:
        return Probed(told)
    with _Place(config) as place:
        arms = place.timed(flags, new, workers)
        for arm in new:
            if any(_TOO_FEW_READS in each for each in place.features[arm]):
                arms[arm] = place.served(flags, arm, workers, arms[arm])
    return Probed(told | arms, place.warming)


def _done(cell: Planned) -> bool:
    return cell.count == 1 and cell.job.folder.finished and cell.job.config.output.reuse


def _known(arm: str, cells: Sequence[Planned], workers: int) -> list[Timed] | None:
    """Return an arm's cost by its largest finished run, where that computed with as many threads as others will."""
    done = [cell for cell in cells if cell.arm == arm and _done(cell)]
    for cell in sorted(done, key=lambda each: each.size or math.inf, reverse=True):
        if "seconds" in cell.job.folder.result() and _as_now(cell, workers):
            return [Timed(cost_of(cell.job.folder), cell.job.config)]
    return None


def _as_now(cell: Planned, workers: int) -> bool:
    """Say whether a finished run computed with as many threads as the others of the study will."""
    hardware, variables = cell.job.config.hardware, cell.job.folder.about().get("variables") or {}
    asked = hardware.threads or (places(workers, hardware).threads if workers else None)
    if asked is None:
        return "HEADSWAP_THREADS" not in variables
    return cell.job.folder.result().get("threads") == asked


class _Place:
    """A folder for probes, beside the study's runs so that it lies on the same disk; gone at the end."""

    def __init__(self, config: Config) -> None:
        study = config.study
        largest = [max(study.sizes)] if study.sizes else []
        self.config = dataclasses.replace(config, study=dataclasses.replace(study, sizes=largest))
        self.warming = 0.0
        self.features: dict[str, list[str]] = {}
        self._files = contextlib.ExitStack()
        self._asked: list[tuple[Config, Config]] = []

    def __enter__(self) -> _Place:
        root = Path(self.config.output.root)
        root.mkdir(parents=True, exist_ok=True)
        self.root = self._files.enter_context(tempfile.TemporaryDirectory(prefix=".probe-", dir=root))
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def timed(self, flags: Any, arms: Sequence[str], workers: int, rows: int | None = None) -> dict[str, list[Timed]]:
        """Run a probe of each arm, and of further seeds until every worker has one.

        Args:
            rows: to train on, None for as many as the study's largest runs have.
        """
        count = -(-len(arms) // max(1, workers)) * max(1, workers)
        study = dataclasses.replace(self.config.study, seeds=-(-count // len(arms)))
        every = plan(
            dataclasses.replace(self.config, study=study),
            flags,
            change=functools.partial(self._short, train_rows=rows),
        )
        cells = [cell for cell in every if cell.arm in arms][:count]
        watch = _Stopwatch()
        outcomes = run_cells(cells, workers, watch)
        if failed := [outcome for outcome in outcomes if not outcome.finished]:
            raise RunError(f"a run of {STEPS} steps failed, as the study's would; {failed[0].error}")
        self.warming = self.warming or watch.warming
        return {arm: list(self._stages(arm, cells, watch)) for arm in arms}

    def served(self, flags: Any, arm: str, workers: int, plain: list[Timed]) -> list[Timed]:
        """Time an arm whose body is frozen, which 20 steps read too little of to be worth keeping what it gives.

        On so few rows that 20 steps pass over them as often as the whole run does over its own. Where that cannot be
        done, or what is frozen is computed at every step then too, the plain probe stands.
        """
        from headswap.schedule import total_steps

        timed = plain[-1]
        train, rows = timed.config.train, timed.config.data.train_rows or timed.cost.rows["train"]
        few = max(train.batch_size, round(rows * STEPS / total_steps(train, -(-rows // train.batch_size))))
        if len(plain) > 1 or few >= rows:
            return plain
        try:
            found = self.timed(flags, [arm], workers, few)[arm][0]
        except RunError:
            return plain
        if any(_TOO_FEW_READS in each for each in self.features[arm]):
            return plain
        return [dataclasses.replace(timed, cost=dataclasses.replace(found.cost, rows=timed.cost.rows))]

    def _short(self, made: Config, train_rows: int | None) -> Config:
        """Return a run as it is probed, and remember what it stands for."""
        train = dataclasses.replace(made.train, max_steps=min(STEPS, made.train.max_steps or STEPS), patience=None)
        output = OutputConfig(self.root, False, made.output.keep_model)
        data = dataclasses.replace(made.data, train_rows=train_rows or made.data.train_rows)
        short = dataclasses.replace(made, train=train, output=output, data=data, tracker={})
        self._asked.append((short, made))
        return short

    def _stages(self, arm: str, cells: Sequence[Planned], watch: _Stopwatch) -> Iterator[Timed]:
        """Yield the stages of an arm in their order, each the mean over its probes."""
        mine = [cell for cell in cells if cell.arm == arm]
        self.features[arm] = []
        for place in range(mine[0].count):
            jobs = [watch.of(cell)[place] for cell in mine]
            costs = [cost_of(job.folder, watch.walls[job.folder.path]) for job in jobs]
            self.features[arm] += [json.dumps(RunFolder(job.folder.path).about().get("features")) for job in jobs]
            config = next(made for short, made in self._asked if short is jobs[0].config)
            stages = self.config.stages
            sized = mine[0].count == 1 or place == len(stages) - 1 or stages[place].sized
            yield Timed(mean(costs), config, sized)


@dataclass
class _Stopwatch:
    """Hears when processes begin and end."""

    begun: float = field(default_factory=time.monotonic)
    warming: float = 0.0
    walls: dict[Path, float] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)

    def __call__(self, job: Job, event: Mapping[str, Any]) -> None:
        now, path = time.monotonic(), job.folder.path
        if event["kind"] == "started":
            self.warming = self.warming or now - self.begun
            self.walls[path] = -now
            self.jobs.append(job)
        elif event["kind"] == "ended":
            self.walls[path] += now

    def of(self, cell: Planned) -> list[Job]:
        """Return the jobs of a cell in their order: its run, or its chain's stages."""
        if cell.count == 1:
            return [cell.job]
        title = cell.job.title.rpartition(": ")[0]
        return [job for job in self.jobs if job.title.rpartition(": ")[0] == title]
