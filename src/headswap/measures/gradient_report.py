"""What the measured gradients say, in sentences, a drawing and tables. Measures chain: gradients -> this -> page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headswap.measures.gradients import NEAR, Reach, shown_distances
from headswap.measures.page import Report
from headswap.study.page import Figure, Plot, Table
from headswap.study.traces import DASHES, SYMBOLS, layout_of, line, named
from headswap.study.units import MINUS, count, plural, rough

FLOOR = -24.0
"""The lowest power of ten that is drawn; the tables have all."""
FLAT = math.log10(3)
SAME = math.log10(1.05)
TABLED = (0, 1, 8, 32, 64, 128, 256, 512, 1024, 2048)
STARTS = {"random": "At initialisation", "loaded": "As loaded, with the weights of its files,"}


def report_of(made: Sequence[Reach], length: int, about: Mapping[str, Any]) -> Report:
    """Return the report of one measurement; `about` are the device and its facts."""
    said = list(statements(made, length))
    seeds = plural(len(made[0].curves), "seed")
    content = {"kind": "gradients", **about, "dtype": "float64", "length": length, "statements": said}
    return Report(
        name="gradients",
        title=title(made, length),
        over=f"{plural(length, 'token')}, {seeds}, float64, {about['device']} ({about['device_name']})",
        statements=said,
        cautions=list(_cautions(made)),
        figures=[drawing(made, length)],
        places={each.name: place % len(SYMBOLS) for place, each in enumerate(made)},
        tables={"bodies": _bodies(made)},
        shown=[_table(made, length)],
        design=list(_design(made, length, about)),
        settings={
            **about,
            "length": length,
            "bodies": [[e.name, e.start, e.parameters, sorted(e.curves)] for e in made],
        },
        content=content | {"bodies": [_plain(each) for each in made]},
        rows=list(_rows(made)),
    )


def title(made: Sequence[Reach], length: int) -> str:
    """Return the finding without its numbers."""
    flat = [each.name for each in made if each.fall <= FLAT]
    words = f"over {plural(length, 'token')}"
    if not flat:
        return f"Every gradient fades {words}"
    if len(flat) == len(made):
        return f"No gradient fades {words}"
    return f"The gradient holds {words} in {_listed(flat)}, and fades in the others"


def statements(made: Sequence[Reach], length: int) -> Iterator[str]:
    """Yield one sentence for each kind of weights, and what none of them says."""
    for start, opening in STARTS.items():
        group = sorted((each for each in made if each.start == start), key=lambda each: -each.fall)
        if not group:
            continue
        falls = [f"{fall_words(each.fall)} ({each.name})" for each in group]
        seeds = plural(len(group[0].curves), "seed")
        yield (
            f"{opening} the gradient of the last of {count(length)} states with respect to the embedding of a token "
            f"becomes {_listed(falls)} from a distance of {NEAR} tokens to {count(length - 1)}; {seeds}, means of "
            "logarithms."
        )
    yield (
        "This says what a body could begin to learn from far away, not what it learns: a flat gradient may be small "
        "throughout, and training changes it."
    )


def fall_words(orders: float) -> str:
    """Return 10^112 times smaller, 20 times smaller, no smaller or 1.3 times larger."""
    if math.isinf(orders):
        return "smaller than float64 can write"
    size = abs(orders)
    if size < SAME:
        return "no smaller"
    amount = f"10^{count(size)}" if size >= 4 else rough(10**size)
    return f"{amount} times {'smaller' if orders >= 0 else 'larger'}"


def drawing(made: Sequence[Reach], length: int) -> Figure:
    """One line a body: the mean over seeds of log10 of the norm, over that at distance 0; thin lines are the seeds."""
    shown = shown_distances(length)
    traces = [trace for place, each in enumerate(made) for trace in _lines(each, place % len(SYMBOLS), shown)]
    layout = layout_of(420, "tokens between the state and the embedding", "power of ten, relative to distance 0")
    values = [value for trace in traces for value in trace["y"] if value is not None]
    low, high = max(FLOOR, min(values)), max(values)
    layout["yaxis"] |= {"range": [low - 0.5, high + 0.5]}
    cut = f" Below 10^{MINUS}24 nothing is drawn." if min(values) < FLOOR else ""
    caption = (
        "Norm of the gradient of the last state with respect to the embedding of the token so far before it, over that "
        f"with respect to the last token's own; logarithmic. Thick: mean over seeds; thin: the seeds.{cut}"
    )
    said = [f"{each.name} {power(float(each.relative[-1]))} at {count(length - 1)}" for each in made]
    description = f"Gradient against distance, relative to distance 0: {'; '.join(said)}."
    names = tuple(each.name for each in made)
    plots = (Plot("", traces, layout),)
    return Figure("reach", "How far the gradient reaches", caption, description, plots, _table(made, length), names)


def power(exponent: float) -> str:
    """Return 10 to this power as 2.1e-5, also where no float could hold it."""
    if math.isinf(exponent):
        return "0"
    whole = math.floor(exponent)
    leading = round(10 ** (exponent - whole), 1)
    if leading >= 10:
        leading, whole = 1.0, whole + 1
    return f"{leading:.1f}e{whole}"


def _lines(each: Reach, index: int, shown: Sequence[int]) -> Iterator[dict[str, Any]]:
    def drawn(values: Any) -> tuple[list[int], list[float | None]]:
        found = [float(values[place]) for place in shown]
        return list(shown), [None if math.isinf(value) or value < FLOOR else value for value in found]

    for curve in each.curves.values():
        yield line(*drawn(curve - curve[0]), f"@thin{index}", 1, DASHES[index])
    mean = line(*drawn(each.relative), f"@arm{index}", 2.6, DASHES[index])
    yield mean | named(each.name, index, "%{x} tokens: 10^%{y:.1f}") | {"mode": "lines"}


def _table(made: Sequence[Reach], length: int) -> Table:
    distances = [each for each in (*TABLED, length - 1) if each < length]
    rows = tuple(
        (count(distance), *(power(float(each.relative[distance])) for each in made))
        for distance in sorted(set(distances))
    )
    return Table("Gradient relative to distance 0, by distance in tokens", ("distance", *(e.name for e in made)), rows)


def _bodies(made: Sequence[Reach]) -> Table:
    rows = tuple(
        (each.name, each.architecture, "random" if each.start == "random" else "its files'",
         count(each.parameters), count(each.without_embeddings), f"{each.directions} of {each.width}",
         power(_mean([float(curve[0]) for curve in each.curves.values()])))
        for each in made
    )  # fmt: skip
    columns = (
        "body",
        "architecture",
        "weights",
        "parameters",
        "without embeddings",
        "directions",
        "at distance 0",
    )
    return Table("The bodies, and the norm at distance 0", columns, rows, words=3)


def _cautions(made: Sequence[Reach]) -> Iterator[str]:
    several = {each.without_embeddings for each in made}
    if max(several) > 1.05 * min(several):
        found = ", ".join(f"{each.name} {count(each.without_embeddings)}" for each in made)
        yield f"The bodies differ in size (parameters without embeddings: {found})."
    if any(each.directions < each.width for each in made):
        yield (
            "Norms are estimated along some directions of the state, the same ones at every distance; along all of "
            "them they would be exact (--directions)."
        )


def _design(made: Sequence[Reach], length: int, about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Bodies", ", ".join(each.name for each in made)
    yield "Text", f"{plural(length, 'random token')} a seed, no padding"
    yield "Seeds", ", ".join(map(str, sorted(made[0].curves)))
    yield "Computed in", f"float64 on {about['device_name']}, {plural(about['threads'], 'thread')}, no dropout"
    yield "Norm", "Frobenius, of d state / d token embedding; means over seeds are of logarithms"


def _plain(each: Reach) -> dict[str, Any]:
    return {
        "name": each.name, "weights": each.start, "architecture": each.architecture, "parameters": each.parameters,
        "parameters_without_embeddings": each.without_embeddings, "width": each.width, "directions": each.directions,
        "orders_of_magnitude_lost": _finite(each.fall),
        "log10_norm": {str(seed): [_finite(float(v)) for v in curve] for seed, curve in each.curves.items()},
    }  # fmt: skip


def _rows(made: Sequence[Reach]) -> Iterator[dict[str, Any]]:
    for each in made:
        for seed, curve in each.curves.items():
            for distance in shown_distances(len(curve)):
                norm, own = float(curve[distance]), float(curve[0])
                yield {
                    "body": each.name, "weights": each.start, "seed": seed, "distance": distance,
                    "log10_norm": _finite(norm), "log10_relative": _finite(norm - own),
                }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
