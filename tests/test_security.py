"""Configurations, commands and reports that a stranger wrote. Secrets: test_secrets.py; files: test_security_files.py.

Every fixture leaves a marker file when its code runs; where that is cheap, it is shown to do so when nothing guards.
"""

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml

from headswap.config import build, compose, load
from headswap.errors import ConfigError
from headswap.phases import Strategy

SECRET, PLAIN = "tok-5f3e91c2-value", "an ordinary value"


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "the-code-ran"


def foreign_packages(folder, marker):
    """Write headswapx and foreign, whose import leaves the marker, and trusted, which only passes on a class."""
    danger = (
        "from dataclasses import dataclass\nfrom pathlib import Path\n"
        "@dataclass(frozen=True)\nclass Danger:\n    def __post_init__(self):\n"
        f"        Path({str(marker)!r}).write_text('made')\n    def phases(self, names): return []\n"
    )
    for name, text in {
        "headswapx": f"{danger}Path({str(marker)!r}).write_text('imported')\n",
        "foreign": danger,
        "trusted": "from foreign import Danger\nimport os, subprocess\nclass Plain: pass\n",
    }.items():
        (folder / f"{name}.py").write_text(text)


TARGETS = (
    "os.system", "posix.system", "subprocess.Popen", "builtins.eval", "builtins.exec", "importlib.import_module",
    "headswap.config.os.system", "headswap.launch.signal.raise_signal", "headswap.launch.os.system",
    "headswap.records.shutil.rmtree", "headswap.errors.nearest", "headswap.config.dataclass", "headswap.config.Any",
    "headswap.config.import_module", "headswap.config.yaml.unsafe_load", "headswap.train", "headswap.spine.Config",
    "headswapx.Danger", "headswap", "headswap.", ".headswap.x", "..os.system", "headswap..os.system", "/os.system",
    "headswap/../os.system", "headswap.config:os", "", "os", "headswap.\0os.system", "trusted.Danger", "trusted.os.system",
    "trusted.subprocess.Popen", "trusted.Plain", 7, None, ["os.system"], {"_target_": "os.system"},
)  # fmt: skip


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_only_dataclasses_of_allowed_packages_are_imported_or_made(target, tmp_path, marker, monkeypatch):
    foreign_packages(tmp_path, marker)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("headswapx", "foreign", "trusted"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ConfigError, match=r"^strategy(\._target_)?: "):
        build({"_target_": target}, "strategy", Strategy, ["trusted"])
    assert not marker.exists() and "headswapx" not in sys.modules
    if target == "trusted.Danger":
        build({"_target_": "foreign.Danger"}, "strategy", Strategy, ["foreign"])
        assert marker.read_text() == "made"


@pytest.mark.parametrize(
    "tag", ["object/apply:os.system", "object/new:os.system", "object/apply:subprocess.check_call"]
)
def test_a_yaml_tag_that_makes_an_object_is_refused_wherever_it_stands(tag, tmp_path, marker):
    text = f"# x\nname: !!python/{tag} ['{'touch ' + str(marker)}']\n"
    if "Popen" not in tag and "check_call" not in tag:
        yaml.unsafe_load(text)
        assert marker.exists()
        marker.unlink()
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(
        ConfigError, match=r"config\.yaml: cannot be read as a configuration; found .*python/"
    ) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}")
    with pytest.raises(ConfigError, match="not valid YAML"):
        compose(["experiment=mine"], [tmp_path])
    assert not marker.exists()


def test_a_config_file_that_holds_no_keys_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("- a\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: not a configuration; found list"):
        load(tmp_path / "config.yaml")


COPY = {"src": __file__, "dst": "MARKER"}
HANDLER = {"handlers": {"evil": {"()": "shutil.copyfile", **COPY}}, "root": {"handlers": ["evil"]}}


@pytest.mark.parametrize(
    "case",
    [
        ("callbacks", {"evil": {"_target_": "shutil.copyfile", **COPY}}, False),
        ("hydra_logging", HANDLER, False),
        ("job_logging", HANDLER, True),
        ("job", {"env_set": {"PYTHONPATH": "MARKER"}}, True),
    ],
)
@pytest.mark.parametrize("experiments", ["mine", "demo,mine"])
def test_a_sweep_refuses_what_hydra_would_run_by_itself(case, experiments, tmp_path, marker, monkeypatch):
    key, node, from_a_job = case
    from headswap import hydra_app

    (tmp_path / "experiment").mkdir()
    text = yaml.safe_dump({"hydra": {key: node}}).replace("MARKER", str(marker))
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}")
    words = [f"experiment={experiments}", f"output.root={tmp_path / 'outputs'}"]
    jobs = []

    def sweep():
        hydra_app.multirun(words, [str(tmp_path)], lambda tree, overrides: jobs.append(os.environ.get("PYTHONPATH")))

    with pytest.raises(ConfigError, match=rf"^hydra\.{key}.*: not served, because it can run code"):
        sweep()
    assert not marker.exists() and str(marker) not in jobs
    monkeypatch.setattr(hydra_app, "_harmless", lambda config: config)
    with contextlib.suppress(Exception):  # what it runs is no logging handler
        sweep()
    if experiments == "mine" or from_a_job:
        assert marker.exists() or str(marker) in jobs


# What is printed


def test_doctor_and_show_print_no_value_of_the_environment(tmp_path):
    names = ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "PGPASSWORD", "EDITOR", "MY_PLACE", "HTTPS_PROXY"]
    values = {name: f"value-{number}-of-{name.lower()[::-1]}" for number, name in enumerate(names)}
    for words in (["doctor"], ["show"], ["train", "--cfg", "all"], ["list"], ["show", "a=${oc.env:HF_TOKEN}"]):
        command = [sys.executable, "-m", "headswap", *words]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, **values},
            cwd=tmp_path,
        )
        said = done.stdout + done.stderr
        assert said and [name for name, value in values.items() if value in said] == []


def test_a_report_renders_no_environment_variable_and_no_secret_of_a_configuration(tmp_path):
    from headswap.study import report, results
    from headswap.study.results import compare as compare_records
    from study_folders import Made, make_study
    from test_report import STUDY

    records = make_study(tmp_path, Made({"finetune": 0.8, "scratch": 0.6}, sizes=(100,), seeds=2, rows=100))
    for record in records:
        about = json.loads((record.folder / "run.json").read_text())
        about |= {"environment_variables": {"HF_TOKEN": SECRET, "MY_PLACE": PLAIN}, "variables": {"API_KEY": SECRET}}
        (record.folder / "run.json").write_text(json.dumps(about))
        tree = yaml.safe_load((record.folder / "config.yaml").read_text())
        tree["task"]["token"] = "${oc.env:MY_TOKEN}"
        (record.folder / "config.yaml").write_text(yaml.safe_dump(tree))
    comparison = compare_records(records, replace(STUDY, sizes=[100]), {})
    results.save(comparison, tmp_path)
    page = report.render(comparison)
    assert "${oc.env:MY_TOKEN}" in page
    assert SECRET not in page + (tmp_path / "comparison.json").read_text() and PLAIN not in page
