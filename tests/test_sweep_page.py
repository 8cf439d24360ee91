"""The sweep's page, trials.csv and `headswap top`: what they say, and what they must not."""

import csv
import html
import io
import json
import random
import re
import statistics
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from rich.console import Console

from headswap.cli import dispatch, main
from headswap.config import compose
from headswap.errors import RunError
from headswap.records import read_json
from headswap.search_space import Choice, Span
from headswap.spine import SweepConfig
from headswap.study.traces import palettes
from headswap.sweep import history, lists
from headswap.sweep.axes import Axis, shortened
from headswap.sweep.confirm import confirm
from headswap.sweep.drawings import curves_figure, history_figure
from headswap.sweep.execute import plan, sweep
from headswap.sweep.findings import findings, read
from headswap.sweep.landscape import importances_figure, parallel_figure, pareto_figure, slices_figure
from headswap.sweep.page import draw, render, title
from headswap.sweep.search import Search
from headswap.sweep.show import print_findings
from sweep_folders import ACCURACY, SECONDS, SPACE, pruned, told, trial, written
from test_report import _painted, dumped, probed, without_plotly
from test_report import told as left
from tiny_runs import reviews, words_of

SCORES = [0.71, 0.80, 0.755, 0.78, 0.83, 0.82, 0.69, 0.84, 0.81]
FRESH = {"again": [0.79, 0.81, 0.80], "test": [0.771, 0.775, 0.779], "errors": [], "metric": "accuracy"}


def found(content, confirmed=()):
    return findings(content, Path("sweep-text-tiny-tpe-0"), confirmed)


def plain(**changes):
    return told([*(trial(number, score) for number, score in enumerate(SCORES)), trial(9)], **changes)


def own(content, confirmed=()):
    """Return the page's own text, entities resolved; the data of its figures is in it as well."""
    return html.unescape(without_plotly(render(found(content, confirmed))))


def trace(figure, name, plot=0):
    return next(each for each in figure.plots[plot].data if each["name"] == name)


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


def figures_of(made):
    makers = (history_figure, pareto_figure, parallel_figure, slices_figure, importances_figure, curves_figure)
    return {figure.name: figure for figure in (make(made) for make in makers) if figure}


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


def test_trials_csv_has_every_trial_as_a_row(tmp_path):
    content = plain(space={**SPACE, "strategy": {"words": ["full", "probe", "lp_ft", 'a,"b"']}})
    content["trials"][0]["settings"]["strategy"] = 'a,"b"'
    content["trials"].append(pruned(10, 0.6, 50))
    draw(written(tmp_path, content))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "trials.csv").read_text(encoding="utf-8"))))
    assert [row["accuracy"] for row in rows] == [*map(str, SCORES), "", ""]  # a pruned trial has no final score
    assert [row["state"] for row in rows] == ["finished"] * 9 + ["failed", "pruned"]
    assert rows[0]["strategy"] == 'a,"b"' and rows[3]["folder"] == "run-3"


def seeded(*groups):
    """Return a sweep whose space has a seed; each group is one setting's scores by seed."""
    trials = []
    for place, scores in enumerate(groups):
        for seed, score in enumerate(scores):
            settings = {"strategy": ["full", "probe", "lp_ft"][place], "seed": str(seed)}
            trials.append(trial(len(trials), score, settings=settings))
    space = {"strategy": SPACE["strategy"], "seed": {"words": ["0", "1", "2"]}}
    return found(told(trials, space=space))


def shown(made, count=10):
    console = Console(width=80, record=True, file=io.StringIO())
    print_findings(made, console, count)
    return console.export_text()


def test_top_ranks_settings_by_their_mean_over_seeds():
    lucky, steady = (0.70, 0.95, 0.72), (0.85, 0.86, 0.87)
    said = shown(seeded(lucky, steady))
    mean, spread = statistics.mean(steady), statistics.stdev(steady)
    rows = [line.split() for line in said.splitlines() if "±" in line and "line:" not in line]
    assert [row[-1] for row in rows] == ["probe", "full"]
    assert rows[0][1:5] == [f"{mean:.4f}", "±", f"{spread:.4f}", "3"]
    assert "best settings: strategy=probe\n" in said
    page = html.unescape(without_plotly(render(seeded(lucky, steady))))
    assert "The best settings have 86.0 % validation accuracy over 3 seeds" in page


def test_top_shows_what_a_confirmation_found_in_columns_that_are_not_cut():
    again = [{"trial": 4, "settings": {"strategy": "probe"}, "found": 0.83, **FRESH}]
    said = shown(found(plain(), again), count=3)
    (line,) = (line for line in said.splitlines() if line.split()[:1] == ["4"])
    assert f"0.8000 ± {statistics.stdev(FRESH['again']):.4f}" in line and line.endswith("-0.0300")
    assert "confirmed: trial 4; test accuracy 77.5 % ± 0.4 pp on 3 fresh seeds" in said
    assert len([line for line in said.splitlines() if line.startswith(tuple(" 0123456789"))]) == 6  # 3 of heads, 3 rows


def test_a_damaged_summary_is_named(tmp_path):
    content = plain()
    del content["sampler"]
    with pytest.raises(RunError, match=r"sweep\.json: not as headswap writes it; found KeyError: 'sampler'"):
        read(written(tmp_path, content))


def test_report_of_a_folder_that_is_neither_is_one_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["report", str(tmp_path)])
    assert ended.value.code == RunError.exit_code
    said = capsys.readouterr().err
    assert "neither a study's folder nor a sweep's; found no runs.json and no sweep.json" in said


@pytest.fixture(scope="module")
def real(tmp_path_factory, tiny_body):
    """A real sweep over two rates and two seeds, one of its trials impossible, with its best setting confirmed."""
    folder = tmp_path_factory.mktemp("real")
    table = reviews(folder / "reviews.csv")
    given = [
        *words_of(table, tiny_body, folder / "outputs"), "output.keep_model=false", "train.max_steps=3", "sweep=grid",
        "sweep.space.train.learning_rate=1e-4,1e-2", "sweep.space.train.batch_size=4,0", "sweep.space.seed=0,2",
        "sweep.workers=2", "sweep.confirm=1", "sweep.confirm_seeds=2",
    ]  # fmt: skip
    made = plan(compose(given), given, [])
    return made, sweep(made, lambda job, event: None)


def test_a_sweep_leaves_a_page_that_is_made_again_as_it_was(real, capsys):
    made, _ = real
    page = (made.folder / "report.html").read_bytes()
    assert b"4 finished, 4 failed" in page
    dispatch(["report", str(made.folder)])
    said = capsys.readouterr().out
    assert f"report: {made.folder / 'report.html'}" in said and "validation accuracy" in said
    assert (made.folder / "report.html").read_bytes() == page
    (made.folder / "sweep.json").unlink()  # as after a kill: the journal has it all
    dispatch(["report", str(made.folder)])
    assert (made.folder / "report.html").read_bytes() == page


def test_the_best_setting_is_confirmed_by_its_mean_on_seeds_that_no_trial_had(real):
    made, search = real
    jobs = set()
    (again,) = confirm(made, search, lambda job, event: jobs.add(job.config.seed))
    assert jobs == {1, 3}  # 0 and 2 are the space's
    best = read(made.folder).settings()[0]
    scores = [
        read_json(Path(each.user_attrs["folder"]) / "result.json")["scores"]["validation"]["accuracy"]
        for each in search.asked
        if best.settings.items() <= each.user_attrs["words"].items()
    ]
    assert len(scores) == 2 and again.found == pytest.approx(statistics.mean(scores))
    assert again.metric == "accuracy"


def test_top_neither_writes_nor_waits_while_the_sweep_runs(real, capsys):
    made, _ = real
    journal = made.folder / "trials.journal"
    lock = made.folder / "trials.journal.lock"  # as another process holds it
    lock.symlink_to(journal)
    before = {path.name: path.lstat().st_mtime_ns for path in made.folder.iterdir()}, journal.read_bytes()
    dispatch(["top", str(made.folder), "--count", "1"])
    assert ({path.name: path.lstat().st_mtime_ns for path in made.folder.iterdir()}, journal.read_bytes()) == before
    lock.unlink()
    assert "trials: 4 finished, 4 failed" in capsys.readouterr().out


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
