"""Files in and out of predict: every column and row kept, every fault told, and the command that does it."""

import csv
import json
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finished_runs import CUT, LABELS, PAIRS, TEXTS, close, make_number_run, make_run, manual
from headswap import Predictor, cli
from headswap.errors import ConfigError, DataError
from headswap.predict import predict_file


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_classifier) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "texts", tiny_classifier)


@pytest.fixture(scope="module")
def pair_run(tmp_path_factory, tiny_classifier) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "pairs", tiny_classifier, "task.text=[premise,hypothesis]")


@pytest.fixture(scope="module")
def number_run(tmp_path_factory) -> Path:
    return make_number_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def predictor(run) -> Predictor:
    return Predictor(run)


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
        assert row["predicted_label"] == answer.label
        assert float(row["score"]) == pytest.approx(answer.score, abs=1e-7)
        assert [float(row[f"score_{label}"]) for label in LABELS] == pytest.approx(
            list(answer.scores.values()), abs=1e-7
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
        "--column: wrong number of columns; found 2: reviews, id; this model takes 1 (review)"
    )
    assert fault(Predictor(tiny_classifier), source, output) == (
        "--column: needed for a checkpoint that is not a run's; found the columns 'reviews', 'id'; name one"
    )
    assert fault(Predictor(tiny_classifier), source, output, "id", "id", "id") == (
        "--column: wrong number of columns; found 3: id, id, id; this model takes 1 (text)"
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
    assert message.endswith("; write one kind into it, or remove it")
    assert predict_file(predictor, source, tmp_path / "out.csv") == 2


def said(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main(["predict", *words])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_the_command_labels_texts_and_files(run, number_run, predictor, tmp_path, capsys):
    code, out, _ = said(capsys, str(run), "--text", TEXTS[0], "--text", TEXTS[2])
    assert code == 0
    assert [line.split("\t")[0] for line in out.splitlines()] == [
        answer.label for answer in predictor([TEXTS[0], TEXTS[2]])
    ]
    source = write_csv(tmp_path / "in.csv", [{"body": text} for text in TEXTS])
    output = str(tmp_path / "out.parquet")
    code, out, err = said(capsys, str(run), "--input", str(source), "--output", output, "--column", "body")
    assert (code, out.splitlines()[-1]) == (0, output)
    assert "6 rows predicted" in err
    code, out, _ = said(capsys, str(number_run), "--text", "good")
    assert (code, out.split(" ")[0]) == (0, "stars")


def test_a_wrong_folder_is_one_line_and_exit_code_two(tmp_path, capsys):
    code, out, err = said(capsys, str(tmp_path / "gone"), "--text", "good")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"headswap: {tmp_path / 'gone'}: no such folder;")
