"""Set the studies of several tasks beside one another and aggregate them. Joined chain: reading -> joining -> verdict.

Every study brings the one comparison that it declared beforehand: treatment against control at its largest size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headswap.study.contrasts import Contrast
from headswap.study.curves import Convergence, LabelsSaved
from headswap.study.environment import PLANNED_SEEDS
from headswap.study.joined.aggregates import (
    MINIMUM_TASKS,
    Interquartile,
    Sample,
    improvement,
    improvement_in,
    interquartile,
)
from headswap.study.joined.reading import NOUNS, StudyRead
from headswap.study.runs import flatten
from headswap.study.statistics import Interval, q_values
from headswap.study.units import Unit, percent
from headswap.study.verdict import shown_saving

FEW_SEEDS = 3
OUTCOMES = ("better", "worse", "equivalent", "not settled")


@dataclass(frozen=True)
class Aggregate:
    """One arm against the control over all studies; None where there are too few for it.

    Args:
        outcomes: verdict -> how many studies have it.
        improvements: P(treatment > control) by study, more being better.
    """

    treatment: str
    control: str
    outcomes: Mapping[str, int]
    improvements: tuple[float, ...]
    interquartile: Interquartile | None
    improvement: Interval | None


@dataclass(frozen=True)
class Joined:
    """Everything a joined page says.

    Args:
        confidence: the studies' own, the highest where they differ.
        adjusted: each primary comparison's p by Benjamini and Hochberg, None where it has no interval.
        aggregates: the treatment's first, then those of the other arms that all studies have.
        left_out: label -> why the study is not in the interquartile mean.
    """

    studies: tuple[StudyRead, ...]
    confidence: float
    adjusted: tuple[float | None, ...]
    aggregates: tuple[Aggregate, ...]
    left_out: Mapping[str, str]
    warnings: tuple[str, ...]

    @property
    def main(self) -> Aggregate:
        return self.aggregates[0]

    @property
    def noun(self) -> str:
        return self.studies[0].noun

    @property
    def nouns(self) -> str:
        return NOUNS[self.noun]

    @property
    def averaged(self) -> tuple[StudyRead, ...]:
        """The studies whose scores the interquartile mean is of."""
        return tuple(each for each in self.studies if each.label not in self.left_out)

    @property
    def unit(self) -> Unit:
        """The unit of the interquartile mean: the metrics' own where they have one."""
        units = [Unit(each.comparison.metric) for each in self.averaged]
        alike = units and all(unit.kind == units[0].kind for unit in units)
        return units[0] if alike else Unit("f1")

    def stands(self, place: int) -> bool:
        """Return whether the study's difference stands after the correction for there being several studies."""
        adjusted = self.adjusted[place]
        return adjusted is not None and adjusted <= 1 - self.confidence + 1e-12


def join(studies: Sequence[StudyRead]) -> Joined:
    """Return what the studies say together."""
    confidence = max(each.comparison.study.confidence for each in studies)
    left_out = {each.label: reason for each in studies if (reason := _not_averaged(each))}
    design = studies[0].comparison.study
    arms = [
        design.treatment,
        *(arm for arm in studies[0].comparison.arms if arm not in (design.treatment, design.control)),
    ]
    sets = {arm: [_contrast(each, arm) for each in studies] for arm in arms}
    aggregates = [
        _aggregate(studies, [each for each in found if each is not None], left_out, confidence)
        for found in sets.values()
        if all(each is not None for each in found)
    ]
    adjusted = q_values([each.primary.interval.p_value() for each in studies])
    return Joined(tuple(studies), confidence, adjusted, tuple(aggregates), left_out, tuple(_warnings(studies)))


def speed_of(study: StudyRead) -> Convergence | None:
    """Return the speed of learning at the primary comparison's size."""
    return next((each for each in study.comparison.convergence if each.size == study.primary.size), None)


def saving_of(study: StudyRead) -> LabelsSaved | None:
    """Return the labels saved that the study's own verdict names."""
    return shown_saving(study.comparison.labels_saved)


def _contrast(study: StudyRead, arm: str) -> Contrast | None:
    """Return the arm's contrast with the control at the size of the primary one."""
    found = (each for each in study.comparison.contrasts if each.treatment == arm and each.size == study.primary.size)
    return next(found, None)


def _aggregate(
    studies: Sequence[StudyRead], contrasts: Sequence[Contrast], left_out: Mapping[str, str], confidence: float
) -> Aggregate:
    samples = [_sample(each) for each in contrasts]
    shares = [sample for study, sample in zip(studies, samples, strict=True) if study.label not in left_out]
    senses = [1.0 if study.comparison.greater_is_better else -1.0 for study in studies]
    upward = [(sign * first, sign * second) for sign, (first, second) in zip(senses, samples, strict=True)]
    counts = Counter(each.outcome for each in contrasts)
    return Aggregate(
        contrasts[0].treatment,
        contrasts[0].control,
        {outcome: counts[outcome] for outcome in OUTCOMES},
        tuple(float(improvement_in(*sample)) for sample in upward),
        interquartile(shares, confidence),
        improvement(upward, confidence),
    )


def _sample(contrast: Contrast) -> Sample:
    pairs = contrast.pairs
    return np.array([pair.treatment for pair in pairs]), np.array([pair.control for pair in pairs])


def _not_averaged(study: StudyRead) -> str:
    """Return why the study's scores are not averaged with those of others, "" where they are."""
    unit = Unit(study.comparison.metric)
    if not study.comparison.greater_is_better:
        return f"of {unit.name}, less is better"
    return "" if unit.share else f"{unit.name} does not lie between 0 and 1"


def _warnings(studies: Sequence[StudyRead]) -> Iterator[str]:
    """Yield one sentence for everything that weakens the whole."""
    few = [each.label for each in studies if len(each.primary.pairs) < PLANNED_SEEDS]
    if few:
        which = "every study" if len(few) == len(studies) else _listed(few)
        yield f"Exploratory: {which} with fewer than {PLANNED_SEEDS} paired seeds."
    alone = [each.label for each in studies if each.primary.scope == "seeds only" and each.primary.interval.known]
    if min(len(each.primary.pairs) for each in studies) <= FEW_SEEDS and len(studies) >= MINIMUM_TASKS:
        covered = "a nominal 95 % interval of the probability covered 92 to 93 % in our simulations"
        yield f"Few seeds: with {FEW_SEEDS}, {covered}."
    if alone:
        yield f"Provisional: the interval of {_listed(alone)} is over seeds alone, the test rows taken as given."
    yield from _about_collapsed(studies)
    seeds = {len(each.primary.pairs) for each in studies}
    if len(seeds) > 1 and len(studies) >= MINIMUM_TASKS:
        found = ", ".join(f"{each.label} {len(each.primary.pairs)}" for each in studies)
        yield f"Numbers of seeds differ ({found}): in the interquartile mean a study with more of them weighs more."
    if len({each.comparison.study.confidence for each in studies}) > 1:
        found = ", ".join(f"{each.label} {percent(each.comparison.study.confidence)}" for each in studies)
        yield f"Confidences differ ({found}): each verdict has its own, what is over all studies the highest."
    yield from _about_rows(studies)
    yield from _about_recipes(studies)


def _about_collapsed(studies: Sequence[StudyRead]) -> Iterator[str]:
    """Warn of runs far below the others, which few seeds cannot tell the frequency of."""
    found = []
    for each in studies:
        scores = [
            each.comparison.score_of(arm, each.primary.size) for arm in (each.primary.treatment, each.primary.control)
        ]
        amount = sum(len(score.collapsed) for score in scores if score)
        found += [f"{each.label} {amount}"] if amount else []
    if found:
        yield (
            f"Collapsed runs ({_listed(found)}) count in every number; with few seeds the intervals of the "
            "interquartile means are then too narrow."
        )


def _about_rows(studies: Sequence[StudyRead]) -> Iterator[str]:
    groups: dict[str, list[str]] = {}
    for each in studies:
        data = each.config.data
        groups.setdefault(repr((each.config.task, data.split_seed, data.test_rows)), []).append(each.label)
    for labels in groups.values():
        if len(labels) > 1:
            yield f"Same test rows: {_listed(labels)} test on the same ones, so their differences move together."


def _about_recipes(studies: Sequence[StudyRead]) -> Iterator[str]:
    """Warn where an arm of one name is not one recipe."""
    design = studies[0].comparison.study
    for arm in (design.treatment, design.control):
        recipes = [flatten(each.comparison.overlays.get(arm) or {}) for each in studies]
        keys = sorted({key for recipe in recipes for key in recipe})
        differing = [key for key in keys if len({repr(recipe.get(key)) for recipe in recipes}) > 1]
        if differing:
            yield f"Recipes differ: {arm} is not set up alike in all studies ({_listed(differing)})."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
