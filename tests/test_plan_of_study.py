"""What a study costs and could detect is said before it is paid for; estimates are arithmetic on what was timed."""

import argparse
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from headswap.config import compose
from headswap.errors import ConfigError, RunError
from headswap.launch import Outcome
from headswap.pool import Job
from headswap.records import RunFolder, read_json
from headswap.study import execute, power, probe, workers
from headswap.study.costs import Cost, Timed, cost_of, left, makespan
from headswap.study.plan import Planned, other_causes, plan
from study_folders import Made, make_study
from test_chains import conf, words  # noqa: F401 (a fixture)
from test_launch import called
from tiny_runs import ran, reviews, tiny, words_of


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    return reviews(tmp_path_factory.mktemp("tables") / "reviews.csv", 80)


@pytest.fixture
def config(table, tiny_body, tmp_path):
    return tiny(table, tiny_body, tmp_path / "outputs", "study.sizes=[20,40]", "study.seeds=5")


def cells_of(config, folder, made):
    """Return a plan whose runs are fabricated folders."""
    return [
        Planned(each.arm, each.size, each.seed, Job(config, RunFolder(each.folder)))
        for each in make_study(folder, made)
    ]


def share_found(shift, freedom):
    """Return how often a t test at 5 % finds a difference of `shift` standard errors, by simulation."""
    dice = np.random.default_rng(0)
    drawn = dice.normal(shift, 1, 200_000) / np.sqrt(dice.chisquare(freedom, 200_000) / freedom)
    return float(np.mean(np.abs(drawn) > stats.t.ppf(0.975, freedom)))


def told(config, cells, rows=1000):
    return dict(power.sentences(config, cells, rows))


def test_before_any_run_the_detectable_difference_rests_on_stated_assumptions(config):
    said = told(config, plan(config), 1000)
    # By hand: 1 pp between seeds and 10 % of the examples; Satterthwaite's degrees of freedom of the two together.
    error = (0.01**2 / 5 + 0.1 / 1000) ** 0.5
    freedom = (error**2) ** 2 / ((0.01**2 / 5) ** 2 / 4 + (0.1 / 1000) ** 2 / 999)
    form = r"([0-9.]+) pp of accuracy with 80 % power, from 5 paired seeds and 1,000 test rows"
    found = re.fullmatch(form, said["detects"])
    assert share_found(float(found[1]) / 100 / error, freedom) == pytest.approx(0.8, abs=0.02)
    assert "assumed, before 2 pairs have finished" in said["that is"] and "on 10% of the test rows" in said["that is"]
    assert said["twice"].startswith("with 10 seeds ") and "with 2,000 test rows " in said["twice"]
    form = r"1 pp \(study.margin\): more seeds and more test rows together, such as 20 seeds and ([0-9,]+) test rows"
    rows = int(re.fullmatch(form, said["matters"])[1].replace(",", ""))
    assert share_found(0.01 / (0.01**2 / 20 + 0.1 / rows) ** 0.5, 19) == pytest.approx(0.8, abs=0.05)
    wide = replace(config, study=replace(config.study, margin=0.02))
    form = r"2 pp \(study.margin\): about ([0-9,]+) test rows would be needed for it"
    rows = int(re.fullmatch(form, told(wide, plan(wide))["matters"])[1].replace(",", ""))
    assert share_found(0.02 / (0.01**2 / 5 + 0.1 / rows) ** 0.5, 10) == pytest.approx(0.8, abs=0.1)


def test_with_two_finished_pairs_it_rests_on_their_spread(config, tmp_path):
    cells = cells_of(config, tmp_path / "runs", Made({"finetune": 0.9, "scratch": 0.7}, sizes=(100, 400), seeds=2))
    said = told(config, cells, 500)
    assert said["that is"] == "by the spread of 2 finished pairs with 400 labels"
    assert said["detects"].endswith("from 5 paired seeds and 500 test rows")


def test_of_a_metric_over_whole_splits_the_seeds_alone_count(config, tmp_path):
    made = Made({"finetune": 0.9, "scratch": 0.7}, sizes=(100,), seeds=4, metric="macro_f1")
    cells = cells_of(config, tmp_path / "runs", made)
    whole = replace(config, metric=compose(["metric=[macro_f1]"]).metric)
    before = told(whole, plan(config))["detects"]
    assert "not known before runs: how much a difference in macro F1 varies between seeds" in before
    gaps = [
        read_json(tmp_path / "runs" / f"finetune-100-seed{seed}" / "result.json")["scores"]["test"]["macro_f1"]
        - read_json(tmp_path / "runs" / f"scratch-100-seed{seed}" / "result.json")["scores"]["test"]["macro_f1"]
        for seed in range(4)
    ]
    mean = sum(gaps) / 4
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / 3) ** 0.5
    said = told(whole, cells)
    form = r"([0-9.]+) of macro F1 with 80 % power, from 5 paired seeds; its interval is over seeds alone"
    found = re.fullmatch(form, said["detects"])
    assert share_found(float(found[1]) / (deviation / 5**0.5), 4) == pytest.approx(0.8, abs=0.03)
    assert "test rows" not in said["twice"] + said["matters"]


def test_one_seed_detects_nothing(config):
    assert told(replace(config, study=replace(config.study, seeds=1)), [])["detects"].startswith("nothing: one seed")


def timed_run(folder, steps=20, step=0.1, scoring=0.5):
    """Write what a run of known seconds leaves: a slow first step, two scorings of 10 rows, 30 rows scored at last."""
    folder.mkdir()
    lines, clock, trained = [], 100.0, 0.0
    for number in range(1, steps + 1):
        took = step + (2.0 if number == 1 else 0.0)
        clock, trained = clock + took, trained + took
        lines.append({"time": clock, "kind": "train", "step": number, "seconds": trained, "examples": 8 * number})
        if number in (1, steps):
            clock += scoring
            lines.append(
                {"time": clock, "kind": "validation", "step": number, "seconds": trained, "examples": 8 * number}
            )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = {
        "seconds": {"score": 1.5, "total": 12.0},
        "rows": {"train": 40, "validation": 10, "test": 20},
        "steps": steps,
    }
    (folder / "result.json").write_text(json.dumps(result))
    return RunFolder(folder)


def test_a_runs_seconds_are_told_apart_and_give_those_of_another(config, tmp_path):
    cost = cost_of(timed_run(tmp_path / "run"), wall=12.5)
    # 12.5 in all: 20 steps of 0.1, two scorings of 0.5, the last one 1.5; the rest is paid once
    assert (cost.step, cost.watched, cost.scored) == pytest.approx((0.1, 0.05, 0.05))
    assert cost.once == pytest.approx(12.5 - 2.0 - 1.0 - 1.5)
    data = replace(config.data, train_rows=80, validation_rows=20)
    train = replace(config.train, max_steps=None, epochs=4, batch_size=8, evaluations=1)
    # 40 steps of 0.1, one scoring of 20 rows at 0.05, at last 20 + 20 rows at 0.05
    assert cost.of(replace(config, data=data, train=train)) == pytest.approx(8.0 + 4.0 + 1.0 + 2.0)


def test_what_trains_no_steps_takes_what_it_took(config, tmp_path):
    folder = timed_run(tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    assert cost_of(folder, 3.0).of(config) == 3.0


def test_runs_go_to_the_worker_that_is_free_first(config):
    assert makespan([[3.0, 2.0, 2.0], [1.0]], 2) == 5.0
    assert makespan([[3.0, 2.0, 2.0]], 1) == 7.0
    cells = plan(config)
    cost = Cost(5.0, 0.0, 0.0, 0.0, 0.0, {})
    assert left(cells, {arm: [Timed(cost, config)] for arm in config.study.arms}, config) == [[5.0] * 20]


def test_arms_further_than_the_compared_ones_are_told_what_else_they_change(table, tiny_body, tmp_path):
    config = tiny(
        table,
        tiny_body,
        tmp_path,
        "+study.arms.probe={strategy: {_target_: headswap.strategies.probe.Probe}, data: {max_length: 16}}",
    )
    (keys,) = [other_causes(config)["probe"]]
    assert keys["data.max_length"] == (16, 32)
    assert keys["strategy._target_"] == ("headswap.strategies.probe.Probe", "headswap.strategies.full.Full")
    assert "body.init" not in keys


def test_a_plan_says_arms_runs_and_power_and_a_dry_run_of_compare_the_same(capfd, table, tiny_body, tmp_path):
    given = [*words_of(table, tiny_body, tmp_path / "outputs"), "study.sizes=[20]", "study.seeds=2"]
    code, lines, errors = called(capfd, "plan", *given)
    assert (code, errors) == (0, "")
    assert any(
        "arm          finetune (treatment): body.init=pretrained, train.learning_rate=0.0002" in line for line in lines
    )
    assert any(line.split()[:2] == ["study", "detects"] for line in lines)
    assert any(line.split() == ["scratch", "0", "of", "2"] for line in lines)
    assert any(line.split()[:3] == ["study", "test", "rows"] and "16, the same in every run" in line for line in lines)
    assert called(capfd, "compare", "--dry-run", *given) == (0, lines, "")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("command", ["plan", "compare"])
@pytest.mark.parametrize(
    "asked",
    [("[20,9000]", "9000 rows; data.train_rows: more rows asked than there are"), ("[2,20]", "2 rows;")],
)
def test_a_size_that_the_data_do_not_have_is_refused_before_anything_trains(
    capfd, table, tiny_body, tmp_path, command, asked
):
    given = [*words_of(table, tiny_body, tmp_path / "outputs"), f"study.sizes={asked[0]}", "study.seeds=2"]
    code, _, errors = called(capfd, command, *given)
    assert code == 2
    assert errors.startswith(f"headswap: study.sizes: the data have no such {asked[1]}")
    assert not (tmp_path / "outputs").exists()


def test_a_timed_plan_runs_short_probes_and_leaves_nothing(capfd, table, tiny_body, tmp_path):
    """The first arm has a finished run, which tells its cost."""
    given = [
        *words_of(table, tiny_body, tmp_path),
        "study.sizes=[20]",
        "study.seeds=2",
        "hardware.threads=1",
        "study.workers=2",
    ]
    given = [*given, "train.max_steps=null", "output.keep_model=false"]
    cells = plan(compose(given))
    done = next(cell for cell in cells if cell.arm == "finetune")
    assert ran(done.job.folder.path, done.job.config)["kind"] == "finished"
    code, lines, errors = called(capfd, "plan", "--time", *given)
    assert (code, errors) == (0, "")
    (said,) = [line for line in lines if line.split()[:2] == ["study", "time"]]
    assert said.endswith("for 3 runs, 2 side by side, by 20 steps of each arm")
    assert sum(line.split()[:2] == ["study", "seconds"] and " s a step, " in line for line in lines) == 2
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".probe")] == []
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == [done.job.folder.path.name]


def in_this_process(jobs, workers, on_event):
    outcomes = []
    for job in jobs:
        on_event(job, {"kind": "started"})
        said = ran(job.folder.path, job.config)
        outcomes.append(Outcome(job, said["kind"] == "finished", False, said.get("error", "")))
        on_event(job, {"kind": "ended", "outcome": outcomes[-1]})
    return outcomes


def test_of_a_chain_every_stage_is_timed(monkeypatch, table, conf, tiny_body, tmp_path):  # noqa: F811
    flags = argparse.Namespace(overrides=words(table, tiny_body, tmp_path), config_dir=[conf])
    config = compose(flags.overrides, flags.config_dir)
    monkeypatch.setattr(execute, "run_jobs", in_this_process)
    cells = plan(config, flags)
    found = probe.probe(config, flags, cells, 1)
    assert {arm: len(stages) for arm, stages in found.arms.items()} == {"chain": 2, "alone": 1}
    assert found.arms["chain"][0].config.train.max_steps == 2 and found.arms["chain"][0].sized
    assert [len(each) for each in left(cells, found.arms, config)] == [4, 2]
    assert list(tmp_path.glob(".probe*")) == []


def test_an_arm_with_a_frozen_body_is_timed_as_its_whole_run_will_compute(monkeypatch, table, tiny_body, tmp_path):
    """40 rows, 40 passes: the body is computed once. 20 steps alone read 160 rows of 40; of one pass over them, fewer."""
    more = [
        "study.sizes=[80]",
        "study.seeds=1",
        "train.max_steps=null",
        "train.batch_size=2",
        "study.arms.finetune.train.epochs=20",
    ]
    frozen = "+study.arms.finetune.strategy={_target_: headswap.strategies.probe.Probe}"
    config = tiny(
        table, tiny_body, tmp_path, *more, frozen, "study.may_differ=[body,strategy,train]", "study.sizes=[60]"
    )
    monkeypatch.setattr(execute, "run_jobs", in_this_process)
    found = probe.probe(config, None, [cell for cell in plan(config) if cell.arm == "finetune"], 1)
    (timed,) = found.arms["finetune"]
    assert timed.cost.kept > 0
    assert timed.cost.rows["train"] == 48 and timed.config.data.train_rows == 48


def test_a_probe_that_fails_says_so_before_the_study_does(monkeypatch, config):
    broken = replace(config, task={**config.task, "label": "stars"})
    monkeypatch.setattr(execute, "run_jobs", in_this_process)
    with pytest.raises(RunError, match=r"^a run of 20 steps failed, as the study's would; .*stars"):
        probe.probe(broken, None, plan(broken), 1)


def test_workers_are_measured_once_where_auto_asks(monkeypatch, config, tmp_path):
    said, asked = [], []
    alone, beside = (Cost(1.0, step, 0.0, 0.0, 0.0, {"train": 16, "validation": 4, "test": 8}) for step in (0.01, 0.05))

    def measured(given, flags, cells, count, known):
        asked.append(count)
        return probe.Probed({arm: [Timed(alone if count == 1 else beside, given)] for arm in given.study.arms})

    monkeypatch.setattr(probe, "probe", measured)
    monkeypatch.setattr(workers, "cores", lambda: 2)
    monkeypatch.setattr(workers, "side_by_side", lambda hardware: 2)
    auto = replace(config, study=replace(config.study, workers="auto"), hardware=replace(config.hardware, threads=None))
    cells = plan(auto)
    # 20 runs of 4 steps: side by side 10 x (1 + 4 x 0.05) = 12 s, alone 20 x (1 + 4 x 0.01) = 20.8 s
    assert workers.chosen_workers(auto, cells, None, tmp_path, said.append) == 2
    assert workers.chosen_workers(auto, cells, None, tmp_path, said.append) == 2
    assert asked == [2, 1]
    assert said[0] == said[1]
    assert said[0].startswith(
        "workers: 2 runs side by side, 1 thread each 12.0 s against 1 run with all threads 20.8 s"
    )
    assert read_json(tmp_path / "workers.json")["seconds"] == {"2": 12.0, "1": 20.8}
    fixed = replace(auto, hardware=replace(auto.hardware, threads=1))
    assert workers.chosen_workers(fixed, cells, None, tmp_path / "other", said.append) == 2
    assert len(asked) == 2


@pytest.mark.parametrize("value", ["fast", "0", "2.5"])
def test_workers_are_a_number_auto_or_null(table, tiny_body, tmp_path, value):
    with pytest.raises(ConfigError, match=r"study\.workers"):
        tiny(table, tiny_body, tmp_path, f"study.workers={value}")
    assert tiny(table, tiny_body, tmp_path, "study.workers=auto").study.workers == "auto"
