"""Damage to what a run wrote besides its states: to its model it is named and refused, to its notes it is harmless."""

import hashlib
import re
import shutil
from pathlib import Path

import pytest

import faults
from headswap.bodies.transformer import TransformerBody
from headswap.errors import ConfigError, DamagedError
from headswap.predict import Predictor
from headswap.records import read_json
from headswap.verify import compare_runs, job_in
from tiny_runs import ran, reviews, tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("damaged")


@pytest.fixture(scope="module")
def config(place, tiny_body):
    return tiny(reviews(place / "reviews.csv", 48), tiny_body, place, "train.save_every.steps=2", "train.max_steps=6")


@pytest.fixture(scope="module")
def finished(place, config):
    assert ran(place / "straight", config)["kind"] == "finished"
    return place / "straight"


@pytest.fixture(scope="module")
def stopped(place, config):
    assert ran(place / "stopped", config, stop_at=3)["status"] == "stopped"
    return place / "stopped"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("how", faults.HARMS)
@pytest.mark.parametrize("name", faults.MODEL_FILES)
def test_a_damaged_model_is_named_and_not_loaded(name, how, finished, tmp_path):
    shutil.copytree(finished / "model", tmp_path / "model")
    path = tmp_path / "model" / name
    faults.harm(path, how)
    faults.injected("bit flip, truncation, loss")
    if (name, how) == ("manifest.json", "removed"):  # nothing else is lost, and there is nothing to check against
        assert Predictor(tmp_path / "model").labels.names == ("neg", "pos")
        return
    lost = (name, how) == ("config.json", "removed")
    with pytest.raises(ConfigError if lost else DamagedError) as caught:
        Predictor(tmp_path / "model")
    said = str(caught.value)
    if lost:
        assert said.startswith(
            f"{tmp_path / 'model'}: neither a run nor a checkpoint; found no config.yaml and no config"
        )
        return
    assert said.startswith(f"{path}: ")
    assert "copy it again, or train again" in said
    if name != "manifest.json" and how != "removed":
        assert f"found {path.stat().st_size:,} bytes with sha256 {sha256(path)}" in said
        assert f"with sha256 {sha256(finished / 'model' / name)};" in said
        assert f"expected {(finished / 'model' / name).stat().st_size:,} bytes" in said


def test_every_file_of_a_model_was_damaged(finished):
    assert {path.name for path in (finished / "model").iterdir()} == set(faults.MODEL_FILES)


def test_a_manifest_of_somebody_else_is_not_taken_for_ours(finished, tmp_path):
    shutil.copytree(finished / "model", tmp_path / "model")
    (tmp_path / "model" / "manifest.json").write_text('{"name": "a web page", "icons": []}')
    assert Predictor(tmp_path / "model").labels.names == ("neg", "pos")


@pytest.mark.parametrize("how", faults.HARMS)
@pytest.mark.parametrize("name", faults.NOTES)
def test_damaged_notes_of_an_unfinished_run_are_written_anew(name, how, finished, stopped, config, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    if name == "log.txt":  # the parent makes it
        (tmp_path / "run" / name).write_text("words")
    faults.harm(tmp_path / "run" / name, how)
    faults.injected("bit flip, truncation, loss")
    told = []
    ended = ran(tmp_path / "run", config, told.append)
    assert ended["kind"] == "finished"
    assert [line["step"] for line in told if line["kind"] == "resumed"] == [3]
    found = compare_runs(finished, tmp_path / "run")
    faults.resumed([] if found.same else found.lines)
    assert read_json(tmp_path / "run" / "run.json")["status"] == "finished"


@pytest.mark.parametrize("how", ["middle bit", "emptied", "removed"])
def test_a_damaged_configuration_is_one_clear_line(how, stopped, tmp_path):
    """`headswap train` writes it anew; `headswap resume` has nothing else to go by."""
    shutil.copytree(stopped, tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    if how == "middle bit":
        path.write_text(path.read_text().replace("train:", "tra\x00in:", 1))
    else:
        faults.harm(path, how)
    faults.injected("bit flip, truncation, loss")
    with pytest.raises(ConfigError) as caught:
        job_in(tmp_path / "run")
    assert re.match(re.escape(str(tmp_path / "run")), str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_damaged_model_is_no_body_of_the_next_run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    body = TransformerBody(source=str(tmp_path / "run"))
    assert body.locate().weights == (tmp_path / "run" / "model" / "model.safetensors",)
    faults.harm(tmp_path / "run" / "model" / "model.safetensors", "middle bit")
    with pytest.raises(DamagedError, match=r"model\.safetensors: .* with sha256 .*expected .* with sha256 "):
        body.locate()
