"""Tunings with known numbers for tests of what is said and drawn of them: no model, no training."""

from __future__ import annotations

from headswap.search_space import Choice, Span
from headswap.study.choosing import at_edge
from headswap.study.tuned import ArmTuning, Trial, Tuning, told_of

RATE = "train.learning_rate"
RANGES = {"finetune": Span(1e-5, 5e-4, log=True), "scratch": Span(1e-4, 3e-3, log=True)}
FINETUNE = [("1.2e-05", 0.61), ("0.0001", 0.78), ("0.0002", 0.80), ("0.00031", 0.79), ("4e-05", 0.70), ("6e-05", 0.74)]
SCRATCH = [("0.00012", 0.52), ("0.0004", 0.58), ("0.0009", 0.63), ("0.0015", 0.62), ("0.0029", 0.60), ("0.0002", 0.55)]


def arm_tuned(arm: str, size: int | None, scores, seed_loss: float | None = None) -> ArmTuning:
    """Return an arm's trials: (rate, score), None for a failed one; the best of the highest score is chosen."""
    span = RANGES[arm]
    trials = tuple(
        Trial({RATE: rate}, "fail", None, error="diverged") if score is None else Trial({RATE: rate}, "complete", score)
        for rate, score in scores
    )
    best = max(range(len(trials)), key=lambda place: -1.0 if scores[place][1] is None else scores[place][1])
    edge = at_edge(RATE, span, trials[best].settings[RATE])
    space = {RATE: told_of(span), "train.weight_decay": told_of(Choice(("0", "0.01", "0.1")))}
    return ArmTuning(arm, size, f"tuning-{arm}", space, trials, best, (edge,) if edge else ())


def tuning(*arms: ArmTuning, **changes) -> Tuning:
    known = {"trials": 6, "sampler": "random", "pruner": "none", "first_rung": 0.25, "objective": "accuracy"}
    return Tuning(**known | {"greater_is_better": True, "seeds": (-1,), "arms": arms} | changes)


def pair(size: int | None = 400, **changes) -> Tuning:
    return tuning(arm_tuned("finetune", size, FINETUNE), arm_tuned("scratch", size, SCRATCH), **changes)
