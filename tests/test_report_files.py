"""The report's figures and tables as files: that every drawing is known, the same bytes, numbers as numbers."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from PIL import Image

from headswap.spine import StudyConfig
from headswap.study.attribution import Further
from headswap.study.contrasts import Contrast
from headswap.study.figures import figures
from headswap.study.forest import forest_figure
from headswap.study.page import Figure, Plot, Table
from headswap.study.report import named_tables, write_report
from headswap.study.results import Comparison, compare, save
from headswap.study.sheets import sheet
from headswap.study.static import drawn
from headswap.study.statistics import Components
from headswap.study.strokes import SHAPES
from headswap.study.traces import SYMBOLS, layout_of, line
from study_folders import Made, make_study

STUDY = StudyConfig(arms={"finetune": {}, "scratch": {}})
MADE = Made(
    {"finetune": 0.8, "scratch": 0.7, "probe": 0.72}, sizes=(100, 400), slope={"scratch": 0.05}, seeds=3,
    speed={"finetune": 3, "probe": 0.2}, rows=200,
)  # fmt: skip
PLACES = {"finetune": 0, "scratch": 1, "probe": 2}


@pytest.fixture(scope="module")
def comparison(tmp_path_factory) -> Comparison:
    return compare(make_study(tmp_path_factory.mktemp("runs"), MADE), STUDY, {})


@pytest.fixture(scope="module")
def written(comparison, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_report(comparison, folder)
    return folder


def test_every_figure_is_a_drawing_and_every_table_a_sheet_beside_the_page(comparison, written):
    names = {figure.name for figure in figures(comparison)}
    assert names == {"curves", "arrivals", "labels", "pairs", "forest", "slices", "confusion", "calibration"}
    assert {path.name for path in (written / "figures").iterdir()} == {
        f"{n}.{form}" for n in names for form in ("svg", "png")
    }
    assert names < {path.stem for path in (written / "tables").iterdir()}
    page = (written / "report.html").read_text(encoding="utf-8")
    linked = set(re.findall(r'href="((?:figures|tables)/[^"]+)"', page))
    assert linked == {
        str(path.relative_to(written)) for kind in ("figures", "tables") for path in (written / kind).iterdir()
    }
    assert len(page) < 8_000_000


def test_every_mark_of_an_arm_can_be_drawn_so_that_a_study_of_nine_arms_has_its_files(tmp_path):
    assert set(SHAPES) >= set(SYMBOLS)
    made = Made({f"arm{number}": 0.5 + number / 40 for number in range(9)}, sizes=(100, 400), seeds=2, rows=50)
    study = StudyConfig(arms={arm: {} for arm in made.levels}, treatment="arm0", control="arm1")
    write_report(compare(make_study(tmp_path / "runs", made), study, {}), tmp_path)
    assert {"curves.svg", "forest.svg"} <= {path.name for path in (tmp_path / "figures").iterdir()}


def test_drawings_open_hold_their_words_and_are_the_same_bytes_each_time(comparison, written):
    for figure in figures(comparison):
        content = (written / "figures" / f"{figure.name}.svg").read_bytes()
        words = "".join(ElementTree.fromstring(content).itertext())
        assert figure.description in words
        with Image.open(written / "figures" / f"{figure.name}.png") as image:
            assert min(image.size) > 400
    figure = next(each for each in figures(comparison) if each.name == "forest")
    assert drawn(figure, PLACES)["svg"] == (written / "figures" / "forest.svg").read_bytes()
    words = "".join(ElementTree.fromstring(drawn(figure, PLACES)["svg"]).itertext())
    assert "finetune, 400" in words and "better" in words and "<b>" not in words


def test_what_a_page_would_show_and_a_drawing_would_not_is_an_error():
    def figure(trace: dict, **layout) -> Figure:
        plot = Plot("", [trace], layout_of(200, "x", "y") | layout)
        return Figure("one", "One", "caption", "description", (plot,), Table("t", ("a",), ()))

    known = line([1, 2], [1, 2], "@ink", 1, "solid")
    assert drawn(figure(known), {})["svg"].startswith(b"<?xml")
    for trace, layout in (
        ({"type": "violin", "y": [1]}, {}),
        (known | {"mode": "text"}, {}),
        (known | {"opacity": 0.5}, {}),
        (known | {"fill": "tozeroy"}, {}),
        (known | {"mode": "markers", "marker": {"symbol": "hourglass"}}, {}),
        (known, {"images": []}),
        (known, {"shapes": [{"type": "circle", "x0": 0, "x1": 1, "y0": 0, "y1": 1}]}),
        (known, {"annotations": [{"x": 1, "y": 1, "text": "here"}]}),
    ):
        with pytest.raises(ValueError, match=r"static drawing: .* is not drawn here; found"):
            drawn(figure(trace, **layout), {})


def test_words_of_any_script_and_markup_are_drawn_as_they_are(tmp_path):
    layout = layout_of(200, "x", "y")
    layout["yaxis"] |= {"tickvals": [1], "ticktext": ["$x^2 &lt;b&gt; 好 \x01"]}
    plot = Plot("a $ & <i>", [line([1, 2], [1, 2], "@ink", 1, "solid")], layout)
    made = Figure("one", "One", "caption", "d & <", (plot,), Table("t", ("a",), ()), ("_arm & $",))
    words = "".join(ElementTree.fromstring(drawn(made, {"_arm & $": 0})["svg"]).itertext())
    assert "$x^2 <b> 好" in words and "a $ & <i>" in words


def test_sheets_hold_numbers_as_numbers_with_their_unit_in_the_columns_name():
    table = Table(
        "t",
        ("arm", "text", "mean", "CI", "p", "train", "runs", "steps"),
        (
            ("=arm", "005", "84.2 %", "−1.2 to +3.4", "< 0.001", "1.5 min", "10 (3 reused)", "1,600"),
            ('b,"c"', "–", "–", "0.1 to 0.2", "0.030", "8.0 s", "9", "40"),
        ),
        words=2,
    )
    rows = list(csv.reader(io.StringIO(sheet(table))))
    assert rows == [
        ["arm", "text", "mean (%)", "CI low", "CI high", "p", "train (s)", "runs", "steps"],
        ["'=arm", "005", "84.2", "-1.2", "3.4", "< 0.001", "90", "10 (3 reused)", "1600"],
        ['b,"c"', "", "", "0.1", "0.2", "0.030", "8.0", "9", "40"],
    ]


def test_the_forest_has_every_contrast_with_its_verdict_and_the_declared_one_in_bold(comparison):
    forest = next(each for each in figures(comparison) if each.name == "forest")
    names = forest.plots[0].layout["yaxis"]["ticktext"]
    assert len(names) == len(forest.plots[0].data) == len(comparison.contrasts) == 4
    assert [name for name in names if "<b>" in name] == ["<b>finetune, 400</b><br>better"]
    for contrast, trace in zip(comparison.contrasts, forest.plots[0].data, strict=True):
        assert trace["x"] == [pytest.approx(100 * contrast.interval.mean)]
        assert trace["x"][0] + trace["error_x"]["array"][0] == pytest.approx(100 * contrast.interval.high)


def test_the_uncertainty_is_told_by_its_source_with_what_more_of_each_would_detect(comparison):
    first = comparison.contrasts[0]
    assert (first.treatment, first.control, len(first.pairs), first.test_examples) == ("finetune", "scratch", 3, 200)

    def rows(components: Components, **changes) -> list[dict[str, str]]:
        one = dataclasses.replace(first, components=components, **{"detectable": 0.05} | changes)
        table = named_tables(dataclasses.replace(comparison, contrasts=(one,))).get("uncertainty")
        return [dict(zip(table.columns, row, strict=True)) for row in table.rows] if table else []

    row, *rest = rows(Components(seed=0.0009, example=0.1, residual=0.04))  # of the mean: 0.0003, 0.0005, 0.04 / 600
    assert [row[name] for name in ("seeds", "test examples", "both together")] == ["34.6 %", "57.7 %", "7.7 %"]
    assert (row["labels"], row["detects (80 %)"], rest) == ("100", "5.0 pp", [])
    row = rows(Components(0.0, 0.0, 0.04))[0]  # all but the residual was cut at 0
    assert row["twice the test rows"] == "3.5 pp"  # 5 / sqrt(2)
    row = rows(Components(seed=0.0009, example=0.0, residual=0.0), detectable=3.264 * 0.03)[0]
    # 1.435 and 3.264 deviations: found by 80 % of 400,000 simulated paired t tests of 6 and of 3 pairs.
    assert (row["twice the seeds"], row["twice the test rows"]) == ("4.3 pp", "9.8 pp")
    assert (
        rows(Components(0.1, 0.0, 0.0), scope="seeds only") == rows(Components(0.1, 0.1, 0.1), treatment="probe") == []
    )


def test_the_forest_sets_the_treatment_against_its_rivals_with_open_marks(comparison):
    rival = dataclasses.replace(comparison.contrasts[-1], treatment="finetune", control="probe", q=0.03)
    told = dataclasses.replace(comparison, further=Further(contrasts=(rival,)))
    forest = forest_figure(told)
    assert forest is not None
    assert forest.plots[0].layout["yaxis"]["ticktext"][-1] == f"finetune − probe, 400<br>{rival.said}, q 0.030"
    last, shape = forest.plots[0].data[-1], SYMBOLS[PLACES["probe"]]
    assert (last["marker"]["symbol"], last["marker"]["color"]) == (f"{shape}-open", "@arm2")
    assert last["x"] == [pytest.approx(100 * rival.interval.mean)]
    assert forest.table.rows[-1][0] == "finetune − probe"
    assert "Each arm minus scratch, and finetune minus others (open marks) in accuracy" in forest.caption
    assert drawn(forest, PLACES)["svg"].startswith(b"<?xml")


def test_the_forest_tells_q_where_contrasts_have_one(comparison):
    @dataclasses.dataclass(frozen=True)
    class Corrected(Contrast):
        q: float | None = None

    first, *rest = (Corrected(**vars(each) | {"q": 0.012}) for each in comparison.contrasts)
    forest = forest_figure(dataclasses.replace(comparison, contrasts=(dataclasses.replace(first, q=None), *rest)))
    assert forest.plots[0].layout["yaxis"]["ticktext"][1].endswith(", q 0.012")
    assert "Benjamini-Hochberg" in forest.caption
    assert [row[forest.table.columns.index("q")] for row in forest.table.rows] == ["–", *["0.012"] * 3]


def test_runs_that_never_reach_the_target_are_open_with_an_arrow(comparison):
    found = [each for each in comparison.arrivals if (each.arm, each.size) == ("probe", 400)]
    assert [each.examples for each in found] == [None] * 3
    controls = [each for each in comparison.arrivals if each.arm == "scratch"]
    assert all(each.examples is not None for each in controls)  # by construction
    convergence = comparison.convergence[-1]
    ours = [each.examples for each in comparison.arrivals if (each.arm, each.size) == ("finetune", 400)]
    assert ours == [each.treatment and each.treatment["examples"] for each in convergence.arrivals]
    panel = next(each for each in figures(comparison) if each.name == "arrivals").plots[-1]
    assert panel.data[-2]["marker"]["symbol"] == ["triangle-right-open"] * 3
    assert panel.data[-2]["x"] == [each.trained for each in found]
    assert "0 of 3 seeds got there" in next(each for each in figures(comparison) if each.name == "arrivals").description


def test_every_number_that_a_figure_draws_stands_in_comparison_json(comparison, tmp_path):
    node = json.loads(save(comparison, tmp_path).read_text(encoding="utf-8"))
    assert node["arrivals"][0].keys() >= {"arm", "labels", "seed", "examples", "trained", "target"}
    answered = node["answered"]
    assert np_shape(answered["confusion"]["treatment"]) == (3, 3)
    assert {each["kind"] for each in answered["slices"]["slices"]} == {"all", "class", "length"}
    assert answered["calibration"][0]["bins"] and answered["one_sided"]["treatment"]


def np_shape(rows: list) -> tuple[int, int]:
    return len(rows), len(rows[0])


def test_the_command_line_does_not_import_matplotlib():
    code = "import sys, headswap.study.report, headswap.sweep.page; print('matplotlib' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )


def test_a_report_of_little_is_drawn_too(tmp_path):
    little = dataclasses.replace(MADE, sizes=(None,), seeds=1, rows=20)
    folder = tmp_path / "study"
    write_report(compare(make_study(tmp_path / "runs", little), STUDY, {}), folder)
    assert (folder / "figures" / "pairs.svg").exists()
