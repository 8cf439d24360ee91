"""The power law of the error over labels: found where it is, refused where it is not, and never stretched far."""

import dataclasses
import math

import numpy as np
import pytest

from headswap.spine import StudyConfig
from headswap.study.curves import LabelsSaved
from headswap.study.figures import figures
from headswap.study.power_law import PowerLaw, fitted_ratio, power_law
from headswap.study.results import compare
from headswap.study.speed_tables import labels_table, power_law_table
from study_folders import Made, make_study

SIZES = [50, 100, 200, 400, 800, 1600]


def errors(floor, scale, exponent, deviation=0.004, seeds=5, *, sizes=SIZES, seed=0):
    dice = np.random.default_rng(seed)
    return [(floor + scale * size**-exponent + dice.normal(0, deviation, seeds)).tolist() for size in sizes]


def test_a_law_is_found_with_a_band_that_holds_it():
    inside = []
    for seed in range(4):
        law = power_law("probe", SIZES, errors(0.1, 2.0, 0.5, seed=seed))
        assert law is not None
        truth = 0.1 + 2.0 * np.array(law.labels) ** -0.5
        inside.append(float(np.mean((np.array(law.low) <= truth) & (truth <= np.array(law.high)))))
        assert law.exponent == pytest.approx(0.5, abs=0.2)
        assert law.error_at(200) == pytest.approx(0.1 + 2.0 / math.sqrt(200), abs=0.01)
        assert (law.labels[0], law.labels[-1]) == (50, pytest.approx(1600))
    assert np.mean(inside) > 0.85


def test_the_largest_size_is_foretold_from_the_others_or_the_law_does_not_hold():
    good = errors(0.1, 2.0, 0.5)
    law = power_law("probe", SIZES, good)
    assert law is not None
    assert law.holds
    foretold, low, high, found = law.left_out
    assert low < foretold < high
    assert found == pytest.approx(np.mean(good[-1]))
    collapsed = power_law("probe", SIZES, [*good[:-1], [each + 0.1 for each in good[-1]]])
    assert collapsed is not None
    assert not collapsed.holds


@pytest.mark.parametrize(
    ("sizes", "seeds", "deviation"), [(SIZES[:5], 5, 0.01), (SIZES, 2, 0.01), (SIZES, 5, 0.0)], ids=str
)
def test_few_sizes_few_seeds_or_no_spread_give_no_law(sizes, seeds, deviation):
    assert power_law("probe", sizes, errors(0.1, 2.0, 0.5, deviation, seeds, sizes=sizes)) is None


def test_an_error_that_does_not_fall_has_no_law():
    assert power_law("probe", SIZES, errors(0.3, 0.0, 0.5)) is None


def test_an_exponent_that_the_noise_leaves_open_gives_no_law_that_holds():
    law = power_law("probe", SIZES, errors(0.3, 0.2, 0.5, 0.02))
    assert law is None or not law.holds


def law_of(arm, floor, scale, exponent, holds=True):
    flat = (0.1, 0.1, 0.1, 0.1)
    return PowerLaw(arm, floor, scale, exponent, 50, 1600, (), (), (), (), flat, holds)


def saved(labels, low, high):
    return LabelsSaved(labels, 0.8, None if low is None else (low * high) ** 0.5, low, high, "", None, 0.0)


LAWS = law_of("finetune", 0.1, 1.0, 0.5), law_of("scratch", 0.1, 2.0, 0.5)  # 4 x the labels, by algebra
NAMES = ("finetune", "scratch")


def test_a_fitted_ratio_is_shown_only_where_interpolation_agrees_and_not_beyond_twice_the_sizes():
    assert fitted_ratio(saved(100, 3, 6), LAWS, NAMES) == pytest.approx(4)
    assert fitted_ratio(saved(800, 3, 6), LAWS, NAMES) == pytest.approx(4)  # 3,200 is twice 1,600
    assert fitted_ratio(saved(801, 3, 6), LAWS, NAMES) is None
    assert fitted_ratio(saved(100, 5, 6), LAWS, NAMES) is None
    assert fitted_ratio(saved(100, None, None), LAWS, NAMES) is None
    assert fitted_ratio(saved(100, 3, 6), (LAWS[0], law_of("scratch", 0.1, 2.0, 0.5, holds=False)), NAMES) is None
    assert (
        fitted_ratio(saved(100, 3, 6), (law_of("finetune", 0.0, 0.1, 0.5), LAWS[1]), NAMES) is None
    )  # below its floor


def test_laws_stand_in_the_tables_and_dashed_in_the_figure(tmp_path):
    made = Made({"finetune": 0.9, "scratch": 0.8}, tuple(SIZES), slope={"finetune": 0.04, "scratch": 0.06}, rows=400)
    found = compare(make_study(tmp_path, made), StudyConfig(arms={"finetune": {}, "scratch": {}}), {})
    assert [law.arm for law in found.power_laws] == ["finetune", "scratch"]
    table = power_law_table(found)
    assert [row[0] for row in table.rows] == ["finetune", "scratch"]
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert "by power law" in labels_table(found).columns
    laws = [dataclasses.replace(law, holds=law.arm == "scratch") for law in found.power_laws]
    found = dataclasses.replace(found, power_laws=tuple(laws))
    figure = next(each for each in figures(found) if each.name == "labels")
    [dashed] = [trace for trace in figure.plots[0].data if trace.get("line", {}).get("dash") == "3px,3px"]
    assert dashed["line"]["color"] == "@arm1"
    assert dashed["y"] == pytest.approx([100 * (1 - error) for error in laws[1].errors])
    assert "Dashed: a power law, error = E + A N^-b, fitted to scratch." in figure.caption


def test_a_study_of_few_sizes_draws_no_law(tmp_path):
    found = compare(make_study(tmp_path, Made({"finetune": 0.9, "scratch": 0.8})), StudyConfig(), {})
    assert found.power_laws == ()
    assert power_law_table(found).rows == ()
    assert not any("Dashed: a power law" in figure.caption for figure in figures(found))
