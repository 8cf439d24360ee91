"""Read the studies that are to be joined, and refuse those that cannot be. Joined chain: reading (this) -> joining.

Each is compared anew from its run folders, whatever its comparison.json says: all studies are then judged by the same
code, and by what their runs hold today. Nothing is written into their folders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from headswap.errors import ConfigError, RunError
from headswap.records import read_json
from headswap.spine import Config
from headswap.study import execute
from headswap.study.contrasts import Contrast
from headswap.study.results import Comparison
from headswap.study.verdict import verdict

SUMMARY = "joined.json"
NOUNS = {"task": "tasks", "body": "bodies", "study": "studies"}


@dataclass(frozen=True)
class StudyRead:
    """One of the joined studies; `label` tells it from the others, and `noun` says what they are told apart by."""

    folder: Path
    config: Config
    comparison: Comparison
    label: str = ""
    noun: str = "task"

    @property
    def primary(self) -> Contrast:
        primary = self.comparison.primary
        assert primary is not None  # _read refuses a study without one
        return primary

    @property
    def task(self) -> str:
        return self.config.choices.get("task", "task")

    @property
    def body(self) -> str:
        return self.config.choices.get("body", "body")

    @property
    def length(self) -> int | None:
        """The length of the task's texts, where it is a setting of the task."""
        found = self.config.task.get("length") if isinstance(self.config.task, dict) else None
        return found if isinstance(found, int) else None

    @property
    def table(self) -> str:
        """The name of the task's file, where it has one."""
        source = self.config.task.get("source") if isinstance(self.config.task, dict) else None
        return Path(source).stem if isinstance(source, str) else self.task


def read_studies(folders: Sequence[Path]) -> list[StudyRead]:
    """Return the studies of these folders, compared anew and labelled.

    Raises:
        ConfigError: fewer than two folders, one of them twice, or studies of other treatments and controls.
        RunError: a folder that is no study's, or a study in which treatment and control have no finished pair.
    """
    if len(folders) < 2:
        raise ConfigError(
            f"headswap report: joining needs two studies or more; found {len(folders)}; name several study folders"
        )
    for folder in folders:
        _check_kind(folder)
    for first, second in combinations(folders, 2):
        if first.resolve() == second.resolve():
            raise ConfigError(f"{second}: the same study twice; found {first}; name each study once")
    designs = [execute.read(folder) for folder in folders]
    _check_arms(folders, [config for config, _ in designs])
    studies = [_read(folder, *design) for folder, design in zip(folders, designs, strict=True)]
    for one, other in combinations(studies, 2):
        _check_apart(one, other)
    return _labelled(studies)


def joined_folders(folder: Path) -> list[Path]:
    """Return the study folders that a joined page was made of, from the folder that it lies in."""
    return [folder / each["folder"] for each in read_json(folder / SUMMARY)["studies"]]


def _check_kind(folder: Path) -> None:
    if (folder / execute.RUNS).is_file():
        return
    kinds = {
        "sweep.json": "a sweep's folder",
        "command.json": "a sweep's folder",
        SUMMARY: "a joined page's folder",
        "result.json": "a run's folder",
        "config.yaml": "of a study or run that has not ended",
    }
    file, kind = next(((file, kind) for file, kind in kinds.items() if (folder / file).is_file()), ("", ""))
    found = f"found {file}, {kind}" if kind else f"found no {execute.RUNS}"
    what = "not a study's folder" if folder.is_dir() else "no such folder"
    raise RunError(f"{folder}: {what}; {found}; name the folders that headswap compare printed")


def _check_arms(folders: Sequence[Path], configs: Sequence[Config]) -> None:
    arms = [(config.study.treatment, config.study.control) for config in configs]
    other = next((place for place, names in enumerate(arms) if names != arms[0]), None)
    if other is None:
        return
    found = " and ".join(f"{arms[place][0]} against {arms[place][1]} in {folders[place]}" for place in (0, other))
    raise ConfigError(
        f"study.treatment, study.control: joined studies compare the same two arms; found {found}; run headswap "
        "compare again with the same study.treatment and study.control: finished runs are reused"
    )


def _read(folder: Path, config: Config, records: Sequence) -> StudyRead:
    comparison = execute.compared(config, folder, records)
    if comparison.primary is None:
        first = f" The first one left out: {comparison.excluded[0].reason}" if comparison.excluded else ""
        raise RunError(
            f"{folder}: has nothing to join; found: {verdict(comparison)[0]}{first}; run headswap compare again, put "
            "the runs' folders back beside it, or leave it out"
        )
    return StudyRead(folder, config, comparison)


def _check_apart(one: StudyRead, other: StudyRead) -> None:
    """Refuse two studies that count the same pair of runs: one comparison would weigh twice."""
    pairs = [_pairs(each.primary) for each in (one, other)]
    common = len(pairs[0] & pairs[1])
    if common:
        raise ConfigError(
            f"{one.folder} and {other.folder}: the same study twice; found {common} of {len(pairs[1])} pairs of runs "
            "in both; leave one out"
        )


def _pairs(contrast: Contrast) -> set[tuple[str, str]]:
    return {(Path(pair.treatment_folder).name, Path(pair.control_folder).name) for pair in contrast.pairs}


def _labelled(studies: Sequence[StudyRead]) -> list[StudyRead]:
    """Name every study by the first of these that tells them all apart."""
    kinds: tuple[tuple[str, Callable[[StudyRead], str]], ...] = (
        ("task", lambda each: each.task),
        ("task", lambda each: each.table),
        ("body", lambda each: each.body),
        ("study", lambda each: f"{each.task}, {each.body}"),
        ("study", lambda each: f"{each.task} {each.length}"),
        ("study", lambda each: each.config.name),
        ("study", lambda each: each.folder.name),
        ("study", lambda each: str(each.folder)),
    )
    for noun, name in kinds:
        labels = [name(each) for each in studies]
        if len(set(labels)) == len(labels):
            return [replace(each, label=label, noun=noun) for each, label in zip(studies, labels, strict=True)]
    raise AssertionError("folders differ")  # checked above
