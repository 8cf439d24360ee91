"""Time to a score: ratios where every time is known, bounds that hold where one is not, and what is said of either."""

import dataclasses
import json
import re
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from headswap.spine import StudyConfig
from headswap.study.curves import convergence, labels_saved
from headswap.study.report import render
from headswap.study.results import compare, plain
from headswap.study.runs import LearningCurve, read_run
from headswap.study.speed import MEASURES, Arrival, arrival, lower_bound, speed_ratios, survival
from headswap.study.speed_sentences import speed_statements
from headswap.study.speed_tables import convergence_table, labels_table, survival_table
from headswap.study.tables import cost_table
from headswap.study.verdict import verdict
from study_folders import Made, make_study

STUDY = StudyConfig(arms={"finetune": {}, "scratch": {}})
MARKS = np.unique(np.geomspace(1, 400, 14).round())


def curve(scores, per_step=16, flops=1e9):
    steps = 2.0 ** np.arange(len(scores))
    return LearningCurve(steps, steps * per_step, steps * 0.5, np.array(scores), steps * flops)


def at(examples, flops=None):
    """Return a moment of a run with 16 examples and half a second a step."""
    moment = {"steps": examples / 16, "examples": float(examples), "seconds": examples / 32}
    return {**moment, "flops": float("nan") if flops is None else flops}


def pair(treatment, control, end=(1000, 1000), first=False, seed=0):
    there = [None if each is None else at(each, each * 1e9) for each in (treatment, control)]
    return Arrival(seed, 0.8, *there, first, at(end[0], end[0] * 1e9), at(end[1], end[1] * 1e9))


def test_ratios_are_geometric_means_in_every_measure_with_t_intervals_of_the_logs():
    slow = curve([0.3, 0.4, 0.5, 0.6, 0.7, 0.8], flops=2e9)
    fast, faster = curve([0.3, 0.5, 0.8, 0.8, 0.9, 0.9], per_step=8), curve([0.3, 0.8, 0.8, 0.8, 0.9, 0.9], per_step=8)
    found = [arrival(seed, each, slow) for seed, each in enumerate((fast, faster, fast))]
    ratios, bounds = speed_ratios(found, 0.9)
    steps = np.array([32 / 4, 32 / 2, 32 / 4])
    assert bounds == {}
    assert {name: each.mean for name, each in ratios.items()} == {
        "steps": pytest.approx(stats.gmean(steps)),
        "examples": pytest.approx(stats.gmean(2 * steps)),
        "flops": pytest.approx(stats.gmean(2 * steps)),
        "seconds": pytest.approx(stats.gmean(steps)),
    }
    expected = np.exp(stats.t.interval(0.9, 2, np.log(steps).mean(), stats.sem(np.log(steps))))
    assert [ratios["steps"].low, ratios["steps"].high] == pytest.approx(list(expected))


def test_a_measure_that_some_run_lacks_is_left_out():
    pairs = [pair(100, 800), dataclasses.replace(pair(100, 800), treatment=at(100))]
    assert set(speed_ratios(pairs, 0.95)[0]) == set(MEASURES) - {"flops"}


@pytest.mark.parametrize(
    "odd",
    [
        pair(None, 800),
        pair(16, 800, first=True),
        dataclasses.replace(pair(100, 16), control_at_first=True),
    ],
    ids=["never there", "there when first looked at", "control there when first looked at"],
)
def test_one_censored_pair_leaves_no_point_in_any_measure(odd):
    ratios, bounds = speed_ratios([pair(100, 800), pair(100, 900), odd], 0.95)
    assert ratios == {}
    assert set(bounds) == set(MEASURES)
    assert all(each.low is None for each in bounds.values())  # three pairs are too few for a limit


def test_the_limit_is_the_order_statistic_of_the_sign_test():
    ratios = np.arange(1.0, 31.0)
    for count in range(1, 31):
        found = lower_bound(ratios[:count].tolist())
        shares = [stats.binomtest(place, count, alternative="less").pvalue for place in range(count + 1)]
        places = [place for place in range(1, count + 1) if shares[place - 1] <= 0.05]
        assert found.low == (ratios[places[-1] - 1] if places else None)
    assert lower_bound([0.0, 0.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0]).low is None  # two never arrived


def simulated(dice, seeds, ratio, spread):
    """Draw the pairs of a study whose true median ratio is known, seen at log-spaced evaluations of capped runs."""
    control = np.exp(dice.normal(np.log(200), 0.3, seeds))
    needed = control / (ratio * np.exp(dice.normal(0, spread, seeds)))
    pairs = []
    for seed, (first, second) in enumerate(zip(needed, control, strict=True)):
        there = [MARKS[time <= MARKS] for time in (first, second)]
        moments = [at(16 * marks[0], marks[0] * 1e9) if len(marks) else None for marks in there]
        ends = at(16 * MARKS[-1], MARKS[-1] * 1e9), at(16 * MARKS[-1], MARKS[-1] * 1e9)
        pairs.append(Arrival(seed, 0.8, *moments, first <= MARKS[0], *ends, second <= MARKS[0]))
    return pairs


@pytest.mark.parametrize(("ratio", "spread"), [(0.8, 1.0), (3.0, 2.0), (60.0, 1.5)])
def test_censored_studies_print_no_point_and_their_bound_holds_at_its_rate(ratio, spread):
    """Of a thousand studies a case; a mark is hit up to a third late, in both arms alike, which is no bias of the ratio."""
    dice, censored, named, held = np.random.default_rng(int(10 * ratio)), 0, 0, 0
    for _ in range(1000):
        pairs = simulated(dice, int(dice.integers(5, 13)), ratio, spread)
        if not any(each.treatment is None or each.at_first_evaluation for each in pairs):
            continue
        ratios, bounds = speed_ratios(pairs, 0.95)
        censored += 1
        assert ratios == {}
        if (low := bounds["examples"].low) is not None:
            named += 1
            held += low <= ratio
    assert censored > 600
    assert named == 0 or held / named >= 0.95 - 1.65 * np.sqrt(0.05 * 0.95 / named)


def test_times_of_runs_that_never_got_there_are_kaplan_meiers_and_the_log_ranks():
    pairs = [pair(64, 512), pair(128, 800), pair(None, 700, end=(400, 1000)), pair(256, 1000)]
    found = survival(pairs)
    assert found is not None
    assert found.treatment_left == ((64, 0.75), (128, 0.5), (256, 0.25))  # by hand: 4, 3, 2 at risk
    assert (found.treatment_median, found.control_median) == (128, 700)
    assert found.cap == 400
    assert (found.treatment_mean, found.control_mean) == ((64 + 128 + 400 + 256) / 4, 400)
    # Bland and Altman's form of the test: (observed - expected)^2 / variance, by hand.
    at_risk = [(4, 4), (3, 4), (2, 4), (0, 4), (0, 3), (0, 2), (0, 1)]
    expected = sum(first / (first + second) for first, second in at_risk)
    variance = sum(first * second / (first + second) ** 2 for first, second in at_risk)
    assert found.logrank_p == pytest.approx(stats.chi2.sf((3 - expected) ** 2 / variance, 1))
    assert survival([pair(64, 512)]) is None


def test_an_arm_that_never_got_there_in_any_seed_has_no_median():
    found = survival([pair(None, 512), pair(None, 800)])
    assert found is not None
    assert (found.treatment_median, found.treatment_left, found.treatment_mean) == (None, (), 1000)


def compared(folder, made, change=lambda lines: lines, seeds=(), study=STUDY):
    """Return a comparison of made runs; `change` is made to the treatment's validation lines of some seeds."""
    records = make_study(folder, made)
    for record in records:
        path = record.folder / "metrics.jsonl"
        if record.arm == "finetune" and (record.seed in seeds):
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            path.write_text("".join(json.dumps(line) + "\n" for line in change(lines)), encoding="utf-8")
    return compare(records, study, {})


FAST = Made({"finetune": 0.8, "scratch": 0.7}, sizes=(400,), seeds=10, speed={"finetune": 3})


def low(lines):
    return [{**line, "accuracy": 0.2} if line["kind"] == "validation" else line for line in lines]


def high(lines):
    return [{**line, "accuracy": 0.95} if line["kind"] == "validation" else line for line in lines]


def slower(lines):
    """Return the lines of a run that takes half as many FLOPs an example and twice the seconds."""
    return [{**each, "flops": each["flops"] // 2, "seconds": each["seconds"] * 2} for each in lines if "flops" in each]


def test_the_sentence_names_examples_flops_and_seconds(tmp_path):
    found = compared(tmp_path, FAST, slower, range(10))
    [said] = speed_statements(found.contrasts[0], found)
    factors = re.search(
        r"\((\S+)× fewer examples; 95 % CI \S+–\S+×; (\S+)× in FLOPs; (\S+)× in seconds\), in 10 of", said
    )
    assert factors, said
    examples, in_flops, in_seconds = map(float, factors.groups())
    assert in_flops == pytest.approx(2 * examples, rel=0.06)
    assert in_seconds == pytest.approx(examples / 2, rel=0.06)
    assert "in steps" not in said
    row = dict(zip(convergence_table(found).columns, convergence_table(found).rows[0], strict=True))
    assert row["fewer examples"] == row["in steps"]
    assert row["in FLOPs"].startswith(f"{factors[2]}× (")


def test_a_control_that_learned_nothing_is_no_target(tmp_path):
    records = make_study(tmp_path, FAST)
    for record in (each for each in records if each.arm == "scratch"):
        path = record.folder / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        flat = [{**line, "accuracy": 0.25} if line["kind"] == "validation" else line for line in lines]
        flat[-1 - [line["kind"] for line in flat][::-1].index("validation")]["accuracy"] = 0.256
        path.write_text("".join(json.dumps(line) + "\n" for line in flat), encoding="utf-8")
    found = compare(records, STUDY, {})
    assert speed_statements(found.contrasts[0], found) == [
        "No speed is named: scratch's validation score changed by +0.6 pp from its first evaluation to its last, so that "
        "there is little to reach."
    ]
    learned = dataclasses.replace(found, study=dataclasses.replace(found.study, margin=0.005))
    assert "reached and held scratch's final validation score" in speed_statements(learned.contrasts[0], learned)[0]


def test_runs_of_earlier_releases_have_no_flops_and_everything_else(tmp_path):
    found = compared(
        tmp_path, FAST, lambda lines: [{k: v for k, v in each.items() if k != "flops"} for each in lines], [3]
    )
    [said] = speed_statements(found.contrasts[0], found)
    assert "FLOPs" not in said
    assert "× in seconds" in said
    assert np.isnan(read_run(make_study(tmp_path / "one", FAST)[0]).curve.flops).sum() == 0
    json.dumps(plain(dataclasses.asdict(found)), allow_nan=False)


POINT = re.compile(r"(?<!at least )(?<![\d.,])\d[\d.,]*× (?:fewer|more|in (?:steps|FLOPs|seconds))")


@pytest.mark.parametrize(
    ("change", "seeds", "expected"),
    [
        (low, [4], r"in 1 of 10 seeds; with those counted as never, it needed at least \S+× fewer examples in the median "
                   r"\(one-sided 95 % bound \S+×\)"),
        (low, [1, 2, 3, 4], r"in 4 of 10 seeds, so no speed-up is named"),
        (high, [4], r"after a median at most \S+ training examples against \S+ \(at least \S+× fewer examples; "
                    r"one-sided 95 % bound \S+×; at least \S+× in FLOPs; at least \S+× in seconds\), in 10 of 10 seeds"),
    ],
)  # fmt: skip
def test_censored_times_read_as_bounds_and_never_as_points(change, seeds, expected, tmp_path):
    found = compared(tmp_path, FAST, change, seeds)
    [said] = speed_statements(found.contrasts[0], found)
    assert re.search(expected, said), said
    assert not POINT.search(said)
    assert found.convergence[0].ratio is None
    cells = convergence_table(found).rows[0]
    assert not any(re.match(r"[\d.,]+×", cell) for cell in cells)
    assert bool(survival_table(found).rows) == (change is low)
    page = re.sub(r"(?s)<script.*?</script>", "", render(found))
    assert ("Kaplan-Meier" in page) == (change is low)


def test_the_table_of_censored_times_tells_arms_medians_means_and_the_test(tmp_path):
    found = compared(tmp_path, FAST, low, [1, 2])
    table = survival_table(found)
    treatment, control = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert (treatment["arm"], treatment["reached"], control["reached"]) == ("finetune", "8 of 10", "10 of 10")
    assert treatment["cap"] == control["cap"] == "1,280"
    as_number = [float(each["mean up to the cap"].replace(",", "")) for each in (treatment, control)]
    assert as_number[0] < as_number[1] <= 1280
    assert treatment["p (log-rank)"] == control["p (log-rank)"]


def test_the_cost_table_has_the_flops_of_training(tmp_path):
    found = compared(tmp_path, FAST)
    table = cost_table(found)
    column = table.columns.index("FLOPs")
    assert [row[column] for row in table.rows] == ["240 GFLOP", "240 GFLOP"]  # 80 steps of 3e9
    assert found.scores[0].flops == 80 * 3e9


def test_effective_data_transferred_is_what_the_ratio_adds_to_the_labels(tmp_path):
    dice = np.random.default_rng(3)
    sizes = np.array([100.0, 200.0, 400.0, 800.0, 1600.0])
    rise = 0.1 * np.log2(sizes / 100)
    noise = dice.normal(0, 0.02, (2, 5, 5))
    saved = labels_saved(0.6 + rise + noise[0], 0.4 + rise + noise[1], sizes)
    first = saved[0]
    assert first.ratio is not None and first.low is not None and first.high is not None
    ends = [(each - 1) * 100 for each in (first.ratio, first.low, first.high)]
    assert [first.transferred, first.transferred_low, first.transferred_high] == pytest.approx(ends)
    assert first.transferred_low < 300 < first.transferred_high  # the truth: 400 labels' worth in 100
    assert saved[-1].ratio is saved[-1].transferred is None


def test_effective_data_transferred_stands_in_table_json_and_where_settled_in_the_sentence(tmp_path):
    made = Made({"finetune": 0.8, "scratch": 0.78}, slope={"finetune": 0.02, "scratch": 0.05})
    found = compared(tmp_path / "settled", made)
    statement = next(each for each in verdict(found) if "labels with finetune were worth" in each)
    shown = next(each for each in found.labels_saved if each.settled)
    assert shown.transferred == pytest.approx((shown.ratio - 1) * shown.labels)
    assert re.search(r"effective data transferred \S+ labels, \S+–\S+\)", statement), statement
    table = labels_table(found)
    place = table.columns.index("effective data transferred")
    cells = [row[place] for row in table.rows]
    assert any(re.fullmatch(r"\S+ \(\S+ to \S+\)", cell) for cell in cells)
    assert "transferred_low" in plain(dataclasses.asdict(found))["labels_saved"][0]
    open_still = dataclasses.replace(found, labels_saved=(dataclasses.replace(shown, low=0.9),))
    assert "cannot be told from none" in " ".join(verdict(open_still))
    assert "transferred" not in " ".join(verdict(open_still))


def test_bounds_of_neighbouring_sizes_of_seeds_only_grow():
    """More seeds of the same ratios never lower the limit."""
    limits = [lower_bound([4.0] * count + [8.0] * count).low or 0 for count in range(1, 12)]
    assert all(first <= second for first, second in pairwise(limits))


def test_convergence_keeps_the_area_beside_bounds():
    slow, fast, never = (curve(scores) for scores in ([0.3, 0.5, 0.7, 0.8], [0.3, 0.8, 0.9, 0.9], [0.3, 0.4, 0.5, 0.5]))
    found = convergence(100, 100, [(0, fast, slow), (1, never, slow)], 0.95)
    assert found is not None
    assert (found.ratio, found.reached) == (None, 1)
    assert np.isfinite(found.area_difference.mean)
    assert found.survival is not None
