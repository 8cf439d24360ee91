"""The wheel holds all that a run needs, and its command works in an empty folder, away from this checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "headswap"


def files_under(folder: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in found}


PLUGIN = {f"hydra_plugins/headswap/{name}" for name in ("__init__.py", "sweeper.py")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built offline from this checkout with the hatchling of the extra `dev`."""
    folder = tmp_path_factory.mktemp("dist")
    words = ["build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("headswap-*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def python(unpacked: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in `cwd` with the unpacked wheel before everything else and nothing of this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HEADSWAP"))}
    env = kept | {"PYTHONPATH": str(unpacked), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-P", *words]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_the_wheel_holds_every_option_of_conf(names):
    conf = files_under(ROOT / "conf")
    assert len(conf) > 20
    assert {name.removeprefix("headswap/conf/") for name in names if name.startswith("headswap/conf/")} == conf


def test_the_wheel_holds_every_file_of_the_package(names):
    wanted = {f"headswap/{name}" for name in files_under(PACKAGE)} | PLUGIN
    assert wanted - names == set()
    beside = {"py.typed", "study/report.html.j2", "study/report.css", "study/report.js", "sweep/sweep.html.j2"}
    assert {f"headswap/{name}" for name in beside} <= names


def test_the_wheel_holds_nothing_else(names):
    strays = [name for name in names if not name.startswith("headswap/") and ".dist-info/" not in name]
    assert set(strays) == PLUGIN  # Hydra looks for plugins in its namespace; an __init__.py there would hide others'
    assert [name for name in names if "tests/" in name or "outputs/" in name or name.endswith(".pyc")] == []


def test_the_wheel_brings_the_command_and_the_licence(unpacked):
    (about,) = unpacked.glob("headswap-*.dist-info")
    assert "headswap = headswap.cli:main" in (about / "entry_points.txt").read_text()
    assert (about / "licenses" / "LICENSE").is_file()
    metadata = (about / "METADATA").read_text(encoding="utf-8")
    assert "Requires-Python: <3.15,>=3.11" in metadata
    assert "Provides-Extra: demo" in metadata


def test_the_unpacked_wheel_is_what_runs_and_reads_its_own_conf(unpacked, tmp_path):
    script = "import headswap, headswap.config as config; print(headswap.__file__); print(config.conf_dir())"
    done = python(unpacked, tmp_path, "-c", script)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [str(unpacked / "headswap" / "__init__.py"), str(unpacked / "headswap" / "conf")]


def test_the_command_works_in_an_empty_folder(unpacked, tmp_path):
    listed = python(unpacked, tmp_path, "-m", "headswap", "list")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "  tweets " in listed.stdout
    shown = python(
        unpacked, tmp_path, "-m", "headswap", "show", "task=text", "task.source=a.csv", "task.text=[a]", "task.label=b"
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "source: a.csv" in shown.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_config_error_is_one_line_in_an_empty_folder(unpacked, tmp_path):
    done = python(unpacked, tmp_path, "-m", "headswap", "train", "train.epoch=1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("headswap: train.epoch: no such key (did you mean train.epochs")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_options_of_ones_own_are_found_beside_those_of_the_wheel(unpacked, tmp_path):
    (tmp_path / "conf" / "strategy").mkdir(parents=True)
    (tmp_path / "conf" / "strategy" / "mine.yaml").write_text("_target_: headswap.strategies.probe.Probe\n")
    done = python(unpacked, tmp_path, "-m", "headswap", "show", "strategy=mine", "--config-dir", "conf")
    assert (done.returncode, done.stderr) == (0, "")
    assert "headswap.strategies.probe.Probe" in done.stdout
