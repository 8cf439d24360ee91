"""Secrets of the environment: a configuration holds their names, and only the plug that asked holds a value."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from headswap import config as configuration
from headswap.cli import main
from headswap.composition import secrets_kept
from headswap.config import build_plugs, compose, dump, load
from headswap.contracts import DataRequest, Splits
from headswap.errors import ConfigError
from headswap.identity import identity
from headswap.overlays import overlay
from headswap.placeholders import conceal, looks_secret, reveal
from headswap.seeds import Seeds
from headswap.tasks.text_classification import TextClassification
from tiny_runs import reviews, words_of

SECRET, PLAIN = "tok-5f3e91c2-value", "an ordinary value"
KEEPER = "strategy._target_=test_secrets.Keeper"
BASE = ["plugins=[test_secrets]", f"++{KEEPER}"]


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


@dataclass(frozen=True)
class Paid(TextClassification):
    """A task whose rows need a secret."""

    token: str | None = None

    def load(self, request: DataRequest, seeds: Seeds) -> Splits:
        if self.token != os.environ["MY_TOKEN"]:
            raise ConfigError(f"task.token: not the right one; found {self.token}; correct it")
        return super().load(request, seeds)


def kept(*words: str) -> configuration.Config:
    return compose([*BASE, *words])


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
    with pytest.raises(
        ConfigError, match=r"strategy\.headers\.a\[0\]: the environment variable is not set; .*MY_TOKEN"
    ):
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


def test_a_run_uses_the_secret_and_neither_its_folder_nor_its_output_holds_it(secret, tiny_body, tmp_path):
    words = words_of(reviews(tmp_path / "reviews.csv"), tiny_body, tmp_path / "outputs")
    words += ["plugins=[test_secrets]", "task._target_=test_secrets.Paid", "task.token='${oc.env:MY_TOKEN}'"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-m", "headswap", "train", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, env=environment)
    folder = Path(done.stdout.splitlines()[-1])
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert (folder / "result.json") in files and "${oc.env:MY_TOKEN}" in (folder / "config.yaml").read_text()
    assert [path.name for path in files if SECRET.encode() in path.read_bytes()] == []
    assert SECRET not in done.stdout + done.stderr
