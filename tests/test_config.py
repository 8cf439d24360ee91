"""Configurations are typed, checked at once, refused with the near key, and survive the trip through YAML."""

from dataclasses import dataclass

import pytest

from headswap import config as configuration
from headswap.config import build, compose, conf_dir, dump, from_dict, load, to_dict
from headswap.errors import ConfigError
from headswap.identity import identity
from headswap.overlays import overlay
from headswap.phases import Strategy


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    return str(caught.value)


def test_the_default_composes_with_typed_values():
    config = compose()
    assert (config.choices["task"], config.choices["body"]) == ("tweets", "minilm")
    assert config.train.learning_rate == 5e-5
    assert list(config.metric) == ["accuracy", "macro_f1", "matthews"]


def test_overrides_reach_spine_and_plugs():
    config = compose(["seed=7", "train.learning_rate=3e-5", "task.label_smoothing=0.1", "metric=[macro_f1]"])
    assert (config.seed, config.train.learning_rate, config.task["label_smoothing"]) == (7, 3e-5, 0.1)
    assert list(config.metric) == ["macro_f1"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.learnin_rate=1", r"train.learnin_rate: no such key \(did you mean train.learning_rate\b"),
        ("learning_rate=1", r"learning_rate: no such key \(did you mean train.learning_rate\b"),
        ("task=tweet", r"task: no such option; found tweet \(did you mean tweets"),
        ("train.epochs=abc", "train.epochs: wrong type; found 'abc'; set a value of type Float"),
        ("train.batch_size=1.5", "train.batch_size: wrong type; found '1.5'"),
        ("seed=null", "seed: cannot be null"),
        ("train", "train: not an override; .*; write key=value"),
        ("~study.arms.x", "~study.arms.x: not an override; .*'study.arms.x' does not exist"),
        ('task.label_map={"0":no}', r'^task.label_map=\{"0":no\}: not a value that can be read; .*keys unquoted$'),
        ("+foo=1", "foo: no such key"),
        ("task.labell=x", r"task.labell: no such key \(did you mean task.label"),
        ("body.init=scratch", "body.init: .*found 'scratch'"),
        ("train.batch_size=0", "train.batch_size: must be above 0; found 0"),
        ("train.schedule=step", "train.schedule: unknown choice; found 'step'; choose one of linear, cosine, constant"),
        ("train.warmup_share=2", r"train.warmup_share: must lie in \[0, 1\); found 2.0"),
        (
            "train.save_every=5",
            "train.save_every: holds several keys; found 5; set one of them, such as train.save_every.steps, ",
        ),
        ("train.micro_batch_size=5", "train.micro_batch_size: must divide train.batch_size; found 5 and 32"),
        ("study.control=nothing", "study.control: no such arm; found 'nothing'; choose one of finetune, scratch"),
        ("study.sizes=[100,100]", "study.sizes: a size stands twice"),
        ("metric=[]", "metric: no metric is chosen"),
        ("task._target_=os.system", "task._target_: only classes of headswap may be named; found os.system"),
        ("task._target_=headswap.errors.nearest", "task._target_: must be a dataclass"),
        ("task._target_=headswap.tasks.text_classification.Foo", "task._target_: cannot be imported"),
        ("strategy._target_=headswap.heads.fresh.Fresh", "strategy._target_: does not serve as a Strategy"),
        ("task.label_smoothing=abc", "task.label_smoothing: must be a number; found 'abc'"),
    ],
)
def test_a_fault_names_the_key_what_was_found_and_the_remedy(override, message):
    import re

    assert re.search(message, refused(override)), refused(override)


def test_all_faults_are_told_at_once():
    said = refused("train.batch_size=0", "train.schedule=step", "body.init=scratch")
    assert [line.split(":")[0] for line in said.splitlines()] == ["train.batch_size", "train.schedule", "body.init"]


def test_a_broken_yaml_file_is_named_with_its_line(tmp_path):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text("a: [1\nb: 2\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml, line \d+: not valid YAML"):
        compose(["task=mine"], [tmp_path])


def test_users_add_options_with_a_config_dir_and_a_searchpath(tmp_path):
    (tmp_path / "strategy").mkdir()
    (tmp_path / "strategy" / "mine.yaml").write_text("# Mine\n_target_: headswap.strategies.probe.Probe\n")
    assert compose(["strategy=mine"], [tmp_path]).choices["strategy"] == "mine"
    assert compose([f"hydra.searchpath=[file://{tmp_path}]", "strategy=mine"]).choices["strategy"] == "mine"


def test_a_config_survives_the_trip_through_yaml(tmp_path):
    config = compose(["train.learning_rate=3e-5", "train.max_steps=4"])
    (tmp_path / "config.yaml").write_text(dump(config))
    assert load(tmp_path / "config.yaml") == config


def test_identity_ignores_paths_and_hardware_but_not_data_or_recipe():
    config = compose()
    known = identity(config, {"task": {"a.csv": "1"}})
    same = from_dict(
        to_dict(config)
        | {"hardware": {"device": "cpu", "threads": 1}, "output": {"root": "elsewhere"}, "name": "other"}
    )
    assert identity(same, {"task": {"a.csv": "1"}}) == known
    assert identity(config, {"task": {"a.csv": "2"}}) != known
    assert identity(overlay(config, {"train": {"epochs": 4}}, "test"), {"task": {"a.csv": "1"}}) != known
    assert identity(overlay(config, {"seed": 1}, "test"), {"task": {"a.csv": "1"}}) != known


def test_an_overlay_refuses_keys_that_are_not_there():
    with pytest.raises(
        ConfigError, match=r"study.arms.x: no such key; found train.learn_rate \(did you mean train.learning_rate"
    ):
        overlay(compose(), {"train": {"learn_rate": 1.0}}, "study.arms.x")


@dataclass(frozen=True)
class Mine:
    share: float = 1.0

    def phases(self, names):
        return []


def test_a_plug_of_an_allowed_package_is_built_and_any_other_refused():
    node = {"_target_": f"{__name__}.Mine", "share": 1}
    built = build(node, "strategy", Strategy, [__name__])
    assert built == Mine(1.0)
    with pytest.raises(ConfigError, match="add its package to plugins"):
        build(node, "strategy", Strategy)


def test_a_mandatory_field_says_what_to_set():
    assert "metric.evaluate.path: needs a value; found none; set metric.evaluate.path=..." in refused(
        "metric=[evaluate]"
    )


def test_composing_twice_in_a_process_is_safe():
    assert compose(["seed=1"]).seed == 1
    assert compose(["seed=2"]).seed == 2
    assert configuration.conf_dir() == conf_dir()
