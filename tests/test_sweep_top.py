"""`headswap top` and `headswap report` on a sweep, and confirmation over seeds."""

import html
import io
import statistics
from pathlib import Path

import pytest
from rich.console import Console

from headswap.cli import dispatch, main
from headswap.config import compose
from headswap.errors import RunError
from headswap.records import read_json
from headswap.sweep.confirm import confirm
from headswap.sweep.execute import plan, sweep
from headswap.sweep.findings import read
from headswap.sweep.page import figures, render
from headswap.sweep.show import print_findings
from sweep_folders import FRESH, SPACE, found, plain, told, trial, written
from test_report import without_plotly
from tiny_runs import reviews, words_of


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
    drawn = {figure.name for figure in figures(read(made.folder))}
    for place, ending in (("figures", "svg"), ("figures", "png"), ("tables", "csv")):
        assert {path.stem for path in (made.folder / place).glob(f"*.{ending}")} == drawn
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
