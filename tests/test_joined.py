"""Several studies on one page: what is refused, the numbers over tasks, the sentences, the page and its files."""

import csv
import dataclasses
import html
import json
import re
import shutil
from fractions import Fraction

import numpy as np
import plotly.graph_objects as go
import pytest

from headswap import cli
from headswap.errors import ConfigError, RunError
from headswap.study.joined.aggregates import improvement, interquartile, interquartile_mean, stretch
from headswap.study.joined.figures import figures
from headswap.study.joined.joining import join, speed_of
from headswap.study.joined.page import default_folder, publish, render
from headswap.study.joined.reading import read_studies
from headswap.study.joined.tables import speed_table
from headswap.study.joined.verdict import title, verdict
from headswap.study.speed import Bound
from headswap.study.traces import palettes
from joined_studies import TASKS, made_of, studies_of, study_of
from test_report import _painted, dumped, probed, told, without_plotly

# runs x tasks, in hundredths
TREATMENT = [[91, 72, 55, 80], [93, 70, 61, 79], [90, 75, 58, 84], [92, 71, 52, 82], [94, 73, 57, 81]]
CONTROL = [[88, 70, 54, 81], [91, 66, 60, 77], [87, 71, 50, 80], [89, 72, 51, 78], [90, 69, 53, 83]]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def five(root):
    return studies_of(root, *TASKS)


@pytest.fixture(scope="module")
def joined(five):
    return join(read_studies(five))


def samples(treatment=TREATMENT, control=CONTROL):
    columns = [np.array(rows, dtype=float).T / 100 for rows in (treatment, control)]
    return list(zip(*columns, strict=True))


def by_hand(rows):
    """Return the mean of the ten middle ones of twenty scores."""
    values = sorted(Fraction(value, 100) for row in rows for value in row)
    return float(sum(values[5:15]) / 10)


def counted():
    """Return P(treatment > control) averaged over the tasks, every pair of runs counted."""
    wins = Fraction(0)
    for task in range(4):
        for first in TREATMENT:
            wins += sum(Fraction((first[task] > row[task]) * 2 + (first[task] == row[task]), 2) for row in CONTROL)
    return float(wins / 25 / 4)


def test_interquartile_mean_and_probability_are_those_counted_by_hand():
    found = interquartile(samples(), 0.95)
    assert found.treatment.mean == pytest.approx(by_hand(TREATMENT), abs=1e-12)
    assert found.control.mean == pytest.approx(by_hand(CONTROL), abs=1e-12)
    assert found.difference.mean == pytest.approx(by_hand(TREATMENT) - by_hand(CONTROL), abs=1e-12)
    assert improvement(samples(), 0.95).mean == pytest.approx(counted(), abs=1e-12)


def test_the_intervals_hold_the_estimate_and_narrow_with_less_confidence():
    for each in (interquartile(samples(), 0.95).difference, improvement(samples(), 0.95)):
        assert each.low < each.mean < each.high
    wide, narrow = (improvement(samples(), confidence) for confidence in (0.95, 0.8))
    assert wide.high - wide.low > narrow.high - narrow.low
    assert wide.low >= 0 and wide.high <= 1


def test_fewer_than_four_tasks_have_no_aggregate():
    assert interquartile(samples()[:3], 0.95) is None
    assert improvement(samples()[:3], 0.95) is None


def test_scores_that_no_resampling_mixes_have_no_interval_of_the_probability():
    apart = [(np.array([0.9, 0.91, 0.92]), np.array([0.5, 0.51, 0.52]))] * 4
    found = improvement(apart, 0.95)
    assert (found.mean, found.low) == (1.0, None)
    assert "no resampling" in found.reason


def test_tasks_with_one_seed_have_means_without_intervals():
    single = [(treatment[:1], control[:1]) for treatment, control in samples()]
    found = interquartile(single, 0.95)
    assert found.difference.low is None and "single paired seed" in found.difference.reason


def test_interquartile_means_keep_tasks_of_unlike_numbers_of_seeds():
    scores = np.array([0.1, 0.2, 0.3]), np.array([0.4, 0.5, 0.6, 0.7, 0.8])
    assert interquartile_mean(*scores) == pytest.approx((0.3 + 0.4 + 0.5 + 0.6) / 4)


def test_the_verdict_counts_the_outcomes_and_gives_both_aggregates(joined):
    first, *rest = verdict(joined)
    counts = joined.main.outcomes
    assert counts["better"] >= 3 and sum(counts.values()) == 5
    assert first.startswith(f"Over 5 tasks finetune was better than scratch in {counts['better']}, ")
    found = joined.main.interquartile
    assert f"interquartile mean of accuracy {100 * found.treatment.mean:.1f} % against" in first
    assert re.search(r"\(\+\d+\.\d pp, 95 % CI \+\d+\.\d to \+\d+\.\d\)", first)
    assert re.search(r"scored better with probability 0\.\d\d \(95 % CI 0\.\d\d to \d\.\d\d\)", first)
    assert any("tasks are fixed" in each for each in rest)
    assert title(joined) == f"finetune is better than scratch in {counts['better']} of 5 tasks"


@pytest.mark.parametrize(
    ("outcomes", "said", "headed"),
    [
        ((4, 0, 0, 1), "was better than scratch in 4, not settled in 1", "is better than scratch in 4 of 5 tasks"),
        ((2, 1, 2, 0), "was better than scratch in 2, worse in 1, equivalent in 2", "in 2 of 5 tasks, worse in 1"),
        ((0, 3, 0, 2), "was worse than scratch in 3, not settled in 2", "is worse than scratch in 3 of 5 tasks"),
        ((0, 0, 1, 4), "was equivalent to scratch in 1, not settled in 4", "are equivalent in 1 of 5 tasks"),
        ((0, 0, 0, 5), "against scratch was not settled in 5", "is not settled in any of 5 tasks"),
    ],
)
def test_every_count_of_outcomes_has_its_sentence(joined, outcomes, said, headed):
    names = ("better", "worse", "equivalent", "not settled")
    main = dataclasses.replace(joined.main, outcomes=dict(zip(names, outcomes, strict=True)))
    other = dataclasses.replace(joined, aggregates=(main,))
    assert verdict(other)[0].startswith(f"Over 5 tasks finetune {said}; ")
    assert headed in title(other)


def test_p_values_are_corrected_for_there_being_several_studies(joined):
    values = [each.primary.interval.p_value() for each in joined.studies]
    order = sorted(range(5), key=values.__getitem__)
    by_rank = [values[place] * 5 / rank for rank, place in enumerate(order, start=1)]  # Benjamini and Hochberg 1995
    expected = {place: min(1.0, *by_rank[rank:], 1.0) for rank, place in enumerate(order)}
    assert joined.adjusted == pytest.approx([expected[place] for place in range(5)])


def test_a_difference_that_falls_by_the_correction_is_named(joined):
    place = next(place for place, each in enumerate(joined.studies) if each.primary.outcome == "better")
    adjusted = tuple(0.06 if index == place else 0.001 for index in range(5))
    said = " ".join(verdict(dataclasses.replace(joined, adjusted=adjusted)))
    assert f"not {joined.studies[place].label}." in said
    stands = " ".join(verdict(dataclasses.replace(joined, adjusted=(0.001,) * 5)))
    assert f"All {joined.main.outcomes['better']} differences found stand" in stands


def test_below_four_tasks_the_page_says_why_there_is_no_aggregate(five):
    few = join(read_studies(five[:3]))
    assert few.main.interquartile is None and few.main.improvement is None
    assert any("No interquartile mean and no probability of improvement" in each for each in verdict(few))
    assert [figure.name for figure in figures(few)] == ["forest"]
    assert "from 4 tasks on" in without_plotly(render(few, five[0].parent / "joined"))


def test_metrics_outside_0_to_1_have_an_axis_of_their_own_and_are_left_out_of_the_mean(five, root):
    errors = study_of(root, "stars", Made_mae())
    found = join(read_studies([*five, errors]))
    assert found.left_out == {"stars": "of MAE, less is better"}
    assert len(found.averaged) == 5
    assert found.main.improvement is not None and len(found.main.improvements) == 6
    assert [plot.title for plot in figures(found)[0].plots] == ["difference (pp)", "MAE difference (less is better)"]
    assert any(
        each.startswith("Not in the interquartile mean: stars (of MAE, less is better)") for each in verdict(found)
    )
    last = found.studies[-1]
    assert last.primary.outcome == "better" and last.primary.interval.mean < 0
    assert found.main.improvements[-1] > 0.5


def Made_mae():
    return dataclasses.replace(made_of("sst2"), metric="mae")


def test_shares_of_two_kinds_are_averaged_as_plain_numbers_and_named(five, root):
    scores = study_of(root, "tags", dataclasses.replace(made_of("news"), metric="macro_f1"))
    found = join(read_studies([*five[:3], scores]))
    first = verdict(found)[0]
    assert "interquartile mean of accuracy (3) and macro F1 (1) 0." in first
    assert found.unit.kind == "bounded"


def test_bodies_on_one_task_are_told_apart_by_the_body_and_share_their_rows(tmp_path):
    folders = [study_of(tmp_path, "sst2", made_of("sst2"), body) for body in ("minilm", "distilbert")]
    found = join(read_studies(folders))
    assert [each.label for each in found.studies] == ["minilm", "distilbert"]
    assert verdict(found)[0].startswith("Over 2 bodies ")
    assert any(each.startswith("Same test rows: minilm, distilbert") for each in found.warnings)


def test_tables_of_ones_own_are_told_apart_by_their_files(tmp_path):
    folders = [study_of(tmp_path / name, name, made_of("sst2")) for name in ("films", "books")]
    for folder in folders:
        text = (folder / "config.yaml").read_text(encoding="utf-8")
        (folder / "config.yaml").write_text(
            re.sub(r"(choices:(?:\n  .*)*?\n  task: )\w+", r"\1text", text), encoding="utf-8"
        )
    found = read_studies(folders)
    assert [(each.task, each.label, each.noun) for each in found] == [
        ("text", "films", "task"),
        ("text", "books", "task"),
    ]


def test_recipes_and_numbers_of_seeds_that_differ_are_said(tmp_path):
    folders = studies_of(tmp_path, "sst2", "emotion", "news")
    arms = {"finetune": {"train": {"learning_rate": 1e-3}}, "scratch": {"train": {"learning_rate": 5e-4}}}
    path = study_of(tmp_path, "cola", made_of("cola", seeds=3))
    text = (path / "config.yaml").read_text(encoding="utf-8")
    (path / "config.yaml").write_text(text.replace("learning_rate: 5.0e-05", "learning_rate: 0.001"), encoding="utf-8")
    found = join(read_studies([*folders, path]))
    assert arms["finetune"] == found.studies[-1].comparison.overlays["finetune"]
    said = " ".join(found.warnings)
    assert "finetune is not set up alike in all studies (train.learning_rate)" in said
    assert "scratch is not" not in said
    assert "Few seeds: with 3, a nominal 95 % interval of the probability covered" in said
    assert "Numbers of seeds differ (sst2 5, emotion 5, news 5, cola 3)" in said


def test_collapsed_and_provisional_studies_are_said(five, tmp_path):
    fallen = study_of(
        tmp_path, "fallen", dataclasses.replace(made_of("sst2"), levels={"finetune": 0.9, "scratch": 0.3})
    )
    scores = study_of(tmp_path, "tags", dataclasses.replace(made_of("news"), metric="macro_f1"))
    said = join(read_studies([five[0], fallen, scores])).warnings
    assert "Exploratory: every study with fewer than 10 paired seeds." in said
    assert any(each.startswith("Collapsed runs (fallen 5) count in every number") for each in said)
    assert any(each.startswith("Provisional: the interval of tags is over seeds alone") for each in said)


def refused(*folders):
    with pytest.raises((ConfigError, RunError)) as raised:
        read_studies(folders)
    return str(raised.value)


def test_what_cannot_be_joined_is_refused_with_its_remedy(five, tmp_path):
    first, second = five[:2]
    assert "two studies or more; found 1; name several" in refused(first)
    assert f"{first}: the same study twice" in refused(first, second, first.parent / "." / first.name)
    assert "no such folder; found no runs.json" in refused(first, tmp_path / "gone")
    (tmp_path / "sweep.json").write_text("{}")
    assert "found sweep.json, a sweep's folder" in refused(first, tmp_path)
    assert "found result.json, a run's folder" in refused(first, next(first.parent.glob("sst2-*")))


def test_a_copy_of_a_study_is_refused(five, tmp_path):
    shutil.copytree(five[0], tmp_path / "copy")
    for run in five[0].parent.glob("sst2-*"):
        shutil.copytree(run, tmp_path / run.name)
    said = refused(five[0], tmp_path / "copy")
    assert "the same study twice; found 5 of 5 pairs of runs in both; leave one out" in said


def test_studies_of_other_arms_are_refused_by_name(five, tmp_path):
    other = study_of(tmp_path, "sst2", made_of("sst2"), treatment="scratch", control="finetune")
    said = refused(five[1], other)
    assert f"found finetune against scratch in {five[1]} and scratch against finetune in {other}" in said


def test_a_study_whose_runs_are_gone_is_refused(five, tmp_path):
    made = study_of(tmp_path, "sst2", made_of("sst2"))
    for run in tmp_path.glob("sst2-minilm-scratch-*"):
        shutil.rmtree(run)
    assert "has nothing to join; found: Nothing to compare: only finetune has finished runs" in refused(five[1], made)


def test_a_treatment_that_was_there_when_first_looked_at_did_get_there(joined):
    """Its time is known from above alone, so there is a bound and no factor; that is not the same as not in all seeds."""
    study = joined.studies[0]
    speed = speed_of(study)
    total = len(speed.arrivals)

    def row(**changes):
        changed = dataclasses.replace(speed, ratios={}, bounds={"examples": Bound(3.0, 2.0, 0.95, total)}, **changes)
        comparison = dataclasses.replace(study.comparison, convergence=(changed,))
        studies = (dataclasses.replace(study, comparison=comparison), *joined.studies[1:])
        return speed_table(dataclasses.replace(joined, studies=studies)).rows[0][-4:]

    needed, _, fewer, reached = row(at_least=True, reached=total)
    assert needed.startswith("≤ ") and (fewer, reached) == ("≥ 2×", f"{total} of {total} seeds")
    assert row(at_least=True, reached=total - 1)[0] == "not in all seeds"


def test_stretch_is_that_of_few_seeds():
    assert stretch([10_000] * 5, 0.95) == pytest.approx(1, abs=1e-3)
    assert stretch([3] * 4, 0.95) > stretch([5] * 4, 0.95) > stretch([10] * 4, 0.95) > 1


def test_folders_may_be_named_from_where_one_stands(tmp_path, monkeypatch):
    folders = studies_of(tmp_path / "outputs", "sst2", "news")
    monkeypatch.chdir(tmp_path)
    relative = [folder.relative_to(tmp_path) for folder in folders]
    assert [len(each.primary.pairs) for each in read_studies(relative)] == [5, 5]


def listing(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_the_command_writes_its_files_and_leaves_the_studies_alone(five, tmp_path, capsys, monkeypatch):
    two = five[:2]
    before = {folder: listing(folder) for folder in two}
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.dispatch(["report", *map(str, two), "--out", str(tmp_path / "all")]) == 0
    assert {folder: listing(folder) for folder in two} == before
    out = capsys.readouterr().out
    assert re.search(r"sst2 +│ +400 │ +\d\d\.\d % │ +\d\d\.\d % │ +\+\d+\.\d pp \(\+.*\) │ better", out)
    assert out.rstrip().endswith(str(tmp_path / "all"))
    names = sorted(str(path.relative_to(tmp_path / "all")) for path in (tmp_path / "all").rglob("*.*"))
    drawn = ["figures/forest.png", "figures/forest.svg"]
    assert names == [*drawn, "joined.csv", "joined.html", "joined.json", "tables/forest.csv"]
    with pytest.raises(ConfigError, match="--out: not a folder"):
        cli.dispatch(["report", *map(str, two), "--out", str(tmp_path / "all" / "joined.csv")])
    assert cli.dispatch(["report", str(tmp_path / "all")]) == 0  # the same studies again


def test_without_out_the_folder_is_named_by_the_studies_in_any_order(joined):
    first, second, third = (
        default_folder(some) for some in (joined.studies[:2], joined.studies[1::-1], joined.studies[:3])
    )
    assert first == second != third
    assert re.fullmatch(r"outputs/joined-[0-9a-f]{8}", str(first))


def test_json_and_csv_hold_the_same_numbers_as_the_studies(five, joined, tmp_path):
    publish(five, tmp_path)
    summary = json.loads((tmp_path / "joined.json").read_text(encoding="utf-8"))
    rows = list(csv.DictReader((tmp_path / "joined.csv").read_text(encoding="utf-8").splitlines()))
    for row, told_of, study in zip(rows, summary["studies"], joined.studies, strict=True):
        assert float(row["difference"]) == told_of["difference"] == study.primary.interval.mean
        assert row["study"] == study.label and int(row["test_rows"]) == 300
        assert (tmp_path / told_of["folder"]).resolve() == study.folder.resolve()
    assert summary["aggregates"][0]["interquartile"]["difference"]["mean"] == joined.main.interquartile.difference.mean


def test_links_to_the_studies_own_pages_are_relative_and_only_where_there_is_one(five, joined, tmp_path):
    root = tmp_path / "outputs"
    folders = studies_of(root, "sst2", "news")
    (folders[0] / "report.html").write_text("own page", encoding="utf-8")
    page = publish(folders, root / "joined")[1] / "joined.html"
    links = re.findall(r'<a href="([^"#]+)">(\w+)</a>', without_plotly(page.read_text(encoding="utf-8")))
    assert [name for _, name in links] == ["sst2"]
    assert (page.parent / links[0][0]).read_text(encoding="utf-8") == "own page"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_figures_are_valid_plotly_with_descriptions_and_numbers(joined, theme):
    made = figures(joined)
    assert [figure.name for figure in made] == ["forest", "means", "improvement"]
    for figure in made:
        assert len(figure.description) > 40
        assert all(len(row) == len(figure.table.columns) for row in figure.table.rows)
        for plot in figure.plots:
            go.Figure(_painted({"data": plot.data, "layout": plot.layout}, palettes()[theme]))


def test_words_from_data_cannot_become_markup(joined, tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    renamed = dataclasses.replace(
        joined, studies=(dataclasses.replace(joined.studies[0], label=evil), *joined.studies[1:])
    )
    own = without_plotly(render(renamed, tmp_path))
    assert "<img" not in own and "&lt;img src=x" in own
    assert "<img" not in json.dumps([plot.data for figure in figures(renamed) for plot in figure.plots])


def test_a_browser_draws_the_page_on_a_phone_without_errors_or_requests(joined, tmp_path):
    inner = probed(render(joined, tmp_path)).replace("<details>", "<details open>")
    tell = "setTimeout(() => parent.postMessage([root.scrollWidth, root.clientWidth, root.dataset.faults], '*'), 900);"
    inner = inner.replace("const root = document.documentElement;", f"const root = document.documentElement; {tell}")
    (tmp_path / "inner.html").write_text(inner, encoding="utf-8")
    listen = "addEventListener('message', (e) => { document.documentElement.dataset.width = e.data; })"
    frame = f"<html><script>{listen}</script><iframe src='inner.html' width=360 height=800 style='border:0'></iframe></html>"
    (tmp_path / "frame.html").write_text(frame, encoding="utf-8")
    assert html.unescape(told(dumped(tmp_path / "frame.html", tmp_path / "profile"), "width")) == "360,360,[]"
