"""Which difference a planned study could detect, before it is paid for. Study chain: plan -> power (this).

By the variances of the pairs that have finished, where two have; else by stated assumptions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from headswap import config as configuration
from headswap.contracts import Metric
from headswap.errors import RunError
from headswap.spine import Config
from headswap.study.contrasts import Contrast, Pair, contrast
from headswap.study.plan import Planned
from headswap.study.runs import FinishedRun, RunRecord, read_run
from headswap.study.statistics import Components, detectable_effect, planned_components, size_needed
from headswap.study.units import Unit, count, plural, rough
from headswap.study.words import words_of

RIGHT_OR_WRONG = ("accuracy", "exact_match", "exact_labels")
DISAGREEMENT, SEED_DEVIATION = 0.1, 0.01
LEAST_PAIRS = 2


@dataclass(frozen=True)
class Power:
    """What a study of so many seeds and test rows can detect.

    Args:
        examples: test rows, None for a metric whose interval is over seeds alone.
        source: where the variances are from, in words.
    """

    components: Components
    seeds: int
    examples: int | None
    confidence: float
    source: str

    @property
    def detectable(self) -> float:
        return self.with_more()

    def with_more(self, seeds: int = 1, examples: int = 1) -> float:
        """Return what so many times the seeds and the test rows would detect.

        More of either never detects less; with few seeds the approximate degrees of freedom may fall and say so.
        """
        numbers = [(self.seeds * one, (self.examples or 1) * other) for one, other in ((1, 1), (seeds, examples))]
        return min(detectable_effect(self.components, *each, self.confidence) for each in numbers)

    def needed(self, effect: float) -> tuple[int | None, int | None]:
        """Return the seeds or the test rows that would detect `effect`; None where none alone would."""
        seeds, examples = size_needed(self.components, effect, self.seeds, self.examples or 1, self.confidence)
        return seeds, examples if self.examples else None


def power(config: Config, cells: Sequence[Planned], test_rows: int) -> Power | None:
    """Return what the planned study can detect; None where nothing is known before two pairs have finished."""
    study = config.study
    name, node = next(iter(config.metric.items()))
    found = _finished(config, cells, configuration.build(node, f"metric.{name}", Metric, config.plugins))
    if found is not None and (components := _components(found)) is not None:
        rows = words_of(_problem(config)).row
        at = f"with {'all ' if found.size is None else ''}{plural(found.labels, rows)}"
        source = f"by the spread of {plural(len(found.pairs), 'finished pair')} {at}"
        examples = test_rows if found.scope == "seeds and examples" and found.components is not None else None
        return Power(components, study.seeds, examples, study.confidence, source)
    if name not in RIGHT_OR_WRONG:
        return None
    source = (
        f"assumed, before {LEAST_PAIRS} pairs have finished: the runs of a pair differ in being right on "
        f"{DISAGREEMENT:.0%} of the test rows, the same ones with every seed, and their difference varies by "
        f"{Unit(name).gap(SEED_DEVIATION)} from seed to seed"
    )
    components = planned_components(DISAGREEMENT, SEED_DEVIATION)
    return Power(components, study.seeds, test_rows, study.confidence, source)


def sentences(config: Config, cells: Sequence[Planned], test_rows: int) -> Iterator[tuple[str, str]]:
    """Yield (name, sentence): what is detected, by what, what more would bring, and what the margin would need."""
    study, name = config.study, next(iter(config.metric))
    unit = Unit(name)
    if study.seeds < 2:
        yield "detects", "nothing: one seed has no interval; set study.seeds=2 or more"
        return
    found = power(config, cells, test_rows)
    if found is None:
        yield (
            "detects",
            f"not known before runs: how much a difference in {unit.name} varies between seeds; once {LEAST_PAIRS} "
            f"pairs of {study.treatment} and {study.control} have finished at any size, headswap plan says it",
        )
        return
    rows = f" and {plural(found.examples, 'test row')}" if found.examples else "; its interval is over seeds alone"
    seeds = f"{study.seeds} paired seeds{rows}"
    yield "detects", f"{unit.gap(found.detectable)} of {unit.name} with 80 % power, from {seeds}"
    yield "that is", found.source
    more = [f"{2 * study.seeds} seeds {unit.gap(found.with_more(seeds=2))}"]
    if found.examples:
        more.append(f"{count(2 * found.examples)} test rows {unit.gap(found.with_more(examples=2))}")
    yield "twice", f"with {', with '.join(more)}"
    margin = unit.usual_margin if study.margin is None else study.margin
    yield "matters", _needs(found, unit, margin)


def _needs(found: Power, unit: Unit, margin: float) -> str:
    if margin <= 0:
        return f"not set: {unit.name} has no usual margin; study.margin says which difference matters to you"
    if found.detectable <= margin:
        return f"{unit.margin(margin)} (study.margin): this study detects it"
    seeds, examples = found.needed(margin)
    ways = [f"{count(seeds)} seeds"] if seeds else []
    ways += [f"{rough(examples)} test rows"] if examples else []
    if not ways:
        return f"{unit.margin(margin)} (study.margin): more seeds and more test rows together{_both(found, margin)}"
    return f"{unit.margin(margin)} (study.margin): about {' or '.join(ways)} would be needed for it"


def _both(found: Power, margin: float) -> str:
    """Name a number of seeds, the planned ones doubled, and of test rows: those of the smallest product."""
    ways = []
    for seeds in (times * found.seeds for times in (2, 4, 8, 16)) if found.examples else ():
        _, examples = size_needed(found.components, margin, seeds, 1, found.confidence)
        ways += [(seeds * examples, seeds, examples)] if examples else []
    return f", such as {count(min(ways)[1])} seeds and {rough(min(ways)[2])} test rows" if ways else ""


def _finished(config: Config, cells: Sequence[Planned], metric: Metric) -> Contrast | None:
    """Return treatment against control at the size that has most finished pairs, the largest of equals."""
    study = config.study
    done = {
        (cell.arm, cell.size, cell.seed): cell
        for cell in cells
        if cell.count == 1 and cell.job.folder.finished and cell.arm in (study.treatment, study.control)
    }
    by_size: dict[int | None, list[Pair]] = {}
    for _, size, seed in [key for key in done if key[0] == study.treatment]:
        both = [_run(done.get((arm, size, seed))) for arm in (study.treatment, study.control)]
        if both[0] is not None and both[1] is not None:
            by_size.setdefault(size, []).append((both[0], both[1]))
    enough = [(len(pairs), size or 0, pairs) for size, pairs in by_size.items() if len(pairs) >= LEAST_PAIRS]
    return contrast(max(enough, key=lambda each: each[:2])[2], study, metric) if enough else None


def _run(cell: Planned | None) -> FinishedRun | None:
    if cell is None:
        return None
    try:
        return read_run(RunRecord(cell.arm, cell.size, cell.seed, cell.job.folder.path, "finished"))
    except RunError:
        return None  # the study will say what is wrong with it


def _components(found: Contrast) -> Components | None:
    """Return the variances; over seeds alone where the metric is no mean over examples."""
    if found.components is not None:
        return found.components
    error = found.seeds_interval.standard_error
    return None if error is None else Components(error**2 * len(found.pairs), 0.0, 0.0)


def _problem(config: Config) -> str:
    return configuration.build_plugs(config).task.problem
