"""Trackers: each records a run's curve in a process of its own, and nothing that it does reaches the run."""

import importlib.util
import json
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headswap import curve as curves
from headswap import tracking
from headswap.cli import main
from headswap.config import build, compose, to_dict
from headswap.curve import Curve, Told, settings
from headswap.errors import ConfigError, RunError
from headswap.launch import folder_of, job_of, run_jobs, train
from headswap.records import read_json, read_jsonl
from headswap.study.plan import audit
from headswap.tracked import TrackedRun, Tracker
from odd_trackers import Book
from tiny_runs import ran, reviews, tiny

SMALL = ("train.max_steps=6", "train.save_every.steps=2", "train.save_every.max_share=1")
MLFLOW = pytest.mark.filterwarnings("ignore:The ..noload:DeprecationWarning")  # its own, of SQLAlchemy
ALL = [name for name in ("trackio", "tensorboard", "mlflow", "wandb") if importlib.util.find_spec(name)]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return reviews(tmp_path_factory.mktemp("table") / "reviews.csv")


@pytest.fixture
def config(table, tiny_body, tmp_path):
    return lambda *words: tiny(table, tiny_body, tmp_path, *SMALL, *words)


@pytest.fixture
def unhurried(monkeypatch):
    """Every line is told, and the run's end waits until it is."""
    monkeypatch.setattr(curves, "APART", 0.0)
    monkeypatch.setattr(tracking, "WAIT", 60.0)


def odd(*options: str) -> list[str]:
    """The overrides of a tracker of odd_trackers.py, such as odd("Book", "path=there")."""
    named = [f"+tracker.odd._target_=odd_trackers.{options[0]}", *(f"+tracker.odd.{each}" for each in options[1:])]
    return ["plugins=[odd_trackers]", *named]


def expected(folder: Path) -> dict[str, list]:
    """The curves that the run's own files hold, as (step, value)."""
    lines, result = read_jsonl(folder / "metrics.jsonl"), read_json(folder / "result.json")
    names = ("train/loss", "train/learning_rate", "train/gradient_norm", "validation/loss", "validation/accuracy")
    curves = {
        name: [(line["step"], line[name.split("/")[1]]) for line in lines if line["kind"] == name.split("/")[0]]
        for name in names
    }
    last, test = lines[-1]["step"], result["scores"]["test"]
    ends = {"test/accuracy": test["accuracy"], "test/loss": test["loss"], "seconds/total": result["seconds"]["total"]}
    return curves | {name: [(last, value)] for name, value in ends.items()}


def check(found: dict[str, list], folder: Path) -> None:
    for name, points in expected(folder).items():
        assert [step for step, _ in found[name]] == [step for step, _ in points], name
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in points], rel=1e-6), name


def in_trackio(root: Path, run: str) -> tuple[dict[str, list], int]:
    """The curves that a tracker holds of the runs of this name, and how many runs they are."""
    curves: dict[str, list] = {}
    with sqlite3.connect(root / ".trackers" / "trackio" / "tiny.db") as base:
        rows = base.execute("select run_id, step, metrics from metrics where run_name = ? order by id", (run,))
        rows = rows.fetchall()
    for _, step, values in rows:
        for name, value in json.loads(values).items():
            curves.setdefault(name, []).append((step, value))
    return curves, len({row[0] for row in rows})


def in_tensorboard(root: Path, run: str) -> tuple[dict[str, list], int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(root / ".trackers" / "tensorboard" / "tiny" / run)).Reload()
    return {name: [(each.step, each.value) for each in found.Scalars(name)] for name in found.Tags()["scalars"]}, 1


def in_mlflow(root: Path, run: str) -> tuple[dict[str, list], int]:
    with sqlite3.connect(root / ".trackers" / "mlflow" / "mlflow.db") as base:
        runs = base.execute("select run_uuid, status from runs where name = ?", (run,)).fetchall()
        rows = base.execute("select key, step, value from metrics where run_uuid = ? order by step", (runs[0][0],))
        curves: dict[str, list] = {}
        for name, step, value in rows:
            curves.setdefault(name, []).append((step, value))
        assert runs[0][1] == "FINISHED"
        assert base.execute(
            "select value from params where run_uuid = ? and key = 'train.max_steps'", (runs[0][0],)
        ).fetchall() == [("6",)]
    return curves, len(runs)


def calls(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process, and those forked from it, write down whom they try to reach."""
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")  # trackio would ask the hub whose it is

    def hear(event, arguments):
        reaches = event == "socket.connect" and not isinstance(arguments[1], str | bytes)  # a path is of this machine
        if (reaches or event == "socket.getaddrinfo") and place.parent.exists():  # a hook stays as long as the process
            place.open("a").write(f"{event} {arguments}\n")

    sys.addaudithook(hear)


READERS = {"trackio": in_trackio, "tensorboard": in_tensorboard, "mlflow": in_mlflow}


@MLFLOW
def test_every_tracker_holds_the_whole_curve_of_a_run_that_went_on_once_and_calls_nobody(
    config, tmp_path, unhurried, monkeypatch
):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    calls(tmp_path / "called", monkeypatch)
    importlib.import_module("trackio")  # which reads at its import where it is to write
    made, folder, events = config(f"tracker=[{','.join(ALL)}]"), tmp_path / "run", []
    assert ran(folder, made, events.append, stop_at=4)["status"] == "stopped"
    states = sorted((folder / "checkpoint").iterdir())
    shutil.rmtree(states[-1])  # so it goes on from step 2, and the steps 3 and 4 come again
    assert ran(folder, made, events.append)["kind"] == "finished"
    assert [event["step"] for event in events if event["kind"] == "resumed"] == [2]
    assert [event for event in events if event["kind"] == "warning"] == []
    for name in ALL:
        if name in READERS:
            curves, runs = READERS[name](tmp_path, "run")
            assert runs == 1, name
            check(curves, folder)
    assert list(home.rglob("*")) == []
    assert not (tmp_path / "called").exists(), (tmp_path / "called").read_text()
    if "wandb" in ALL:
        written = (tmp_path / ".trackers" / "wandb").rglob("run-*.wandb")
        assert len({path.name for path in written}) == 1  # a file a process; `wandb sync` joins them by their id


@pytest.mark.parametrize(
    ("what", "when", "warnings"), [("throw", "open", 1), ("throw", "log", 1), ("hang", "open", 1), ("draw", "log", 0)]
)
def test_what_a_tracker_does_changes_no_bit_of_the_run(config, tmp_path, monkeypatch, what, when, warnings):
    monkeypatch.setattr(tracking, "WAIT", 1.0)
    monkeypatch.setattr(tracking, "LINGER", 3.0)
    events = []
    plain = ran(tmp_path / "plain", config())["result"]
    begun = time.monotonic()
    found = ran(tmp_path / "run", config(*odd("Odd", f"what={what}", f"when={when}")), events.append)["result"]
    assert time.monotonic() - begun < 6
    assert (found["sha256"], found["scores"]) == (plain["sha256"], plain["scores"])
    said = [event["text"] for event in events if event["kind"] == "warning"]
    assert len(said) == warnings and all(text.startswith("tracker.odd: ") for text in said)
    if what == "throw":
        assert "found nobody answers; the run goes on, and tracker_odd.txt" in said[0]
        assert "ConnectionError" in (tmp_path / "run" / "tracker_odd.txt").read_text()
    if what == "hang":
        assert "found it at work 1 s after the run's end" in said[0]


def test_a_tracker_that_fails_for_a_while_is_told_all_the_same(config, tmp_path, unhurried, monkeypatch):
    monkeypatch.setattr(tracking, "AGAIN", 0.01)
    monkeypatch.setattr(tracking, "LOOK", 0.01)
    book, failures = Book(str(tmp_path / "book")), iter([True, True, False])

    def log(self, values, step):
        if next(failures, False):
            raise OSError("the server is away")
        self.write(["log", step, values])

    monkeypatch.setattr(Book, "log", log)
    ran(tmp_path / "run", config(*odd("Book", f"path={book.path}")))
    steps = [each[1] for each in book.told() if each[0] == "log" and "train/loss" in each[2]]
    assert steps == [1, 2, 3, 4, 5, 6]


def until(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not found() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found()


def test_a_killed_run_is_told_as_killed_and_starts_again_as_another(config, tmp_path):
    book = Book(str(tmp_path / "book"))
    words = odd("Book", f"path={book.path}")
    with pytest.raises(RunError, match="SIGKILL"):
        train(config(*words, "+tracker.odd.kill=true", "train.save_every.steps=null", "train.max_steps=300"))
    until(lambda: book.told()[-1] == ["close", "killed"])
    done = train(config(*words, "train.save_every.steps=null", "train.max_steps=300", "train.evaluations=1"))
    first, second = [each for each in book.told() if each[0] == "open"]
    assert first[1] != second[1] and [first[2], second[2]] == [False, False]
    assert book.told()[-1] == ["close", "finished"] and (done / "result.json").exists()


def test_several_processes_have_one_tracker_and_it_is_none_of_them(config, tmp_path):
    book = Book(str(tmp_path / "book"))
    words = ("hardware=multi", "hardware.device=cpu", "hardware.num_processes=2", "train.max_steps=2")
    events = []
    [outcome] = run_jobs(
        [job_of(config(*words, *odd("Book", f"path={book.path}")))], 1, lambda job, event: events.append(event)
    )
    assert outcome.finished, outcome.error
    opened = [each for each in book.told() if each[0] == "open"]
    assert len(opened) == 1 and opened[0][4] is None
    assert book.told()[-1] == ["close", "finished"]


def test_a_finished_run_is_the_same_run_under_another_tracker(config, tmp_path):
    plain = config()
    folder = train(plain)
    tracked = config("tracker=[trackio,tensorboard]", "tracker.trackio.project=other")
    assert folder_of(tracked).path == folder
    [outcome] = run_jobs([job_of(tracked)], 1, lambda job, event: None)
    assert outcome.reused
    assert not (tmp_path / ".trackers").exists()


def test_arms_may_be_watched_differently(config):
    audit({"one": config(), "two": config("tracker=tensorboard")}, "one", "two", [])


@pytest.mark.parametrize("name", ["trackio", "tensorboard", "mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_told_before_anything_runs(name, monkeypatch):
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda each: None if each == name else known(each))
    said = rf'tracker\.{name}: needs a package that is not installed; found no {name}; pip install "headswap\[{name}\]"'
    with pytest.raises(ConfigError, match=said):
        compose([f"tracker={name}"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tracker=trakio"], r"tracker: no such option; found trakio \(did you mean trackio\?\)"),
        (["tracker=trackio", "tracker.trackio.projekt=a"], r"tracker.trackio.projekt: no such key"),
        (["tracker.trackio.project=a"], r"tracker.trackio: no _target_; .* headswap list tracker"),
        (["tracker=tensorboard", "tracker.tensorboard.folder=3"], "tracker.tensorboard.folder: must be text"),
        (["+tracker.x._target_=headswap.heads.fresh.Fresh"], "does not serve as a Tracker; .* without close, open"),
    ],
)
def test_a_wrong_tracker_is_refused_in_one_line(words, said):
    with pytest.raises(ConfigError, match=said):
        compose(words)


def test_wandb_has_two_modes():
    pytest.importorskip("wandb")
    with pytest.raises(ConfigError, match=r"tracker.wandb.mode: no such mode; found 'onlin'; .*did you mean online"):
        compose(["tracker=wandb", "tracker.wandb.mode=onlin"])


def test_a_key_stays_in_the_environment(monkeypatch, config):
    monkeypatch.setenv("PROXY_PASSWORD", "hunter2")
    made = config("tracker=mlflow", "tracker.mlflow.uri='https://me:${oc.env:PROXY_PASSWORD}@there'")
    assert made.tracker["mlflow"]["uri"] == "https://me:${oc.env:PROXY_PASSWORD}@there"
    assert build(made.tracker["mlflow"], "tracker.mlflow", Tracker).uri == "https://me:hunter2@there"
    assert "hunter2" not in repr(to_dict(made)) + repr(settings(made))


def test_settings_are_flat_and_plain(config):
    found = settings(config("tracker=tensorboard", "data.train_rows=30"))
    assert {type(value) for value in found.values()} <= {str, int, float, bool}
    assert found["task.text"] == '["text"]' and found["train.patience"] == "null" and found["data.train_rows"] == 30
    assert not [key for key in found if key.startswith(("tracker", "sweep", "study"))]


def line(step: int, seconds: float) -> str:
    return json.dumps({"kind": "train", "step": step, "total": 99, "loss": 1 / step, "seconds": seconds}) + "\n"


def test_a_curve_has_at_most_ten_training_points_a_second_and_waits_for_whole_lines(tmp_path):
    path, told = tmp_path / "metrics.jsonl", Told("a")
    curve = Curve(path, told)
    assert list(curve.news()) == []
    text = "".join(line(step, step / 64) for step in range(1, 99))
    path.write_text(text[:-5])
    found = [step for _, step in curve.news()]
    assert found == list(range(1, 98, 7)) and told.lines == 97  # 7 / 64 of a second apart
    path.write_text(text + line(99, 99 / 64))
    assert [step for _, step in curve.news()] == [99]  # the last one always


def test_lines_that_a_run_repeats_are_told_once(tmp_path):
    path, told = tmp_path / "metrics.jsonl", Told("a", lines=4, step=4)
    path.write_text("".join(line(step, float(step)) for step in (1, 2)))  # cut back to the state after step 2
    curve = Curve(path, told)
    assert list(curve.news()) == []
    path.write_text("".join(line(step, float(step)) for step in (1, 2, 3, 4, 5, 6)))
    assert [step for _, step in curve.news()] == [5, 6]


def test_a_tracker_of_your_own_is_a_class_of_two_methods(tmp_path):
    book = Book(str(tmp_path / "book"))
    assert isinstance(book, Tracker)
    book.open(TrackedRun("run", "project", "id", False, 0, {}), lambda *words: None)
    assert book.told() == [["open", "id", False, 0, os.environ.get("RANK")]]


def test_the_command_lists_trackers_and_what_they_lack(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["list", "tracker"])
    assert "trackio" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["doctor"])
    assert "extra tensorboard" in capsys.readouterr().out
