"""The acceptance limits of the statistics, in simulated studies of known truth: bench/coverage.py with fewer of them."""

from __future__ import annotations

import math
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from headswap.metrics.classification import MacroF1
from headswap.study import contrasts
from headswap.study.linearised import linearised_interval, pseudo_values
from headswap.study.statistics import crossed_interval, detectable_effect, equivalence, sign_flip_p, variance_components

BENCH = Path(__file__).parents[1] / "bench"
sys.path.append(str(BENCH))


def loaded(name: str) -> ModuleType:
    """Load a file of bench under a name of its own: `coverage` is a package that measures tests."""
    spec = spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


bench = loaded("coverage")
simulated = sys.modules["simulated"]
Design = simulated.Design
STUDIES = 2000


def at_most(level: float, studies: int = STUDIES) -> float:
    """Return `level` and 3 Monte-Carlo standard errors."""
    return level + 3 * math.sqrt(level * (1 - level) / studies)


@pytest.mark.parametrize("truth", [0.0, 0.03])
@pytest.mark.parametrize("design", bench.CROSSED[1:], ids=str)
def test_a_95_percent_crossed_interval_covers_93_to_97_percent(design, truth):
    found = bench.crossed(simulated.right_and_wrong(design, truth, STUDIES))
    assert 0.93 <= found.covered(truth) <= 0.97
    if truth == 0:
        assert max(found.sides()) <= at_most(0.025)


def test_the_interval_over_seeds_alone_covers_too_little_where_test_examples_matter():
    means = simulated.right_and_wrong(Design(5, 500, 0.01), 0.0, STUDIES).mean(axis=2, dtype=float)
    seen = 0.01**2 / 5 + (0.25 - 0.05) / 2500  # the variance that seeds show; the 0.05 / 500 of the examples is missed
    expected = 2 * stats.t.cdf(stats.t.ppf(0.975, 4) * math.sqrt(seen / (seen + 0.05 / 500)), 4) - 1
    assert expected < 0.9
    assert bench.over_seeds(means).covered(0.0) == pytest.approx(expected, abs=0.025)


def test_a_difference_of_exactly_the_margin_is_called_equivalent_in_at_most_5_percent():
    found = bench.crossed(simulated.right_and_wrong(Design(10, 10000, 0.002), 0.01, 300)).verdicts(0.01)
    assert found["equivalent"] <= at_most(0.05, 300)
    assert found["worse"] <= at_most(0.025, 300)


def test_the_four_verdicts_come_as_often_as_they_should():
    small = bench.crossed(simulated.right_and_wrong(Design(5, 500, 0.01), 0.0, STUDIES)).verdicts(0.01)
    assert small["not settled"] >= 0.9  # too few rows to tell, and it says so
    assert max(small["better"], small["worse"]) <= at_most(0.025)
    large = bench.crossed(simulated.right_and_wrong(Design(10, 10000, 0.002), 0.0, 300)).verdicts(0.01)
    assert large["equivalent"] >= 0.8
    for truth, name in ((0.03, "better"), (-0.03, "worse")):
        assert bench.crossed(simulated.right_and_wrong(Design(10, 2000, 0.01), truth, 500)).verdicts()[name] >= 0.9


def test_the_simulated_verdicts_are_those_that_the_product_draws():
    drawn = simulated.right_and_wrong(Design(5, 300, 0.02), 0.02, 60)
    intervals = [crossed_interval(each) for each in drawn]
    outcomes = [contrasts.outcome(each, equivalence(each, 0.03), True) for each in intervals]
    shares = bench.crossed(drawn).verdicts(0.03)
    assert shares == pytest.approx({name: outcomes.count(name) / 60 for name in shares})
    assert len(set(outcomes)) >= 2


@pytest.mark.parametrize("design", [Design(5, 200, 0.02), Design(10, 200, 0.02)], ids=str)
@pytest.mark.parametrize("runs", [simulated.macro_f1_runs, simulated.pearson_runs], ids=["macro F1", "Pearson"])
def test_a_95_percent_interval_of_a_whole_split_metric_covers_93_to_97_percent(runs, design, monkeypatch):
    monkeypatch.setattr(simulated, "RESAMPLES", 2)  # the pigeonhole's error stands in the bench alone
    covered, _, _, above, below = bench.whole_split(runs, design, 1500)
    assert 0.93 <= covered <= 0.97
    assert max(above, below) <= at_most(0.025, 1500)


def test_the_simulated_shares_are_those_that_the_product_draws():
    runs = simulated.macro_f1_runs(Design(3, 60, 0.02), 1, np.random.default_rng(0))
    gaps, score = simulated.shares(runs)[0], MacroF1().of_sums
    expected = [pseudo_values(score, a) - pseudo_values(score, b) for a, b in zip(*runs.sums[0], strict=True)]
    assert gaps == pytest.approx(np.array(expected))
    assert linearised_interval(gaps, 0.1, 0.95).standard_error == pytest.approx(bench.crossed(gaps[None]).error[0])


@pytest.mark.parametrize("gains", [(0.0, 0.0, 0.0), (0.06, 0.0, 0.0)], ids=["all null", "some not"])
def test_of_the_corrected_differences_at_most_5_percent_are_false(gains):
    p_values, null = simulated.family(Design(5, 300, 0.01), gains, 1000, lambda each: bench.p_of(bench.crossed(each)))
    kept = stats.false_discovery_control(p_values, axis=1) <= 0.05
    share = (kept & null).sum(axis=1) / np.maximum(kept.sum(axis=1), 1)
    assert share.mean() <= at_most(0.05, 1000)
    assert kept[:, ~null].mean() > 0.2 if (~null).any() else (p_values <= 0.05).any(axis=1).mean() > 0.15


def test_the_sign_flip_test_alarms_falsely_in_at_most_5_percent():
    means = np.random.default_rng(6).normal(0, 0.01, (500, 6))
    assert np.mean([(sign_flip_p(each) or 1) <= 0.05 for each in means]) <= at_most(0.05, 500)


def test_the_detectable_effect_is_found_in_eight_of_ten_simulated_studies():
    design = Design(5, 500, 0.01)
    parts = [variance_components(study) for study in simulated.right_and_wrong(design, 0.0, 200)]
    effect = float(np.mean([detectable_effect(each, 5, 500) for each in parts]))
    found = bench.crossed(simulated.right_and_wrong(design, effect, STUDIES))
    assert found.sides()[0] == pytest.approx(0.8, abs=0.06)
