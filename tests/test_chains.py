"""Stages: a chain of runs as an arm of a study, what its lineage says, and whose texts self-pretraining reads."""

import argparse
import html

import pytest
import yaml

from headswap.config import build, compose
from headswap.contracts import DataRequest, Task
from headswap.errors import ConfigError
from headswap.launch import Outcome
from headswap.lineage import lineage, told
from headswap.overview import print_plan
from headswap.records import read_json
from headswap.seeds import Seeds
from headswap.stages import Chain, stage_configs
from headswap.study import execute
from headswap.study.plan import judged, plan, study_folder
from tiny_runs import ran, reviews

CHAIN = {
    "defaults": [{"override /study": "stages"}],
    "name": "chain",
    "stages": [
        {"name": "first", "sized": True, "overrides": ["task=own_texts", "train.max_steps=3"]},
        {"name": "second", "overrides": ["body=from_run", "head=fresh"], "alone": ["train.max_steps=2"]},
    ],
}


def words(table, body, root, *more):
    return [
        "experiment=chain", "task=text", f"task.source={table}", "task.text=[text]", "task.label=label",
        "task.validation_share=0.2", "task.test_share=0.2", "body=transformer", f"body.source={body}", "data.max_length=32",
        "train.max_steps=2", "train.batch_size=8", "train.evaluations=1", "train.precision=fp32", "hardware=cpu",
        "hardware.threads=1", f"output.root={root}", "study.sizes=[20]", "study.seeds=2", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    return reviews(tmp_path_factory.mktemp("tables") / "reviews.csv")


@pytest.fixture(scope="module")
def conf(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("conf")
    (folder / "experiment").mkdir()
    (folder / "experiment" / "chain.yaml").write_text("# @package _global_\n" + yaml.safe_dump(CHAIN, sort_keys=False))
    return str(folder)


@pytest.fixture(scope="module")
def flags(table, conf, tiny_body, tmp_path_factory) -> argparse.Namespace:
    root = tmp_path_factory.mktemp("outputs")
    return argparse.Namespace(overrides=words(table, tiny_body, root), config_dir=[conf])


def in_this_process(jobs, workers, on_event):
    outcomes = []
    for job in jobs:
        reused = job.folder.finished
        said = {"kind": "finished"} if reused else ran(job.folder.path, job.config)
        outcomes.append(Outcome(job, said["kind"] == "finished", reused, said.get("error", "")))
    return outcomes


@pytest.fixture(scope="module")
def study(flags):
    config = compose(flags.overrides, flags.config_dir)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(execute, "run_jobs", in_this_process)
        return execute.execute(judged(config, flags), plan(config, flags))


def runs(study, arm):
    found = [one for one in read_json(study.folder / "runs.json") if one["arm"] == arm]
    return [(study.folder / one["folder"]).resolve() for one in found]


def new_head(folder):
    entries = read_json(folder / "ledger.json")["entries"]
    return {each["name"]: each["sha256"] for each in entries if (each["part"], each["fate"]) == ("head", "new")}


def test_a_chain_is_an_arm_and_its_last_run_is_what_counts(study):
    comparison = read_json(study.folder / "comparison.json")
    assert comparison["study"]["treatment"] == "chain" and comparison["study"]["control"] == "alone"
    (contrast,) = comparison["contrasts"]
    assert len(contrast["pairs"]) == 2
    for chain, alone in zip(runs(study, "chain"), runs(study, "alone"), strict=True):
        scores = [read_json(folder / "result.json")["scores"]["test"]["accuracy"] for folder in (chain, alone)]
        assert any(pair["treatment"] == scores[0] and pair["control"] == scores[1] for pair in contrast["pairs"])
        assert new_head(chain) == new_head(alone)


def test_the_last_stage_alone_starts_from_the_first_ones_body(study, tiny_body):
    for folder in runs(study, "alone"):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["body"]["source"] == str(tiny_body) and config["train"]["max_steps"] == 2
        assert read_json(folder / "run.json")["lineage"] == []


def test_sizes_cut_the_last_stage_and_the_ones_that_are_sized(study):
    for folder in runs(study, "chain"):
        first = folder.parent / read_json(folder / "run.json")["lineage"][0]["run"]
        for made in (folder, first):
            assert read_json(made / "result.json")["rows"]["train"] == 16
            assert read_json(made / "result.json")["rows"]["validation"] == 4


def test_self_pretraining_reads_the_training_rows_of_what_follows_and_no_test_row(study, flags):
    folder = runs(study, "chain")[0]
    first = folder.parent / read_json(folder / "run.json")["lineage"][0]["run"]
    splits = []
    for made in (folder, first):
        config = yaml.safe_load((made / "config.yaml").read_text())
        task = build(config["task"], "task", Task)
        splits.append(task.load(DataRequest(16, 4), Seeds(config["seed"])))
    for split in ("train", "validation", "test"):
        learned, read = (found.of(split) for found in splits)
        assert list(learned["id"]) == list(read["id"]) and list(learned["text"]) == list(read["text"])
    assert "label" not in splits[1].train.column_names and splits[1].labels.names == ()


def test_the_lineage_names_every_run_back_to_the_root_with_its_weights(study, tiny_body):
    for folder in runs(study, "chain"):
        about = read_json(folder / "run.json")["lineage"]
        (made,) = about
        first = folder.parent / made["run"]
        assert made["sha256"] == {"model.safetensors": read_json(first / "result.json")["sha256"]["model.safetensors"]}
        assert (made["task"], made["origin"], made["rows"]) == ("own_texts", str(tiny_body), 16)
        assert [each["run"] for each in lineage(str(folder))] == [folder.name, first.name]
        said = told(about)
        assert said.startswith("pretrained transformer -> own_texts (full, 16 rows, seed ")
        assert said.split(";")[0] in (folder / "model" / "README.md").read_text()
    assert "pretrained transformer -> own_texts (full, 16 rows, seed 0" in html.unescape(study.report.read_text())


def test_a_body_that_no_run_made_has_no_lineage(tiny_body):
    assert lineage(str(tiny_body)) == [] and lineage("some/hub-id") == [] and told([]) == ""


def test_a_second_execution_trains_nothing(study, flags, monkeypatch):
    def refuse(folder, config):
        raise AssertionError(f"trained again: {folder}")

    monkeypatch.setattr(execute, "run_jobs", in_this_process)
    monkeypatch.setattr("test_chains.ran", refuse)
    config = compose(flags.overrides, flags.config_dir)
    assert execute.execute(judged(config, flags), plan(config, flags)).folder == study.folder


def test_other_stages_are_another_study(flags, conf):
    config = compose(flags.overrides, flags.config_dir)
    known = judged(config, flags)
    changed = judged(config, flags)
    changed.stages = [*changed.stages[:-1], changed.stages[-1].__class__(name="other")]
    assert study_folder(known) != study_folder(changed)


def test_a_failed_stage_fails_its_chain_and_names_the_reason(flags, monkeypatch, tmp_path):
    def failing(jobs, workers, on_event):
        return [Outcome(job, "first" not in job.title, error="no memory") for job in jobs]

    monkeypatch.setattr(execute, "run_jobs", failing)
    cells = plan(compose(flags.overrides, flags.config_dir), flags)
    found = list(zip(cells, execute.run_cells(cells, 1, lambda job, event: None), strict=True))
    assert {(cell.arm, outcome.finished) for cell, outcome in found} == {("chain", False), ("alone", True)}
    assert {outcome.error for cell, outcome in found if cell.arm == "chain"} == {"no memory"}


def test_words_about_a_group_that_a_stage_settles_go_to_the_others(flags):
    chain = Chain(compose(flags.overrides, flags.config_dir), flags)
    assert chain.final().task["label"] == "label"
    name, first = next(iter(chain.configs()))
    assert (name, first.task["of"]["label"], first.train.max_steps) == ("first", "label", 2)


def test_a_word_that_no_stage_would_take_is_refused(flags):
    told = argparse.Namespace(overrides=["experiment=two_to_three", "task.id=x"], config_dir=[])
    with pytest.raises(
        ConfigError, match=r"^task.id: every stage of this experiment settles that itself; found 'task.id=x'"
    ):
        next(stage_configs(compose(["experiment=two_to_three"]), told))


def test_a_word_can_be_said_to_one_stage(flags):
    said = argparse.Namespace(
        overrides=[*flags.overrides, "stages.first.train.max_steps=7"], config_dir=flags.config_dir
    )
    chain = Chain(compose(said.overrides, said.config_dir), said)
    assert next(iter(chain.configs()))[1].train.max_steps == 7 and chain.final().train.max_steps == 2
    said.overrides[-1] = "stages.frist.train.max_steps=7"
    with pytest.raises(
        ConfigError, match=r"^stages.frist: no such stage; found 'frist' \(did you mean first\?\); stages:"
    ):
        chain.final()
    with pytest.raises(ConfigError, match=r"^stages.a.seed: this experiment has no stages"):
        next(stage_configs(compose([]), argparse.Namespace(overrides=["stages.a.seed=1"], config_dir=[])))


def test_a_plan_tells_of_a_chain_what_is_known_before_it_trains(flags, capsys, tmp_path):
    said = argparse.Namespace(overrides=[*flags.overrides, f"output.root={tmp_path}"], config_dir=flags.config_dir)
    print_plan(compose(said.overrides, said.config_dir), said)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "the rest of this stage, and those after it: known once the stage before has trained" in lines
    assert "study runs 6, 0 of them finished already" in lines  # two seeds: two chains of two, two alone
    assert sum(line.endswith(", 1 more after it") for line in lines) == 2
    assert any(line.startswith("full 1 to 2 body 5e-05 ") for line in lines)


def test_a_last_stage_that_says_not_what_it_starts_from_alone_is_refused(flags):
    config = compose(flags.overrides, flags.config_dir)
    config.stages[-1].alone = []
    with pytest.raises(
        ConfigError, match=r"^stages.second.alone: what does it start from without the stages before it"
    ):
        Chain(config, flags).alone()


def test_own_texts_without_a_chain_says_what_it_is_for(tiny_body):
    with pytest.raises(ConfigError, match=r"^task.of: no task whose texts to learn from; found null"):
        build(compose(["task=own_texts"]).task, "task", Task).identity()
