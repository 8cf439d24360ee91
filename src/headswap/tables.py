"""A table file with all its columns in, the same rows with new columns out. Floor 2.

sources.py reads the columns that a task names; here nobody has named them. What is written is whole or not there.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headswap.bodyfiles import one_line
from headswap.durable import replace_file
from headswap.errors import ConfigError, DataError, RunError
from headswap.sources import Reading, Table, read, require, resolve


def one_file(source: str | Path) -> Path:
    """Return the one file that --input names."""
    found = resolve(str(source))
    if len(found) > 1:
        raise ConfigError(f"--input: one file at a time; found {len(found)} that match {source}; name one of them")
    return found[0]


def check_output(output: Path, source: Path, kinds: Sequence[str]) -> None:
    """Refuse an output that could not be written, before the work is done."""
    if output.suffix.lower() not in kinds:
        raise ConfigError(
            f"--output: unknown kind of file; found {output.name!r}; end its name in one of {', '.join(kinds)}"
        )
    if output.exists() and output.samefile(source):
        raise ConfigError(f"--output: would overwrite the input; found {output} twice; name another file")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output: {output.parent} cannot be made; found {error.strerror}; name another") from error
    if output.is_dir() or not os.access(output.parent, os.W_OK):
        found = "a folder of that name" if output.is_dir() else f"no right to write in {output.parent}"
        raise ConfigError(f"--output: {output} cannot be written; found {found}; name another file")


def read_whole(path: Path, wanted: Sequence[str] = (), how: Reading | None = None) -> Table:
    """Read a file with all its columns.

    Args:
        wanted: columns that must be among them.
        how: encoding, delimiter and quotes; its columns are not asked. A file that is UTF-8 is read as that: where
            each byte has a character (mac_roman, latin-1), the encoding of another file would never fail.
    """
    how = how or Reading(())
    encoding, text = _decoded(path, how.encoding)
    present = _names(path, text, how.delimiter)
    if not present:  # the file itself is at fault, and reading it tells how
        read(str(path), Reading(tuple(wanted) or ("text",), encoding, how.delimiter, how.quotes))
    require(str(path), present, present, "give every column a name of its own")
    require(str(path), wanted, present, "name the text column with --column")
    return read(str(path), Reading(tuple(present), encoding, how.delimiter, how.quotes))[0]


def texts(table: Table, column: str) -> list[str]:
    """Return a column of texts, none of them empty."""
    values = table.text(column)
    empty = [place for place, value in enumerate(values) if not (value or "").strip()]
    if empty:
        where = table.place(empty)
        raise DataError(f"{table.name}: empty text in column {column!r}; {where}; fill or remove these rows")
    return [value or "" for value in values]


def write_parquet(output: Path, source: Path, table: Table, added: Mapping[str, Any], about: Mapping[str, str]) -> None:
    """Write a table with new columns as parquet; columns that came from parquet keep their types.

    Args:
        source: the file that `table` was read from.
        added: new columns, as Arrow arrays.
        about: metadata of the schema.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if source.suffix.lower() == ".parquet":
        with pq.ParquetFile(source) as file:
            made = file.read()
    else:
        made = pa.table({name: _array(table.name, name, values) for name, values in table.columns.items()})
    for name, values in added.items():
        made = made.append_column(name, values)
    made = made.replace_schema_metadata({**(made.schema.metadata or {}), **about})
    sink = pa.BufferOutputStream()
    pq.write_table(made, sink)
    try:
        replace_file(output, sink.getvalue())
    except (OSError, RunError) as error:
        found = error.__cause__ or error
        raise ConfigError(f"--output: {output} cannot be written; found {found}; name another file") from error


def _decoded(path: Path, fallback: str) -> tuple[str, str]:
    """Return encoding and text: UTF-8 where the bytes are that, else `fallback`; empty text where they are neither."""
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


def _array(where: str, name: str, values: list[Any]) -> Any:
    import pyarrow as pa

    try:
        return pa.array(values)
    except pa.ArrowException as error:
        found, remedy = one_line(error), "write one kind into it, or remove it"
        raise DataError(f"{where}: column {name!r} holds values of several kinds; found {found}; {remedy}") from error
