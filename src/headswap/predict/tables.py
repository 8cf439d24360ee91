"""Label the rows of a file: csv, tsv, jsonl or parquet in and out. Predict chain: folder -> predictor -> tables (this).

What is read is checked as in training; what is written holds all of it, in its order, and the new columns.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headswap.bodyfiles import one_line
from headswap.durable import replace_file
from headswap.errors import ConfigError, DataError, RunError
from headswap.predict.predictor import Answer, Predictor
from headswap.sources import Reading, Table, read, require, resolve

OUTPUTS = {".csv": ",", ".tsv": "\t", ".jsonl": "", ".parquet": ""}
"""What predict_file writes: suffix -> delimiter, where the kind has one."""


def predict_file(predictor: Predictor, source: Path, output: Path, columns: Sequence[str] = ()) -> int:
    """Label the rows of a csv, tsv, jsonl or parquet file and write them, with new columns, to another.

    Args:
        output: its suffix says what is written; an older file of that name is replaced whole or not at all.
        columns: the text column, or the two of a pair; those of the run when none is named.

    Returns:
        The number of rows, which is that of the input; they stay in its order.

    Raises:
        DataError, ConfigError: the input cannot be read or lacks a column, a text is empty, a new column's name is
            taken, or the output cannot be written.
    """
    path = _one_file(source)
    _check_output(output, path)
    table, names = _read(path, predictor, tuple(columns))
    _refuse_taken(table, predictor)
    texts = [_texts(table, name) for name in names]
    answers = predictor(texts[0] if len(texts) == 1 else zip(*texts, strict=True))
    _write(output, path, dict(table.columns), _columns_of(answers, predictor))
    return len(answers)


def _one_file(source: Path) -> Path:
    found = resolve(str(source))
    if len(found) > 1:
        raise ConfigError(f"--input: one file at a time; found {len(found)} that match {source}; name one of them")
    return found[0]


def _check_output(output: Path, path: Path) -> None:
    """Refuse an output that could not be written, before the work is done."""
    if output.suffix.lower() not in OUTPUTS:
        kinds = ", ".join(OUTPUTS)
        raise ConfigError(f"--output: unknown kind of file; found {output.name!r}; end its name in one of {kinds}")
    if output.exists() and output.samefile(path):
        raise ConfigError(f"--output: would overwrite the input; found {output} twice; name another file")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output: {output.parent} cannot be made; found {error.strerror}; name another") from error
    if output.is_dir() or not os.access(output.parent, os.W_OK):
        found = "a folder of that name" if output.is_dir() else f"no right to write in {output.parent}"
        raise ConfigError(f"--output: {output} cannot be written; found {found}; name another file")


def _read(path: Path, predictor: Predictor, wanted: tuple[str, ...]) -> tuple[Table, tuple[str, ...]]:
    """Return the file with all its columns, and the names of those that hold the texts."""
    task = predictor.config.task if predictor.config else {}
    how = {name: task[name] for name in ("delimiter", "quotes") if name in task}
    encoding, text = _decoded(path, task.get("encoding", "utf-8"))
    present = _names(path, text, how.get("delimiter"))
    if not present:  # the file itself is at fault, and reading it tells how
        read(str(path), Reading(wanted or predictor.text_columns or ("text",), encoding, **how))
    require(str(path), present, present, "give every column a name of its own")
    names = wanted or predictor.text_columns
    if not names:
        found = ", ".join(map(repr, present))
        raise ConfigError(f"--column: needed for a checkpoint that is not a run's; found the columns {found}; name one")
    width = len(predictor.text_columns)
    if len(names) > 2 or (width and len(names) != width):
        takes = f"{width} ({', '.join(predictor.text_columns)})" if width else "one, or two of a pair"
        found = f"{len(names)}: {', '.join(names)}"
        raise ConfigError(f"--column: wrong number of text columns; found {found}; this model takes {takes}")
    require(str(path), names, present, "name the text column with --column")
    return read(str(path), Reading(tuple(present), encoding, **how))[0], names


def _decoded(path: Path, fallback: str) -> tuple[str, str]:
    """Return encoding and text: UTF-8 where the bytes are that, else the run's; empty text where they are neither.

    The run's own is not tried first: where each byte has a character (mac_roman, latin-1) it would never fail.
    """
    if path.suffix.lower() == ".parquet":
        return "utf-8", ""
    for encoding in ("utf-8", fallback):
        try:
            content = path.read_bytes()
            content = gzip.decompress(content) if path.suffix == ".gz" else content
            return encoding, content.decode(encoding).removeprefix("\ufeff")
        except (OSError, EOFError, zlib.error, ValueError):
            continue
    return fallback, ""


def _names(path: Path, text: str, delimiter: str | None) -> list[str]:
    """Return the names of a file's columns, none where it cannot be read: sources.read then tells why."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix != ".gz"]
    try:
        if suffixes[-1] == ".parquet":
            from pyarrow.parquet import read_schema

            return list(read_schema(path).names)
        if suffixes[-1] in (".csv", ".tsv"):
            own = "\t" if ".tsv" in suffixes else ","
            return next(filter(None, csv.reader(io.StringIO(text, newline="\n"), delimiter=delimiter or own)))
        lines = filter(str.strip, text.split("\n"))
        rows = json.loads(text) if text.lstrip().startswith("[") else map(json.loads, lines)
        return list(dict.fromkeys(key for row in map(dict.keys, rows) for key in row))
    except (csv.Error, ValueError, OSError, TypeError, IndexError, StopIteration):
        return []


def _refuse_taken(table: Table, predictor: Predictor) -> None:
    taken = [name for name in _new_columns(predictor) if name in table.columns]
    if taken:
        found = ", ".join(map(repr, taken))
        raise DataError(f"{table.name}: a column has the name of a new one; found {found}; rename or remove it")


def _texts(table: Table, column: str) -> list[str]:
    values = table.text(column)
    empty = [place for place, value in enumerate(values) if not (value or "").strip()]
    if empty:
        where = table.place(empty)
        raise DataError(f"{table.name}: empty text in column {column!r}; {where}; fill or remove these rows")
    return [value or "" for value in values]


def _new_columns(predictor: Predictor) -> list[str]:
    if predictor.regression:
        return ["predicted_value"]
    return ["predicted_label", "score", *(f"score_{label}" for label in predictor.labels)]


def _columns_of(answers: list[Answer], predictor: Predictor) -> dict[str, list[Any]]:
    """Return the new columns; numbers with the 8 digits that float32 has."""
    if predictor.regression:
        return {"predicted_value": [_digits(each["value"]) for each in answers]}
    added: dict[str, list[Any]] = {"predicted_label": [each["label"] for each in answers]}
    added["score"] = [_digits(each["score"]) for each in answers]
    return added | {f"score_{name}": [_digits(each["scores"][name]) for each in answers] for name in predictor.labels}


def _digits(value: float) -> float:
    return float(f"{value:.8g}")


def _write(output: Path, path: Path, given: dict[str, list[Any]], added: dict[str, list[Any]]) -> None:
    kind = output.suffix.lower()
    content = _parquet(path, given, added) if kind == ".parquet" else _text(kind, given | added).encode()
    try:
        replace_file(output, content)
    except (OSError, RunError) as error:
        found = error.__cause__ or error
        raise ConfigError(f"--output: {output} cannot be written; found {found}; name another file") from error


def _text(kind: str, columns: dict[str, list[Any]]) -> str:
    rows = zip(*columns.values(), strict=True)
    if kind == ".jsonl":
        items = (dict(zip(columns, row, strict=True)) for row in rows)
        return "".join(json.dumps(item, ensure_ascii=False, default=str) + "\n" for item in items)
    stream = io.StringIO(newline="")
    plain = csv.writer(stream, delimiter=OUTPUTS[kind], lineterminator="\n")
    careful = csv.writer(stream, delimiter=OUTPUTS[kind], lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in [tuple(columns), *rows]:
        cells = [_cell(value) for value in row]
        # csv leaves a lone carriage return unquoted, and then readers take it for the end of the row
        (careful if any("\r" in cell for cell in cells) else plain).writerow(cells)
    return stream.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict | bool) else str(value)


def _parquet(path: Path, given: dict[str, list[Any]], added: dict[str, list[Any]]) -> bytes:
    """Return the table as parquet; columns that came from parquet keep their types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix.lower() == ".parquet":
        with pq.ParquetFile(path) as file:
            table = file.read()
    else:
        table = pa.table({name: _array(path, name, values) for name, values in given.items()})
    for name, values in added.items():
        table = table.append_column(name, pa.array(values))
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def _array(path: Path, name: str, values: list[Any]) -> Any:
    import pyarrow as pa

    try:
        return pa.array(values)
    except pa.ArrowException as error:
        found, remedy = one_line(error), "write csv or jsonl"
        raise DataError(f"{path}: column {name!r} holds values of several kinds; found {found}; {remedy}") from error
