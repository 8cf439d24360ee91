"""Studies of other tasks than labels, whole and in little: what they compare, in which unit, and how it reads."""

import dataclasses
import html
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from headswap import config as configuration
from headswap.config import compose
from headswap.errors import RunError
from headswap.records import RunFolder, read_json
from headswap.study import execute, tables
from headswap.study.linearised import METHOD
from headswap.study.results import RunRecord, compare
from headswap.study.verdict import verdict
from tiny_families import FAMILIES, config_of, saved
from tiny_questions import questions
from tiny_runs import reviews

SEEDS = 2
Task = Callable[[Path], list[str]]


def lines(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def rated(place: Path) -> list[str]:
    dice = random.Random(1)
    rows = [{"text": f"the film was {number}", "stars": dice.random() * 5} for number in range(50)]
    table = lines(place / "rated.jsonl", rows)
    return ["task=regression", f"task.source={table}", "task.text=[text]", "task.label=[stars]", "metric=[rmse,mae]"]


def tagged(place: Path) -> list[str]:
    dice = random.Random(2)
    rows = []
    for number in range(50):
        words = dice.choices(["the", "plot", "was", "very", "not"], k=dice.randint(2, 8))
        rows.append({"tokens": [*words, "good", str(number)], "tags": ["O"] * len(words) + ["B-x", "I-x"]})
    table = lines(place / "tagged.jsonl", rows)
    return ["task=token_classification", f"task.source={table}", "task.tokens=tokens", "task.label=tags"]


def asked(place: Path) -> list[str]:
    found = questions(50, seed=6)
    rows = [
        {"question": "what was it", "context": context, "answers": {"text": texts, "answer_start": starts}}
        for context, texts, starts in zip(found["context"], found["answer_texts"], found["answer_starts"], strict=True)
    ]
    table = lines(place / "asked.jsonl", rows)
    return ["task=question_answering", f"task.source={table}", "task.references=answers"]


def translated(place: Path) -> list[str]:
    dice = random.Random(3)
    rows = [" ".join(dice.choices(["the", "film", "was", "good", "dull"], k=6)) + f" {n}" for n in range(50)]
    table = lines(place / "pairs.jsonl", [{"en": row, "de": row} for row in rows])
    model = language_model("BART", AutoModelForSeq2SeqLM, place / "bart")
    return [
        "task=translation", f"task.source={table}", "task.text=[en]", "task.target=de", "task.max_target_length=8",
        f"body.source={model}",
    ]  # fmt: skip


def masked(place: Path) -> list[str]:
    table = reviews(place / "reviews.csv", 50)
    model = language_model("RoBERTa", AutoModelForMaskedLM, place / "roberta")
    return [
        "task=masked_language_modeling", f"task.source={table}", "task.text=[text]", f"body.source={model}",
        "train.select_by=loss",
    ]  # fmt: skip


def language_model(name: str, auto, folder: Path) -> Path:
    tokenizer = FAMILIES[name].tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return saved(auto.from_config(config_of(name, tokenizer, max_position_embeddings=64)), tokenizer, folder)


@pytest.fixture(scope="module")
def studied(tmp_path_factory, tiny_body):
    """Return a function that runs a task's study once, and gives it again."""
    made: dict[str, execute.Study] = {}

    def run(task: Task) -> execute.Study:
        if task.__name__ not in made:
            place = tmp_path_factory.mktemp(task.__name__)
            fixed = [
                "task.validation_share=0.2", "task.test_share=0.3", "body=transformer", f"body.source={tiny_body}",
                "data.max_length=24", "train.max_steps=2", "train.batch_size=8", "train.evaluations=2",
                "train.precision=fp32", "hardware=cpu", "hardware.threads=1", f"output.root={place}", "name=tiny",
                "output.keep_model=false", f"study.seeds={SEEDS}", "study.sizes=[]", "study.workers=2",
            ]  # fmt: skip
            made[task.__name__] = execute.execute(compose([*fixed, *task(place)]))
        return made[task.__name__]

    return run


def page_of(study: execute.Study) -> str:
    """Return the page's words without the drawing library."""
    text = study.report.read_text(encoding="utf-8")
    return html.unescape(re.sub(r"<script>.{100000,}?</script>", "", text, flags=re.DOTALL))


@pytest.mark.parametrize(
    ("task", "metric", "scored", "rows"),
    [
        (rated, "rmse", r"finetune scored RMSE \d\.\d{3} against \d\.\d{3} for scratch", "35 labelled rows (less is better)"),
        (tagged, "entity_f1", r"finetune scored entity F1 0\.\d{3} against 0\.\d{3} for scratch", "35 labelled texts"),
        (asked, "squad_f1", r"finetune scored SQuAD F1 \d+\.\d % against \d+\.\d % for scratch", "35 questions"),
        (translated, "bleu", r"finetune scored BLEU \d+\.\d against \d+\.\d for scratch", "35 pairs"),
        (masked, "perplexity", r"finetune scored perplexity \d+\.\d against \d+\.\d for scratch", "35 texts (less is better)"),
    ],
    ids=["numbers", "tags", "answers", "translations", "masked words"],
)  # fmt: skip
def test_a_study_of_any_task_ends_with_its_own_metric_words_and_page(studied, task, metric, scored, rows):
    study = studied(task)
    comparison = read_json(study.folder / "comparison.json")
    assert (comparison["metric"], comparison["excluded"]) == (metric, [])
    assert [len(each["pairs"]) for each in comparison["contrasts"]] == [SEEDS]
    assert comparison["test_rows"] == 15
    first = verdict(study.comparison)[0]
    assert re.search(scored, first)
    assert f"with all {rows}: " in first
    assert "2 paired seeds \N{MULTIPLICATION SIGN} 15 test examples" in first
    for statement in verdict(study.comparison):
        assert statement in page_of(study)
    for run in read_json(study.folder / "runs.json"):
        found = RunFolder((study.folder / run["folder"]).resolve())
        pair = comparison["contrasts"][0]["pairs"][run["seed"]]
        role = "treatment" if run["arm"] == "finetune" else "control"
        assert pair[role] == found.result()["scores"]["test"][metric]


def test_less_is_better_where_it_is_and_a_metric_with_a_unit_of_its_own_has_no_usual_margin(studied):
    study = studied(rated)
    shown = dict(tables.design(study.comparison))
    assert shown["Metric"] == "RMSE, less is better"
    assert shown["Difference that matters"].startswith("not set: with study.margin ")
    assert (shown["Columns learned"], shown["Labelled rows"]) == ("stars", "35 (training and validation together)")
    page = page_of(study)
    assert "Less RMSE is better." in page
    assert "you said matters" not in page


def test_questions_that_become_several_features_are_counted_as_what_they_are(studied):
    study = studied(asked)
    assert dict(tables.design(study.comparison))["Test rows"] == "15, the same in every run"
    page = page_of(study)
    assert "A long question is several features." in page
    assert "training features seen" in page
    assert "features needed" in page


def test_the_interval_of_answers_covers_seeds_and_examples(studied):
    found = studied(asked).comparison.contrasts[0]
    assert found.scope == "seeds and examples"
    rows = [values_of(studied(asked), seed, "value_squad_f1") for seed in range(SEEDS)]
    differences = np.array([first - second for first, second in rows])
    assert found.interval.mean == pytest.approx(differences.mean())


def values_of(study, seed: int, column: str):
    """Return a column of the test rows of a seed's two runs, treatment first."""
    folders = {each["arm"]: each["folder"] for each in read_json(study.folder / "runs.json") if each["seed"] == seed}
    places = [study.folder / folders[arm] / "predictions.parquet" for arm in ("finetune", "scratch")]
    return [pq.read_table(place, filters=[("split", "==", "test")])[column].to_numpy() for place in places]


@pytest.mark.parametrize("task", [rated, tagged, masked])
def test_what_sums_give_has_an_interval_over_seeds_and_examples(studied, task):
    study = studied(task)
    config = configuration.load(study.folder / "config.yaml")
    metric = configuration.build_plugs(config).metrics[0]
    runs = {(run["arm"], run["seed"]): run["folder"] for run in read_json(study.folder / "runs.json")}
    records = [
        RunRecord(arm, None, seed, study.folder / runs[arm, seed % SEEDS], "finished")
        for arm in ("finetune", "scratch")
        for seed in range(10)
    ]
    found = compare(records, config.study, {}, metric).contrasts[0]
    assert (found.interval.method, found.scope) == (METHOD, "seeds and examples")
    assert found.interval.mean == pytest.approx(found.seeds_interval.mean)
    assert found.interval.standard_error > 0.9 * found.seeds_interval.standard_error


def test_a_study_that_watched_the_loss_says_why_it_names_no_speed(studied):
    study = studied(masked)
    assert study.comparison.curves == study.comparison.convergence == ()
    assert verdict(study.comparison)[2] == (
        "No speed is named: the runs watched the loss alone (train.select_by=loss), so perplexity has no curve."
    )


def test_a_random_body_has_a_new_head_too_and_the_study_says_so(studied):
    study = studied(masked)
    said = "; the head is part of the difference: finetune's is the checkpoint's own, scratch's is new."
    assert verdict(study.comparison)[-1].endswith(said)
    assert dict(tables.design(study.comparison))["Heads"] == "finetune the checkpoint's own, scratch new"
    for run in read_json(study.folder / "runs.json"):
        entries = read_json(study.folder / run["folder"] / "ledger.json")["entries"]
        fates = {each["fate"] for each in entries if each["part"] == "head"}
        assert fates == ({"kept"} if run["arm"] == "finetune" else {"new"})


def test_language_models_of_a_pair_that_guess_other_tokens_are_refused(studied, tmp_path):
    study = studied(masked)
    records = [
        RunRecord(run["arm"], None, run["seed"], study.folder / run["folder"], "finished")
        for run in read_json(study.folder / "runs.json")
    ]
    shutil.copytree(records[0].folder, tmp_path / "other")
    path = tmp_path / "other" / "predictions.parquet"
    rows = pq.read_table(path)
    more = [[lost, right, targets + 1] for lost, right, targets in rows["prediction"].to_pylist()]
    pq.write_table(rows.set_column(rows.column_names.index("prediction"), "prediction", [more]), path)
    records[0] = dataclasses.replace(records[0], folder=tmp_path / "other")
    with pytest.raises(RunError, match=r"must guess the same tokens; found \d+ and \d+ targets; give both arms one"):
        compare(records, study.comparison.study, {})


def test_a_model_that_writes_one_text_for_everything_reads_collapsed(studied):
    study = studied(translated)
    told = [warning for warning in study.comparison.warnings if warning.startswith("Collapsed")]
    for score in study.comparison.scores:
        assert (f"{score.arm} at 35 pairs, " in told[0]) == bool(score.collapsed)
    assert [each.partition(";")[0] for each in told] == ["Collapsed runs write the same for every row"]
    assert any(score.collapsed for score in study.comparison.scores)
