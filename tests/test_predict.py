"""Predictions against transformers itself: its pipeline, and tokenizer + model + softmax one text at a time."""

import csv
import json
import shutil
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import make_tokenizer, tiny_config
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    pipeline,
)

from headswap import Predictor, cli
from headswap import config as configuration
from headswap.errors import ConfigError, DataError, HeadswapError, RunError, WeightsError
from headswap.predict import predict_file

LABELS = ("negative", "neutral", "positive")
TEXTS = [
    "so good",
    "the plot was dull and the film very poor, it is not fine",
    "great",
    "NA",
    "a film that was loved and hated, caf\u00e9 and all, by this or that one",
    "it is",
]
PAIRS = [("the film is good", "it is great"), ("bad plot", "this movie was very very fine"), ("so", "dull")]
CUT = 12


def make_run(folder: Path, model: Path | None, *overrides: str) -> Path:
    """Write what a finished run leaves behind, as far as predicting reads it."""
    given = ["task=text", "task.source=reviews.csv", "task.text=[review]", "task.label=stars", f"data.max_length={CUT}"]
    folder.mkdir(parents=True)
    text = configuration.dump(configuration.compose([*given, *overrides]))
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    if model is not None:
        shutil.copytree(model, folder / "model")
    (folder / "result.json").write_text(json.dumps({"status": "finished", "labels": LABELS}))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_classifier) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "texts", tiny_classifier)


@pytest.fixture(scope="module")
def pair_run(tmp_path_factory, tiny_classifier) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "pairs", tiny_classifier, "task.text=[premise,hypothesis]")


@pytest.fixture(scope="module")
def number_run(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("runs")
    names = {"id2label": {0: "stars"}, "label2id": {"stars": 0}, "problem_type": "regression"}
    with torch.random.fork_rng():
        torch.manual_seed(5)
        BertForSequenceClassification(tiny_config(**names)).save_pretrained(place / "made")
    make_tokenizer().save_pretrained(place / "made")
    return make_run(place / "numbers", place / "made", "task.problem=regression")


@pytest.fixture(scope="module")
def predictor(run) -> Predictor:
    return Predictor(run)


def manual(model_folder: Path, texts: list, max_length: int) -> list[list[float]]:
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForSequenceClassification.from_pretrained(model_folder, dtype=torch.float32).eval()
    rows = []
    for text in texts:
        parts = (text,) if isinstance(text, str) else text
        inputs = tokenizer(*parts, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits[0]
        rows.append((logits if len(logits) == 1 else logits.softmax(dim=-1)).tolist())
    return rows


def probabilities(answers: list[dict]) -> list[list[float]]:
    return [list(answer["scores"].values()) for answer in answers]


def close(found: list[list[float]], expected: list[list[float]]) -> bool:
    return torch.allclose(torch.tensor(found), torch.tensor(expected), rtol=0, atol=1e-5)


# ---- texts ----------------------------------------------------------------------------------------------------------
def test_predictions_equal_tokenizer_model_softmax_one_text_at_a_time(run, predictor):
    answers = predictor(TEXTS)
    assert close(probabilities(answers), manual(run / "model", TEXTS, CUT))
    for answer in answers:
        assert tuple(answer["scores"]) == LABELS
        assert answer["score"] == max(answer["scores"].values()) == answer["scores"][answer["label"]]
        assert sum(answer["scores"].values()) == pytest.approx(1, abs=1e-6)


def test_predictions_equal_the_pipeline_of_transformers(run, predictor):
    short = [text for text in TEXTS if len(text) < 8]  # a pipeline does not cut long texts by itself
    classify = pipeline("text-classification", model=str(run / "model"), top_k=None)
    for answer, expected in zip(predictor(short), classify(short), strict=True):
        assert answer["scores"] == pytest.approx({each["label"]: each["score"] for each in expected}, abs=1e-5)
        assert answer["label"] == expected[0]["label"]


def test_texts_are_cut_where_the_run_cut_them(run, predictor):
    whole = manual(run / "model", TEXTS[4:5], 64)
    assert not close(probabilities(predictor(TEXTS[4:5])), whole)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_answers_depend_neither_on_batches_nor_on_order(run, predictor, batch_size):
    other = Predictor(run, batch_size=batch_size)(list(reversed(TEXTS)))
    assert close(probabilities(other)[::-1], probabilities(predictor(TEXTS)))


def test_blocks_of_rows_keep_their_order(monkeypatch, predictor):
    expected = probabilities(predictor(TEXTS))
    monkeypatch.setattr("headswap.predict.predictor._ROWS_AT_ONCE", 4)
    assert close(probabilities(predictor(TEXTS)), expected)


def test_pairs_are_encoded_as_pairs(pair_run):
    assert close(probabilities(Predictor(pair_run)(PAIRS)), manual(pair_run / "model", PAIRS, CUT))


def test_a_number_is_answered_with_its_columns_name(number_run):
    answers = Predictor(number_run)(TEXTS)
    assert close([[answer["value"]] for answer in answers], manual(number_run / "model", TEXTS, CUT))
    assert answers[0] == {"label": "stars", "value": answers[0]["value"], "scores": {"stars": answers[0]["value"]}}


def test_any_checkpoint_of_a_classifier_serves_and_is_cut_at_its_positions(tiny_classifier):
    texts, pairs = [*TEXTS, "good " * 100], [("good " * 50, "bad " * 50), *PAIRS]
    predictor = Predictor(str(tiny_classifier))
    assert close(probabilities(predictor(texts)), manual(tiny_classifier, texts, 64))
    assert close(probabilities(predictor(pairs)), manual(tiny_classifier, pairs, 64))


def test_the_model_folder_of_a_run_is_that_run(run, predictor):
    inside = Predictor(run / "model")
    assert inside.text_columns == ("review",)
    assert probabilities(inside(TEXTS)) == probabilities(predictor(TEXTS))


def test_a_decoder_without_a_padding_token_is_served_in_batches(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    tokenizer.save_pretrained(tmp_path)
    shape = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "num_labels": 3}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = GPT2ForSequenceClassification(
            GPT2Config(vocab_size=len(tokenizer), bos_token_id=2, eos_token_id=3, **shape)
        )
    model.save_pretrained(tmp_path)
    expected = manual_last_token(tmp_path)
    assert close(probabilities(Predictor(tmp_path)(TEXTS)), expected)


def manual_last_token(folder: Path) -> list[list[float]]:
    """Return the softmax at the last token that is not [SEP], which ends every text and also fills batches."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = GPT2ForSequenceClassification.from_pretrained(folder).eval()
    rows = []
    for text in TEXTS:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=32)["input_ids"]
        with torch.no_grad():
            hidden = model.transformer(inputs).last_hidden_state[0, -2]
            rows.append(model.score(hidden).softmax(dim=-1).tolist())
    return rows


# ---- faults of texts ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "texts: nothing to label; found an empty list; give one text or more"),
        ("good", "texts: one text alone; found 'good'; give a list of texts"),
        (["good", " \n"], r"texts[1]: empty text; found [' \n']; fill or remove it"),
        (["good", None], "texts[1]: not a text; found None; give a str, or a pair of them"),
        ([3], "texts[0]: not a text; found 3; give a str, or a pair of them"),
        ([("good", 3)], "texts[0]: not a text; found ('good', 3); give a str, or a pair of them"),
        ([("a", "b")], "texts[0]: wrong number of texts; found 2 where this model takes 1 (review); give one str each"),
    ],
)
def test_what_is_not_text_is_refused_with_its_place(predictor, texts, message):
    with pytest.raises(DataError) as caught:
        predictor(texts)
    assert str(caught.value) == message


def test_one_text_for_a_task_of_pairs_is_refused(pair_run):
    with pytest.raises(DataError) as caught:
        Predictor(pair_run)(["good"])
    assert str(caught.value) == (
        "texts[0]: wrong number of texts; found 1 where this model takes 2 (premise, hypothesis); give (text, text) pairs"
    )


# ---- faults of folders ----------------------------------------------------------------------------------------------
def refusal(folder: Path | str, kind: type[HeadswapError], batch_size: int = 64) -> str:
    with pytest.raises(kind) as caught:
        Predictor(folder, batch_size)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_that_is_not_there_is_told_with_the_nearest(tmp_path):
    (tmp_path / "tweets-seed0").mkdir()
    path = tmp_path / "tweets-seed1"
    assert refusal(path, ConfigError) == (
        f"{path}: no such folder; found nothing there (did you mean tweets-seed0?); "
        "name the folder that headswap train printed"
    )
    file = tmp_path / "file"
    file.touch()
    assert refusal(file, ConfigError).startswith(f"{file}: no such folder; found a file;")


def test_a_run_that_has_not_finished_is_refused(tmp_path, tiny_classifier):
    folder = make_run(tmp_path / "run", tiny_classifier)
    (folder / "result.json").unlink()
    assert refusal(folder, RunError) == (
        f"{folder}: this run has not finished; found no result.json; give the same headswap train command again"
    )


def test_a_run_that_kept_no_model_is_refused(tmp_path):
    folder = make_run(tmp_path / "run", None, "output.keep_model=false")
    assert refusal(folder, RunError) == (
        f"{folder}: this run has no saved model; found output.keep_model=false; "
        "run it again with output.keep_model=true output.reuse=false"
    )
    other = make_run(tmp_path / "other", None)
    assert "found no model/config.json" in refusal(other, RunError)


def test_a_study_folder_is_refused_and_one_of_its_runs_named(tmp_path, tiny_classifier):
    run = make_run(tmp_path / "run", tiny_classifier)
    study = tmp_path / "study-tweets"
    study.mkdir()
    (study / "runs.json").write_text(json.dumps([{"folder": "../gone"}, {"folder": "../run"}]))
    assert refusal(study, ConfigError) == (
        f"{study}: a study's folder, not a run's; found runs.json; name one of its runs, such as {run}"
    )


def test_any_other_folder_is_refused(tmp_path):
    assert refusal(tmp_path, ConfigError) == (
        f"{tmp_path}: neither a run nor a checkpoint; found no config.yaml and no config.json; "
        "name the folder that headswap train printed, or one that save_pretrained wrote"
    )


def test_a_body_without_a_classifier_is_refused_rather_than_given_a_random_head(tiny_body):
    assert refusal(tiny_body, WeightsError) == (
        f"{tiny_body}: weights of the classifier are missing; found no classifier.bias, classifier.weight; "
        "name a fine-tuned classifier: headswap train makes one from a body"
    )


def test_a_checkpoint_without_weights_is_refused(tmp_path, tiny_classifier):
    shutil.copytree(tiny_classifier, tmp_path / "copy")
    (tmp_path / "copy" / "model.safetensors").unlink()
    message = refusal(tmp_path / "copy", WeightsError)
    assert message.startswith(f"{tmp_path / 'copy'}: no sequence classifier loads from it; found OSError: ")
    assert message.endswith("name a run's folder, or a transformers checkpoint in safetensors with its tokenizer")


def test_labels_that_do_not_exclude_one_another_are_refused(variant, tiny_classifier):
    folder = variant(tiny_classifier, problem_type="multi_label_classification")
    assert refusal(folder, ConfigError) == (
        f"{folder}: its outputs are not labels of which one is right; found problem_type multi_label_classification "
        "with 3 outputs; use transformers.pipeline with function_to_apply"
    )


def test_a_batch_holds_at_least_one_text(run):
    assert refusal(run, ConfigError, 0) == "--batch-size: must be 1 or more; found 0; set a number such as 64"


# ---- files ----------------------------------------------------------------------------------------------------------
NEW = ["predicted_label", "score", *(f"score_{label}" for label in LABELS)]


def write_csv(path: Path, rows: list[dict], **options) -> Path:
    with open(path, "w", newline="", encoding=options.pop("encoding", "utf-8")) as file:
        writer = csv.DictWriter(file, list(rows[0]), **options)
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_csv(path: Path, **options) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, **options))


def check(predictor: Predictor, rows: list[dict]) -> None:
    for row, answer in zip(rows, predictor(TEXTS), strict=True):
        assert row["predicted_label"] == answer["label"]
        assert float(row["score"]) == pytest.approx(answer["score"], abs=1e-7)
        assert [float(row[f"score_{label}"]) for label in LABELS] == pytest.approx(
            list(answer["scores"].values()), abs=1e-7
        )


def test_csv_in_and_out_keeps_every_column_and_the_order(predictor, tmp_path):
    rows = [{"id": f"00{place}", "review": text, "note": "null"} for place, text in enumerate(TEXTS)]
    source, output = write_csv(tmp_path / "in.csv", rows), tmp_path / "deeper" / "out.csv"
    assert predict_file(predictor, source, output) == len(TEXTS)
    found = read_csv(output)
    assert list(found[0]) == ["id", "review", "note", *NEW]
    assert [{name: row[name] for name in rows[0]} for row in found] == rows
    check(predictor, found)
    assert [path.name for path in output.parent.iterdir()] == ["out.csv"]


def test_line_ends_and_quotation_marks_inside_texts_survive(predictor, tmp_path):
    texts = ['he said "fine", twice', "two\nlines", "old\rmac", "all\r\nof it", "tab\there"]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"review": text}) + "\n" for text in texts))
    for name, options in (("out.csv", {}), ("out.tsv", {"delimiter": "\t"})):
        predict_file(predictor, source, tmp_path / name)
        assert [row["review"] for row in read_csv(tmp_path / name, **options)] == texts
        again = tmp_path / f"again-{name}"
        predict_file(Predictor(predictor.folder), rename_scores(tmp_path / name, options), again)
        assert [row["review"] for row in read_csv(again, **options)] == texts


def rename_scores(path: Path, options: dict) -> Path:
    rows = [{"review": row["review"]} for row in read_csv(path, **options)]
    return write_csv(path, rows, quoting=csv.QUOTE_ALL, **options)


def test_jsonl_in_and_out_keeps_values_as_they_are(predictor, tmp_path):
    rows = [{"review": text, "about": {"stars": place, "tags": ["x"]}} for place, text in enumerate(TEXTS)]
    rows[0]["only_here"] = 1.5
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert predict_file(predictor, source, output) == len(TEXTS)
    found = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert list(found[1]) == ["review", "about", "only_here", *NEW]
    assert [row["about"] for row in found] == [row["about"] for row in rows]
    assert [row["only_here"] for row in found] == [1.5] + [None] * 5
    assert "caf\u00e9" in output.read_text(encoding="utf-8")
    check(predictor, found)


def test_parquet_in_and_out_keeps_types(predictor, tmp_path):
    days = pa.array([date(2024, 1, day + 1) for day in range(6)])
    table = pa.table({"day": days, "review": TEXTS, "count": pa.array(range(6), pa.int16())})
    pq.write_table(table, tmp_path / "in.parquet")
    assert predict_file(predictor, tmp_path / "in.parquet", tmp_path / "out.parquet") == len(TEXTS)
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.select(table.column_names).equals(table)
    assert found.column_names == [*table.column_names, *NEW]
    check(predictor, found.to_pylist())
    predict_file(predictor, tmp_path / "in.parquet", tmp_path / "out.csv")
    assert [row["day"] for row in read_csv(tmp_path / "out.csv")] == [str(day) for day in days.to_pylist()]


def test_csv_becomes_parquet_with_texts_as_read(predictor, tmp_path):
    source = write_csv(tmp_path / "in.csv", [{"id": f"0{place}", "review": text} for place, text in enumerate(TEXTS)])
    predict_file(predictor, source, tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found["id"].to_pylist()[0] == "00"
    assert found.schema.field("score").type == pa.float64()


def test_pairs_and_numbers_are_labelled_from_files(pair_run, number_run, tmp_path):
    source = write_csv(tmp_path / "pairs.csv", [{"hypothesis": b, "premise": a} for a, b in PAIRS])
    predict_file(Predictor(pair_run), source, tmp_path / "out.csv")
    expected = manual(pair_run / "model", PAIRS, CUT)
    assert close(
        [[float(row[f"score_{label}"]) for label in LABELS] for row in read_csv(tmp_path / "out.csv")], expected
    )
    source = write_csv(tmp_path / "texts.csv", [{"review": text} for text in TEXTS])
    predict_file(Predictor(number_run), source, tmp_path / "values.csv")
    found = read_csv(tmp_path / "values.csv")
    assert list(found[0]) == ["review", "predicted_value"]
    assert close([[float(row["predicted_value"])] for row in found], manual(number_run / "model", TEXTS, CUT))


def test_the_text_column_may_be_named(predictor, tiny_classifier, tmp_path):
    source = write_csv(tmp_path / "in.csv", [{"body": text} for text in TEXTS])
    assert predict_file(predictor, source, tmp_path / "out.csv", ["body"]) == len(TEXTS)
    assert predict_file(Predictor(tiny_classifier), source, tmp_path / "plain.csv", ["body"]) == len(TEXTS)


def test_utf_8_is_read_as_such_and_other_bytes_as_the_run_was_trained(tmp_path, tiny_classifier):
    run = Predictor(make_run(tmp_path / "run", tiny_classifier, "task.encoding=mac_roman", "task.delimiter=';'"))
    rows = [{"review": text, "place": "Z\u00fcrich; Genf"} for text in TEXTS]
    for encoding in ("utf-8", "utf-8-sig", "mac_roman"):
        source = write_csv(tmp_path / f"{encoding}.csv", rows, encoding=encoding, delimiter=";")
        predict_file(run, source, tmp_path / "out.csv")
        assert [row["place"] for row in read_csv(tmp_path / "out.csv")] == ["Z\u00fcrich; Genf"] * len(TEXTS)


def fault(predictor: Predictor, source: Path, output: Path, *columns: str) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        predict_file(predictor, source, output, columns)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_faults_of_the_input_file_are_told_as_in_training(predictor, tmp_path):
    output = tmp_path / "out.csv"
    gone = tmp_path / "gone.csv"
    assert fault(predictor, gone, output).startswith(f"{gone}: no such file; found ")
    source = tmp_path / "in.csv"
    source.write_text("")
    assert fault(predictor, source, output).startswith(f"{source}: the file is empty; found 0 bytes")
    source.write_bytes(b"review\ngood\n\xff\xfe bad\n")
    assert fault(predictor, source, output).startswith(f"{source}: not utf-8; found byte 0xff at line 3 (byte 12)")
    source.write_text("review,id\ngood,1\nso, so,2\n")
    assert fault(predictor, source, output).startswith(f"{source}: ragged rows; found 3 fields where the header has 2")
    (tmp_path / "in.jsonl").write_text('{"review": "good"}\n{"review": ')
    assert "not JSON; found Expecting value at line 2" in fault(predictor, tmp_path / "in.jsonl", output)
    (tmp_path / "in.parquet").write_bytes(b"PAR1 and no more")
    assert "cannot be read as parquet" in fault(predictor, tmp_path / "in.parquet", output)
    (tmp_path / "in.txt").write_text("good")
    assert "unknown kind of file; found '.txt'" in fault(predictor, tmp_path / "in.txt", output)
    assert not output.exists()


def test_columns_that_do_not_fit_are_told(predictor, tiny_classifier, tmp_path):
    output = tmp_path / "out.csv"
    source = write_csv(tmp_path / "in.csv", [{"reviews": "good", "id": "1"}])
    assert fault(predictor, source, output) == (
        f"{source}: no column 'review' (did you mean reviews?); found 'reviews', 'id'; name the text column with --column"
    )
    assert fault(predictor, source, output, "reviews", "id") == (
        "--column: wrong number of text columns; found 2: reviews, id; this model takes 1 (review)"
    )
    assert fault(Predictor(tiny_classifier), source, output) == (
        "--column: needed for a checkpoint that is not a run's; found the columns 'reviews', 'id'; name one"
    )
    assert fault(Predictor(tiny_classifier), source, output, "a", "b", "c") == (
        "--column: wrong number of text columns; found 3: a, b, c; this model takes one, or two of a pair"
    )
    (tmp_path / "twice.csv").write_text("review,id,id\ngood,1,2\n")
    assert "more than one column 'id'" in fault(predictor, tmp_path / "twice.csv", output)


def test_empty_texts_are_told_with_their_rows(predictor, tmp_path):
    source = write_csv(tmp_path / "in.csv", [{"review": "good", "id": "1"}, {"review": " ", "id": "2"}])
    assert fault(predictor, source, tmp_path / "out.csv") == (
        f"{source}: empty text in column 'review'; row 2 (the first at line 3); fill or remove these rows"
    )


def test_an_output_that_would_destroy_or_hide_something_is_refused(predictor, tmp_path):
    source = write_csv(tmp_path / "in.csv", [{"review": "good", "score": "3"}])
    before = source.read_bytes()
    assert fault(predictor, source, tmp_path / "out.csv") == (
        f"{source}: a column has the name of a new one; found 'score'; rename or remove it"
    )
    (tmp_path / "link.csv").symlink_to(source)
    for same in (source, tmp_path / "link.csv"):
        assert fault(predictor, source, same) == (
            f"--output: would overwrite the input; found {same} twice; name another file"
        )
    assert source.read_bytes() == before
    assert fault(predictor, source, tmp_path / "out.xlsx") == (
        "--output: unknown kind of file; found 'out.xlsx'; end its name in one of .csv, .tsv, .jsonl, .parquet"
    )
    (tmp_path / "folder.csv").mkdir()
    assert "found a folder of that name" in fault(predictor, source, tmp_path / "folder.csv")
    assert f"--output: {source} cannot be made" in fault(predictor, source, source / "out.csv")


def test_one_file_is_labelled_at_a_time(predictor, tmp_path):
    for name in ("a.csv", "b.csv"):
        write_csv(tmp_path / name, [{"review": "good"}])
    assert fault(predictor, tmp_path / "*.csv", tmp_path / "out.csv") == (
        f"--input: one file at a time; found 2 that match {tmp_path}/*.csv; name one of them"
    )


def test_a_column_of_several_kinds_goes_to_text_files_alone(predictor, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"review": "good", "id": 1}\n{"review": "bad", "id": "x"}\n')
    message = fault(predictor, source, tmp_path / "out.parquet")
    assert message.startswith(f"{source}: column 'id' holds values of several kinds; found Arrow")
    assert message.endswith("; write csv or jsonl")
    assert predict_file(predictor, source, tmp_path / "out.csv") == 2


# ---- the command line -----------------------------------------------------------------------------------------------
def said(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main(["predict", *words])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_the_command_labels_texts_and_files(run, number_run, predictor, tmp_path, capsys):
    code, out, _ = said(capsys, str(run), "--text", TEXTS[0], "--text", TEXTS[2])
    assert code == 0
    assert [line.split("\t")[0] for line in out.splitlines()] == [
        answer["label"] for answer in predictor([TEXTS[0], TEXTS[2]])
    ]
    source = write_csv(tmp_path / "in.csv", [{"body": text} for text in TEXTS])
    output = str(tmp_path / "out.parquet")
    code, out, err = said(capsys, str(run), "--input", str(source), "--output", output, "--column", "body")
    assert (code, out.splitlines()[-1]) == (0, output)
    assert "6 rows labelled" in err
    code, out, _ = said(capsys, str(number_run), "--text", "good")
    assert (code, out.split("\t")[0]) == (0, "stars")


def test_a_wrong_folder_is_one_line_and_exit_code_two(tmp_path, capsys):
    code, out, err = said(capsys, str(tmp_path / "gone"), "--text", "good")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"headswap: {tmp_path / 'gone'}: no such folder;")
