"""The statistics against SciPy, hand computations and published tables; test_coverage.py has simulated truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from headswap.study.curves import (
    convergence,
    curve_area,
    labels_for,
    labels_saved,
)
from headswap.study.linearised import linearised_interval, pseudo_values
from headswap.study.runs import LearningCurve
from headswap.study.speed import arrival_index
from headswap.study.statistics import (
    crossed_error,
    crossed_interval,
    detectable_effect,
    equivalence,
    mcnemar,
    minimum_detectable_effect,
    pair_correlation,
    planned_components,
    sign_flip_p,
    size_needed,
    t_interval,
    variance_components,
)


def test_the_crossed_error_is_the_two_way_analysis_of_variance_by_hand():
    table = np.array([[1.0, 0.0, 2.0], [2.0, 2.0, 5.0]])  # row means 1 and 3, column means 1.5, 1, 3.5, grand mean 2
    error, freedom = crossed_error(table)
    by_seed, by_example, residual = 3 * 2.0, 2 * 1.75, 1.0 / 2  # residuals .5 0 -.5 and -.5 0 .5
    total = by_seed + by_example - residual
    assert error == pytest.approx(math.sqrt(total / 6))
    assert freedom == pytest.approx(total**2 / (by_seed**2 / 1 + by_example**2 / 2 + residual**2 / 2))


def test_with_examples_that_differ_in_nothing_the_crossed_interval_is_the_t_interval_over_seeds():
    values = np.array([0.01, 0.03, 0.02, 0.05])
    crossed = crossed_interval(np.repeat(values[:, None], 50, axis=1))
    reference = stats.ttest_1samp(values, 0.0)
    assert (crossed.low, crossed.high) == pytest.approx(tuple(reference.confidence_interval(0.95)))
    assert crossed.p_value() == pytest.approx(reference.pvalue)


def test_one_seed_one_example_and_no_variation_give_no_interval_but_a_reason():
    assert "1 paired seed" in crossed_interval(np.ones((1, 9))).reason
    assert "1 test example" in crossed_interval(np.ones((3, 1))).reason
    assert "every value is the same" in crossed_interval(np.zeros((3, 9))).reason
    assert not any(crossed_interval(np.zeros(shape)).known for shape in ((1, 9), (3, 1), (3, 9)))
    assert t_interval([0.5]).low is None
    assert t_interval([0.5, 0.5]).low is None


def test_the_t_interval_is_that_of_scipy():
    values = [0.81, 0.84, 0.79, 0.86]
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    assert (t_interval(values, 0.9).low, t_interval(values, 0.9).high) == pytest.approx(tuple(expected))


def test_variance_components_are_found_again_in_simulated_data():
    dice = np.random.default_rng(0)
    table = dice.normal(0, 0.1, (60, 1)) + dice.normal(0, 0.3, (1, 400)) + dice.normal(0, 0.5, (60, 400))
    found = variance_components(table)
    assert (found.seed, found.example, found.residual) == pytest.approx((0.01, 0.09, 0.25), rel=0.3)


@pytest.mark.parametrize(
    ("seeds", "effect"), [(3, 3.26), (4, 2.13), (5, 1.68), (6, 1.43), (8, 1.16), (10, 1.00), (20, 0.66), (30, 0.53)]
)
def test_the_detectable_effect_is_that_of_the_paired_t_test(seeds, effect):
    assert minimum_detectable_effect(1 / math.sqrt(seeds), seeds - 1) == pytest.approx(effect, abs=0.006)


@pytest.mark.parametrize(("examples", "points"), [(200, 6.3), (500, 4.0), (872, 3.0), (2000, 2.0), (7600, 1.0)])
def test_a_plan_with_many_seeds_is_limited_by_its_test_examples_as_in_mcnemars_test(examples, points):
    planned = planned_components(disagreement=0.1, seed_deviation=0.0)
    assert 100 * detectable_effect(planned, 1000, examples) == pytest.approx(points, abs=0.06)


def test_the_size_needed_detects_the_effect_and_one_less_does_not():
    parts = planned_components(disagreement=0.1, seed_deviation=0.02, shared=0.5)
    seeds, examples = size_needed(parts, 0.03, 5, 1000)
    assert seeds is not None
    assert examples is None  # 5 seeds of 2 pp never resolve 3 pp
    assert detectable_effect(parts, seeds, 1000) <= 0.03 < detectable_effect(parts, seeds - 1, 1000)


def test_equivalence_looks_at_the_90_percent_interval_of_a_95_percent_study():
    values = np.array([0.002, -0.001, 0.003, 0.0, 0.001, -0.002])
    found = equivalence(t_interval(values), 0.01)
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    assert found is not None
    assert (found.low, found.high, found.equivalent) == (pytest.approx(low), pytest.approx(high), True)
    both = [
        stats.ttest_1samp(values, side, alternative=way).pvalue for side, way in ((-0.01, "greater"), (0.01, "less"))
    ]
    assert found.p_value == pytest.approx(max(both))
    assert not equivalence(t_interval(values * 20), 0.01).equivalent  # pyright: ignore[reportOptionalMemberAccess]
    assert equivalence(t_interval([0.1]), 0.01) is None


def test_the_sign_flip_p_is_exact_from_six_seeds_and_absent_below():
    assert sign_flip_p([0.1, 0.2, 0.3, 0.15, 0.25]) is None
    assert sign_flip_p([0.1, 0.2, 0.3, 0.15, 0.25, 0.12]) == pytest.approx(2 / 2**6)


def test_the_correlation_of_pairs_is_pearsons_and_absent_without_spread():
    first, second = [0.7, 0.8, 0.75, 0.9], [0.5, 0.61, 0.52, 0.6]
    assert pair_correlation(first, second) == pytest.approx(stats.pearsonr(first, second).statistic)
    assert pair_correlation(first, [0.5] * 4) is None


def test_mcnemars_test_is_the_binomial_of_the_discordant_examples_by_hand():
    first = [1] * 40 + [1] * 10 + [0] * 2 + [0] * 7
    second = [1] * 40 + [0] * 10 + [1] * 2 + [0] * 7
    found = mcnemar(first, second)
    assert (found.treatment_alone, found.control_alone) == (10, 2)
    assert found.p_value == pytest.approx(2 * (1 + 12 + 66) / 2**12)  # 12 over 0, 1 and 2
    assert mcnemar(first, first).p_value == 1.0


def test_the_pseudo_values_of_a_mean_are_the_values():
    values = np.array([0.2, 0.9, 0.4, 0.9])
    rows = np.stack([values, np.ones(4)], axis=1)
    assert pseudo_values(lambda totals: totals[0] / totals[1], rows) == pytest.approx(values)


def test_the_jackknifed_error_of_a_ratio_of_sums_is_that_of_its_influence():
    """Micro F1 of counts; the reference is the crossed error of the influence of each example (delta method)."""
    dice = np.random.default_rng(3)
    actual = dice.poisson(2.0, size=300)
    right = [dice.binomial(actual, share, size=(10, 300)) for share in (0.7, 0.5)]
    predicted = [found + dice.poisson(0.6, size=found.shape) for found in right]
    influence, differences, scores = np.zeros((10, 300)), np.zeros((10, 300)), np.zeros(10)
    for arm, sign in ((0, 1), (1, -1)):
        for seed in range(10):
            above, below = 2 * right[arm][seed], predicted[arm][seed] + actual
            whole = above.sum() / below.sum()
            influence[seed] += sign * (whole + (above - whole * below) / below.mean())
            scores[seed] += sign * whole
            sums = np.stack([above, below], axis=1)
            differences[seed] += sign * pseudo_values(lambda totals: totals[0] / totals[1], sums)
    found, reference = linearised_interval(differences, float(scores.mean()), 0.95), crossed_interval(influence)
    assert found.mean == pytest.approx(reference.mean)
    assert found.standard_error == pytest.approx(reference.standard_error, rel=0.01)
    assert found.degrees_of_freedom == pytest.approx(reference.degrees_of_freedom, rel=0.02)
    assert found.low == pytest.approx(found.mean - (found.high - found.mean))  # pyright: ignore[reportOperatorIssue]


def test_a_score_that_is_not_a_number_without_some_example_has_no_interval():
    found = linearised_interval(np.array([[0.1, math.nan], [0.2, 0.3]]), 0.2, 0.95)
    assert not found.known
    assert found.reason == "without one of the test examples the score is not a number"


def curve(scores: list[float], examples: list[float] | None = None) -> LearningCurve:
    seen = np.array(examples or [16.0 * 2**place for place in range(len(scores))])
    return LearningCurve(seen / 16, seen, seen / 100, np.array(scores), seen * 1e9)


def test_the_area_weighs_every_doubling_the_same():
    assert curve_area(curve([0.5, 0.5, 0.5]), 16, 64) == pytest.approx(0.5)
    assert curve_area(curve([0.2, 0.6, 0.8]), 16, 64) == pytest.approx((0.4 + 0.7) / 2)
    assert curve_area(curve([0.2, 0.6, 0.8]), 32, 64) == pytest.approx(0.7)


def test_arrival_takes_three_hits_in_a_row_or_a_stretch_that_lasts_to_the_end():
    assert arrival_index(np.array([0.1, 0.9, 0.1, 0.9, 0.9, 0.9, 0.1]), 0.8) == 3
    assert arrival_index(np.array([0.1, 0.9, 0.1, 0.2, 0.85]), 0.8) == 4
    assert arrival_index(np.array([0.1, 0.9, 0.1]), 0.8) is None


def test_a_speed_up_is_named_only_when_every_pair_arrives():
    slow, fast, low = (
        curve([0.4, 0.5, 0.6, 0.7, 0.8]),
        curve([0.4, 0.8, 0.85, 0.9, 0.9]),
        curve([0.4, 0.5, 0.5, 0.5, 0.6]),
    )
    both = convergence(100, 100, [(0, fast, slow), (1, fast, slow)], 0.95)
    assert both is not None
    assert both.ratio is not None
    assert both.ratio.mean == pytest.approx(256 / 32)
    missed = convergence(100, 100, [(0, fast, slow), (1, low, slow)], 0.95)
    assert missed is not None
    assert (missed.ratio, missed.reached) == (None, 1)


def test_arriving_at_the_first_evaluation_is_an_upper_bound():
    found = convergence(100, 100, [(0, curve([0.9, 0.9, 0.9]), curve([0.4, 0.5, 0.6]))], 0.95)
    assert found is not None
    assert found.at_least


def test_the_step_from_which_the_control_has_caught_up_is_told():
    found = convergence(100, 100, [(0, curve([0.5, 0.7, 0.7, 0.7]), curve([0.3, 0.5, 0.7, 0.8]))], 0.95)
    assert found is not None
    assert found.caught_up_at == 64


def test_labels_are_read_off_the_curve_in_log_labels():
    logs = np.log([100.0, 400.0, 1600.0])
    found = np.exp(labels_for(np.array([0.5, 0.6, 0.7]), np.array([0.5, 0.7, 0.9]), logs))
    assert found == pytest.approx([100, 200, 400])
    assert np.isinf(labels_for(np.array([0.4, 0.95]), np.array([0.5, 0.7, 0.9]), logs)).all()


def test_arms_that_learn_nothing_save_no_labels():
    flat, sizes = np.full((5, 3), 0.5), np.array([100.0, 400.0, 1600.0])
    for each in labels_saved(flat, flat, sizes):
        assert (each.ratio, each.low, each.settled, each.bound) == (None, None, False, None)
        assert (each.bound_kind, each.censored_share) == ("unknown", 1.0)
    for each in labels_saved(flat, flat + 0.1, sizes):
        assert (each.bound_kind, each.bound) == ("at most", 100 / each.labels)
    rising = np.array([[0.3, 0.4, 0.5]] * 5)
    assert labels_saved(rising, flat, sizes)[-1].bound == 100 / 1600  # it needed 1,600 for what 100 gave the control


def arms(saving: float, deviation: float, dice: np.random.Generator, seeds: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Draw two arms whose score is 0.1 a doubling of labels; the treatment has `saving` times the labels."""
    rise = 0.1 * np.log2(np.array([100, 200, 400, 800, 1600]) / 100)
    noise = dice.normal(0, deviation, (2, seeds, 5))
    return 0.4 + 0.1 * math.log2(saving) + rise + noise[0], 0.4 + rise + noise[1]


SIZES = np.array([100.0, 200.0, 400.0, 800.0, 1600.0])


def test_the_labels_saved_interval_covers_a_known_ratio():
    dice, inside, told = np.random.default_rng(3), 0, 0
    for _ in range(60):
        first = labels_saved(*arms(4.0, 0.02, dice), SIZES)[0]
        told += first.ratio is not None
        inside += first.low is not None and first.high is not None and first.low <= 4 <= first.high
    assert told == 60
    assert inside >= 54  # of 57 expected; 54 is 1.8 standard errors below


def test_a_censored_ratio_is_never_a_point_and_its_bound_holds():
    dice = np.random.default_rng(4)
    for saving in (4.0, 16.0, 100.0):
        for each in labels_saved(*arms(saving, 0.03, dice), SIZES):
            if each.censored_share >= 0.05:
                assert each.ratio is None
                assert each.bound_kind == "at least"
                assert each.bound is not None
                assert each.bound <= min(saving, 1600 / each.labels) + 1e-9
    assert labels_saved(*arms(4.0, 0.02, dice, seeds=2), SIZES) == []
