"""What the primary difference is made of, and whether a cheap baseline would do. Study chain: contrasts -> results.

What an arm isolates is read off its runs, never off its name: a run that names a `baseline` has no body, one whose
lineage begins with random weights was pretrained on what is at hand, one with body.init=mean_var has the scale of
the pretrained weights and nothing that they learned, and one that is the control with more steps and nothing else asks
whether the control only lacks time (He et al. 2019, arXiv 1811.08883).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from headswap.contracts import Metric
from headswap.spine import StudyConfig
from headswap.study.contrasts import Contrast, contrast, corrected
from headswap.study.runs import FinishedRun, flatten
from headswap.study.statistics import Interval
from headswap.study.summaries import Groups, paired

Role = Literal["pretrained", "random", "self_pretrained", "scale", "baseline"]
LENGTH = {"train.epochs", "train.max_steps"}
Ingredient = Literal["self_pretraining", "outside_weights", "scale", "learned"]
Step = tuple[Ingredient, str, str]
"""What is isolated, the arm that has it, and the arm that lacks it and is otherwise the same."""


@dataclass(frozen=True)
class Part:
    """What one ingredient gives: `arm` minus `beside`."""

    ingredient: Ingredient
    arm: str
    beside: str
    interval: Interval


@dataclass(frozen=True)
class Attribution:
    """The primary difference taken apart, on the paired seeds that all its arms have."""

    seeds: tuple[int, ...]
    whole: Interval
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Further:
    """What a study says beyond each arm's contrasts with the control.

    `roles`: arm -> what it isolates. `contrasts`: the treatment against other arms than the control, at the primary
    size. `baseline`: the best arm without a body. `longer`: the arm that is the control with the most more steps, and
    how many times its steps they are.
    """

    roles: dict[str, Role] = field(default_factory=dict)
    contrasts: tuple[Contrast, ...] = ()
    attribution: Attribution | None = None
    baseline: str | None = None
    longer: tuple[str, float] | None = None


def further(
    groups: Groups, study: StudyConfig, contrasts: Sequence[Contrast], metric: Metric | None
) -> tuple[tuple[Contrast, ...], Further]:
    """Return the contrasts with the control, each with its q, and what there is beyond them.

    Args:
        contrasts: by rising size; the treatment's last one is primary, and alone outside the family that q is over.
    """
    primary = next((each for each in reversed(contrasts) if each.treatment == study.treatment), None)
    if primary is None:
        return corrected(contrasts, None), Further()
    runs = {arm: group for (arm, size), group in groups.items() if size == primary.size}
    roles = _roles(runs)
    steps, baseline = _steps(roles, study), _best(runs, roles, study)
    longer = _longer(runs, study)
    rivals = [beside for _, arm, beside in steps if arm == study.treatment]
    rivals += [arm for arm in (baseline, longer and longer[0]) if arm]
    pairs = [paired(runs[study.treatment], runs[arm]) for arm in rivals]
    beyond = [contrast(each, study, metric) for each in pairs if each]
    every = corrected([*contrasts, *beyond], primary)
    parts = attribution(runs, study, steps, metric)
    return every[: len(contrasts)], Further(roles, every[len(contrasts) :], parts, baseline, longer)


def role_of(run: FinishedRun) -> Role | None:
    """Return what an arm isolates, None where it is nothing that is told apart."""
    if run.config.get("baseline"):
        return "baseline"
    init = (run.config.get("body") or {}).get("init", "pretrained")
    earlier = run.about.get("lineage") or []  # the oldest run last
    if init == "pretrained" and earlier:
        return "self_pretrained" if earlier[-1].get("init") == "random" else None
    roles: dict[str, Role] = {"pretrained": "pretrained", "random": "random", "mean_var": "scale"}
    return roles.get(init)


def attribution(
    runs: Mapping[str, Sequence[FinishedRun]], study: StudyConfig, steps: Sequence[Step], metric: Metric | None
) -> Attribution | None:
    """Return the difference of treatment and control in parts; None without steps, or where too few seeds have all.

    Args:
        runs: arm -> its finished runs at the primary size.
    """
    names = {study.treatment, study.control}.union(*({arm, beside} for _, arm, beside in steps))
    by_seed = {arm: {run.seed: run for run in runs[arm]} for arm in names}
    seeds = sorted(set.intersection(*map(set, by_seed.values())))
    if not steps or len(seeds) < 2:
        return None

    def gap(arm: str, beside: str) -> Interval:
        return contrast([(by_seed[arm][seed], by_seed[beside][seed]) for seed in seeds], study, metric).interval

    parts = tuple(Part(ingredient, arm, beside, gap(arm, beside)) for ingredient, arm, beside in steps)
    return Attribution(tuple(seeds), gap(study.treatment, study.control), parts)


def _roles(runs: Mapping[str, Sequence[FinishedRun]]) -> dict[str, Role]:
    roles: dict[str, Role] = {}
    for arm, group in runs.items():
        if role := role_of(group[0]):
            roles[arm] = role
    return roles


def _steps(roles: Mapping[str, Role], study: StudyConfig) -> list[Step]:
    """Return what can be isolated: by pretraining on what is at hand, and by the scale of the weights alone."""
    treatment, control = study.treatment, study.control
    if (roles.get(treatment), roles.get(control)) != ("pretrained", "random"):
        return []
    first: dict[Role, str] = {role: arm for arm, role in reversed(list(roles.items()))}
    own, scale = first.get("self_pretrained"), first.get("scale")
    steps: list[Step] = []
    if own:
        steps.append(("self_pretraining", own, control))
        steps.append(("outside_weights", treatment, own))
    if scale:
        steps.append(("scale", scale, control))
    if scale and not own:
        steps.append(("learned", treatment, scale))
    return steps


def _best(runs: Mapping[str, Sequence[FinishedRun]], roles: Mapping[str, Role], study: StudyConfig) -> str | None:
    """Return the baseline with the best mean score; the compared arms themselves are none."""
    cheap = [arm for arm, role in roles.items() if role == "baseline" and arm not in (study.treatment, study.control)]

    def goodness(arm: str) -> float:
        mean = sum(run.score for run in runs[arm]) / len(runs[arm])
        return mean if runs[arm][0].greater_is_better else -mean

    return max(cheap, key=goodness, default=None)


def _longer(runs: Mapping[str, Sequence[FinishedRun]], study: StudyConfig) -> tuple[str, float] | None:
    """Return the arm that is the control with the most more steps, and how many times its steps it has."""
    control = runs[study.control][0]
    found = {
        arm: group[0].result["steps"] / control.result["steps"]
        for arm, group in runs.items()
        if arm not in (study.treatment, study.control) and control.result.get("steps") and _alike(group[0], control)
    }
    arm = max(found, key=lambda each: found[each], default=None)
    return (arm, found[arm]) if arm and found[arm] > 1 else None


def _alike(run: FinishedRun, other: FinishedRun) -> bool:
    """Say whether two runs differ in their length alone, their seeds aside."""
    first, second = flatten(run.config), flatten(other.config)
    unlike = {key for key in first.keys() | second.keys() if first.get(key) != second.get(key)}
    return bool(unlike & LENGTH) and unlike <= LENGTH | {"seed"}
