"""Every shipped experiment trains: two steps on a tiny body, its stages one after another."""

import argparse
import json

import pytest
import yaml

from headswap import config as configuration
from headswap.config import compose, conf_dir
from headswap.launch import folder_of
from headswap.records import read_json, read_jsonl, write_text
from headswap.run import run
from headswap.stages import stage_configs
from headswap.study.plan import plan
from tiny_tables import written

FILES = {path.stem: yaml.safe_load(path.read_text()) for path in (conf_dir() / "experiment").glob("*.yaml")}
EXPERIMENTS = sorted(FILES)
STUDIES = sorted(name for name, tree in FILES.items() if "stages" not in tree)  # a chain of runs is no study


OWN = {"source_to_target": ["stages.source.task=tweets_binary", "stages.target.task=tweets"]}  # it asks for two sets


WRITTEN = {"translation_rnn": ("en", "de"), "summarization_rnn": ("document", "summary")}


def body_of(name, body, root):
    """Return what an experiment is told of its body; where that is drawn at random, of the tokenizer and the pairs."""
    if name == "length":
        return ["task.length=32"]  # its tokenizer comes with the package
    if name == "long_documents":
        return long_documents(body, root)
    if name not in WRITTEN:
        return [f"body.source={body}", "body.sha256=null", "body.mirrors=[]", "body.revision=null"]
    table = root / "pairs.jsonl"
    text, target = WRITTEN[name]
    rows = [{text: f"the film {number} was good", target: f"{number} a good film"} for number in range(100)]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [f"body.tokenizer_source={body}", f"task.source={table}", "task.max_target_length=8", "study.sizes=[16]"]


def long_documents(body, root):
    """Write labelled texts and the words to put around them; return what the experiment is told of both."""
    rows = [(f"a {('bad', 'good')[number % 2]} film {number}", ("neg", "pos")[number % 2]) for number in range(100)]
    source, filler = written(root / "texts.csv", rows), written(root / "prose.csv", [["word " * 200]], header=("text",))
    given = [f"task.source={source}", "task.label=label", f"task.filler={filler}", "task.words=8"]
    return [*given, f"body.tokenizer_source={body}"]


def small(name, body, root):
    """Return overrides that keep an experiment's shape and make it little."""
    return [
        f"experiment={name}", *body_of(name, body, root),
        "train.max_steps=2", "data.train_rows=16", "data.validation_rows=8", "data.test_rows=8", "data.max_length=32", "hardware=cpu",
        "hardware.threads=1", "train.precision=fp32", f"output.root={root}",
        *OWN.get(name, []),
    ]  # fmt: skip


def trained(overrides):
    """Train all stages in this process, as `headswap train` does in children; return name -> folder."""
    flags = argparse.Namespace(overrides=overrides, config_dir=[])
    folders = {}
    for name, config in stage_configs(compose(overrides), flags):
        folder = folders[name] = folder_of(config)
        write_text(folder / "config.yaml", configuration.dump(config))
        run(config, folder, lambda line: None)
    return folders


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """Keep the config.json of bodies from settings out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def folders(tiny_body, tmp_path_factory):
    """Train every experiment, once."""
    root = tmp_path_factory.mktemp("experiments")
    return {name: trained(small(name, tiny_body, root)) for name in EXPERIMENTS}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_trains_two_steps_with_all_its_stages(folders, name):
    stages = FILES[name].get("stages", [{"name": "run"}])
    assert list(folders[name]) == [stage["name"] for stage in stages]
    for folder in folders[name].values():
        assert folder.path.parent.name == name
        assert folder.result()["steps"] == 2
        assert folder.result()["rows"] == {"train": 16, "validation": 8, "test": 8}
        assert [line["step"] for line in read_jsonl(folder / "metrics.jsonl") if line["kind"] == "train"] == [1, 2]


@pytest.mark.parametrize("name", STUDIES)
def test_the_study_of_an_experiment_can_be_planned(name, tiny_body, tmp_path):
    config = compose(small(name, tiny_body, tmp_path))
    sizes = config.study.sizes or [None]  # none named: all rows
    assert len(plan(config)) == len(config.study.arms) * len(sizes) * config.study.seeds


def test_two_to_three_hands_the_body_and_the_rows_of_shared_labels_on(folders):
    two, three = folders["two_to_three"].values()
    config = configuration.load(three / "config.yaml")
    assert (config.run, config.body["source"]) == (str(two.path), str(two.path))
    assert two.result()["labels"] == ["negative", "positive"]
    ledger = read_json(three / "ledger.json")
    assert (ledger["copied_labels"], ledger["new_labels"]) == (["negative", "positive"], ["neutral"])


def test_words_about_the_body_go_to_the_first_stage_and_others_to_all(tiny_body, tmp_path):
    overrides = [
        "experiment=two_to_three",
        "body=transformer",
        f"body.source={tiny_body}",
        "seed=7",
        f"output.root={tmp_path}",
    ]
    flags = argparse.Namespace(overrides=overrides, config_dir=[])
    (_, two), (_, three) = stage_configs(compose(overrides), flags)
    assert (two.choices["body"], two.body["source"], two.seed) == ("transformer", str(tiny_body), 7)
    assert (three.choices["body"], three.body["source"], three.seed) == ("from_run", str(folder_of(two).path), 7)
    assert (two.choices["task"], three.choices["task"]) == ("tweets_binary", "tweets")
