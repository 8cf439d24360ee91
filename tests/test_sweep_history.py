"""The sweep's history with its bands, and the axes of settings: numbers against independent ones."""

import random
import statistics

import numpy as np
import pytest

from headswap.search_space import Choice, Span
from headswap.sweep import history
from headswap.sweep.axes import Axis, shortened
from headswap.sweep.drawings import history_figure
from sweep_folders import SCORES, found, plain, pruned, told, trace, trial


@pytest.mark.parametrize(("better", "accumulate"), [(True, np.maximum), (False, np.minimum)])
def test_the_history_is_the_running_best_of_the_finished_trials(better, accumulate):
    name = "accuracy" if better else "loss"
    made = found(plain(objectives=[{"name": name, "greater_is_better": better}]))
    line = trace(history_figure(made), "best so far")
    scale = 100 if better else 1
    assert line["x"] == list(range(9))
    assert line["y"] == pytest.approx(scale * accumulate.accumulate(SCORES))
    assert trace(history_figure(made), "failed, no score")["x"] == [9]


def test_the_band_of_a_random_sweep_covers_the_median_best_of_so_many_trials():
    """Of k uniform numbers the largest has the median 0.5 ** (1 / k)."""
    dice, inside, sweeps, size = random.Random(3), np.zeros(12), 100, 12
    for _ in range(sweeps):
        drawn = told([trial(number, dice.random()) for number in range(size)], sampler="random")
        band = history.band(found(drawn))
        assert band.kind == "luck" and band.numbers == tuple(range(size))
        truth = [0.5 ** (1 / count) for count in range(1, size + 1)]
        inside += [(low is None or low <= value) and (high is None or value <= high)
                   for low, high, value in zip(band.low, band.high, truth, strict=True)]  # fmt: skip
    assert min(inside) >= 0.95 * sweeps - 2 * (0.95 * 0.05 * sweeps) ** 0.5
    assert band.high[-1] is None  # twelve draws do not bound how good the best of twelve can be


def test_a_failed_trial_is_the_worst_one_to_the_band_of_a_random_sweep():
    scores = [0.1 * number for number in range(1, 9)]
    low = told([*(trial(number, score) for number, score in enumerate(scores)), trial(8, 0.0), trial(9, 0.0)])
    failed = told([*(trial(number, score) for number, score in enumerate(scores)), trial(8), trial(9)])
    bands = [history.band(found(each | {"sampler": "random"})) for each in (low, failed)]
    assert bands[0].high == bands[1].high
    assert bands[1].low[2:] == bands[0].low[2:]


@pytest.mark.parametrize(
    ("sampler", "last", "said"),
    [
        ("random", trial(9), "with 95 % confidence at each number"),
        ("random", pruned(9, 0.5, 50), "a pruned trial has no final score"),
        ("quasi_random", trial(9), "no confidence band"),
        ("tpe", trial(9), "no confidence band"),
        ("grid", trial(9), "no confidence band"),
    ],
)
def test_only_independent_draws_have_a_confidence_band(sampler, last, said):
    content = told([*(trial(number, score) for number, score in enumerate(SCORES)), last], sampler=sampler)
    assert said in history_figure(found(content)).caption


def test_the_other_band_is_the_middle_half_of_the_trials_so_far():
    band = history.band(found(plain()))
    for place, number in enumerate(band.numbers):
        low, _, high = statistics.quantiles(SCORES[: number + 1], n=4, method="inclusive")
        assert (band.low[place], band.high[place]) == pytest.approx((low, high))
    assert band.numbers[0] == 3


@pytest.mark.parametrize(
    ("dimension", "word", "place", "ticks"),
    [
        (Span(1e-5, 1e-3, log=True), "0.0001", 0.5, ["1e-5", "3e-5", "1e-4", "3e-4", "0.001"]),
        (Span(4, 64, log=True, whole=True), "16", 0.5, ["4", "8", "16", "32", "64"]),
        (Span(0, 0.3), "0.15", 0.5, ["0", "0.1", "0.2", "0.3"]),
        (Span(2, 6, 1, whole=True), "3", 0.25, ["2", "3", "4", "5", "6"]),
        (Choice(("0.1", "0", "0.05")), "0.05", 0.5, ["0", "0.05", "0.1"]),
        (Choice(("full", "probe")), "probe", 0.75, ["full", "probe"]),
    ],
)
def test_an_axis_has_the_scale_on_which_its_values_were_drawn(dimension, word, place, ticks):
    axis = Axis("key", dimension)
    assert axis.place(word) == pytest.approx(place)
    assert [text for _, text in axis.ticks()] == ticks
    assert all(-1e-9 <= tick <= 1 + 1e-9 for tick, _ in axis.ticks())


def test_long_words_lose_their_middle():
    assert shortened("gradual_unfreezing_with_rates") == "gradual_u…th_rates"
    assert len(shortened("x" * 40)) == 18 and shortened("full") == "full"
