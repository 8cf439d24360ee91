"""Joined studies of one task at several lengths: what was learned, after how many steps, and the page."""

import dataclasses
import json

import pytest
import yaml

from headswap.ledger import Ledger
from headswap.study.joined import by_length
from headswap.study.joined.by_length import AtLength
from headswap.study.joined.joining import join
from headswap.study.joined.page import publish, render, said
from headswap.study.joined.reading import read_studies
from headswap.study.verdict import question, verdict
from joined_studies import study_of
from study_folders import Made


def at(arrivals=None, **scores):
    found = {int(seed[1:]): score for seed, score in scores.items()}
    return AtLength("recall", 64, "lstm", found, arrivals or {}, 300.0, 16, "cpu", "none")


def test_a_run_has_learned_the_task_above_95_percent_and_the_interval_is_the_binomials():
    every = at(s0=0.96, s1=1.0, s2=0.951)
    assert every.learned == 3 and every.interval(0.95) == (pytest.approx(0.025 ** (1 / 3)), 1.0)  # p^3 = 0.025
    none = at(s0=0.95, s1=0.1)
    assert none.learned == 0 and none.interval(0.9) == (0.0, pytest.approx(1 - 0.05**0.5))


def test_the_median_of_steps_is_unknown_where_it_would_be_a_run_that_never_got_there():
    assert at({0: 100.0, 1: None, 2: 250.0}, s0=1).median_steps == 250
    assert at({0: 100.0, 1: None, 2: None}, s0=1).median_steps is None
    assert at({0: 100.0, 1: 300.0, 2: 200.0, 3: None}, s0=1).median_steps == 250
    assert at({0: 100.0, 1: None}, s0=1).median_steps is None and at(s0=1).median_steps is None


def test_a_run_arrives_when_three_evaluations_in_a_row_are_above_and_steps_come_from_examples():
    points = [(160, 0.2), (320, 0.97), (480, 0.9), (640, 0.96), (800, 0.97), (960, 0.99), (1120, 0.5)]
    assert by_length._arrival(points, 16) == 40
    assert by_length._arrival(points[:3], 16) is None
    assert by_length._arrival([(160, 0.95), (320, 0.951)], 16) == 20  # up to the end, and 95 % is not above it


def studies(root, lengths):
    made = []
    for length, (first, second) in lengths.items():
        name = f"recall{length}"
        folder = study_of(root, name, Made({"finetune": first, "scratch": second}, sizes=(400,), rows=300, seeds=3))
        content = yaml.safe_load((folder / "config.yaml").read_text())
        content["task"] = {"_target_": "headswap.tasks.synthetic.Recall", "length": length, "rows": 64, "held_out": 8}
        content["choices"]["task"] = "recall"
        (folder / "config.yaml").write_text(yaml.safe_dump(content))
        made.append(folder)
    return made


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    root = tmp_path_factory.mktemp("outputs")
    return join(read_studies(studies(root, {64: (0.99, 0.99), 256: (0.99, 0.3)})))


def test_studies_of_one_task_are_told_apart_by_their_length(joined):
    assert [each.label for each in joined.studies] == ["recall 64", "recall 256"]
    found = by_length.by_length(joined.studies)
    assert [(each.length, each.arm, each.learned) for each in found] == [
        (64, "finetune", 3), (64, "scratch", 3), (256, "finetune", 3), (256, "scratch", 0),
    ]  # fmt: skip


def test_the_sentence_says_at_which_length_each_arm_learned_it(joined):
    assert said(joined)[-1] == (
        "recall (3 seeds, 80 steps of 32 texts, cpu, tuning: none, the recipes are given values): learned, above 95 % of "
        "the test, by finetune at 64 and 256 tokens with every seed; by scratch at 64 tokens with every seed, at 256 "
        "tokens with no seed."
    )


def test_the_page_has_the_drawings_the_table_and_the_numbers(joined, tmp_path):
    folder = publish([each.folder for each in joined.studies], tmp_path / "made")[1]
    rows = json.loads((folder / "joined.json").read_text())["by_length"]
    assert [row["learned"] for row in rows] == [3, 3, 3, 0] and rows[3]["median_steps"] is None
    assert (folder / "figures" / "lengths.svg").is_file() and (folder / "figures" / "steps_to_learn.png").is_file()
    page = render(joined, tmp_path, files=True)
    assert "Runs with a test score above 95 %, by length" in page and "not within the run" in page


def test_studies_without_a_length_have_none_of_it(tmp_path):
    plain = Made({"finetune": 0.9, "scratch": 0.8}, sizes=(100,), rows=200, seeds=2)
    found = join(read_studies([study_of(tmp_path, name, plain) for name in ("sst2", "cola")]))
    assert by_length.by_length(found.studies) == [] == by_length.figures([], {}, 0.95)
    assert "by length" not in render(found, tmp_path)


def test_no_verdict_on_two_architectures_speaks_of_transfer(tmp_path):
    worse = Made({"finetune": 0.6, "scratch": 0.9}, sizes=(400,), rows=300, seeds=3)
    comparison = read_studies([study_of(tmp_path, name, worse) for name in ("sst2", "cola")])[0].comparison
    assert verdict(comparison)[0].startswith("Transfer hurt here: finetune scored")
    nothing = Ledger("llama from settings", "Made", "random", (), ("a", "b")).summary()
    bare = dataclasses.replace(comparison, ledgers={"finetune": nothing, "scratch": nothing})
    assert verdict(bare)[0].startswith("finetune scored")
    assert "given values; texts of 3 to 59 tokens; cpu)" in verdict(bare)[0]
    assert question(bare) == "Which does better from random weights?"
    unknown = dataclasses.replace(bare, answered=dataclasses.replace(bare.answered, tokens=None))
    assert "given values; cpu)" in verdict(unknown)[0]
    assert "cpu" not in verdict(comparison)[0] and question(comparison) == "What did the pretrained weights buy?"
    assert verdict(bare)[-1].startswith("Neither arm has a pretrained weight")
