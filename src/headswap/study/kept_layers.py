"""How many pretrained layers an arm begins with, and what is lost with fewer. Study chain: runs -> results.

Yosinski et al. 2014 (1411.1792) and Raghu et al. 2019 (1902.07208, weight transfusion): the layers are kept from below,
what lies above them begins as in the random twin. The number is read from an arm's resolved configuration:
`body.init` and `body.keep_layers`, or the strategy ReinitTop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headswap.contracts import Metric
from headswap.spine import StudyConfig
from headswap.study.contrasts import Contrast, contrast
from headswap.study.runs import FinishedRun, flatten
from headswap.study.summaries import Groups, paired

NOTHING = -1
"""Stands for a body that is all new; 0 is one that has its pretrained embeddings."""
FEWEST = 3
_REINIT_TOP, _FULL = "headswap.strategies.reinit_top.ReinitTop", "headswap.strategies.full.Full"
_RECIPE = ("train", "data", "task", "head")


@dataclass(frozen=True)
class KeptLayers:
    """An arm at one size that begins with the lowest `kept` of `layers` pretrained layers.

    Args:
        difference: the arm minus the one that keeps all, of the same seeds; None for that one itself.
        recipe: the keys in which its recipe is not that arm's.
    """

    arm: str
    size: int | None
    labels: int
    kept: int
    layers: int
    difference: Contrast | None
    recipe: tuple[str, ...]


def kept(config: Mapping[str, Any], layers: int) -> int | None:
    """Return how many pretrained layers a configuration begins with; None for a start of another kind (mean_var)."""
    body, strategy = config.get("body") or {}, config.get("strategy") or {}
    starts = {"pretrained": layers, "embeddings_only": 0, "keep_layers": body.get("keep_layers"), "random": NOTHING}
    start = starts.get(body.get("init", "pretrained"))
    anew = strategy.get("layers", 1) if strategy.get("_target_") == _REINIT_TOP else 0
    left = NOTHING if anew == "all" else layers - anew
    return None if start is None else min(start, left)


def kept_layers(groups: Groups, study: StudyConfig, metric: Metric | None = None) -> tuple[KeptLayers, ...]:
    """Return the arms that differ in how many pretrained layers they begin with, by size and rising number.

    There are none where fewer than 3 numbers were tried, or no arm keeps all. Of arms with one number the first is
    taken whose recipe is nearest to that of the arm that keeps all.
    """
    sample: dict[str, FinishedRun] = {}
    for (arm, _), runs in groups.items():
        sample.setdefault(arm, runs[0])
    counts = {arm: count for arm, run in sample.items() if (count := _kept(run)) is not None}
    whole = next((arm for arm, count in counts.items() if count == sample[arm].ledger["layers"]), None)
    if whole is None:
        return ()
    chosen = _chosen(sample, counts, whole)
    if len(chosen) < FEWEST:
        return ()
    sizes = sorted({size for arm, size in groups if arm == whole}, key=lambda size: size or 0)
    cells = [
        (count, chosen[count], size) for size in sizes for count in sorted(chosen) if (chosen[count], size) in groups
    ]
    return tuple(_cell(count, groups[arm, size], groups[whole, size], (study, metric)) for count, arm, size in cells)


def _chosen(sample: Mapping[str, FinishedRun], counts: Mapping[str, int], whole: str) -> dict[int, str]:
    """Return number -> arm, of the arms that train the same body in the same way as `whole`."""
    best: dict[int, str] = {counts[whole]: whole}
    for arm, count in counts.items():
        if _alike(sample[arm]) == _alike(sample[whole]):
            held = best.setdefault(count, arm)
            if held != whole and len(_apart(sample[arm], sample[whole])) < len(_apart(sample[held], sample[whole])):
                best[count] = arm
    return best


def _cell(
    count: int, runs: list[FinishedRun], wholes: list[FinishedRun], judged: tuple[StudyConfig, Metric | None]
) -> KeptLayers:
    first = runs[0]
    pairs = [] if runs is wholes else paired(runs, wholes)
    difference = contrast(pairs, *judged) if pairs else None
    layers = int(first.ledger["layers"])
    return KeptLayers(
        first.arm, first.record.size, first.labelled_rows, count, layers, difference, _apart(first, wholes[0])
    )


def _kept(run: FinishedRun) -> int | None:
    return kept(run.config, run.ledger["layers"]) if run.ledger.get("layers") else None


def _alike(run: FinishedRun) -> tuple[Any, ...]:
    """Return what arms of one curve share: the body's depth and source, and how its weights move."""
    strategy = dict(run.config.get("strategy") or {})
    if strategy.get("_target_", _REINIT_TOP) == _REINIT_TOP:
        strategy = {"_target_": _FULL}
    return run.ledger["layers"], (run.config.get("body") or {}).get("source"), strategy


def _apart(run: FinishedRun, whole: FinishedRun) -> tuple[str, ...]:
    """Return the keys of the recipe that differ."""
    mine, theirs = (flatten({key: each.config.get(key) for key in _RECIPE}) for each in (run, whole))
    return tuple(sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)))
