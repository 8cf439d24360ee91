"""What the report says of single answers: confusion, calibration, parts, one-sided examples; numbers from elsewhere."""

from __future__ import annotations

import dataclasses
import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sacrebleu
import yaml
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from headswap.answers import Answers, Labels
from headswap.config import build, compose, dump
from headswap.contracts import DataRequest, Task
from headswap.errors import RunError
from headswap.metrics.generation import Bleu
from headswap.seeds import Seeds
from headswap.spine import StudyConfig
from headswap.study.figures import figures
from headswap.study.report import named_tables, render
from headswap.study.results import Comparison, RunRecord, compare, with_texts
from headswap.study.runs import read_run
from study_folders import NAMES, Made, make_study

STUDY = StudyConfig(arms={"finetune": {}, "scratch": {}})
MADE = Made(
    {"finetune": 0.8, "scratch": 0.65, "probe": 0.7}, sizes=(100, 400), seeds=4, rows=240, speed={"finetune": 4}
)


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> list[RunRecord]:
    return make_study(tmp_path_factory.mktemp("runs"), MADE)


@pytest.fixture(scope="module")
def comparison(records) -> Comparison:
    return compare(records, STUDY, {})


def runs_of(records, arm: str, size: int = 400):
    return [read_run(each) for each in records if (each.arm, each.size) == (arm, size)]


def changed(records, column: str, values) -> None:
    """Give the test rows of every run other values of a column; the row of validation keeps its first."""
    for record in records:
        path = record.folder / "predictions.parquet"
        table = pq.read_table(path)
        given = values(record, table)
        place = table.column_names.index(column)
        pq.write_table(table.set_column(place, column, [given]) if given is not None else table.drop(column), path)


def test_confusion_is_that_of_scikit_learn_averaged_over_seeds(records, comparison):
    found = comparison.answered.confusion
    for arm, shares in (("finetune", found.treatment), ("scratch", found.control)):
        expected = [confusion_matrix(run.labels, run.predictions, normalize="true") for run in runs_of(records, arm)]
        np.testing.assert_allclose(shares, np.mean(expected, axis=0), atol=1e-12)
    assert found.classes == found.predicted == tuple(NAMES)
    assert found.rows == tuple(np.bincount(runs_of(records, "scratch")[0].labels))
    assert all(
        low < gap < high for low, gap, high in zip(found.low[0], found.difference[0], found.high[0], strict=True)
    )


def test_of_many_classes_the_most_confused_are_drawn_and_rows_still_add_up(tmp_path):
    records = make_study(tmp_path, Made({"finetune": 0.8, "scratch": 0.65}, sizes=(100,), seeds=2, rows=600))
    labels = np.arange(601) % 30
    predictions = {"finetune": np.where(labels < 25, (labels + 1) % 25, labels), "scratch": labels}
    changed(records, "label", lambda record, table: pa.array(labels))
    changed(records, "prediction", lambda record, table: pa.array(predictions[record.arm]))
    for record in records:
        right = float(np.mean((predictions[record.arm] == labels)[:600]))
        _rewritten(record, labels=[f"class {number:02d}" for number in range(30)], right=right)
    changed(
        records, "value_accuracy", lambda record, table: pa.array((predictions[record.arm] == labels).astype(float))
    )
    made = compare(records, STUDY, {})
    found = made.answered.confusion
    assert len(found.classes) == 20 and found.left_out == 10
    assert found.predicted[-1] == "all others"
    assert not {"class 25", "class 29"} & set(found.classes)  # both arms have them all right
    np.testing.assert_allclose(np.sum(found.treatment, axis=1), 1)
    assert "20 most confused labels of 30" in next(each for each in figures(made) if each.name == "confusion").caption


def _rewritten(record, labels: list[str], right: float) -> None:
    path = record.folder / "result.json"
    result = json.loads(path.read_text(encoding="utf-8")) | {"labels": labels}
    result["scores"]["test"]["accuracy"] = right
    path.write_text(json.dumps(result), encoding="utf-8")


def test_calibration_is_that_of_scikit_learn_and_of_a_hand_computation(records, comparison):
    for found in comparison.answered.calibration:
        runs = runs_of(records, found.arm)
        sure, right = [], []
        for run in runs:
            table = pq.read_table(run.folder / "predictions.parquet", filters=[("split", "==", "test")])
            powers = np.exp(np.array(table["logits"].to_pylist(), dtype=float))
            sure.append((powers / powers.sum(axis=1, keepdims=True)).max(axis=1))
            right.append(run.predictions == run.labels)
        shares, means = calibration_curve(np.concatenate(right), np.concatenate(sure), n_bins=15)
        np.testing.assert_allclose([each.right for each in found.bins], shares)
        np.testing.assert_allclose([each.confidence for each in found.bins], means)
        errors = []
        for one, hit in zip(sure, right, strict=True):
            amounts, edges = np.histogram(one, bins=15, range=(0, 1))
            gaps = [
                abs(hit[mine].mean() - one[mine].mean()) if (mine := (one >= low) & (one < high)).any() else 0
                for low, high in pairwise(edges)
            ]
            errors.append(float(amounts @ gaps) / len(one))
        assert found.error.mean == pytest.approx(np.mean(errors))
        low, high = stats.t.interval(0.95, len(errors) - 1, np.mean(errors), stats.sem(errors))
        assert (found.error.low, found.error.high) == pytest.approx((low, high))
    assert [each.arm for each in comparison.answered.calibration] == ["finetune", "scratch", "probe"]


def test_tags_are_calibrated_word_by_word(tmp_path):
    records = make_study(tmp_path, Made({"finetune": 0.8, "scratch": 0.65}, sizes=(100,), seeds=2, rows=3))
    outputs = [[4.0, 0, 0, 0, 4, 0], [0.0, 0, 4], [4.0, 0, 0], [4.0, 0, 0]]
    changed(records, "logits", lambda record, table: pa.array(outputs))
    changed(records, "label", lambda record, table: pa.array([[0, 1], [2], [1], [0]]))
    changed(records, "prediction", lambda record, table: pa.array([[0, 1], [2], [0], [0]]))
    for record in records:
        path = record.folder / "result.json"
        result = json.loads(path.read_text(encoding="utf-8"))
        result |= {"problem": "token_classification", "primary": "entity_f1"}
        result["scores"] = {split: scores | {"entity_f1": 0.5} for split, scores in result["scores"].items()}
        path.write_text(json.dumps(result), encoding="utf-8")
    found = compare(records, STUDY, {}).answered
    sure = np.exp(4) / (np.exp(4) + 2)
    assert [(each.right, each.confidence) for each in found.calibration] == [pytest.approx((0.75, sure))] * 2
    assert found.calibration[0].error.mean == pytest.approx(sure - 0.75)
    assert found.confusion is None and found.slices is None and found.one_sided is None


def test_parts_by_label_and_length_average_to_the_whole_difference(records, comparison):
    found = comparison.answered.slices
    whole = comparison.primary.interval.mean
    assert found.of("all")[0].interval.mean == pytest.approx(whole)
    assert found.of("all")[0].interval.low == pytest.approx(comparison.primary.interval.low)
    assert [each.name for each in found.of("class")] == NAMES
    for kind, parts in (("class", 3), ("length", 4)):
        each = found.of(kind)
        assert len(each) == parts
        assert sum(part.examples for part in each) == MADE.rows
        assert sum(part.examples * part.interval.mean for part in each) / MADE.rows == pytest.approx(whole)
    run = runs_of(records, "finetune")[0]
    table = pq.read_table(run.folder / "predictions.parquet", filters=[("split", "==", "test")])
    shortest = table["length"].to_numpy() <= np.quantile(table["length"].to_numpy(), 0.25)
    assert found.of("length")[0].examples == shortest.sum()
    gaps = [
        (first.values - second.values)[shortest].mean()
        for first, second in zip(runs_of(records, "finetune"), runs_of(records, "scratch"), strict=True)
    ]
    assert found.of("length")[0].interval.mean == pytest.approx(np.mean(gaps))


def test_runs_without_lengths_are_told_apart_by_label_alone(tmp_path):
    records = make_study(tmp_path, dataclasses.replace(MADE, sizes=(100,)))
    changed(records, "length", lambda record, table: None)
    made = compare(records, STUDY, {})
    assert not made.answered.slices.of("length") and made.answered.slices.of("class")
    plots = next(each for each in figures(made) if each.name == "slices").plots
    assert [plot.title for plot in plots] == ["By label"]


def test_where_the_metric_is_no_mean_parts_are_told_in_accuracy(tmp_path):
    made = compare(make_study(tmp_path, dataclasses.replace(MADE, sizes=(100,), metric="macro_f1")), STUDY, {})
    assert made.answered.slices.metric == "accuracy"
    assert "Macro F1 is no mean over examples" in next(each for each in figures(made) if each.name == "slices").caption


def test_parts_are_scored_by_bleu_where_it_is_the_metric(tmp_path):
    """Each part's BLEU, of each run, is sacrebleu's of the part's own texts."""
    metric, dice = Bleu(), np.random.default_rng(3)
    records = make_study(
        tmp_path, dataclasses.replace(MADE, sizes=(100,), seeds=3, rows=80, problem="sequence_to_sequence")
    )
    lengths, right = (
        np.arange(81) % 20 + 4,
        [[" ".join(f"w{(7 * row + place) % 11}" for place in range(row % 20 + 4))] for row in range(81)],
    )
    for record in records:
        loss = 0.1 if record.arm == "finetune" else 0.02 * lengths  # the control forgets more of what is long
        written = [
            " ".join(word for word in texts[0].split() if dice.random() > share) or "w"
            for texts, share in zip(right, loss * np.ones(81), strict=True)
        ]
        answers = Answers(written, right, Labels((), "sequence_to_sequence"))
        columns = {"label": right, "prediction": written, "length": lengths, "sums_bleu": list(metric.sums(answers))}
        path = record.folder / "predictions.parquet"
        table = pq.read_table(path).drop(["label", "prediction", "length"])
        for name, values in columns.items():
            table = table.append_column(name, pa.array(values))
        pq.write_table(table, path)
        result = json.loads((record.folder / "result.json").read_text()) | {"primary": "bleu"}
        result["scores"]["test"]["bleu"] = metric.compute(Answers(written[:80], right[:80], answers.labels))
        (record.folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    made = compare(records, STUDY, {}, metric)
    found = made.answered.slices
    assert found.metric == "bleu" and not found.of("class") and len(found.of("length")) == 4
    whole = found.of("all")[0]
    assert (whole.interval.low, whole.interval.high) == pytest.approx(
        (made.primary.interval.low, made.primary.interval.high)
    )
    longest = found.of("length")[-1]
    mine = np.flatnonzero(lengths[:80] >= int(longest.name.split()[0]))
    assert longest.examples == len(mine)
    for arm, score in (("finetune", longest.treatment), ("scratch", longest.control)):
        texts = [[read_run(each).predictions[row] for row in mine] for each in records if each.arm == arm]
        own = [sacrebleu.corpus_bleu(each, [[right[row][0] for row in mine]]).score for each in texts]
        assert score == pytest.approx(np.mean(own), abs=1e-9)
    assert longest.interval.mean == pytest.approx(longest.treatment - longest.control)
    assert longest.interval.low < longest.interval.mean < longest.interval.high
    assert longest.interval.mean > found.of("length")[0].interval.mean
    figure = next(each for each in figures(made) if each.name == "slices")
    assert [plot.title for plot in figure.plots] == ["By input length"] and "in BLEU on parts" in figure.caption
    probed = [read_run(each).predictions for each in records if each.arm == "probe"]
    own = [
        sacrebleu.corpus_bleu([each[row] for row in mine], [[right[row][0] for row in mine]]).score for each in probed
    ]
    assert longest.others == {"probe": pytest.approx(np.mean(own), abs=1e-9)}
    assert figure.table.columns[-1] == "probe" and len(figure.table.rows[-1]) == len(figure.table.columns)


def test_perplexities_of_targets_that_were_cut_otherwise_are_not_compared(tmp_path):
    records = make_study(
        tmp_path, dataclasses.replace(MADE, sizes=(100,), metric="perplexity", problem="sequence_to_sequence")
    )
    for record in records:
        path = record.folder / "predictions.parquet"
        table, tokens = pq.read_table(path), 7 if record.arm == "finetune" else 8
        pq.write_table(table.append_column("sums_perplexity", pa.array([[2.0, tokens]] * len(table))), path)
    with pytest.raises(RunError, match="must guess the same tokens; found 1680 and 1920 targets"):
        compare(records, STUDY, {})


def test_one_sided_examples_are_counted_over_pairs_and_ordered_by_them(records, comparison):
    found = comparison.answered.one_sided
    right = [
        np.array([run.predictions == run.labels for run in runs_of(records, arm)]) for arm in ("finetune", "scratch")
    ]
    alone, against = (right[0] & ~right[1]).sum(axis=0), (right[1] & ~right[0]).sum(axis=0)
    assert found.treatment_examples == (alone > against).sum() and found.control_examples == (against > alone).sum()
    assert len(found.treatment) == 20
    seeds = [each.seeds for each in found.treatment]
    assert seeds == sorted(seeds, reverse=True) and seeds[0] == alone.max()
    first = found.treatment[0]
    place = int(first.id.removeprefix("row-"))
    assert (first.seeds, first.against) == (alone[place], against[place])
    assert first.label == NAMES[runs_of(records, "scratch")[0].labels[place]]
    assert first.treatment.startswith(first.label) and not first.control.startswith(f"{first.label} (4")


def test_texts_are_read_from_the_data_of_a_run_escaped_and_cut(tmp_path):
    made = _with_data(tmp_path, evil := "<script>alert(1)</script> " + "long " * 200)
    told = with_texts(made).answered.one_sided
    assert told.no_texts == ""
    assert all(each.text.startswith("<script>") and len(each.text) == 400 for each in told.treatment)
    page = render(with_texts(made))
    assert "&lt;script&gt;alert(1)" in page and "<script>alert(1)" not in page and evil not in page
    assert "text" in named_tables(with_texts(made))["only_treatment"].columns


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("gone", r"no such file"),
        ("other", r"no longer those that the runs were tested on"),
        ("hub", r"a report fetches"),
    ],
)
def test_where_the_data_cannot_be_read_ids_stand_alone_with_the_reason(tmp_path, fault, said):
    made = _with_data(tmp_path, "a text")
    path, config = tmp_path / "test.csv", Path(made.answered.one_sided.folder, "config.yaml")
    if fault == "gone":
        path.unlink()
    elif fault == "other":
        path.write_text(path.read_text(encoding="utf-8").replace("a text 1", "a text one"), encoding="utf-8")
    else:
        node = yaml.safe_load(config.read_text(encoding="utf-8"))
        node["task"] |= {"source": "owner/name", "train": None, "test": None}
        config.write_text(yaml.safe_dump(node), encoding="utf-8")
    told = with_texts(made)
    assert re.search(said, told.answered.one_sided.no_texts, re.IGNORECASE)
    assert "text" not in named_tables(told)["only_treatment"].columns
    assert "The texts could not be shown" in render(told)


def _with_data(folder: Path, text: str) -> Comparison:
    """Return a study whose runs name files with their test rows in them."""
    records = make_study(folder / "runs", dataclasses.replace(MADE, sizes=(100,), seeds=2, rows=30))
    labels = read_run(records[0]).labels
    tested = [f'row-{place:05d},"{text} {place}",{NAMES[label]}' for place, label in enumerate(labels)]
    learned = [f"learned-{place},something {place},{NAMES[place % 3]}" for place in range(30)]
    for name, lines in (("test", tested), ("train", learned)):
        (folder / f"{name}.csv").write_text("\n".join(["id,text,label", *lines]), encoding="utf-8")
    words = [f"task.{name}={folder / name}.csv" for name in ("train", "test")]
    words += ["task=text", "task.text=[text]", "task.label=label", "task.id=id", "body=minilm"]
    config = compose(words)
    task = build(config.task, "task", Task)
    fingerprint = task.load(DataRequest.of(config.data), Seeds(config.seed)).fingerprint
    for record in records:
        (record.folder / "config.yaml").write_text(dump(config), encoding="utf-8")
        _merged(record.folder / "run.json", data={"fingerprint": fingerprint})
    return compare(records, STUDY, {})


def _merged(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")
