"""Test examples that only one of the two arms gets right, with their texts. Study chain: runs -> this -> tables.

The runs keep ids; the texts are read from the task's data when a report is made, and shown only if these are the rows
that the runs were tested on.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headswap import config as configuration
from headswap.contracts import DataRequest, Task
from headswap.errors import RunError
from headswap.records import read_json
from headswap.seeds import Seeds
from headswap.sources import is_hub_id
from headswap.study.contrasts import Pair, example_values
from headswap.study.page import Table
from headswap.study.runs import FinishedRun

if TYPE_CHECKING:
    from headswap.study.results import Comparison

MOST = 20
LONGEST = 400
LONGEST_ANSWER = 120


@dataclass(frozen=True)
class OneSidedExample:
    """A test example that only one arm gets right in `seeds` of the pairs, and only the other one in `against`."""

    id: str
    label: str
    treatment: str
    control: str
    seeds: int
    against: int
    text: str = ""


@dataclass(frozen=True)
class OneSided:
    """What each arm alone gets right in more of the pairs than the other; at most 20 examples each way are kept."""

    pairs: int
    treatment: tuple[OneSidedExample, ...]
    control: tuple[OneSidedExample, ...]
    treatment_examples: int
    control_examples: int
    folder: str
    """A run of the study, whose configuration says where the texts are."""
    no_texts: str = "they were not looked up"
    """Why there are no texts; empty where there are."""


def one_sided(pairs: Sequence[Pair]) -> OneSided | None:
    """Return the examples that only one arm gets right; None where examples are not simply right or wrong."""
    found = [[_right(run) for run in pair] for pair in pairs]
    told = [[right for right in pair if right is not None] for pair in found]
    if any(len(pair) < 2 for pair in told):
        return None
    right = np.array(told).transpose(1, 0, 2)
    alone = [(right[arm] & ~right[1 - arm]).sum(axis=0) for arm in (0, 1)]
    return OneSided(
        len(pairs),
        _kept(pairs, alone[0], alone[1]),
        _kept(pairs, alone[1], alone[0]),
        int((alone[0] > alone[1]).sum()),
        int((alone[1] > alone[0]).sum()),
        str(pairs[0][0].folder),
    )


def _right(run: FinishedRun) -> NDArray[np.bool_] | None:
    if run.classifies:
        return np.asarray(run.predictions == run.labels)
    values = example_values(run)
    return values == 1 if values is not None and np.isin(values, (0, 1)).all() else None


def _kept(pairs: Sequence[Pair], alone: NDArray, against: NDArray) -> tuple[OneSidedExample, ...]:
    """Return the examples with the most pairs for them, then the fewest against, then by id."""
    better = np.flatnonzero(alone > against)
    places = sorted(better.tolist(), key=lambda place: (-alone[place], against[place], place))[:MOST]
    return tuple(
        OneSidedExample(
            str(pairs[0][0].ids[place]),
            _word(pairs[0][0].labels[place], pairs[0][0]),
            _usual([_word(run.predictions[place], run) for run, _ in pairs]),
            _usual([_word(run.predictions[place], run) for _, run in pairs]),
            int(alone[place]),
            int(against[place]),
        )
        for place in places
    )


def _usual(words: list[str]) -> str:
    """Return the commonest answer over the seeds, with its count where there are others."""
    word, times = Counter(words).most_common(1)[0]
    return word if times == len(words) else f"{word} ({times} of {len(words)})"


def _word(item: Any, run: FinishedRun) -> str:
    """Return a label or a prediction as people read it."""
    names = run.result.get("labels", ())
    if run.classifies:
        return str(names[int(item)]) if int(item) < len(names) else f"choice {int(item) + 1}"
    if isinstance(item, str):
        return _cut(item, LONGEST_ANSWER) or "nothing"
    parts = list(item) if isinstance(item, Iterable) else [item]
    if len(parts) == len(names) and all(isinstance(part, bool | np.bool_) for part in parts):
        parts = list(itertools.compress(names, parts))
    return _cut(", ".join(map(str, parts)), LONGEST_ANSWER) or "nothing"


def texts_of(found: OneSided | None) -> OneSided | None:
    """Return the same with the examples' texts, or with the reason why there are none."""
    if found is None or not (found.treatment or found.control):
        return found
    try:
        texts = _texts(Path(found.folder))
    except Exception as fault:  # noqa: BLE001 (a task of one's own may raise anything; the report stands without texts)
        said = " ".join(str(fault).split("\n")[0].split())
        return replace(found, no_texts=_cut(said, LONGEST))
    told = [
        tuple(replace(each, text=texts.get(each.id, "")) for each in way) for way in (found.treatment, found.control)
    ]
    return replace(found, treatment=told[0], control=told[1], no_texts="")


def _texts(folder: Path) -> dict[str, str]:
    """Return the inputs of a run's test rows by id. Raises DataError, ConfigError or RunError, saying why not."""
    config = configuration.load(folder / "config.yaml")
    task = configuration.build(config.task, "task", Task, config.plugins)
    if is_hub_id(str(config.task.get("source") or "")):
        raise RunError("the rows are on a hub; found no local file; a report fetches nothing")
    splits = task.load(DataRequest.of(config.data), Seeds(config.seed))
    tested = read_json(folder / "run.json").get("data", {}).get("fingerprint")
    if tested != splits.fingerprint:
        raise RunError("the data are no longer those that the runs were tested on; found other rows where they were")
    rows = splits.test.select_columns(["id", *task.inputs])[:]
    return {name: _text(rows, place, task.inputs) for place, name in enumerate(rows["id"])}


def _text(rows: Mapping[str, Sequence[Any]], place: int, columns: Sequence[str]) -> str:
    found = {column: rows[column][place] for column in columns}
    words = {name: value if isinstance(value, str) else " ".join(map(str, value)) for name, value in found.items()}
    if len(words) == 1:
        return _cut(next(iter(words.values())), LONGEST)
    return _cut(" · ".join(f"{name}: {value}" for name, value in words.items()), LONGEST)


def _cut(text: str, longest: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= longest else f"{flat[: longest - 1]}…"


def one_sided_tables(comparison: Comparison) -> dict[str, Table]:
    """Return up to 20 examples each way; the column of texts is left out where none could be read."""
    found, study = comparison.answered.one_sided, comparison.study
    if found is None:
        return {}
    names = study.treatment, study.control
    return {
        "only_treatment": _table(found, names, names[0], found.treatment, found.treatment_examples),
        "only_control": _table(found, names, names[1], found.control, found.control_examples),
    }


def _table(found: OneSided, names: tuple[str, str], arm: str, shown: Sequence[OneSidedExample], total: int) -> Table:
    told = not found.no_texts
    rows = tuple(
        (each.id, *([each.text] if told else []), each.label, each.treatment, each.control, *_pairs(each))
        for each in shown
    )
    columns = ("id", *(["text"] if told else []), "label", *names, f"of {found.pairs} pairs", "the reverse")
    many = f"{len(shown)} of {total:,}" if total > len(shown) else str(total)
    return Table(f"Only {arm} is right: {many}", columns, rows, words=5 if told else 4)


def _pairs(each: OneSidedExample) -> tuple[str, str]:
    return str(each.seeds), str(each.against)
