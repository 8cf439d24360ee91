"""What a study says beside its one difference: corrected contrasts, two checkpoints, ingredients, cheap baselines."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml

from headswap.spine import StudyConfig
from headswap.study.contrasts import Contrast, corrected
from headswap.study.report import render, terminal_table
from headswap.study.results import RunRecord, compare, save
from headswap.study.statistics import Interval
from headswap.study.tables import contrast_table, design
from headswap.study.verdict import beside, verdict
from study_folders import Made, make_study

STUDY = StudyConfig(arms={"finetune": {}, "scratch": {}})
LEVELS = {"finetune": 0.84, "scratch": 0.70, "own": 0.79, "scaled": 0.71, "words": 0.76}
TFIDF = {"_target_": "headswap.baselines.tfidf.TfIdf"}
# The 15 p-values of Benjamini and Hochberg 1995, section 3.2: at 0.05 the four smallest stand.
PUBLISHED = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459]
PUBLISHED += [0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000]


def made(levels: dict[str, float] = LEVELS, **fields) -> Made:
    return Made(levels, **{"sizes": (400,), "seeds": 10, **fields})


def isolating(records: list[RunRecord], scratch: str = "random") -> list[RunRecord]:
    """Let the arms be what their names say, in the files that a run leaves."""
    oldest = {"run": "r", "task": "texts", "body": "b", "strategy": "full", "seed": 0, "rows": 9, "test": {}}
    for record in records:
        path = record.folder / "config.yaml"
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        config["body"]["init"] = {"scratch": scratch, "scaled": "mean_var"}.get(record.arm, "pretrained")
        config["baseline"] = TFIDF if record.arm in ("words", "majority") else None
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        if record.arm == "own":
            path = record.folder / "run.json"
            about = json.loads(path.read_text(encoding="utf-8")) | {"lineage": [{**oldest, "init": "random"}]}
            path.write_text(json.dumps(about), encoding="utf-8")
    return records


def with_p(p_value: float, found: Contrast) -> Contrast:
    interval = found.interval
    error = abs(interval.mean) / _quantile(p_value) if p_value < 1 else 1e9
    return dataclasses.replace(
        found, interval=dataclasses.replace(interval, standard_error=error, degrees_of_freedom=1e9)
    )


def _quantile(p_value: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(1 - p_value / 2)


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Contrast:
    folder = tmp_path_factory.mktemp("one")
    return compare(make_study(folder, made({"finetune": 0.8, "scratch": 0.7}, seeds=3)), STUDY, {}).contrasts[0]


def test_of_fifteen_published_p_values_four_stand_after_correction(one):
    every = [one, *(with_p(p_value, one) for p_value in PUBLISHED)]
    found = corrected(every, every[0])
    assert found[0].q is None  # declared beforehand: outside the family
    q_values = [each.q for each in found[1:]]
    assert [q is not None and q <= 0.05 for q in q_values] == [True] * 4 + [False] * 11
    assert q_values[0] == pytest.approx(15 * 0.0001, rel=1e-3)
    assert q_values[3] == pytest.approx(15 * 0.0095 / 4, rel=1e-3)


def test_a_difference_that_correction_takes_back_says_so_and_the_primary_one_has_no_q(one):
    kept, lost = dataclasses.replace(one, q=0.04), dataclasses.replace(one, q=0.06)
    assert (one.said, kept.said, lost.said) == ("better", "better", "better before correction")
    assert dataclasses.replace(lost, outcome="not settled").said == "not settled"


def test_contrasts_without_an_interval_have_no_q(one):
    bare = dataclasses.replace(one, interval=Interval(0.1, None, None, None, None, 0.95, 1))
    assert [each.q for each in corrected([one, bare], one)] == [None, None]
    assert corrected([], None) == ()


def test_the_table_and_the_terminal_show_what_correction_took_back(tmp_path):
    found = compare(make_study(tmp_path, made(sizes=(100, 400), seeds=3)), STUDY, {})
    lost = dataclasses.replace(found.contrasts[0], q=0.2, outcome="worse")
    table = contrast_table(dataclasses.replace(found, contrasts=(lost, *found.contrasts[1:])))
    place = table.columns.index("q")
    assert table.rows[0][1] == "worse before correction"
    assert table.rows[0][place] == "0.200"
    assert [row[place] for row in table.rows].count("primary") == 1
    assert table.rows[[each.treatment for each in found.contrasts].index("finetune") + 1][place] == "primary"
    assert "q: Benjamini-Hochberg over the 7 that are not the primary one" in table.caption
    column = terminal_table(dataclasses.replace(found, contrasts=(lost, *found.contrasts[1:]))).columns
    assert any(str(cell).endswith(", worse before correction") for each in column for cell in each.cells)
    assert any("the intervals of the other 7 are not corrected" in warning for warning in found.warnings)


def test_one_pair_gets_mcnemars_test_of_these_two_checkpoints_and_stays_not_settled(tmp_path):
    found = compare(make_study(tmp_path, made({"finetune": 0.8, "scratch": 0.6}, seeds=1)), STUDY, {})
    first, _, third = verdict(found)[:3]
    assert first.startswith("Not settled: ")
    assert re.match(
        r"These two checkpoints, not the methods: of 500 test examples finetune alone is right on \d+, scratch alone "
        r"on \d+ \(exact McNemar p < 0.001\)\.$",
        third,
    )
    pair = found.contrasts[0].pairs[0]
    test = found.contrasts[0].mcnemar
    assert test is not None
    assert (test.treatment_alone - test.control_alone) / 500 == pytest.approx(pair.difference)
    assert "McNemar p (these checkpoints)" in render(found)


@pytest.mark.parametrize("fields", [{"seeds": 2}, {"seeds": 1, "metric": "macro_f1"}, {"seeds": 1, "metric": "mae"}])
def test_several_seeds_and_metrics_that_are_not_right_or_wrong_get_no_mcnemar(tmp_path, fields):
    found = compare(make_study(tmp_path, made({"finetune": 0.8, "scratch": 0.6}, **fields)), STUDY, {})
    assert found.contrasts[0].mcnemar is None
    assert not any("McNemar" in sentence for sentence in verdict(found))


def test_the_difference_is_attributed_to_self_pretraining_and_outside_weights_that_add_up(tmp_path):
    found = compare(isolating(make_study(tmp_path, made())), STUDY, {})
    parts = found.further.attribution
    assert parts is not None
    means = {part.ingredient: part.interval.mean for part in parts.parts}
    assert means["self_pretraining"] + means["outside_weights"] == pytest.approx(parts.whole.mean)
    assert all(part.interval.method == "crossed seeds × examples" for part in parts.parts)
    sentence = next(each for each in verdict(found) if each.startswith("Of the +"))
    number = r"\+\d+\.\d pp \((95 % CI )?[+\N{MINUS SIGN}]?\d+\.\d to \+\d+\.\d\)"
    assert re.fullmatch(
        rf"Of the \+\d+\.\d pp, self-pretraining on your own text \(own\) gives {number}; the external weights add "
        rf"{number}; random weights of the pretrained scale alone \(scaled\) give .*\.",
        sentence,
    )


def test_without_a_self_pretrained_arm_the_scale_of_the_weights_is_told_from_what_they_learned(tmp_path):
    levels = {arm: LEVELS[arm] for arm in ("finetune", "scratch", "scaled")}
    found = compare(isolating(make_study(tmp_path, made(levels))), STUDY, {})
    sentence = next(each for each in verdict(found) if each.startswith("Of the +"))
    assert "random weights of the pretrained scale alone (scaled) give" in sentence
    assert "; what the weights learned adds +" in sentence


def test_a_seed_that_one_arm_lacks_is_left_out_of_all_parts(tmp_path):
    records = isolating(make_study(tmp_path, made(seeds=4)))
    own = next(place for place, record in enumerate(records) if (record.arm, record.seed) == ("own", 1))
    records[own] = dataclasses.replace(records[own], status="failed", reason="killed")
    parts = compare(records, STUDY, {}).further.attribution
    assert parts is not None
    assert parts.seeds == (0, 2, 3)
    means = {part.ingredient: part.interval.mean for part in parts.parts}
    assert means["self_pretraining"] + means["outside_weights"] == pytest.approx(parts.whole.mean)


@pytest.mark.parametrize(
    ("levels", "start", "seeds"),
    [
        ({"finetune": 0.8, "scratch": 0.7}, "random", 3),
        ({arm: LEVELS[arm] for arm in ("finetune", "scratch", "own")}, "pretrained", 3),
        ({arm: LEVELS[arm] for arm in ("finetune", "scratch", "own")}, "random", 1),
    ],
)
def test_nothing_is_attributed_without_the_arms_or_the_seeds_for_it(tmp_path, levels, start, seeds):
    found = compare(isolating(make_study(tmp_path, made(levels, seeds=seeds)), start), STUDY, {})
    assert not any(each.startswith("Of the") for each in [*verdict(found), *beside(found)])


def test_the_best_baseline_is_named_with_its_time_and_who_beats_it(tmp_path):
    levels = {**LEVELS, "majority": 0.4}
    found = compare(isolating(make_study(tmp_path, made(levels))), STUDY, {})
    assert found.further.baseline == "words"
    sentence = next(each for each in verdict(found) if "baseline" in each)
    assert re.fullmatch(
        r"The baseline words reaches 7\d\.\d % in \d+\.\d s: finetune beats it \(\+\d\.\d pp, \+\d\.\d to \+\d+\.\d\), "
        r"scratch is worse than it \(\N{MINUS SIGN}\d\.\d pp, \N{MINUS SIGN}\d+\.\d to \N{MINUS SIGN}\d\.\d\)\.",
        sentence,
    )
    assert any("the intervals of the other 6 are not" in warning for warning in found.warnings)
    extra = {(each.treatment, each.control) for each in found.further.contrasts}
    assert extra == {("finetune", "own"), ("finetune", "words")}
    assert all(each.q is not None for each in found.further.contrasts)


def test_an_arm_that_is_not_told_apart_from_the_baseline_does_not_beat_it(tmp_path):
    records = make_study(tmp_path, made({"finetune": 0.9, "scratch": 0.70, "words": 0.70}, seeds=3))
    found = compare(isolating(records), STUDY, {})
    assert any("scratch does not beat it (" in sentence for sentence in verdict(found))


def test_of_an_error_the_lower_baseline_is_the_better_one(tmp_path):
    levels = {"finetune": 0.9, "scratch": 0.6, "words": 0.75, "majority": 0.5}
    found = compare(isolating(make_study(tmp_path, made(levels, metric="mae", problem="regression"))), STUDY, {})
    sentence = next(each for each in verdict(found) if "baseline" in each)
    assert found.further.baseline == "words"
    assert "finetune beats it (\N{MINUS SIGN}" in sentence
    assert "scratch is worse than it (+" in sentence


def test_page_one_has_at_most_five_sentences_and_the_others_stand_under_the_tables(tmp_path):
    records = isolating(make_study(tmp_path, made(sizes=(100, 400), seeds=5, speed={"finetune": 3})))
    found = compare(records, STUDY, {})
    said, rest = verdict(found), beside(found)
    assert len(re.findall(r"[.!?](?:\s|$)", " ".join(said))) == 5
    assert [each.split()[0] for each in said][:4] == ["finetune", "Exploratory:", "Of", "The"]
    assert rest[-1].startswith("Not counted: what pre-training cost")
    assert dict(design(found))["Not counted"].startswith("what pre-training cost")
    page = render(found)
    assert page.index("Also found") > page.index("Paired differences on test")


def test_what_is_found_beside_the_verdict_is_saved(tmp_path):
    found = compare(isolating(make_study(tmp_path / "runs", made(seeds=2))), STUDY, {})
    saved = json.loads(save(found, tmp_path).read_text(encoding="utf-8"))
    assert saved["further"]["roles"]["own"] == "self_pretrained"
    assert saved["further"]["attribution"]["parts"][0]["ingredient"] == "self_pretraining"
    assert saved["contrasts"][-1]["q"] is not None


@pytest.mark.parametrize(
    ("level", "words"),
    [
        (0.72, r"finetune is still better by \+\d+\.\d pp \(\+\d+\.\d to \+\d+\.\d\)"),
        (0.95, r"that is better than finetune \(\N{MINUS SIGN}\d+\.\d pp \(.*\)\)"),
        (0.84, r"finetune against that is not settled \(.*\)"),
    ],
)
def test_a_control_with_more_steps_says_whether_it_only_lacked_time(tmp_path, level, words):
    found = compare(patient(tmp_path, level, rate=5e-4), STUDY, {})
    assert found.further.longer == ("patient", 4)
    score = found.score_of("patient", 400)
    assert score is not None
    said = "".join(each for each in [*verdict(found), *beside(found)] if each.startswith("With"))
    assert re.fullmatch(rf"With 4× the steps of scratch, patient reaches {100 * score.mean:.1f} %: {words}\.", said)
    assert ("finetune", "patient") in {(each.treatment, each.control) for each in found.further.contrasts}


def test_an_arm_with_more_steps_and_another_rate_is_no_longer_control(tmp_path):
    assert compare(patient(tmp_path, 0.72, rate=7e-4), STUDY, {}).further.longer is None


def patient(folder: Path, level: float, rate: float) -> list[RunRecord]:
    """Make a study with a third arm: random weights, four times the control's steps, its peak learning rate `rate`."""
    levels = {"finetune": 0.84, "scratch": 0.70, "patient": level}
    records = isolating(make_study(folder, made(levels, epochs={"patient": 16})))
    for record in records:
        path = record.folder / "config.yaml"
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        if record.arm == "patient":
            config["body"]["init"] = "random"
            config["train"] |= {"epochs": 48, "learning_rate": rate}
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return records
