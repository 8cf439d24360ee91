"""Configurations, commands and reports that a stranger wrote or that hold a secret. Checkpoints: test_security_files.py.

Every fixture leaves a marker file when its code runs; where that is cheap, it is shown to do so when nothing guards.
"""

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import yaml

from headswap import config as configuration
from headswap.cli import main
from headswap.composition import secrets_kept
from headswap.config import build, build_plugs, compose, dump, identity, load, overlay
from headswap.contracts import Strategy
from headswap.errors import ConfigError
from headswap.placeholders import conceal, looks_secret, reveal

SECRET, PLAIN = "tok-5f3e91c2-value", "an ordinary value"
KEEPER = "strategy._target_=test_security.Keeper"
BASE = ["plugins=[test_security]", f"++{KEEPER}"]


@dataclass(frozen=True)
class Keeper:
    """A plug that wants a secret."""

    token: str | None = None
    url: str = ""
    headers: dict[str, Any] = field(default_factory=dict)
    count: int = 0

    def __post_init__(self):
        if self.url.startswith("bad"):
            raise ConfigError(f"strategy.url: not served; found {self.url!r}; correct it")

    def phases(self, names):
        return []


@pytest.fixture
def secret(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", SECRET)
    monkeypatch.setenv("MY_PLACE", PLAIN)
    return SECRET


def kept(*words: str) -> configuration.Config:
    return compose([*BASE, *words])


# Secrets


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("HF_TOKEN", True), ("hf_token", True), ("GITHUB_TOKENS", True), ("AWS_SECRET_ACCESS_KEY", True),
        ("OPENAI_API_KEY", True), ("OPENAI_APIKEY", True), ("PGPASSWORD", True), ("DB_PASSWD", True), ("MY_AUTH", True),
        ("GOOGLE_APPLICATION_CREDENTIALS", True), ("API_KEY2", True), ("my-key", True), ("KEY", True),
        ("KEYBOARD", False), ("TOKENIZERS_PARALLELISM", False), ("AUTHOR", False), ("HOME", False), ("MONKEY", False),
        ("PWD", False), ("XAUTHORITY", False),
    ],
)  # fmt: skip
def test_a_secret_is_told_by_the_words_of_its_name(name, expected):
    assert looks_secret(name) is expected


@pytest.mark.parametrize(
    ("words", "key", "text", "value"),
    [
        (["token='${oc.env:MY_TOKEN}'"], "token", "${oc.env:MY_TOKEN}", SECRET),
        (["url='https://me:${oc.env:MY_TOKEN}@x'"], "url", "https://me:${oc.env:MY_TOKEN}@x", f"https://me:{SECRET}@x"),
        (["token='${oc.env:NO_TOKEN,null}'"], "token", "${oc.env:NO_TOKEN,null}", None),
        (["token='${oc.env:NO_TOKEN,\"a,b}\"}'"], "token", '${oc.env:NO_TOKEN,"a,b}"}', "a,b}"),
        (["token='${oc.env:NO_TOKEN,${oc.env:MY_TOKEN}}'"], "token", '${oc.env:NO_TOKEN,"${oc.env:MY_TOKEN}"}', SECRET),
        (["token='${oc.env:NOWHERE,${oc.env:MY_TOKEN}}'"], "token", "${oc.env:MY_TOKEN}", SECRET),
        (["url='${oc.env:MY_TOKEN}'", "token='${strategy.url}'"], "token", "${oc.env:MY_TOKEN}", SECRET),
        (["token='${oc.decode:${oc.env:MY_TOKEN}}'"], "token", "${oc.env:MY_TOKEN}", SECRET),
        (["url=MY_TOKEN", "token='${oc.env:${strategy.url}}'"], "token", "${oc.env:MY_TOKEN}", SECRET),
        (["headers={a: ['${oc.env:MY_TOKEN}']}"], "headers", {"a": ["${oc.env:MY_TOKEN}"]}, {"a": [SECRET]}),
        (["token='${oc.env:MY_PLACE}'"], "token", PLAIN, PLAIN),
    ],
)
def test_a_secret_stays_a_placeholder_until_its_plug_is_made(secret, tmp_path, words, key, text, value):
    config = kept(*(f"++strategy.{word}" for word in words))
    assert config.strategy[key] == text
    assert SECRET not in dump(config)
    assert getattr(build_plugs(config).strategy, key) == value
    (tmp_path / "config.yaml").write_text(dump(config))
    assert getattr(build_plugs(load(tmp_path / "config.yaml")).strategy, key) == value


def test_a_run_is_known_by_the_placeholder_not_by_the_value(secret, monkeypatch):
    word = "++strategy.token='${oc.env:MY_TOKEN}'"
    known = identity(kept(word), {})
    monkeypatch.setenv("MY_TOKEN", "another")
    assert identity(kept(word), {}) == known != identity(kept(), {})


def test_a_secret_that_is_not_set_is_told_by_key_and_variable(monkeypatch):
    monkeypatch.delenv("MY_TOKEN", raising=False)
    with pytest.raises(ConfigError, match=r"strategy\.headers\.a\[0\]: the environment variable is not set; .*MY_TOKEN"):
        kept("++strategy.headers={a: ['${oc.env:MY_TOKEN}']}")


@pytest.mark.parametrize("word", ["strategy.count='${oc.env:MY_TOKEN}'", "strategy.url='bad${oc.env:MY_TOKEN}'"])
def test_no_message_about_a_plug_tells_a_secret(secret, monkeypatch, word):
    for value in (SECRET, "quo'te\"d\\n\u00e9"):
        monkeypatch.setenv("MY_TOKEN", value)
        with pytest.raises(ConfigError) as caught:
            kept(f"++{word}")
        said = str(caught.value)
        assert "${oc.env:MY_TOKEN}" in said and value not in said and "quo" not in said


def test_what_a_plug_reports_can_be_concealed_by_its_configuration(secret):
    config = kept("++strategy.token='${oc.env:MY_TOKEN}'")
    assert conceal(f"401 for {SECRET} of {PLAIN}", config.strategy) == "401 for ${oc.env:MY_TOKEN} of " + PLAIN
    assert conceal("nothing", {}) == "nothing"


def test_a_value_is_not_read_as_a_placeholder_again(secret, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "${oc.env:OTHER_TOKEN}")
    assert reveal("${oc.env:MY_TOKEN}", "x") == "${oc.env:OTHER_TOKEN}"
    assert reveal("${oc.env:HOME} ${MY_TOKEN}", "x") == "${oc.env:HOME} ${MY_TOKEN}"


@pytest.mark.parametrize("key", ["output.root", "name", "run", "train.epochs", "plugins", "study.treatment"])
def test_a_key_that_is_written_into_the_run_folder_takes_no_secret(secret, key):
    value = "['${oc.env:MY_TOKEN}']" if key == "plugins" else "'${oc.env:MY_TOKEN}'"
    with pytest.raises(ConfigError) as caught:
        compose([f"{key}={value}"])
    line = str(caught.value).splitlines()[0]
    assert line.startswith(f"{key}: is written into the run folder") and "another name" not in line
    assert "name does not read as a secret's" in line and SECRET not in str(caught.value)


def test_arms_and_stages_may_hold_a_plugs_secret_and_no_others(secret):
    arm = {"strategy": {"token": "${oc.env:MY_TOKEN}"}}
    config = kept("++study.arms.finetune={strategy: {token: '${oc.env:MY_TOKEN}'}}", "++strategy.token=null")
    assert config.study.arms["finetune"]["strategy"] == arm["strategy"]
    assert build_plugs(overlay(config, arm, "study.arms.finetune")).strategy.token == SECRET  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"output\.root: is written into the run folder"):
        overlay(config, {"output": {"root": "${oc.env:MY_TOKEN}"}}, "study.arms.finetune")
    stages = kept("stages=[{name: a, overrides: ['++strategy.token=${oc.env:MY_TOKEN}']}]").stages
    assert kept(*stages[0].overrides).strategy["token"] == "${oc.env:MY_TOKEN}"


def test_every_way_to_print_or_sweep_a_configuration_keeps_the_secret(secret, capsys, tmp_path):
    words = [*BASE, "++strategy.token='${oc.env:MY_TOKEN}'", "++strategy.url='x ${oc.env:MY_PLACE}'"]
    for command in (["show"], ["train", "--cfg", "job", "--resolve"], ["train", "--cfg", "all", "--resolve"]):
        with pytest.raises(SystemExit):
            main([*command, *words, f"output.root={tmp_path}"])
        out, err = capsys.readouterr()
        assert "${oc.env:MY_TOKEN}" in out and PLAIN in out and SECRET not in out + err
    from headswap import hydra_app

    swept = []

    def job(tree, overrides):
        compose(words)  # as a job of a sweep does for its stages
        swept.append(tree["strategy"]["token"])

    hydra_app.multirun([*words, "seed=1,2", f"output.root={tmp_path}"], [], job)
    assert swept == ["${oc.env:MY_TOKEN}"] * 2


def test_other_users_of_omegaconf_in_the_process_are_left_alone(secret):
    from omegaconf import OmegaConf

    kept("++strategy.token='${oc.env:MY_TOKEN}'")
    tree = OmegaConf.create({"token": "${oc.env:MY_TOKEN}"})
    assert tree.token == SECRET
    with secrets_kept():
        assert tree.token == "${oc.env:MY_TOKEN}"
    assert tree.token == SECRET


# Classes and YAML


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


@pytest.mark.parametrize("tag", ["object/apply:os.system", "object/new:os.system", "object/apply:subprocess.check_call"])
def test_a_yaml_tag_that_makes_an_object_is_refused_wherever_it_stands(tag, tmp_path, marker):
    text = f"# x\nname: !!python/{tag} ['{'touch ' + str(marker)}']\n"
    if "Popen" not in tag and "check_call" not in tag:
        yaml.unsafe_load(text)
        assert marker.exists()
        marker.unlink()
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml: cannot be read as a configuration; found .*python/") as caught:
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
    ("key", "node", "from_a_job"),
    [
        ("callbacks", {"evil": {"_target_": "shutil.copyfile", **COPY}}, False),
        ("hydra_logging", HANDLER, False),
        ("job_logging", HANDLER, True),
        ("job", {"env_set": {"PYTHONPATH": "MARKER"}}, True),
    ],
)
@pytest.mark.parametrize("experiments", ["mine", "demo,mine"])
def test_a_sweep_refuses_what_hydra_would_run_by_itself(
    key, node, from_a_job, experiments, tmp_path, marker, monkeypatch
):
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
            command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **values}, cwd=tmp_path
        )
        said = done.stdout + done.stderr
        assert said and [name for name, value in values.items() if value in said] == []


def test_a_report_renders_no_environment_variable_and_no_secret_of_a_configuration(tmp_path, secret):
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
