"""Studies with arms that train no body: real tiny runs, every table, warning and figure, and the arms of the shipped studies."""

import argparse
import dataclasses
import html
import io
import re

import pytest
import yaml
from rich.console import Console

from headswap.config import compose, conf_dir
from headswap.errors import ConfigError
from headswap.records import read_json
from headswap.study import execute, tables
from headswap.study.figures import figures
from headswap.study.plan import Arm, audit, plan
from headswap.study.report import terminal_table
from headswap.study.verdict import verdict
from test_chains import in_this_process
from test_readme import blocks
from tiny_runs import reviews, tiny

SIZES = [20, 35]
TFIDF = "headswap.baselines.tfidf.TfIdf"
MAJORITY = "headswap.baselines.majority.Majority"
ARMS = [f"+study.arms.tfidf.baseline._target_={TFIDF}", f"+study.arms.majority.baseline._target_={MAJORITY}"]


def configured(table, body, root, *overrides):
    fixed = [
        "study.sizes=[20,35]",
        "study.seeds=2",
        "output.keep_model=false",
        "train.max_steps=3",
    ]
    return tiny(table, body, root, *fixed, *ARMS, *overrides)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    return reviews(tmp_path_factory.mktemp("tables") / "reviews.csv", 80)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def studied(table, tiny_body, root):
    """Return a function that executes a study in this process; its runs are shared."""

    def run(*overrides):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(execute, "run_jobs", in_this_process)
            return execute.execute(configured(table, tiny_body, root, *overrides))

    return run


@pytest.fixture(scope="module")
def study(studied):
    return studied()


def page_of(study):
    """Return the page's words without the drawing library."""
    text = study.report.read_text(encoding="utf-8")
    return html.unescape(re.sub(r"<script>.{100000,}?</script>", "", text, flags=re.DOTALL))


def test_every_arm_is_set_against_the_control_on_the_same_test_rows(study):
    found = study.comparison
    assert found.excluded == ()
    assert found.arms == ("finetune", "scratch", "majority", "tfidf")
    assert found.baselines == ("majority", "tfidf")
    assert [(each.treatment, each.size, len(each.pairs)) for each in found.contrasts] == [
        (arm, size, 2) for arm in ("finetune", "majority", "tfidf") for size in SIZES
    ]
    assert {score.rows["train"] for score in found.scores} == {16, 28}


def test_only_trained_arms_have_curves_and_ledgers(study):
    assert {curve.arm for curve in study.comparison.curves} == {"finetune", "scratch"}
    assert {arm for arm, ledger in study.comparison.ledgers.items() if ledger} == {"finetune", "scratch"}
    by_name = {figure.name: figure for figure in figures(study.comparison)}
    assert set(by_name["curves"].arms) == {"finetune", "scratch"}
    assert set(by_name["labels"].arms) == {"finetune", "scratch", "majority", "tfidf"}


def test_a_baseline_is_warned_of_neither_as_collapsed_nor_as_another_device(study):
    said = " ".join(study.comparison.warnings)
    assert "majority" not in said and "tfidf" not in said and "Mixed" not in said
    assert study.comparison.environment["precision"] == ("fp32",)


def test_in_a_terminal_many_arms_stand_one_below_another(study):
    console = Console(width=80, file=io.StringIO())
    console.print(terminal_table(study.comparison))
    lines = console.file.getvalue().splitlines()
    assert any(re.search(r"20 │ tfidf +│ \d", line) for line in lines) and "…" not in "".join(lines)
    assert sum(" tfidf " in line for line in lines) == 2


def test_the_report_shows_what_a_baseline_read_and_no_more(study):
    page = page_of(study)
    assert "majority, tfidf: without a body; a choice of settings is validation's" in page
    configs = study.comparison.configs
    assert "train" not in configs["tfidf"] and "body" not in configs["tfidf"] and "train" in configs["scratch"]
    keys = {row[0]: row[1:] for row in tables.differing_table(configs, "").rows}
    assert keys["baseline._target_"] == ("–", "–", MAJORITY, TFIDF)
    cost = [row for row in tables.cost_table(study.comparison).rows if row[0] == "tfidf"]
    assert [(row[3], row[4]) for row in cost] == [("0", "16"), ("0", "28")]
    assert read_json(study.folder / "comparison.json")["scores"][-1]["steps"] == 0


def test_a_baseline_can_be_the_treatment_or_the_control_once_it_is_declared(studied):
    with pytest.raises(ConfigError) as caught:
        studied("study.treatment=tfidf")
    assert str(caught.value).startswith(
        "study.may_differ: arms tfidf and scratch differ in keys it does not name; found baseline._target_ "
        f"({TFIDF} against None), baseline.balanced (False against None)"
    )
    assert "train" not in str(caught.value) and "body" not in str(caught.value)
    found = studied("study.treatment=finetune", "study.control=tfidf", "study.may_differ=[baseline]")
    statements = verdict(found.comparison)
    assert any(one.startswith("No speed is named: tfidf did not train in steps") for one in statements)
    assert statements[-1].endswith("of the pretrained body tfidf has nothing, its tokenizer included.")
    assert not any("Transfer hurt" in one for one in statements)
    both = studied("study.treatment=tfidf", "study.control=majority", "study.may_differ=[baseline]")
    assert both.comparison.primary is not None and "tfidf" in page_of(both)
    assert all(record.reused for record in execute_records(both) if record.arm in ("tfidf", "majority"))


def execute_records(study):
    return [execute.RunRecord(**one) for one in read_json(study.folder / "runs.json")]


def test_a_baseline_of_the_whole_experiment_is_refused(table, tiny_body, root):
    with pytest.raises(
        ConfigError, match=r"^baseline: would stand in every arm of the study; found tfidf; set it in an"
    ):
        plan(configured(table, tiny_body, root, "baseline=tfidf"))


def test_an_arm_whose_task_it_cannot_serve_is_refused(table, tiny_body, tmp_path):
    words = ["task=masked_language_modeling", f"task.source={table}", "task.text=[text]", "body=transformer"]
    with pytest.raises(ConfigError, match=r"^baseline: TfIdf cannot serve this task; found masked_language_modeling"):
        plan(compose([*words, f"body.source={tiny_body}", "study.sizes=[]", f"output.root={tmp_path}", *ARMS]))


def words_of_tweets(body, root, *more):
    return [
        f"body.source={body}",
        "body.sha256=null",
        "body.mirrors=[]",
        "body.revision=null",
        f"output.root={root}",
        *more,
    ]


def test_the_full_study_is_fair_and_its_cheap_arms_come_last(tiny_body, tmp_path):
    config = compose(words_of_tweets(tiny_body, tmp_path, "study=full", "study.seeds=1", "study.sizes=[100]"))
    made = {cell.arm: cell.job.config for cell in plan(config)}
    assert list(made) == ["scratch_long", "probe", "scratch", "mean_var", "finetune", "lp_ft", "tfidf", "majority"]
    assert made["scratch_long"].train.epochs == 4 * made["scratch"].train.epochs
    assert made["mean_var"].body["init"] == "mean_var"
    for pair in (("probe", "scratch"), ("scratch_long", "scratch"), ("finetune", "tfidf"), ("tfidf", "majority")):
        audit(made, *pair, config.study.may_differ)


def test_a_chains_study_trains_no_stage_for_a_baseline(tiny_body, tmp_path):
    words = words_of_tweets(
        tiny_body, tmp_path, "experiment=self_pretrain", "study.sizes=[20]", "study.seeds=1", ARMS[0]
    )
    flags = argparse.Namespace(overrides=words, config_dir=[])
    counts = {cell.arm: cell.count for cell in plan(compose(words), flags)}
    assert counts == {"chain": 2, "alone": 1, "pretrained": 1, "tfidf": 1}


def test_attribution_takes_outside_weights_self_pretraining_and_scale_apart(tiny_body, tmp_path):
    words = words_of_tweets(tiny_body, tmp_path, "experiment=attribution", "study.sizes=[20]", "study.seeds=1")
    flags = argparse.Namespace(overrides=words, config_dir=[])
    config = compose(words)
    cells = {cell.arm: cell for cell in plan(config, flags)}
    assert {arm: cell.count for arm, cell in cells.items()} == {
        "pretrained": 1, "self_pretrained": 2, "mean_var": 1, "scratch": 1,
    }  # fmt: skip
    starts = {arm: cell.job.config.body["init"] for arm, cell in cells.items()}
    assert starts == {
        "pretrained": "pretrained",
        "self_pretrained": "random",
        "mean_var": "mean_var",
        "scratch": "random",
    }
    first = cells["self_pretrained"].job.config
    assert first.choices["task"] == "own_texts" and (first.data.train_rows, first.data.validation_rows) == (16, 4)
    recipes = {
        (cell.job.config.train.epochs, cell.job.config.train.learning_rate)
        for arm, cell in cells.items()
        if arm in ("mean_var", "scratch")
    }
    assert len(recipes) == 1  # else scale and recipe could not be told apart
    finals = {arm: Arm(config, arm, 20, 0, flags).final() for arm in cells}
    audit(finals, "self_pretrained", "scratch", config.study.may_differ)


def test_an_arm_that_is_a_chain_needs_an_experiment_of_stages(tiny_body, tmp_path):
    with pytest.raises(
        ConfigError, match=r"^study.arms.self_pretrained.stages: the arm is a chain of stages, which the"
    ):
        plan(compose(words_of_tweets(tiny_body, tmp_path, "study=attribution")))


def test_the_shipped_studies_name_baselines_of_conf():
    for name in ("tfidf", "majority"):
        option = yaml.safe_load((conf_dir() / "baseline" / f"{name}.yaml").read_text())
        arm = yaml.safe_load((conf_dir() / "study" / "full.yaml").read_text())["arms"][name]
        assert arm["baseline"]["_target_"] == option["_target_"]


def test_the_arm_that_the_page_shows_can_be_planned(table, tiny_body, root):
    page = (conf_dir().parent / "docs" / "comparing.md").read_text(encoding="utf-8")
    (shown,) = blocks(page.split("\n## Cheap baselines\n")[1].split("\n## ")[0], "yaml")
    told = yaml.safe_load(shown)
    config = configured(table, tiny_body, root, "study.treatment=tfidf", f"study.may_differ={told['may_differ']}")
    study = dataclasses.replace(config.study, arms=config.study.arms | told["arms"])
    (arm,) = {
        cell.job.folder.path
        for cell in plan(dataclasses.replace(config, study=study))
        if cell.arm == "tfidf" and (cell.size, cell.seed) == (20, 0)
    }
    assert arm.name.startswith("text-tfidf-seed0-")
