"""What the measured seconds say, in sentences, drawings and tables. Measures chain: speed -> this -> page.

One body is called faster than another only where all repeats say so; device, threads, batch and length stand beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from headswap.measures.page import Report
from headswap.measures.speed import WRITTEN, Asked, Cell
from headswap.study.page import NONE, Figure, Plot, Table
from headswap.study.traces import DASHES, SYMBOLS, layout_of, line, log_range, log_ticks, named
from headswap.study.units import count, number, plural, rough, times

TITLES = {"train": "Training step", "inference": "Forward pass", "decode": "Writing one token"}
MEBIBYTE = 2**20
COUNTS = ("parameters", "parameters_without_embeddings")
Sizes = Mapping[str, tuple[str, int, int]]
"""Body -> its architecture's name, its parameters, and those without embeddings."""


@dataclass(frozen=True)
class Against:
    """One body beside the first one: at each length the middle of the ratios of their speeds, and what repeats say."""

    body: str
    ratios: dict[int, float]
    senses: dict[int, str]
    """length -> faster, slower, or "" where the repeats do not agree."""


def report_of(cells: Sequence[Cell], asked: Asked, sizes: Sizes, about: Mapping[str, Any]) -> Report:
    """Return the report of one measurement; `about`: device -> its name, and the threads."""
    bodies = list(dict.fromkeys(cell.body for cell in cells))
    places = {name: place % len(SYMBOLS) for place, name in enumerate(bodies)}
    said, rows = list(statements(cells, about)), list(_rows(cells, about))
    devices = ", ".join(f"{device} ({name})" for device, name in about["devices"].items())
    settings = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(asked).items()}
    known = [dict(zip(("name", "architecture", *COUNTS), (name, *sizes[name]), strict=True)) for name in bodies]
    told = [row | {"repeats": list(cell.seconds)} for row, cell in zip(rows, cells, strict=True)]
    return Report(
        name="speed",
        title=title(cells),
        over=f"{devices}, {plural(about['threads'], 'thread')}, {plural(asked.repeats, 'interleaved repeat')}",
        statements=said,
        cautions=list(_cautions(cells, sizes)),
        figures=[each for each in (speeds(cells, places), memories(cells, places)) if each],
        places=places,
        tables={"speed_cells": _table(cells), "bodies": _bodies(sizes)},
        shown=[_by_length(cells), _bodies(sizes)],
        design=list(_design(asked, about)),
        settings=settings | dict(about) | {"bodies": known},
        content={"kind": "speed", **about, **settings, "statements": said, "bodies": known, "cells": told},
        rows=rows,
    )


def title(cells: Sequence[Cell]) -> str:
    """Return who is the faster at the longest length, of the first operation on the first device."""
    first = next((each for each in cells if each.seconds), cells[0])
    group = [each for each in cells if (each.device, each.operation) == (first.device, first.operation)]
    longest = max((each.length for each in group if each.seconds), default=None)
    rows = sorted((each for each in group if each.length == longest and each.seconds), key=lambda each: -each.speed)
    if longest is None or len(rows) < 2:
        return "Speed against length"
    what = TITLES[first.operation].lower()
    if _sense(rows[1], rows[0]) != "faster":
        return f"No body is the fastest in a {what} of {count(longest)} tokens a text on {first.device}"
    return f"{rows[0].body} is the fastest in a {what} of {count(longest)} tokens a text on {first.device}"


def statements(cells: Sequence[Cell], about: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for every device, operation and body beside the first one."""
    for device in about["devices"]:
        for operation in TITLES:
            group = [each for each in cells if (each.device, each.operation) == (device, operation) and each.seconds]
            names = list(dict.fromkeys(each.body for each in group))
            for name in names[1:]:
                yield _sentence(group, names[0], name, about)


def against(group: Sequence[Cell], first: str, other: str) -> Against:
    """Return how much faster the first body is than another, at the lengths that both have."""
    mine, theirs = ({each.length: each for each in group if each.body == name} for name in (first, other))
    common = [length for length in mine if length in theirs]
    pairs = {length: _ratios(theirs[length], mine[length]) for length in common}
    return Against(
        other,
        {length: median(found) for length, found in pairs.items()},
        {length: _sense(theirs[length], mine[length]) for length in common},
    )


def _ratios(slow: Cell, fast: Cell) -> list[float]:
    """Return the speed of one over that of the other, repeat by repeat."""
    return [one / other for one, other in zip(slow.seconds, fast.seconds, strict=True)]


def _sense(other: Cell, first: Cell) -> str:
    found = _ratios(other, first)
    return "faster" if min(found) > 1 else "slower" if max(found) < 1 else ""


def _sentence(group: Sequence[Cell], first: str, other: str, about: Mapping[str, Any]) -> str:
    found, sample = against(group, first, other), group[0]
    where = f"{TITLES[sample.operation]}, {sample.device}, {plural(about['threads'], 'thread')}, {sample.precision}"
    if not found.ratios:
        return f"{where}: {first} and {other} have no length in common."
    short, long = min(found.ratios), max(found.ratios)
    ends = [_at(group, found, first, length) for length in dict.fromkeys((short, long))]
    runs = _agreed(found, len(sample.seconds))
    return f"{where}: {'; '.join(ends)}. {runs}"


def _at(group: Sequence[Cell], found: Against, first: str, length: int) -> str:
    """Return lstm is 3.1x as fast as small_transformer at length 2,048 (batch 2; 12,100 against 3,900 tokens/s).

    A ratio stands there only where the repeats agree: the middle of ratios that do not may contradict the speeds.
    """
    one, other = (next(e for e in group if (e.body, e.length) == (name, length)) for name in (first, found.body))
    speeds_of = f"{rough(one.speed)} against {rough(other.speed)} tokens/s"
    sense = f"{times(found.ratios[length])} as fast as" if found.senses[length] else "not told apart from"
    return f"{first} is {sense} {found.body} at length {count(length)} (batch {one.batch}; {speeds_of})"


def _agreed(found: Against, repeats: int) -> str:
    """Return at which lengths all repeats call the first body faster, slower, or do not agree."""
    by_sense: dict[str, list[str]] = {}
    for length, sense in found.senses.items():
        by_sense.setdefault(sense, []).append(count(length))
    words = {"faster": "faster", "slower": "slower", "": "not told apart"}
    parts = [f"{words[sense]} at {', '.join(lengths)}" for sense, lengths in by_sense.items()]
    return f"By all {repeats} repeats: {'; '.join(parts)}."


def speeds(cells: Sequence[Cell], places: Mapping[str, int]) -> Figure | None:
    """One panel a device and operation: tokens a second against length."""
    caption = (
        "Tokens a second against the length of the texts, both logarithmic; line: the median of the repeats. In a step "
        "and a pass the number of tokens is constant, so that a level line means that a token costs the same at any "
        f"length. Writing: one text, {WRITTEN - 1} tokens written after it, with the cache."
    )
    return _figure(cells, places, ("speed", "Speed against length", caption, "tokens a second"), lambda e: e.speed)


def memories(cells: Sequence[Cell], places: Mapping[str, int]) -> Figure | None:
    """One panel a device and operation: the memory that it needs at its height; None where none was measured."""
    caption = (
        "Memory that the operation needs at its height beyond what lies there before (weights, the optimizer's state), "
        "logarithmic. CUDA: of torch's allocator; CPU: growth of the process's resident memory."
    )
    known = [each for each in cells if each.memory]
    about = ("memory", "Memory against length", caption, "MiB")
    return _figure(known, places, about, lambda each: (each.memory or 0) / MEBIBYTE)


def _figure(cells: Sequence[Cell], places: Mapping[str, int], about: tuple[str, ...], value: Any) -> Figure | None:
    name, heading, caption, axis = about
    known = [each for each in cells if each.seconds]
    if not known:
        return None
    panels: dict[tuple[str, str], list[Cell]] = {}
    for cell in known:
        panels.setdefault((cell.device, cell.operation), []).append(cell)
    plots = tuple(_panel(key, group, places, axis, value) for key, group in panels.items())
    bodies = tuple(dict.fromkeys(each.body for each in known))
    rows = tuple((e.body, e.device, TITLES[e.operation], count(e.length), rough(value(e))) for e in known)
    table = Table(heading, ("body", "device", "operation", "length", axis), rows, words=3)
    ends = [f"{e.body} {rough(value(e))} in a {TITLES[e.operation].lower()} of length {count(e.length)} on {e.device}"
            for e in known if e.length in (min(c.length for c in known), max(c.length for c in known))]  # fmt: skip
    return Figure(name, heading, caption, f"{heading}, {axis}: {'; '.join(ends)}.", plots, table, bodies)


def _panel(key: tuple[str, str], group: Sequence[Cell], places: Mapping[str, int], axis: str, value: Any) -> Plot:
    layout = layout_of(300, "tokens a text", axis)
    lengths = sorted({each.length for each in group})
    layout["xaxis"] |= {"type": "log", "range": log_range([lengths[0] * 0.9, lengths[-1] * 1.1])}
    layout["xaxis"] |= {"tickvals": lengths, "ticktext": [count(each) for each in lengths]}
    values = [value(each) for each in group]
    layout["yaxis"] |= log_ticks([min(values) / 2, max(values) * 2])  # so that some tick stands on it
    traces = []
    for name in dict.fromkeys(each.body for each in group):
        mine, index = [each for each in group if each.body == name], places[name]
        drawn = line([e.length for e in mine], [value(e) for e in mine], f"@arm{index}", 2.4, DASHES[index])
        traces.append(drawn | named(name, index, f"%{{x}} tokens: %{{y:,.0f}} {axis}"))
    return Plot(f"{TITLES[key[1]]}, {key[0]}", traces, layout)


def _by_length(cells: Sequence[Cell]) -> Table:
    """Return tokens a second: a row a device, operation and body, a column a length."""
    lengths = sorted({each.length for each in cells})
    groups: dict[tuple[str, str, str], dict[int, str]] = {}
    for each in cells:
        speed = rough(each.speed) if each.seconds else NONE
        groups.setdefault((each.device, TITLES[each.operation], each.body), {})[each.length] = speed
    rows = tuple((*key, *(found.get(length, NONE) for length in lengths)) for key, found in groups.items())
    return Table("Tokens a second, by length", ("device", "operation", "body", *map(count, lengths)), rows, words=3)


def _table(cells: Sequence[Cell]) -> Table:
    rows = tuple((each.body, each.device, TITLES[each.operation], *_numbers(each)) for each in cells)
    columns = ("body", "device", "operation", "length", "batch", "ms", "fastest ms", "tokens/s", "MiB", "left out")
    return Table("Every cell: the median repeat, the fastest, and what was left out", columns, rows, words=3)


def _numbers(cell: Cell) -> tuple[str, ...]:
    place = count(cell.length), str(cell.batch)
    if not cell.seconds:
        return *place, NONE, NONE, NONE, NONE, cell.why
    memory = NONE if cell.memory is None else number(cell.memory / MEBIBYTE, 1)
    milliseconds = (number(1000 * each, 2) for each in (median(cell.seconds), min(cell.seconds)))
    return *place, *milliseconds, count(cell.speed), memory, NONE


def _bodies(sizes: Sizes) -> Table:
    rows = tuple((name, kind, count(total), count(rest)) for name, (kind, total, rest) in sizes.items())
    return Table("The bodies", ("body", "architecture", "parameters", "without embeddings"), rows, words=2)


def _cautions(cells: Sequence[Cell], sizes: Sizes) -> Iterator[str]:
    rest = [each[2] for each in sizes.values()]
    if max(rest) > 1.05 * min(rest):
        found = ", ".join(f"{name} {count(each[2])}" for name, each in sizes.items())
        yield f"The bodies differ in size (parameters without embeddings: {found})."
    shaky = [each for each in cells if each.seconds and median(each.seconds) > 1.5 * min(each.seconds)]
    if shaky:
        yield (
            f"The machine was busy: in {len(shaky)} of {len([e for e in cells if e.seconds])} cells the median repeat "
            "took more than 1.5 times as long as the fastest."
        )
    left = list(dict.fromkeys(f"{each.body} ({each.why})" for each in cells if each.why))
    if left:
        yield f"Left out where they cannot: {', '.join(left)}."


def _design(asked: Asked, about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Devices", ", ".join(about["devices"].values())
    yield "Threads", str(about["threads"])
    yield "Precision", asked.precision if asked.precision != "auto" else "fp32"
    yield "Tokens in a step or pass", count(asked.tokens)
    yield "Lengths", ", ".join(map(count, asked.lengths))
    yield "Repeats", f"{asked.repeats}, interleaved over the bodies, after one to warm up"
    yield (
        "Training step",
        "forward, backward and AdamW of the body alone; loss: the mean square of its states; dropout on",
    )
    yield "Forward pass", "the body alone, no dropout, no gradient"
    yield "Writing", f"the model that generates, greedily, one text; the mean of {WRITTEN - 1} tokens after the first"
    yield "Encoder-decoders", "read and write texts of the length; the tokens counted are those read"


def _rows(cells: Sequence[Cell], about: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for cell in cells:
        timed = bool(cell.seconds)
        yield {
            "device": cell.device, "device_name": about["devices"][cell.device], "threads": about["threads"],
            "precision": cell.precision, "operation": cell.operation, "body": cell.body, "length": cell.length,
            "batch": cell.batch, "tokens": cell.tokens, "attention": cell.kernel,
            "seconds_median": median(cell.seconds) if timed else None,
            "seconds_fastest": min(cell.seconds) if timed else None,
            "tokens_per_second": cell.speed if timed else None, "memory_bytes": cell.memory, "left_out": cell.why,
        }  # fmt: skip
