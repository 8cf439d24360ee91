"""A study's figures of the body: its change by layer, and the score by pretrained layers kept."""

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml
from scipy import stats

from headswap.launch import job_of
from headswap.spine import StudyConfig
from headswap.study.figures import figures
from headswap.study.kept_layers import NOTHING, kept
from headswap.study.plan import plan
from headswap.study.report import render
from headswap.study.results import compare, plain
from headswap.study.runs import body_layers
from study_folders import Made, make_study
from tiny_runs import reviews, tiny

STUDY = StudyConfig(arms={"finetune": {}, "scratch": {}})
TWO = Made({"finetune": 0.8, "scratch": 0.7}, sizes=(100, 400), seeds=3, rows=200)
NAMES = ("embeddings", "layer 0", "layer 1")
FULL = {"_target_": "headswap.strategies.full.Full"}
REINIT = "headswap.strategies.reinit_top.ReinitTop"


def measured(folder, changes, alike=None, **more):
    layers = [
        {"layer": name, "weights": 10, "relative_change": change, "cka": like}
        for name, change, like in zip(NAMES, changes, alike or [None] * 3, strict=True)
    ]
    text = json.dumps({"moved": True, "texts": 20, "absent": "", "layers": layers} | more)
    (folder / "body.json").write_text(text, encoding="utf-8")


def figure_of(found, name):
    return next((figure for figure in figures(found) if figure.name == name), None)


def test_a_studys_layers_are_means_over_seeds_with_scipys_t_interval(tmp_path):
    records = make_study(tmp_path, TWO)
    values = {"finetune": [0.02, 0.03, 0.07], "scratch": [0.5, 0.4, 0.9]}
    for record in records:
        if record.size == 400:
            change = values[record.arm][record.seed]
            measured(record.folder, (change, change / 2, change * 2), (0.9 + change / 10, 0.8, 0.5 + change / 10))
    found = compare(records, STUDY, {})
    assert [(each.arm, each.size, each.runs, each.texts) for each in found.body_changes] == [
        ("finetune", 400, 3, 20),
        ("scratch", 400, 3, 20),
    ]
    first = found.body_changes[0]
    assert first.layers == NAMES
    mean = first.relative_change[0]
    low, high = stats.t.interval(0.95, 2, np.mean(values["finetune"]), stats.sem(values["finetune"]))
    assert (mean.mean, mean.low, mean.high) == pytest.approx((0.04, low, high))
    figure = figure_of(found, "body")
    assert figure.arms == ("finetune", "scratch")
    assert [plot.title for plot in figure.plots] == ["How far the weights went", "How alike the outputs are"]
    assert figure.plots[0].data[1]["y"] == pytest.approx([0.04, 0.02, 0.08])
    assert figure.plots[1].data[1]["y"] == pytest.approx([0.904, 0.8, 0.504])
    assert figure.plots[0].layout["yaxis"]["type"] == "log"
    assert min(value for trace in figure.plots[0].data for value in trace["y"]) > 0  # a log axis holds no zero
    assert figure.table.rows[0][:7] == (
        "finetune",
        "embeddings",
        "400",
        "0.0400",
        f"{low:.4f}",
        f"{high:.4f}",
        "0.9040",
    )
    assert figure.table.rows[1][6:] == ("0.8000", "–", "–", "3")  # no spread, so no interval
    assert "layer 1 relative change 0.08" in figure.description and "CKA 0.50" in figure.description
    assert "What training changed in the body" in render(found)
    assert json.loads(json.dumps(plain(first.__dict__ | {"relative_change": []})))["labels"] == 400


def test_runs_without_the_file_are_left_out_and_a_study_without_any_has_no_figure(tmp_path):
    records = make_study(tmp_path, TWO)
    assert figure_of(compare(records, STUDY, {}), "body") is None
    for record in records:
        if record.arm == "finetune" and record.seed < 2:
            measured(record.folder, (0.1, 0.1, 0.1), absent="no outputs were compared: they are too few")
    found = compare(records, STUDY, {})
    assert [(each.arm, each.labels, each.runs) for each in found.body_changes] == [
        ("finetune", 100, 2), ("finetune", 400, 2)
    ]  # fmt: skip
    assert len(found.scores) == 4
    figure = figure_of(found, "body")
    assert [plot.title for plot in figure.plots] == ["How far the weights went"]
    assert "Of finetune no outputs were compared: they are too few." in figure.caption
    assert len(figure.table.rows) == 6


def test_a_body_that_did_not_move_is_said_and_not_drawn_on_the_logarithmic_axis(tmp_path):
    records = make_study(tmp_path, TWO)
    for record in records:
        moved = record.arm == "scratch"
        measured(
            record.folder, (0.0, 0.3, 0.3) if moved else (0, 0, 0), (1.0, 0.5, 0.5) if moved else (1, 1, 1), moved=moved
        )
    figure = figure_of(compare(records, STUDY, {}), "body")
    assert "The body of finetune did not move: 0 and 1 by construction." in figure.caption
    assert [trace["x"] for trace in figure.plots[0].data if trace.get("name")] == [[1, 2]]
    assert [trace.get("name") for trace in figure.plots[1].data if trace.get("name")] == ["finetune", "scratch"]
    assert "finetune: its body did not move" in figure.description


def test_a_damaged_file_leaves_its_run_out_with_the_reason(tmp_path):
    records = make_study(tmp_path, TWO)
    (records[0].folder / "body.json").write_text("{", encoding="utf-8")
    found = compare(records, STUDY, {})
    assert "body.json: not JSON" in found.excluded[0].reason


@pytest.mark.parametrize(
    ("body", "strategy", "count"),
    [
        ({"init": "pretrained"}, FULL, 6),
        ({}, {}, 6),
        ({"init": "random"}, FULL, NOTHING),
        ({"init": "embeddings_only"}, FULL, 0),
        ({"init": "keep_layers", "keep_layers": 4}, FULL, 4),
        ({"init": "mean_var"}, FULL, None),
        ({"init": "pretrained"}, {"_target_": REINIT, "layers": 0}, 6),
        ({"init": "pretrained"}, {"_target_": REINIT, "layers": 5}, 1),
        ({"init": "pretrained"}, {"_target_": REINIT, "layers": 6}, 0),
        ({"init": "pretrained"}, {"_target_": REINIT, "layers": "all"}, NOTHING),
        ({"init": "keep_layers", "keep_layers": 2}, {"_target_": REINIT, "layers": 1}, 2),
        ({"init": "random"}, {"_target_": REINIT, "layers": 0}, NOTHING),
    ],
)
def test_the_number_of_layers_kept_is_read_from_the_configuration(body, strategy, count):
    assert kept({"body": body, "strategy": strategy}, 6) == count


def test_the_bodys_layers_are_counted_by_the_ledgers_names():
    def entries(*names):
        return [{"name": name, "part": "body", "fate": "kept"} for name in names]

    head = {"name": "classifier.7.weight", "part": "head", "fate": "new"}
    bert = [f"bert.encoder.layer.{number}.output.dense.weight" for number in range(12)]
    assert body_layers([*entries("bert.embeddings.word_embeddings.weight", *bert), head]) == 12
    t5 = ["shared.weight", *(f"{half}.block.{n}.layer.0.wo.weight" for half in ("encoder", "decoder") for n in (0, 1))]
    assert body_layers(entries(*t5)) == 4
    bart = [f"model.{half}.layers.{n}.fc1.weight" for half in ("encoder", "decoder") for n in (0, 1, 2)]
    assert body_layers(entries(*bart)) == 6
    assert body_layers([]) == 0


def keeping(folder, arms, seeds=3, layers=2, **more):
    """Fabricate the runs of arms that keep layers: arm -> (test accuracy, what its configuration says)."""
    made = Made({arm: level for arm, (level, _) in arms.items()}, seeds=seeds, rows=200, **{"sizes": (400,), **more})
    records = make_study(folder, made)
    entry = {"part": "body", "fate": "kept"}
    entries = [{"name": f"bert.encoder.layer.{number}.weight", **entry} for number in range(layers)]
    for record in records:
        path = record.folder / "config.yaml"
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        body, strategy, train = (arms[record.arm][1].get(key, {}) for key in ("body", "strategy", "train"))
        config |= {"strategy": strategy or FULL, "train": {"learning_rate": 1e-3} | train}
        config["body"] = {"source": "somewhere", "init": "pretrained"} | body
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        (record.folder / "ledger.json").write_text(json.dumps({"summary": {}, "entries": entries}), encoding="utf-8")
    return records


def reinit(count):
    return {"strategy": {"_target_": REINIT, "layers": count}}


KEPT = {"all_kept": (0.85, reinit(0)), "one": (0.8, reinit(1)), "emb": (0.7, reinit(2)), "none": (0.6, reinit("all"))}
KEPT_STUDY = StudyConfig(arms={arm: {} for arm in KEPT}, treatment="all_kept", control="none")


def test_scores_by_layers_kept_have_paired_differences_to_the_arm_that_keeps_all(tmp_path):
    found = compare(keeping(tmp_path, KEPT), KEPT_STUDY, {})
    assert [(each.arm, each.kept) for each in found.kept_layers] == [
        ("none", NOTHING), ("emb", 0), ("one", 1), ("all_kept", 2)
    ]  # fmt: skip
    scores = {arm: found.score_of(arm, 400).scores for arm in KEPT}
    for each in found.kept_layers[:3]:
        expected = [scores[each.arm][seed] - scores["all_kept"][seed] for seed in range(3)]
        assert each.difference.interval.mean == pytest.approx(np.mean(expected))
        assert [pair.difference for pair in each.difference.pairs] == pytest.approx(expected)
        assert (each.difference.control, each.recipe) == ("all_kept", ())
    assert found.kept_layers[3].difference is None
    figure = figure_of(found, "kept")
    ticks = figure.plots[0].layout["xaxis"]
    assert (ticks["tickvals"], ticks["ticktext"]) == ([-1, 0, 1, 2], ["none", "emb.", "1", "all 2"])
    line = next(trace for trace in figure.plots[0].data if trace.get("name"))
    assert line["y"] == pytest.approx(
        [100 * found.score_of(arm, 400).mean for arm in ("none", "emb", "one", "all_kept")]
    )
    assert [row[:3] for row in figure.table.rows] == [
        ("none", "none", "400"), ("emb", "emb.", "400"), ("one", "1", "400"), ("all_kept", "all 2", "400")
    ]  # fmt: skip
    assert figure.table.rows[0][9] == "worse" and "Other settings" not in figure.caption
    assert "How many pretrained layers it takes" in render(found)


def test_layers_may_be_kept_by_the_bodys_start_and_another_recipe_is_named(tmp_path):
    arms = {
        "finetune": (0.85, {}),
        "kept_1": (0.8, {"body": {"init": "keep_layers", "keep_layers": 1}}),
        "scratch": (0.6, {"body": {"init": "random"}, "train": {"learning_rate": 3e-3}}),
        "scratch_alike": (0.5, {"body": {"init": "random"}}),
        "probe": (
            0.7,
            {"strategy": {"_target_": "headswap.strategies.probe.Probe"}, "body": {"init": "embeddings_only"}},
        ),
        "scale_only": (0.6, {"body": {"init": "mean_var"}}),
    }
    study = StudyConfig(arms={arm: {} for arm in arms})
    found = compare(keeping(tmp_path, arms, seeds=2, sizes=(100, 400)), study, {})
    assert [(each.arm, each.size) for each in found.kept_layers] == [
        (arm, size) for size in (100, 400) for arm in ("scratch_alike", "kept_1", "finetune")
    ]
    figure = figure_of(found, "kept")
    assert len(figure.plots) == 2 and len(figure.table.rows) == 6 and "Runs with 400 labels" in figure.caption
    del arms["scratch_alike"]
    found = compare(keeping(tmp_path / "other", arms, seeds=2), study, {})
    assert [(each.arm, each.recipe) for each in found.kept_layers] == [
        ("scratch", ("train.learning_rate",)), ("kept_1", ()), ("finetune", ())
    ]  # fmt: skip
    assert "not all of it is the layers' (scratch: train.learning_rate)" in figure_of(found, "kept").caption


@pytest.mark.parametrize("arms", [["all_kept", "one"], ["one", "emb", "none"]])
def test_fewer_than_three_numbers_or_none_that_keeps_all_make_no_figure(arms, tmp_path):
    some = {arm: KEPT[arm] for arm in arms}
    found = compare(keeping(tmp_path, some, seeds=1), StudyConfig(arms=some, treatment=arms[0], control=arms[-1]), {})
    assert found.kept_layers == () and figure_of(found, "kept") is None


def test_bodies_of_other_depths_are_not_of_one_curve(tmp_path):
    deep = keeping(tmp_path / "deep", {"all_kept": KEPT["all_kept"], "one": KEPT["one"]}, layers=4)
    flat = keeping(tmp_path / "flat", {"emb": KEPT["emb"], "none": KEPT["none"]}, layers=2)
    assert compare([*deep, *flat], KEPT_STUDY, {}).kept_layers == ()


def test_a_study_that_measures_says_so_to_every_run_of_it(tiny_body, tmp_path):
    table = reviews(tmp_path / "reviews.csv", 60)
    config = tiny(table, tiny_body, tmp_path, "study.sizes=[20]", "study.seeds=1", "study.measure_change=true")
    assert [cell.job.config.train.measure_change for cell in plan(config)] == [True, True]
    silent = replace(config, study=replace(config.study, measure_change=False))
    cells = plan(silent)
    assert [cell.job.config.train.measure_change for cell in cells] == [False, False]
    assert {cell.job.folder.path for cell in cells}.isdisjoint(cell.job.folder.path for cell in plan(config))
    assert job_of(silent).folder.path == job_of(config).folder.path  # the study's own key is no run's
