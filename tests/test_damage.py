"""Flipped bits, cut-off and missing files: named with what was expected and found, and never computed with."""

import hashlib
import json
import re
import shutil
from dataclasses import replace

import pytest

import faults
from exact import BASE, STEPS, Points, every, go, mismatches, wandering

JUDGED = {"score": wandering, "metric": Points()}
TRAIN = replace(BASE, evaluate_every=1, save_every=every(1))


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return go(tmp_path_factory.mktemp("straight"), TRAIN, **JUDGED)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A training stopped after its sixth step: the states of steps 5 and 6, and the best weights they count on."""
    folder = tmp_path_factory.mktemp("stopped")
    go(folder, TRAIN, 6, **JUDGED)
    steps = sorted(path.name for path in (folder / "checkpoint").glob("step-*"))
    assert steps == ["step-00000005", "step-00000006"]
    return folder


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def said_of(path, how, sound) -> str:
    """Return the pattern of what must be said of a damaged file; `sound` is its undamaged copy."""
    name = re.escape(str(path))
    if path.name == "manifest.json":
        return f"^{name}: (not a whole manifest|changed since it was written); found "
    if how == "removed":
        return f"^{name}: missing; found no such file, expected {sound.stat().st_size:,} bytes"
    found = f"found {path.stat().st_size:,} bytes with sha256 {sha256(path)}"
    return f"^{name}: cut off or changed; {found}, expected {sound.stat().st_size:,} bytes with sha256 {sha256(sound)}"


@pytest.mark.parametrize("how", faults.HARMS)
@pytest.mark.parametrize("name", faults.CHECKPOINT_FILES)
def test_a_damaged_state_is_named_and_the_one_before_is_gone_on_with(name, how, stopped, straight, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    path = tmp_path / "run" / "checkpoint" / "step-00000006" / name
    faults.harm(path, how)
    pattern = said_of(path, how, stopped / "checkpoint" / "step-00000006" / name)
    faults.injected("bit flip, truncation, loss")
    left = go(tmp_path / "run", TRAIN, **JUDGED)
    assert len(left.checkpoints.rejected) == 1
    assert re.match(pattern, left.checkpoints.rejected[0])
    assert "train again" in left.checkpoints.rejected[0]
    assert next(event["step"] for event in left.events if event["kind"] == "saving") == 6  # it went on from step 5
    faults.resumed(mismatches(straight, left))


@pytest.mark.parametrize("how", faults.HARMS)
@pytest.mark.parametrize("name", faults.BEST_FILES)
def test_damaged_best_weights_are_named_and_not_used(name, how, stopped, straight, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    told = json.loads((stopped / "checkpoint" / "step-00000006" / "state.json").read_text())["best"]
    path = tmp_path / "run" / "checkpoint" / told / name
    faults.harm(path, how)
    pattern = said_of(path, how, stopped / "checkpoint" / told / name)
    faults.injected("bit flip, truncation, loss")
    left = go(tmp_path / "run", TRAIN, **JUDGED)
    assert re.match(pattern, left.checkpoints.rejected[0])
    faults.resumed(mismatches(straight, left))


def test_both_states_damaged_start_the_training_again(stopped, straight, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    for step in (5, 6):
        faults.harm(tmp_path / "run" / "checkpoint" / f"step-{step:08d}" / "model.safetensors", "middle bit")
        faults.injected("bit flip, truncation, loss")
    left = go(tmp_path / "run", TRAIN, **JUDGED)
    assert [message.split("/")[-2] for message in (said.split(":")[0] for said in left.checkpoints.rejected)] == [
        "step-00000006",
        "step-00000005",
    ]
    assert sum(event["kind"] == "saving" for event in left.events) >= STEPS - 1
    faults.resumed(mismatches(straight, left))


@pytest.mark.parametrize("how", ["last line torn", "last line lost", "a quote lost in the fourth"])
def test_damaged_metrics_pass_over_the_states_that_count_on_them(how, stopped, straight, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    path = tmp_path / "run" / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 11  # six steps and five evaluations: the stop came before the sixth
    changed = {
        "last line torn": "".join(lines)[:-1],
        "last line lost": "".join(lines[:-1]),
        "a quote lost in the fourth": "".join([*lines[:3], lines[3].replace('"', "", 1), *lines[4:]]),
    }
    path.write_text(changed[how])
    faults.injected("bit flip, truncation, loss")
    left = go(tmp_path / "run", TRAIN, **JUDGED)
    whole = 3 if "fourth" in how else 10
    said = f"{path}: cut off or damaged; found {whole} whole lines, step-00000006 expects 11; copy it again, or train again"
    assert left.checkpoints.rejected[0] == said
    assert len(left.checkpoints.rejected) == (2 if "fourth" in how else 1)
    faults.resumed(mismatches(straight, left))


def test_a_state_that_names_files_outside_its_folder_removes_nothing(stopped, tmp_path):
    """Its manifest is whole, as that of a hostile copy would be."""
    from headswap.checkpoint import Checkpoints
    from headswap.durable import published
    from headswap.spine import SaveConfig

    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "thesis.txt").write_text("four years")
    with published(tmp_path / "checkpoint" / "step-00000001") as draft:
        draft.write_json("state.json", {"step": 1, "best": "../treasure", "metrics_lines": 0})
    checkpoints = Checkpoints(tmp_path / "checkpoint", SaveConfig(), lambda event: None)
    assert checkpoints.newest(0) is None
    assert "names no best weights; found '../treasure'; remove " in checkpoints.rejected[0]
    assert (treasure / "thesis.txt").exists()
