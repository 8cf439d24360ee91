"""Fabricated study folders for tests of joined studies: config.yaml, runs.json and their run folders beside them."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

from headswap.config import compose, dump
from headswap.spine import Config
from study_folders import Made, make_study

TASKS = {"sst2": (0.9, 0.8), "emotion": (0.7, 0.6), "cola": (0.76, 0.75), "news": (0.86, 0.81), "irony": (0.64, 0.6)}
"""Task -> accuracy of finetune and of scratch."""


@functools.cache
def _composed() -> Config:
    return compose(["task=tweets", "body=minilm"])


def study_of(root: Path, task: str, made: Made, body: str = "minilm", **design) -> Path:
    """Write a study's folder and its runs; `design` changes its StudyConfig."""
    records = make_study(root, made, f"{task}-{body}-")
    base = _composed()
    arms = {"finetune": {"train": {"learning_rate": 5e-5}}, "scratch": {"train": {"learning_rate": 5e-4}}}
    study = dataclasses.replace(base.study, arms=arms, **design)
    choices = base.choices | {"task": task, "body": body}
    config = dataclasses.replace(base, study=study, choices=choices, task=base.task | {"source": f"{task}.csv"})
    folder = root / f"study-{task}-{body}-finetune_vs_scratch-{len(task):08x}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(config), encoding="utf-8")
    rows = [dataclasses.asdict(each) | {"folder": f"../{each.folder.name}"} for each in records]
    (folder / "runs.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def studies_of(root: Path, *tasks: str, **changes) -> list[Path]:
    """Write the study folders of these tasks of TASKS; `changes` are of Made."""
    return [study_of(root, task, made_of(task, **changes)) for task in tasks]


def made_of(task: str, **changes) -> Made:
    first, second = TASKS[task]
    plain = Made({"finetune": first, "scratch": second}, sizes=(400,), rows=300)
    return dataclasses.replace(plain, **changes)
