"""Run a study's cells and draw its verdict: runs -> records -> comparison.json and report.html. Floor 5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from headswap import config as configuration
from headswap.contracts import Metric
from headswap.errors import RunError
from headswap.launch import OnEvent, Outcome, run_jobs
from headswap.records import read_json, write_json, write_text
from headswap.spine import Config
from headswap.study.fairness import audit
from headswap.study.plan import Planned, check_sizes, may_differ, plan, study_folder
from headswap.study.results import Comparison, RunRecord, with_texts
from headswap.study.results import compare as compare_records
from headswap.study.tuned import TUNING, recipes
from headswap.study.tuned import read as read_tuning
from headswap.study.tuning import sweeps, tune
from headswap.study.tuning_curves import with_curves
from headswap.study.tuning_words import warnings_about as tuning_warnings
from headswap.study.workers import chosen_workers

RUNS = "runs.json"


@dataclass(frozen=True)
class Study:
    """A finished study: its folder, what the comparison found, and the report."""

    folder: Path
    comparison: Comparison
    report: Path


def execute(
    config: Config,
    cells: Sequence[Planned] | None = None,
    on_event: OnEvent = lambda job, event: None,
    workers: int | None = None,
) -> Study:
    """Run the study's cells, finished ones excepted, and write its verdict and report.

    Without cells they are planned here, after tuning where the study is tuned. A failed run is excluded with its
    reason. Raises RunError when no run of the study finished.

    Args:
        workers: how many runs go side by side; None for what `study.workers` says.
    """
    if cells is None:
        found = tune(config, sweeps(config), on_event)
        cells = plan(config, None, found.chosen(config.study.sizes) if found else None)
        check_sizes(cells)
    folder = study_folder(config)
    write_text(folder / "config.yaml", configuration.dump(config))
    workers = chosen_workers(config, cells, None, folder) if workers is None else workers
    outcomes = run_cells(cells, workers, on_event)
    records = [record(cell, outcome, folder) for cell, outcome in zip(cells, outcomes, strict=True)]
    write_json(folder / RUNS, [asdict(one) for one in records])
    if not any(outcome.finished for outcome in outcomes):
        raise RunError(f"{folder}: no run of the study finished; the first one said: {outcomes[0].error}")
    return draw(config, folder, records)


def run_cells(cells: Sequence[Planned], workers: int, on_event: OnEvent) -> list[Outcome]:
    """Run the cells, chains stage by stage; return the outcome of each one's last run, or of the one that failed."""
    outcomes = run_jobs([cell.job for cell in cells], workers, on_event)
    later = [cell.later() for cell in cells]
    while True:
        going = [place for place, outcome in enumerate(outcomes) if outcome.finished]
        following = {place: job for place in going if (job := next(later[place], None)) is not None}
        if not following:
            return outcomes
        for place, outcome in zip(following, run_jobs(list(following.values()), workers, on_event), strict=True):
            outcomes[place] = outcome


def remake(folder: Path) -> Study:
    """Draw the verdict and the report again from a study folder, without training."""
    config, records = read(folder)
    return draw(config, folder, records)


def read(folder: Path) -> tuple[Config, list[RunRecord]]:
    """Return what a study folder says of its design and of its runs. Raises RunError for another folder."""
    if not (folder / RUNS).is_file():
        raise RunError(f"{folder}: not a study folder; found no {RUNS}; name the folder that headswap compare printed")
    config = configuration.load(folder / "config.yaml")
    records = [RunRecord(**(one | {"folder": _beside(folder, one["folder"])})) for one in read_json(folder / RUNS)]
    return config, records


def _beside(folder: Path, name: str) -> Path:
    """Return a run's folder as runs.json names it, from the study's: `../RUN` and nowhere else."""
    place = Path(name)
    if place.parts[:1] != ("..",) or len(place.parts) != 2 or place.name == "..":
        raise RunError(
            f"{folder / RUNS}: names a run outside the study's neighbours; found {name!r}; put the run's folder beside "
            "the study's and name it ../RUN"
        )
    return place


def draw(config: Config, folder: Path, records: Sequence[RunRecord]) -> Study:
    """Compare the records and write comparison.json and report.html into the study's folder."""
    from headswap.study.report import write_report
    from headswap.study.results import save

    comparison = with_texts(compared(config, folder, records))
    save(comparison, folder)
    return Study(folder, comparison, write_report(comparison, folder))


def compared(config: Config, folder: Path, records: Sequence[RunRecord]) -> Comparison:
    """Compare the records anew from their run folders; write nothing."""
    resolved = [replace(one, folder=(folder / one.folder).resolve()) for one in records]
    name, node = next(iter(config.metric.items()))
    metric = configuration.build(node, f"metric.{name}", Metric, config.plugins)
    tuning = None
    if config.study.tuning.trials and (folder / TUNING).is_file():
        tuning = with_curves(read_tuning(folder), config.study.confidence)
    comparison = compare_records(resolved, config.study, recipes(config.study.arms, tuning), metric)
    warnings = (*comparison.warnings, *tuning_warnings(tuning))
    comparison = replace(comparison, tuning=tuning, warnings=warnings)
    chosen = tuning.chosen(config.study.sizes) if tuning else {}
    trials = {each.arm: len(each.trials) for each in tuning.arms} if tuning else {}
    study = replace(config.study, may_differ=may_differ(config.study, chosen))
    return comparison.audited(audit(resolved, study, trials))


def show(study: Study, console: Any) -> None:
    """Print the table, the verdict's sentences and the report's place."""
    from headswap.study.report import terminal_table
    from headswap.study.verdict import beside, verdict

    console.print(terminal_table(study.comparison))
    for sentence in [*verdict(study.comparison), *beside(study.comparison)]:
        console.print(sentence, markup=False, highlight=False)
    console.print(f"report: {study.report}", markup=False, highlight=False, soft_wrap=True)


def record(cell: Planned, outcome: Outcome, folder: Path) -> RunRecord:
    """Return what the study keeps of a run; its folder relative to the study's, so that outputs/ can be moved."""
    status = "finished" if outcome.finished else "failed"
    made = outcome.job.folder.path
    place = Path("..") / made.name
    assert folder.parent / made.name == made
    return RunRecord(cell.arm, cell.size, cell.seed, place, status, outcome.error, outcome.reused)
