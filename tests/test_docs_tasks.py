"""What docs/tasks.md shows is what the tasks read: options, keys, examples of data, the class of one's own."""

import dataclasses
import json
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from headswap import config as configuration
from headswap.checks import Notes
from headswap.contracts import Task
from headswap.sources import read
from test_readme import ROOT, blocks
from tiny_runs import ran, words_of
from tiny_tables import written

PAGE = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
SECTIONS = {part.split("\n", 1)[0]: part for part in PAGE.split("\n## ")[1:]}
OWN, MEASURED = "A task of your own", "Measured"
OF_TASKS = [name for name in SECTIONS if name not in (OWN, MEASURED)]


def options() -> set[str]:
    """Return the tasks that take a reader's own files: not the embedded one, the hub's, a chain's, or rows drawn."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (configuration.conf_dir() / "task").glob("*.yaml")}
    elsewhere = {"source", "of"}
    return {
        name
        for name, text in texts.items()
        if not ("tweets" in name or "parts/drawn" in text or elsewhere & yaml.safe_load(text).keys())
    }


def commands(section: str) -> list[list[str]]:
    """Return the overrides of each `headswap train` that a section shows."""
    text = re.sub(r"\\\n\s*", "", "\n".join(blocks(SECTIONS[section], "bash")))
    lines = [line for line in text.splitlines() if line.startswith("headswap train task=")]
    return [shlex.split(line, comments=True)[2:] for line in lines]


def task_of(overrides: list[str]) -> Any:
    return configuration.build(configuration.compose(overrides).task, "task", Task)


def test_every_option_stands_in_the_table_and_in_a_command():
    table = PAGE.split("\n## ")[0]
    assert set(re.findall(r"`task=(\w+)`", table)) == options()
    shown = {words[0].removeprefix("task=") for section in OF_TASKS for words in commands(section)}
    assert shown == options()


@pytest.mark.parametrize("section", OF_TASKS)
def test_the_keys_that_a_section_names_exist(section):
    names = {words[0].removeprefix("task=") for words in commands(section)}
    nodes = [yaml.safe_load((configuration.conf_dir() / "task" / f"{name}.yaml").read_text()) for name in names]
    targets = [node["_target_"] for node in nodes if "_target_" in node]
    classes = [getattr(import_module(target.rpartition(".")[0]), target.rpartition(".")[2]) for target in targets]
    known = {field.name for each in classes for field in dataclasses.fields(each)}
    assert set(re.findall(r"\btask\.(\w+)", SECTIONS[section])) - known == set()


@pytest.mark.parametrize("section", OF_TASKS)
def test_the_rows_that_a_section_shows_are_read_by_its_command(section, tmp_path):
    (rows,), (table,) = (blocks(SECTIONS[section], kind) for kind in ("json", "csv"))
    (tmp_path / "rows.jsonl").write_text(rows, encoding="utf-8")
    (tmp_path / "rows.csv").write_text(table, encoding="utf-8")
    assert len([json.loads(line) for line in rows.splitlines()]) == 3
    found = []
    for name in ("rows.jsonl", "rows.csv"):
        task = next(task for task in map(task_of, commands(section)) if _reads(tmp_path / name, task))
        if section == "Questions on a text":
            task = dataclasses.replace(task, no_answer=True)
        found.append(task.checked(read(str(tmp_path / name), task.reading()), "train", Notes()))
        assert len(found[-1]["id"]) == 3
    assert section == "Multiple choice" or found[0] == found[1]


def _reads(path: Path, task: Any) -> bool:
    """Say whether a file has the columns of a task."""
    head = path.read_text(encoding="utf-8").splitlines()[0]
    columns = json.loads(head) if path.suffix == ".jsonl" else head.split(",")
    return set(task.reading().columns) <= set(columns)


def test_python_that_is_shown_is_python():
    shown = blocks(PAGE, "python")
    assert len(shown) == 2 * len(OF_TASKS) + 1
    for block in shown:
        compile(block, "docs/tasks.md", "exec")


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """Return a reader's folder of options; the package that the page shows lies beside it."""
    for block in blocks(SECTIONS[OWN], "yaml"):
        name = next(word for word in block.split() if word.startswith("task=")).removeprefix("task=")
        path = tmp_path / "my_conf" / "task" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block, encoding="utf-8")
    (code,) = blocks(SECTIONS[OWN], "python")
    module = tmp_path / code.splitlines()[0].removeprefix("# ")
    module.parent.mkdir()
    module.write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "my_conf"


def test_the_options_of_ones_own_compose(own):
    assert task_from(own, "task=rotten").text == ["text"]
    assert task_from(own, "task=tickets").labels == ["billing", "delivery", "other"]


def task_from(folder: Path, *overrides: str) -> Any:
    return configuration.build(configuration.compose(overrides, [folder]).task, "task", Task)


def test_the_class_of_ones_own_trains_and_answers(own, tiny_body, tmp_path):
    words = ["calm good", "angry bad", "sad dull"]
    rows = [
        (f"{words[number % 3]} {number}", *(3 if number % 3 == label else 1 for label in range(3)))
        for number in range(40)
    ]
    table = written(tmp_path / "votes.csv", rows, ("text", "calm", "angry", "sad"))
    base = [
        word for word in words_of(table, tiny_body, tmp_path / "out") if not word.startswith(("task=", "task.label"))
    ]
    config = configuration.compose(["task=votes", "plugins=[my_package]", *base], [own])
    assert ran(tmp_path / "run", config)["kind"] == "finished"
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["labels"], result["primary"]) == (["calm", "angry", "sad"], "accuracy")


def test_the_loss_of_ones_own_class_is_cross_entropy_with_shares(own):
    import torch
    from torch.nn.functional import cross_entropy

    from tiny_tables import output

    loss = import_module("my_package.votes").VoteLoss()
    logits = torch.tensor([[0.5, -1.0, 2.0], [0.0, 1.0, 0.0]])
    batch = {"labels": torch.tensor([[3.0, 1.0, 0.0], [1.0, 1.0, 2.0]])}
    shares = torch.tensor([[0.75, 0.25, 0.0], [0.25, 0.25, 0.5]])
    assert float(loss.weight(batch)) == 2
    assert torch.allclose(loss(output(logits), batch), cross_entropy(logits, shares, reduction="sum"))
