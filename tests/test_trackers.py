"""Trackers: each records a run's curve in a process of its own, and nothing that it does reaches the run."""

import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from headswap import tracking
from headswap.config import compose, dump, identity, load
from headswap.errors import ConfigError
from headswap.launch import folder_of, train
from headswap.records import read_json, read_jsonl
from tiny_runs import ran, reviews, tiny, words_of

SMALL = ("train.max_steps=6", "train.save_every.steps=2", "output.keep_model=true")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return reviews(tmp_path_factory.mktemp("table") / "reviews.csv")


@pytest.fixture
def config(table, tiny_body, tmp_path):
    return lambda *words: tiny(table, tiny_body, tmp_path, *SMALL, *words)


def expected(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves that the run's own files hold."""
    lines, result = read_jsonl(folder / "metrics.jsonl"), read_json(folder / "result.json")
    curves = {
        name: [(line["step"], line[name.split("/")[1]]) for line in lines if line["kind"] == name.split("/")[0]]
        for name in ("train/loss", "train/learning_rate", "validation/loss", "validation/accuracy")
    }
    last = lines[-1]["step"]
    return curves | {"test/accuracy": [(last, result["scores"]["test"]["accuracy"])]}


def same(found, wanted):
    for name, points in wanted.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points], name
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in points], rel=1e-6), name


def in_trackio(root: Path, run: str):
    from json import loads

    curves: dict[str, list] = {}
    with sqlite3.connect(root / ".trackers" / "trackio" / "tiny.db") as base:
        rows = base.execute("select run_id, step, metrics from metrics where run_name = ? order by id", (run,))
        rows = rows.fetchall()
    for _, step, values in rows:
        for name, value in loads(values).items():
            curves.setdefault(name, []).append((step, value))
    return curves, {row[0] for row in rows}


def in_tensorboard(root: Path, run: str):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(root / ".trackers" / "tensorboard" / "tiny" / run)).Reload()
    return {name: [(each.step, each.value) for each in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_x(config, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "APART", 0.0)
    events = []
    t = time.time()
    end = ran(tmp_path / "run", config("tracker=[trackio,tensorboard]"), events.append)
    print(time.time() - t)
    print(end, [e for e in events if e["kind"] == "warning"])
    for p in (tmp_path / "run").glob("tracker*"):
        print(p, p.read_text())
    same(in_trackio(tmp_path, "run")[0], expected(tmp_path / "run"))
    same(in_tensorboard(tmp_path, "run"), expected(tmp_path / "run"))
