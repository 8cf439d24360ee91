"""The report page: what stands in it, that nothing leaves it, and that a real browser draws it."""

from __future__ import annotations

import dataclasses
import functools
import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import plotly.graph_objects as go
import pytest
from rich.console import Console

from headswap.spine import StudyConfig
from headswap.study.curves import LabelsSaved
from headswap.study.figures import Figure, figures
from headswap.study.report import render, terminal_table, write_report
from headswap.study.results import Comparison, RunRecord, compare
from headswap.study.traces import SYMBOLS, palettes
from headswap.study.verdict import beside, verdict
from study_folders import Made, make_study

STUDY = StudyConfig(arms={"finetune": {}, "scratch": {}})
OVERLAYS = {"finetune": {"train": {"learning_rate": 5e-5}}, "scratch": {"train": {"learning_rate": 5e-4}}}
CLEAR = Made({"finetune": 0.8, "scratch": 0.7}, slope={"scratch": 0.05}, speed={"finetune": 3}, seeds=3, rows=300)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PROBE = """<script>
window.faults = [];
addEventListener("error", (event) => faults.push(String(event.message)));
addEventListener("securitypolicyviolation", (event) => faults.push(event.violatedDirective + " " + event.blockedURI));
const tell = console.error; console.error = (...words) => { faults.push(words.join(" ")); tell(...words); };
addEventListener("load", () => setTimeout(() => {
  const root = document.documentElement;
  root.dataset.faults = JSON.stringify(faults);
  root.dataset.requests = performance.getEntriesByType("resource").length;
  root.dataset.traces = document.querySelectorAll(".scatterlayer .trace, .heatmaplayer .hm").length;
  root.dataset.ink = getComputedStyle(document.querySelector(".plot .xtick text")).fill;
}, 500));
</script>"""


@pytest.fixture(scope="module")
def comparison(tmp_path_factory) -> Comparison:
    return compare(make_study(tmp_path_factory.mktemp("runs"), CLEAR), STUDY, OVERLAYS)


@functools.cache
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None and os.environ.get("HEADSWAP_REQUIRE_BROWSER") == "1":
        pytest.fail(f"HEADSWAP_REQUIRE_BROWSER=1, but none of {', '.join(BROWSERS)} is installed")
    if found is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed; set HEADSWAP_REQUIRE_BROWSER=1 to fail instead")
    return found


def dumped(page: Path, profile: Path, scheme: int = 1) -> str:
    """Return the page as a real browser has drawn it; `scheme` 0 is dark, 1 light."""
    switches = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    switches += (
        " disable-component-update disable-sync hide-scrollbars dump-dom virtual-time-budget=6000 window-size=1280,1000"
    )
    command = [browser(), *(f"--{switch}" for switch in switches.split())]
    command += [f"--user-data-dir={profile}", f"--blink-settings=preferredColorScheme={scheme}", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def probed(page: str) -> str:
    return page.replace("<head>", f"<head>{PROBE}", 1)


def told(page: str, name: str) -> str:
    """Return a value that the probe left on the page's root element."""
    found = re.search(rf'<html[^>]* data-{name}="([^"]*)"', page)
    assert found, f"the probe did not tell {name}"
    return html.unescape(found[1])


def test_a_browser_draws_every_figure_without_errors_or_requests(comparison, tmp_path):
    page = tmp_path / "report.html"
    page.write_text(probed(render(comparison)), encoding="utf-8")
    drawn = dumped(page, tmp_path / "profile")
    plots = sum(len(figure.plots) for figure in figures(comparison))
    assert (
        plots == 3 + 3 + 1 + 1 + 1 + 2 + 3 + 2
    )  # curves, arrivals, labels, pairs, forest, slices, confusion, calibration
    assert len(re.findall(r'class="plot js-plotly-plot"', drawn)) == plots
    assert len(re.findall(r'<svg class="main-svg"', drawn)) >= 2 * plots  # plotly lays several over each other
    assert told(drawn, "traces") == str(sum(len(plot.data) for figure in figures(comparison) for plot in figure.plots))
    assert json.loads(told(drawn, "faults")) == []
    assert told(drawn, "requests") == "0"
    assert "xtick" in drawn


def test_the_figures_follow_the_colour_scheme(comparison, tmp_path):
    page = tmp_path / "report.html"
    page.write_text(probed(render(comparison)), encoding="utf-8")
    inks = [told(dumped(page, tmp_path / f"profile{scheme}", scheme), "ink") for scheme in (0, 1)]
    assert inks == [_rgb(palettes()[theme]["@muted"]) for theme in ("dark", "light")]


def test_a_phone_shows_the_page_without_sideways_scrolling(comparison, tmp_path):
    inner = probed(render(comparison)).replace("<details>", "<details open>")
    tell = "setTimeout(() => parent.postMessage([root.scrollWidth, root.clientWidth], '*'));"
    inner = inner.replace("const root = document.documentElement;", f"const root = document.documentElement; {tell}")
    (tmp_path / "inner.html").write_text(inner, encoding="utf-8")
    listen = "addEventListener('message', (e) => { document.documentElement.dataset.width = e.data; })"
    frame = f"<html><script>{listen}</script><iframe src='inner.html' width=360 height=800 style='border:0'></iframe></html>"
    (tmp_path / "frame.html").write_text(frame, encoding="utf-8")  # a headless window cannot be 360 wide, a frame can
    assert told(dumped(tmp_path / "frame.html", tmp_path / "profile"), "width") == "360,360"


def _rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[place : place + 2], 16)) for place in (1, 3, 5))})"


def without_plotly(page: str) -> str:
    return re.sub(r"<script>.{100000,}?</script>", "", page, flags=re.DOTALL)


def test_the_page_holds_plotly_once_and_names_no_address(comparison, tmp_path):
    page = write_report(comparison, tmp_path).read_text(encoding="utf-8")
    own = without_plotly(page)
    assert len(own) < 300_000 < len(page)
    assert not re.search(r"https?://|@import|<link|src=", own)
    assert "default-src 'none'" in own


def test_the_page_holds_verdict_design_tables_ledger_configs_and_cost(comparison):
    own = without_plotly(render(comparison))
    for text in (
        "finetune is better than scratch",
        "Minimum detectable effect",
        "train.learning_rate",
        "kept.elements",
    ):
        assert text in own
    for text in (
        "Exploratory: 3 paired seeds",
        "learning_rate: 5.0e-05",
        "duplicates_dropped",
        "Nothing: every run finished",
    ):
        assert text in own


def test_every_figure_has_a_description_a_caption_and_its_numbers(comparison):
    own = without_plotly(render(comparison))
    made = figures(comparison)
    names = ["curves", "arrivals", "labels", "pairs", "forest", "slices", "confusion", "calibration"]
    assert [figure.name for figure in made] == names
    for figure in made:
        assert len(figure.description) > 40
        assert html.escape(figure.caption, quote=False).replace("'", "&#39;") in own
        assert len(figure.table.rows) >= 3
        assert all(len(row) == len(figure.table.columns) for row in figure.table.rows)
    assert own.count('role="img"') == len(made) + 1
    assert own.count("The numbers of this figure") == len(made)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_figures_are_valid_plotly_in_both_themes(comparison, theme):
    for figure in figures(comparison):
        for plot in figure.plots:
            go.Figure(_painted({"data": plot.data, "layout": plot.layout}, palettes()[theme]))


def _painted(node, colours):
    if isinstance(node, dict):
        return {key: _painted(value, colours) for key, value in node.items()}
    if isinstance(node, list):
        return [_painted(value, colours) for value in node]
    return colours[node] if isinstance(node, str) and node.startswith("@") else node


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_lines_stand_out_from_the_paper(theme):
    colours = palettes()[theme]
    paper = _luminance(colours["@paper"])
    for name in ("@ink", "@muted", *(f"@arm{index}" for index in range(len(SYMBOLS)))):
        low, high = sorted((paper, _luminance(colours[name])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, name  # WCAG 2.2, 1.4.3


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_on_the_fullest_cell_of_a_heatmap_can_be_read(theme):
    colours = palettes()[theme]
    for index in range(6):
        low, high = sorted((_luminance(colours["@ink"]), _luminance(colours[f"@heat{index}"])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, index


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_words_from_data_cannot_become_markup(tmp_path):
    evil = "<img src=x onerror=alert(1)></script>"
    records = make_study(tmp_path, dataclasses.replace(CLEAR, sizes=(100,)))
    records.append(RunRecord(evil, 100, 0, tmp_path / evil.replace("/", "_"), "failed", evil))
    for record in records[:-1]:
        path = record.folder / "result.json"
        path.write_text(path.read_text(encoding="utf-8").replace("neutral", evil), encoding="utf-8")
    own = without_plotly(render(compare(records, STUDY, {"finetune": {evil: evil}})))
    assert "<img" not in own
    assert "&lt;img src=x" in own


def test_arms_with_markup_in_their_names_stay_words_in_the_figures(tmp_path):
    records = make_study(tmp_path, Made({"finetune": 0.8, "scratch": 0.6}, sizes=(100,), seeds=2))
    renamed = [dataclasses.replace(each, arm=each.arm.replace("finetune", "<b>fine</b>")) for each in records]
    made = figures(compare(renamed, StudyConfig(treatment="<b>fine</b>"), {}))
    assert "<b>" not in json.dumps([plot.data for figure in made for plot in figure.plots])


def test_the_labels_saved_arrow_has_an_open_head_only_when_censored(tmp_path):
    heads = {}
    for name, slope in (("point", 0.05), ("censored", 0.12)):
        made = Made({"finetune": 0.8, "scratch": 0.78}, slope={"finetune": 0.02, "scratch": slope}, seeds=5)
        if name == "censored":
            made = dataclasses.replace(made, levels={"finetune": 0.8, "scratch": 0.6})
        found = compare(make_study(tmp_path / name, made), STUDY, {})
        heads[name] = _figure(found, "labels").plots[0].data[-1]["marker"]["symbol"][1]
    assert heads == {"point": "triangle-right", "censored": "triangle-right-open"}


def test_a_bound_that_leaves_open_which_arm_saves_labels_is_no_saving(tmp_path):
    flat = Made({"finetune": 0.5, "scratch": 0.5}, slope={"finetune": 0.0, "scratch": 0.0}, seeds=5)
    found = compare(make_study(tmp_path, flat), STUDY, {})
    assert not any(each.settled for each in found.labels_saved)
    texts = {}
    for bound in (4.8, 0.5):
        told = dataclasses.replace(
            found, labels_saved=(LabelsSaved(200, 0.5, None, None, None, "at most", bound, 0.3),)
        )
        texts[bound] = " ".join([*verdict(told), *beside(told), _figure(told, "labels").caption])
    assert "With 200 labels the labels saved cannot be told from none (≤ 4.8×; the sizes tried do not" in texts[4.8]
    assert "were worth" not in texts[4.8] and "Arrow: " not in texts[4.8]
    assert "200 labels with finetune were worth at most 100 with scratch (≤ 0.5×; " in texts[0.5]
    assert "Arrow: 200 labels with finetune stand for ≤ 0.5× as many with scratch; " in texts[0.5]


def _figure(found: Comparison, name: str) -> Figure:
    return next(figure for figure in figures(found) if figure.name == name)


@pytest.mark.parametrize(
    "made",
    [
        Made({"finetune": 0.8}, sizes=(100,), seeds=1),
        Made({"finetune": 0.8, "scratch": 0.6}, sizes=(None,), seeds=1),
        Made({"finetune": 0.8, "scratch": 0.6, "probe": 0.7}, sizes=(100, 200), seeds=2, metric="macro_f1"),
        Made({"scratch": 0.8}, sizes=(100, 400), seeds=2),
    ],
)
def test_a_study_with_little_in_it_still_gives_a_page_and_a_table(tmp_path, made):
    found = compare(make_study(tmp_path, made), STUDY, {})
    assert "</html>" in render(found)
    assert terminal_table(found).row_count == len(made.sizes)


def test_a_study_without_finished_runs_gives_a_page_that_says_so(tmp_path):
    found = compare([RunRecord("finetune", 100, 0, tmp_path / "gone", "failed", "killed")], STUDY, {})
    own = without_plotly(render(found))
    assert "none of the 1 run finished" in own
    assert "failed: killed" in own
    assert terminal_table(found).row_count == 0


def test_the_terminal_table_shows_scores_difference_interval_and_outcome(comparison):
    console = Console(width=200, record=True, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    with console.file:
        console.print(terminal_table(comparison))
        shown = console.export_text()
    assert re.search(r"1,600 │ +[78]\d\.\d % ± \d\.\d pp \(n=3\) │ .* │ +\+\d+\.\d pp \(95 % CI .*\), better", shown)
