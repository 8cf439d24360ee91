"""What treatment and control answered at the largest size, row by row. Study chain: runs -> this -> results."""

from __future__ import annotations

from dataclasses import dataclass

from headswap.contracts import Metric
from headswap.spine import StudyConfig
from headswap.study.calibration import Calibration, calibration
from headswap.study.confusion import Confusion, confusion
from headswap.study.one_sided import OneSided, one_sided
from headswap.study.slices import Slices, lengths_of, slices
from headswap.study.summaries import Groups, paired


@dataclass(frozen=True)
class Answered:
    """What stands behind the primary difference; a part is None where the problem or the runs do not give it."""

    confusion: Confusion | None = None
    slices: Slices | None = None
    one_sided: OneSided | None = None
    calibration: tuple[Calibration, ...] = ()
    tokens: tuple[int, int] | None = None
    """Of the shortest test row and of the longest."""


def answered(groups: Groups, study: StudyConfig, metric: Metric | None = None) -> Answered:
    """Look into the answers of the largest size at which treatment and control have pairs.

    Args:
        metric: the primary one, to score parts of the examples with.
    """
    sizes = [size for arm, size in groups if arm == study.treatment]
    found = [(size, paired(groups[study.treatment, size], groups.get((study.control, size), []))) for size in sizes]
    size, pairs = next(((size, pairs) for size, pairs in reversed(found) if pairs), (None, []))
    if not pairs:
        return Answered()
    others = {
        arm: runs
        for (arm, each), runs in groups.items()
        if each == size and arm not in (study.treatment, study.control)
    }
    known = [calibration(runs, study.confidence) for (_, each), runs in groups.items() if each == size]
    lengths = lengths_of(pairs)
    return Answered(
        confusion(pairs, study.confidence),
        slices(pairs, study.confidence, metric, others),
        one_sided(pairs),
        tuple(each for each in known if each is not None),
        None if lengths is None else (int(lengths.min()), int(lengths.max())),
    )
