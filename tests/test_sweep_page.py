"""The sweep's page and trials.csv: what they say, and what they must not."""

import csv
import html
import io
import json
import random
import re

import numpy as np
import plotly.graph_objects as go
import pytest

from headswap.search_space import Span
from headswap.spine import SweepConfig
from headswap.study.traces import palettes
from headswap.sweep import lists
from headswap.sweep.drawings import curves_figure, history_figure
from headswap.sweep.landscape import parallel_figure, pareto_figure, slices_figure
from headswap.sweep.page import draw, render, title
from headswap.sweep.search import Search
from sweep_folders import (
    ACCURACY,
    FRESH,
    SCORES,
    SECONDS,
    SPACE,
    figures_of,
    found,
    plain,
    pruned,
    told,
    trace,
    trial,
    written,
)
from test_report import _painted, dumped, probed, without_plotly
from test_report import told as left


def own(content, confirmed=()):
    """Return the page's own text, entities resolved; the data of its figures is in it as well."""
    return html.unescape(without_plotly(render(found(content, confirmed))))


def test_a_figure_is_there_where_its_data_is():
    assert list(figures_of(found(plain()))) == ["history", "parallel", "slices"]
    known = plain(importances={"strategy": 0.7, "train.learning_rate": 0.3})
    known["trials"].append(pruned(10, 0.6, 50))
    assert list(figures_of(found(known))) == ["history", "parallel", "slices", "importances", "curves"]
    two = told([trial(0, 0.8, 10.0), trial(1, 0.7, 5.0), trial(2, 0.6, 7.0)], objectives=[ACCURACY, SECONDS])
    assert list(figures_of(found(two))) == ["history", "pareto", "parallel", "slices"]
    assert figures_of(found(told([trial(0), trial(1)]))) == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_figures_are_valid_plotly_and_bring_words_and_numbers(theme):
    content = plain(importances={"strategy": 0.7, "train.learning_rate": 0.3})
    content["trials"].append(pruned(10, 0.6, 50))
    for figure in figures_of(found(content)).values():
        assert len(figure.description) > 30 and len(figure.caption) > 60 and figure.table.rows
        assert {len(row) for row in figure.table.rows} == {len(figure.table.columns)}
        for plot in figure.plots:
            go.Figure(_painted({"data": plot.data, "layout": plot.layout}, palettes()[theme]))


def test_pruned_and_failed_trials_stand_with_their_reasons():
    content = plain(pruner="halving")
    lost = trial(12, state="lost", seconds=None, error=None)
    content["trials"] += [pruned(10, 0.60, 50), pruned(11, 0.55, 25), lost]
    made = found(content)
    table = lists.reasons_table(made)
    assert [row[:1] + row[2:] for row in table.rows] == [
        ("pruned", "10, 11", "2"), ("failed", "9", "1"), ("lost", "12", "1")
    ]  # fmt: skip
    assert table.rows[1][1] == "diverged: the loss is NaN at step 3; lower train.learning_rate"
    said = own(content)
    assert "Trials: 9 finished, 2 pruned, 1 failed, 1 lost with an earlier process." in said
    assert "2 trials left out 1.2 trials' worth of steps (62 % of their own on average)" in said  # 0.5 + 0.75
    marks = trace(history_figure(made), "pruned, at its last score")
    assert (marks["x"], marks["y"]) == ([10, 11], pytest.approx([60, 55]))
    ends = trace(curves_figure(made), "where it ended")
    assert (ends["x"], ends["y"]) == ([50, 25], pytest.approx([60, 55]))


def test_the_cost_is_told_by_state_and_the_wall_time_without_pauses():
    """Trials of 30 s: two that overlap by half, and one after a pause."""
    begun = ["2026-03-01T22:00:00", "2026-03-01T22:00:15", "2026-03-02T08:00:00"]
    content = told([trial(number, 0.5, begun=when) for number, when in enumerate(begun)])
    assert found(content).wall() == 75
    assert "Wall time 75.0 s, pauses left out; 90.0 s of trials in it: 1.2 side by side" in own(content)
    assert lists.cost_table(found(plain())).rows == (
        ("finished", "9", "30.0 s", "4.5 min"), ("failed", "1", "30.0 s", "30.0 s"), ("all", "10", "–", "5.0 min")
    )  # fmt: skip


def test_an_unconfirmed_best_is_called_partly_luck_and_no_test_score_is_there():
    said = own(plain())
    assert title(found(plain())) == "The best of 10 trials has 84.0 % validation accuracy"
    assert "partly the luckiest" in said and "sweep.confirm=5" in said and "strategy=probe" in said
    assert "Test accuracy" not in said and "test accuracy" not in said


def test_a_confirmed_best_is_told_by_its_mean_on_fresh_seeds_and_by_how_much_it_fell():
    second = FRESH | {"test": [0.99, 0.98, 0.97], "again": [0.78, 0.77, 0.79]}
    again = [
        {"trial": 4, "settings": {"strategy": "probe"}, "found": 0.83, **FRESH},
        {"trial": 7, "settings": {"strategy": "full"}, "found": 0.84, **second},
    ]
    said = own(plain(), again)
    assert title(found(plain(), again)) == "The best settings reach 80.0 % validation accuracy on fresh seeds"
    assert "a change of −3.0 pp" in said
    assert "Test accuracy of these 3 runs: 77.5 % ± 0.4 pp" in said  # statistics.stdev of 0.771, 0.775, 0.779
    assert "partly the luckiest" not in said
    assert "98.0 %" not in said  # the test score of settings that were not chosen could be chosen by
    later = plain()
    later["trials"].append(trial(10, 0.9))
    assert "Trial 10 was found after the confirmation" in own(later, again)


def test_several_objectives_are_told_by_their_pareto_front():
    """Optuna's own Pareto front is the reference."""
    dice = random.Random(5)
    points = [(round(seconds**0.5 - 0.2 * dice.random(), 2), seconds) for seconds in np.linspace(0.1, 1, 40)]
    made = found(told([trial(n, *point) for n, point in enumerate(points)], objectives=[ACCURACY, SECONDS]))
    search = Search(SweepConfig(sampler="random"), {"x": Span(0, 1)}, made.objectives, 0)
    for accuracy, seconds in points:
        asked, _ = search.ask()
        search.tell(asked, {"scores": {"validation": {"accuracy": accuracy}}, "seconds": {"train": seconds}})
    front = [each.number for each in search.best()]
    assert len(front) > 3
    assert [each.number for each in made.best()] == front
    assert sorted(trace(pareto_figure(made), "Pareto front")["x"]) == sorted(points[number][1] for number in front)
    assert title(made) == f"{len(front)} of 40 trials are on the Pareto front"


def test_a_sweep_of_which_nothing_finished_has_a_page_that_says_so(tmp_path):
    page = draw(written(tmp_path, told([trial(0), trial(1)]))).read_text(encoding="utf-8")
    said = html.unescape(without_plotly(page))
    assert "None of 2 trials finished" in said and "diverged: the loss is NaN" in said
    assert "None of 0 trials finished" in own(told([]))


def test_names_of_the_data_cannot_become_markup_colours_or_code():
    evil = ["</script><b>", "<img src=x onerror=alert(1)>", "@arm0", "constructor", "%{x}", "a&lt;b"]
    content = plain(space={**SPACE, "strategy": {"words": evil}}, importances={"<b>strategy</b>": 1.0})
    for each in content["trials"]:
        each["settings"]["strategy"] = evil[each["number"] % len(evil)]
        each["error"] = each["error"] and "<img src=x>"
    page = without_plotly(render(found(content)))
    assert "<img" not in page and "<b>" not in page
    drawn = json.dumps([plot.data for figure in figures_of(found(content)).values() for plot in figure.plots])
    assert "<b>" not in drawn
    (panel,) = (plot for plot in slices_figure(found(content)).plots if plot.title == "strategy")
    assert "@arm0" not in panel.layout["xaxis"]["ticktext"]


def test_parallel_coordinates_hold_the_finished_trials_that_have_every_key():
    content = plain()
    del content["trials"][0]["settings"]["train.epochs"]
    content["trials"].append(pruned(10, 0.6, 50))
    figure = parallel_figure(found(content))
    assert [int(row[0]) for row in figure.table.rows] == [7, 4, 5, 8, 1, 3, 2, 6]
    assert "1 trial without all of these settings is left out" in figure.caption
    lines = [each for each in figure.plots[0].data if each["mode"] == "lines"]
    assert [each["y"].count(None) for each in lines] == [1, 6, 1]  # best tenth, between, worst fifth
    assert len({(each["line"]["color"], each["line"]["width"], each["line"].get("dash")) for each in lines}) == 3
    assert figure.plots[0].layout["annotations"][0]["text"] == "<b>train.<br>learning_rate</b>"


def test_trials_csv_has_every_trial_as_a_row(tmp_path):
    content = plain(space={**SPACE, "strategy": {"words": ["full", "probe", "lp_ft", 'a,"b"']}})
    content["trials"][0]["settings"]["strategy"] = 'a,"b"'
    content["trials"].append(pruned(10, 0.6, 50))
    draw(written(tmp_path, content))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "trials.csv").read_text(encoding="utf-8"))))
    assert [row["accuracy"] for row in rows] == [*map(str, SCORES), "", ""]  # a pruned trial has no final score
    assert [row["state"] for row in rows] == ["finished"] * 9 + ["failed", "pruned"]
    assert rows[0]["strategy"] == 'a,"b"' and rows[3]["folder"] == "run-3"


def test_a_browser_draws_the_page_without_errors_or_requests_and_it_fits_a_phone(tmp_path):
    content = plain(importances={"strategy": 0.7, "train.learning_rate": 0.3}, pruner="halving")
    content["trials"].append(pruned(10, 0.6, 50))
    tell = "setTimeout(() => parent.postMessage([root.scrollWidth, root.clientWidth, root.dataset.faults], '*'));"
    inner = probed(render(found(content))).replace("<details>", "<details open>")
    inner = inner.replace("root.dataset.requests =", f"{tell} root.dataset.requests =")
    (tmp_path / "inner.html").write_text(inner, encoding="utf-8")
    listen = "addEventListener('message', (e) => { document.documentElement.dataset.said = e.data; })"
    frame = f"<html><script>{listen}</script><iframe src='inner.html' width=360 height=800 style='border:0'></iframe></html>"
    (tmp_path / "frame.html").write_text(frame, encoding="utf-8")
    assert left(dumped(tmp_path / "frame.html", tmp_path / "profile"), "said") == "360,360,[]"
    drawn = dumped(tmp_path / "inner.html", tmp_path / "profile")
    plots = sum(len(figure.plots) for figure in figures_of(found(content)).values())
    assert len(re.findall(r'class="plot js-plotly-plot"', drawn)) == plots == 7
    assert (left(drawn, "faults"), left(drawn, "requests")) == ("[]", "0")


def test_a_pareto_front_without_a_setting_that_most_trials_have_still_gives_a_figure():
    content = told([trial(n, 0.5 + 0.1 * n, 10.0) for n in range(4)], objectives=[ACCURACY, SECONDS])
    del content["trials"][3]["settings"]["train.epochs"]  # the front is trial 3 alone
    figure = parallel_figure(found(content))
    assert [row[0] for row in figure.table.rows] == ["0", "1", "2"]
