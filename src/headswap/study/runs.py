"""Read the folders of a study's runs. Study chain: execute -> runs (this) -> contrasts and curves -> results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from headswap.config import parsed
from headswap.errors import RunError
from headswap.identity import read_keys
from headswap.layers import layers
from headswap.lineage import told
from headswap.records import BODY_CHANGE

TINY = 1e-9


@dataclass(frozen=True)
class RunRecord:
    """What the study's execution says about one run. `size` counts labelled rows, None for all that the task has."""

    arm: str
    size: int | None
    seed: int
    folder: Path
    status: Literal["finished", "failed"]
    reason: str = ""
    reused: bool = False


@dataclass(frozen=True)
class LearningCurve:
    """The primary metric on the validation split as training went; seconds and FLOPs leave evaluation out.

    FLOPs are NaN where a run counted none.
    """

    steps: NDArray[np.floating]
    examples: NDArray[np.floating]
    seconds: NDArray[np.floating]
    scores: NDArray[np.floating]
    flops: NDArray[np.floating]


@dataclass(frozen=True)
class FinishedRun:
    """One finished run: its result, its test predictions in the order of their ids, its learning curve.

    `values` are the primary metric's, one a test example; None where it is no mean of such. `sums` [examples, k] are
    what each example adds to the sums that it is a function of; None where it is none. An item of `labels` and of
    `predictions` is a number or, for tags, texts and rows of numbers, an object. `body_change` is body.json, empty
    where the run measured none.
    """

    record: RunRecord
    result: dict[str, Any]
    ids: NDArray
    labels: NDArray
    predictions: NDArray
    values: NDArray | None
    sums: NDArray | None
    curve: LearningCurve
    config: dict[str, Any]
    about: dict[str, Any]
    ledger: dict[str, Any]
    body_change: dict[str, Any] = field(default_factory=dict)

    @property
    def arm(self) -> str:
        return self.record.arm

    @property
    def seed(self) -> int:
        return self.record.seed

    @property
    def folder(self) -> Path:
        return self.record.folder

    @property
    def is_baseline(self) -> bool:
        """Whether it trained no body: it has no curve, no ledger, no precision."""
        return self.config.get("baseline") is not None

    @property
    def primary(self) -> str:
        return self.result["primary"]

    @property
    def score(self) -> float:
        return float(self.result["scores"]["test"][self.primary])

    @property
    def labelled_rows(self) -> int:
        return self.record.size or int(self.result["rows"]["train"]) + int(self.result["rows"]["validation"])

    @property
    def problem(self) -> str:
        return self.result.get("problem", "single_label_classification")

    @property
    def greater_is_better(self) -> bool:
        return bool(self.result.get("greater_is_better", True))

    @property
    def classifies(self) -> bool:
        return self.problem in ("single_label_classification", "multiple_choice")

    @property
    def collapsed(self) -> bool:
        """Whether the run predicts no better than always naming the test split's commonest label.

        That is told of trained models: `majority` is what they are held against.
        """
        if self.is_baseline:
            return False
        if self.result.get("collapsed"):
            return True
        if not self.classifies or not self.labels.size:
            return False
        majority = np.unique(self.labels, return_counts=True)[1].max() / self.labels.size
        return bool(np.mean(self.predictions == self.labels) <= majority + TINY)


def read_run(record: RunRecord) -> FinishedRun:
    """Return the run of a finished folder. Raises RunError naming the file that is absent or damaged."""
    folder = record.folder
    result = _json(folder / "result.json")
    for key in ("primary", "scores", "rows"):
        if key not in result:
            raise RunError(
                f"{folder / 'result.json'}: lacks a key; found no {key!r}; run it again with output.reuse=false"
            )
    predicted = _test_predictions(folder / "predictions.parquet", result["primary"])
    about = _json(folder / "run.json") if (folder / "run.json").exists() else {}
    config = read_keys(_yaml(folder / "config.yaml"))
    no_steps = config.get("baseline") is not None
    swap = _json(folder / "ledger.json") if (folder / "ledger.json").exists() else {}
    ledger = swap.get("summary", {})
    if count := body_layers(swap.get("entries", [])):
        ledger["layers"] = count
    if ledger and about.get("lineage"):
        ledger["lineage"] = told(about["lineage"])
    return FinishedRun(
        record,
        result,
        *predicted,
        LearningCurve(*np.empty((5, 0))) if no_steps else _curve(folder / "metrics.jsonl", result["primary"]),
        config,
        about,
        ledger,
        _json(folder / BODY_CHANGE) if (folder / BODY_CHANGE).exists() else {},
    )


def body_layers(entries: Iterable[Mapping[str, Any]]) -> int:
    """Return how many layers a body has, by the tensors that its ledger names."""
    names = [entry["name"] for entry in entries if entry["part"] == "body" and entry["fate"] != "dropped"]
    roots = {name.split(".")[0] for name in names}
    inside = [name.partition(".")[2] for name in names] if len(roots) == 1 else names
    return len(layers([f"body.{name}" for name in inside]))


def test_column(run: FinishedRun, name: str) -> pa.Array | None:
    """Return another column of a run's predictions, in the order of `ids`; None where its file has no such column."""
    path = run.folder / "predictions.parquet"
    if name not in pq.read_schema(path).names:
        return None
    table = pq.read_table(path, columns=["id", name], filters=[("split", "==", "test")])
    order = np.argsort(np.array(table["id"].to_pylist(), dtype=object).astype(str), kind="stable")
    column = table[name].combine_chunks().take(pa.array(order))
    return None if column.null_count else column


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested dicts by dotted key; lists of plain values stay one leaf."""
    if isinstance(node, list) and any(isinstance(item, dict | list) for item in node):
        node = {str(index): item for index, item in enumerate(node)}
    if not isinstance(node, dict):
        return {prefix: node}
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        leaves |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves


def _test_predictions(path: Path, primary: str) -> tuple[NDArray, NDArray, NDArray, NDArray | None, NDArray | None]:
    """Return ids, labels, predictions, values and sums of the test examples, in the order of their ids."""
    try:
        table = pq.read_table(path, filters=[("split", "==", "test")])
        columns = [table[name] for name in ("id", "label", "prediction")]
    except (OSError, KeyError, pa.ArrowException) as fault:
        raise RunError(f"{path}: cannot be read; {_line(fault)}; run it again with output.reuse=false") from fault
    ids = np.array(columns[0].to_pylist(), dtype=object).astype(str)
    order = np.argsort(ids, kind="stable")
    if len(np.unique(ids)) != len(ids):
        raise RunError(f"{path}: a test id stands twice; found {len(ids)} rows; run it again with output.reuse=false")
    value, summed = (f"{kind}_{primary}" for kind in ("value", "sums"))
    values = table[value].to_numpy()[order] if value in table.column_names else None
    found = table[summed].combine_chunks().flatten().to_numpy() if summed in table.column_names else None
    sums = found.reshape(len(ids), -1)[order] if found is not None and found.size else None
    return ids[order], _items(columns[1])[order], _items(columns[2])[order], values, sums


def _items(column: pa.ChunkedArray) -> NDArray:
    """Return numbers as numbers, and what has another form (tags, texts) as objects."""
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return column.to_numpy()
    items = np.empty(len(column), dtype=object)
    for place, item in enumerate(column.to_pylist()):  # as a slice, lists of one length would become an array's rows
        items[place] = item
    return items


def _curve(path: Path, metric: str) -> LearningCurve:
    points: dict[int, tuple[float, ...]] = {}  # a resumed run repeats steps: the later line stands
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            if entry.get("kind") == "validation" and metric in entry:  # absent where train.select_by=loss
                clocks = [entry.get(name, float("nan")) for name in ("seconds", "flops")]
                point = entry["step"], entry["examples"], clocks[0], entry[metric], clocks[1]
                points[entry["step"]] = tuple(float(value) for value in point)
        except (ValueError, KeyError, TypeError, AttributeError) as fault:
            raise RunError(f"{path}:{number}: not a metrics line; {_line(fault)}; run it again") from fault
    columns = np.array([points[step] for step in sorted(points)], dtype=float).reshape(-1, 5).T
    return LearningCurve(*columns)


def _json(path: Path) -> dict[str, Any]:
    try:
        node = json.loads(_text(path))
    except ValueError as fault:
        raise RunError(f"{path}: not JSON; {_line(fault)}; run it again with output.reuse=false") from fault
    if not isinstance(node, dict):
        raise RunError(f"{path}: not an object; found {type(node).__name__}; run it again with output.reuse=false")
    return node


def _yaml(path: Path) -> dict[str, Any]:
    try:
        node = parsed(_text(path)) or {}
    except yaml.YAMLError as fault:
        raise RunError(f"{path}: not YAML; {_line(fault)}; run it again with output.reuse=false") from fault
    if not isinstance(node, dict):
        found = type(node).__name__
        raise RunError(f"{path}: not a configuration; found {found}; run it again with output.reuse=false")
    return node


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise RunError(f"{path}: cannot be read; {_line(fault)}; run it again with output.reuse=false") from fault


def _line(fault: Exception) -> str:
    return " ".join(str(fault).split()) or type(fault).__name__
