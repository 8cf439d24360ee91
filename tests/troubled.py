"""A task that brings trouble to one rank of a run, as a file asks for: the run's configuration stays the same."""

import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headswap.contracts import DataRequest, LossFunction, Splits
from headswap.errors import DataError
from headswap.seeds import Seeds
from headswap.tasks.text_classification import TextClassification

SEEN = "rows-{}.jsonl"


@dataclass(frozen=True)
class Troubled(TextClassification):
    """Reviews, and trouble.

    Args:
        orders: a JSON file: {"where": "load" or "step", "rank", "do": a signal's name, "bug", "data", "memory",
            "orphan", to kill the launcher, or "wait" until the file is gone, at most "seconds"}; for a step also
            "at", the number of the forward pass in training, or "above", the rows that fit.
    """

    orders: str = ""

    def load(self, request: DataRequest, seeds: Seeds) -> Splits:
        trouble(self.orders, "load")
        return super().load(request, seeds)

    def loss(self, splits: Splits) -> LossFunction:
        return TroubledLoss(super().loss(splits), Path(self.orders))


class TroubledLoss:
    """The task's loss; it notes the rows of every forward pass in training beside the orders, then obeys them."""

    def __init__(self, loss: LossFunction, orders: Path) -> None:
        self.inner, self.orders, self.calls = loss, orders, 0

    def weight(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return self.inner.weight(batch)

    def __call__(self, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if torch.is_grad_enabled():
            rows = [row[row > 0].tolist() for row in batch["input_ids"]]
            with open(self.orders.with_name(SEEN.format(os.environ.get("RANK", "0"))), "a") as file:
                file.write(json.dumps(rows) + "\n")
            self.calls += 1
            trouble(str(self.orders), "step", self.calls, len(rows))
        return self.inner(output, batch)


def trouble(path: str, where: str, call: int = 0, rows: int = 0) -> None:
    """Do what the file asks of this rank at this place."""
    if not Path(path).is_file():
        return
    orders: dict[str, Any] = json.loads(Path(path).read_text())
    rank = os.environ.get("RANK", "0")
    here = orders["where"] == where and orders.get("rank", rank) == rank
    if not here or orders.get("at", call) != call or rows <= orders.get("above", -1):
        return
    match orders["do"]:
        case "bug":
            raise ZeroDivisionError("a bug of the plug")
        case "data":
            raise DataError(f"{path}: no rows; found none; name another file")
        case "memory":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
        case "orphan":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        case "wait":
            end = time.monotonic() + orders.get("seconds", 120)
            while Path(path).exists() and time.monotonic() < end:
                time.sleep(0.02)
        case name:
            os.kill(os.getpid(), signal.Signals[name])
