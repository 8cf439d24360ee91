"""Predict the rows of a file: csv, tsv, jsonl or parquet in and out. Predict chain: predictor -> files (this).

    table -> checked cells -> chunks of results, each put on the disk -> all columns and the new ones, in order

What is written is whole or not there; what was predicted before a kill lies in OUTPUT.part, and is not predicted again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headswap.bodyfiles import weight_files
from headswap.durable import replace_file
from headswap.errors import ConfigError, DataError, RunError
from headswap.hashes import file_sha256
from headswap.predict.predictor import ROWS_AT_ONCE, Predictor
from headswap.sources import Reading, Table, as_text, require
from headswap.tables import check_output, one_file, read_whole, write_parquet

OUTPUTS = {".csv": ",", ".tsv": "\t", ".jsonl": "", ".parquet": ""}
"""What predict_file writes: suffix -> delimiter, where the kind has one."""

Tell = Callable[[int, int], None]


def predict_file(
    predictor: Predictor, source: Path, output: Path, columns: Sequence[str] = (), tell: Tell = lambda done, of: None
) -> int:
    """Predict the rows of a csv, tsv, jsonl or parquet file and write them, with new columns, to another.

    Args:
        output: its suffix says what is written; an older file of that name is replaced whole or not at all.
        columns: the file's columns that hold the task's inputs, in their order; those of the run when none is named.
        tell: is called with the rows that are done, and all.

    Returns:
        The number of rows, which is that of the input; they stay in its order.

    Raises:
        DataError, ConfigError: the input cannot be read or lacks a column, a cell is not what the task reads, a new
            column's name is taken, or the output cannot be written.
    """
    path = one_file(source)
    check_output(output, path, tuple(OUTPUTS))
    table = read_whole(path, columns, _reading(predictor))
    rows = rows_of(table, predictor, tuple(columns))
    part = _Part(output.with_name(f"{output.name}.part"), _key(predictor, rows))
    cells = part.read()
    while len(cells) < table.row_count:
        tell(len(cells), table.row_count)
        chunk = {name: values[len(cells) : len(cells) + ROWS_AT_ONCE] for name, values in rows.items()}
        found = [result.cells() for result in predictor.task.results(predictor.observed(chunk))]
        _refuse_taken(table, found[0])
        part.add(found)
        cells += found
    tell(len(cells), table.row_count)
    added = {name: [cell[name] for cell in cells] for name in cells[0]}
    _write(output, path, table, added)
    part.path.unlink(missing_ok=True)
    return len(cells)


def rows_of(table: Table, predictor: Predictor, columns: Sequence[str]) -> dict[str, list[Any]]:
    """Return a table's rows as the task reads them, every cell checked."""
    names = columns or predictor.task.inputs
    if predictor.config is None and not columns:
        found = ", ".join(map(repr, table.columns))
        raise ConfigError(f"--column: needed for a checkpoint that is not a run's; found the columns {found}; name one")
    inputs = predictor.inputs_for(names)
    if len(names) != len(inputs):
        takes, found = f"{len(inputs)} ({', '.join(inputs)})", f"{len(names)}: {', '.join(names)}"
        raise ConfigError(f"--column: wrong number of columns; found {found}; this model takes {takes}")
    require(table.name, names, list(table.columns), "name the text column with --column")
    rows: dict[str, list[Any]] = {"id": [str(place + 1) for place in range(table.row_count)]}
    return rows | {name: _cells(table, column, name, predictor) for name, column in zip(inputs, names, strict=True)}


def _cells(table: Table, column: str, name: str, predictor: Predictor) -> list[Any]:
    cells, faults = [], {}
    for place, value in enumerate(table.columns[column]):
        try:
            plain = isinstance(value, list | dict)
            cells.append(predictor.task.file_cell(name, value if plain else as_text(value) or ""))
        except DataError as fault:
            faults[place] = str(fault)
    if faults:
        what, *_, remedy = next(iter(faults.values())).replace("remove it", "remove these rows").split("; ")
        raise DataError(f"{table.name}: {what} in column {column!r}; {table.place(list(faults))}; {remedy}")
    return cells


def _reading(predictor: Predictor) -> Reading:
    task = predictor.config.task if predictor.config else {}
    return Reading((), task.get("encoding", "utf-8"), task.get("delimiter"), task.get("quotes", True))


class _Part:
    """The results so far, one line of JSON a chunk, under a first line that says of what they are."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self._key = path, key

    def read(self) -> list[dict[str, Any]]:
        """Return the results that were saved for the same input and model; start anew where they are of another."""
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1] if self.path.is_file() else []  # no torn line
        if not lines or lines[0] != self._key:
            self._append(self._key, "w")
            return []
        return [cell for line in lines[1:] for cell in json.loads(line)]

    def add(self, cells: list[dict[str, Any]]) -> None:
        self._append(json.dumps(cells, ensure_ascii=False), "a")

    def _append(self, line: str, mode: str) -> None:
        try:
            with open(self.path, mode, encoding="utf-8") as file:
                file.write(f"{line}\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigError(
                f"--output: {self.path} cannot be written; found {error.strerror}; free space, or name another file"
            ) from error


def _key(predictor: Predictor, rows: dict[str, list[Any]]) -> str:
    """Return one line that is the same for the same inputs, whichever columns they stand in, and the same model."""
    from headswap.encoded import tokenizer_hash

    weights = {file.name: file_sha256(file) for file in weight_files(predictor.folder)}
    model = [weights, tokenizer_hash(predictor.tokenizer), predictor.max_length, predictor.calibration]
    about = [rows, repr(predictor.task), model]
    return f"headswap predict {hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()}"


def _refuse_taken(table: Table, cells: dict[str, Any]) -> None:
    taken = [name for name in cells if name in table.columns]
    if taken:
        found = ", ".join(map(repr, taken))
        raise DataError(f"{table.name}: a column has the name of a new one; found {found}; rename or remove it")


def _write(output: Path, path: Path, table: Table, added: dict[str, list[Any]]) -> None:
    kind = output.suffix.lower()
    if kind == ".parquet":
        import pyarrow as pa

        write_parquet(output, path, table, {name: pa.array(values) for name, values in added.items()}, {})
        return
    try:
        replace_file(output, _text(kind, {**table.columns, **added}).encode())
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
