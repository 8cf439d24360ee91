"""A training that is stopped and gone on with, as new processes would: what it leaves must be the same to the bit."""

import functools
import gc
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headswap.answers import Answers, Labels, Scores
from headswap.checkpoint import STATE, Checkpoints, read_state
from headswap.errors import Stopped
from headswap.loop import fit
from headswap.phases import Phase, Rule
from headswap.records import METRICS, MetricsLog, read_jsonl
from headswap.spine import SaveConfig
from headswap.stopping import Stop
from headswap.training import Keeper
from tiny_training import PLAIN, model, snapshot, training

CLOCKS = ("seconds", "time")
STEPS = 8  # 29 rows in batches of 12 and micro-batches of 4: an epoch is 3 steps, one of them 4 + 1 rows
BASE = replace(PLAIN, max_steps=STEPS, micro_batch_size=4, keep="best", evaluate_every=2)
TWO_PHASES = (
    Phase("head", 0.5, (Rule(r"^head\.", 1.0), Rule("", None))),
    Phase("all", 0.5, (Rule(r"^head\.", 0.5), Rule("", 1.0))),
)


class Points:
    """A metric that wanders up and down with the weights, so that the best step lies anywhere."""

    name, greater_is_better, per_example = "points", True, False


def wandering(net: torch.nn.Module, split: str) -> Scores:
    """Score by a number that depends on every bit of the weights and on nothing else."""
    net.eval()
    total = sum(float(value.double().abs().sum()) for value in net.state_dict().values())
    return Scores({"points": math.sin(1e4 * total)}, total, (), Answers((), (), Labels(())))


@dataclass
class Left:
    """What one process of a training left behind."""

    folder: Path
    weights: dict[str, torch.Tensor]
    stopped: str = ""
    progress: Any = None
    logits: Any = None
    events: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: Any = None

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [without_clocks(line) for line in read_jsonl(self.folder / METRICS)]


def without_clocks(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in CLOCKS}


def go(
    folder: Path,
    train: Any = BASE,
    stop: Stop | int | None = None,
    *,
    make: Callable[[], Any] = lambda: model(dropout=0.2),
    change: Callable[[Any], Any] = lambda net: net,
    tell: Callable[[Any], None] = lambda line: None,
    facts: Mapping[str, Any] | None = None,
    place: Callable[[], AbstractContextManager[Any]] | None = None,
    **changed: Any,
) -> Left:
    """Train in `folder` as one process does: from its newest whole checkpoint, until the end or until stopped.

    Args:
        stop: the step to stop after, or a Stop that something else asks.
        make: gives the model as it is before it trains.
        change: what to do to the model before it trains, such as a hook on it.
        tell: told of every event and line, as a display is.
        facts: what a saved state must agree with.
        place: gives other hardware for the time of the training.
    """
    _freeze()
    folder.mkdir(exist_ok=True)
    log, events = MetricsLog(folder / METRICS), []
    checkpoints = Checkpoints(
        folder / "checkpoint", train.save_every, lambda event: (events.append(event), tell(event))
    )
    resume = checkpoints.newest(log.whole())
    log.keep(read_state(resume)["metrics_lines"] if resume else 0)
    torch.manual_seed(np.random.SeedSequence().generate_state(1)[0])  # what a process drew before must not matter
    net = make()
    change(net)

    def settle() -> int:
        log.sync()
        return log.lines

    stop = stop if isinstance(stop, Stop) else Stop(stop)
    keeper = Keeper(checkpoints, stop, facts or {}, settle, resume)
    made = training(net, train, lambda line: (log.add(line), tell(line)), keeper=keeper, **changed)
    left = Left(folder, {}, events=events, checkpoints=checkpoints)
    try:
        with place() if place else nullcontext(made.hardware) as hardware:
            left.progress = fit(net, replace(made, hardware=hardware))
    except Stopped as error:
        left.stopped = str(error)
    except Exception:
        log.close()
        raise
    else:
        rows = made.batches.evaluation("test")
        net.eval()
        with torch.inference_mode():
            left.logits = [net(**inputs(made.batches.collate("test", part))).logits.clone() for part in rows]
    log.close()
    left.weights = snapshot(net)
    return left


@functools.cache
def _freeze() -> None:
    """Spare the collector all that was imported: a training collects garbage when memory ends and between phases."""
    gc.collect()
    gc.freeze()


def inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in batch.items() if name != "labels"}


def in_pieces(folder: Path, stops: Sequence[int], train: Any = BASE, **changed: Any) -> Left:
    """Train with a new process after each of `stops`, and to the end."""
    for step in stops:
        assert "its state is saved" in go(folder, train, step, **changed).stopped
    return go(folder, train, **changed)


def mismatches(first: Left, second: Left) -> list[str]:
    """Return what differs in any bit between two finished trainings: weights, logits, lines."""
    found = [name for name, value in first.weights.items() if not torch.equal(value, second.weights[name])]
    if not all(torch.equal(*pair) for pair in zip(first.logits, second.logits, strict=True)):
        found.append("logits")
    pairs = zip(first.lines, second.lines, strict=True) if len(first.lines) == len(second.lines) else [("many", "few")]
    return found + [f"{left} {right}" for left, right in pairs if left != right]


def saved_files(folder: Path, step: int) -> dict[str, Any]:
    """Return the bytes of a checkpoint's tensors and its facts without clocks."""
    place = folder / "checkpoint" / f"step-{step:08d}"
    facts = json.loads((place / STATE).read_text())
    facts["progress"] = without_clocks(facts["progress"])
    best = [place.parent / facts["best"] / "model.safetensors"] if facts["best"] else []
    return {path.name + path.parent.name: path.read_bytes() for path in [*place.glob("*.safetensors"), *best]} | facts


def every(steps: int) -> SaveConfig:
    return SaveConfig(steps=steps, seconds=None)
