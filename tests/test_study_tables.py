"""What the report's tables of the data say."""

from headswap.spine import StudyConfig
from headswap.study.report import render
from headswap.study.results import Comparison
from headswap.study.tables import class_table, notes_table


def found(**notes) -> Comparison:
    return Comparison(StudyConfig(), {}, "accuracy", True, True, data_notes=notes)


def test_labels_are_counted_by_split_and_not_said_twice():
    counts = {"train": {"neg": 12000, "<b>": 3}, "validation": {"neg": 5}, "test": {"neg": 7, "<b>": 1}}
    comparison = found(class_counts=counts, rows_read={"train": 12016})
    table = class_table(comparison)
    assert table.columns == ("label", "train", "validation", "test")
    assert table.rows == (("neg", "12,000", "5", "7"), ("<b>", "3", "0", "1"))
    assert notes_table(comparison).rows == (("rows_read.train", "12,016"),)
    page = render(comparison)
    assert "Examples of each label, one run" in page and "<b>" not in page.replace("&lt;b&gt;", "")


def test_a_task_without_labels_has_no_such_table():
    assert class_table(found()).rows == ()
    assert "Examples of each label" not in render(found())
