"""Trackers that throw, hang, draw random numbers, kill the run, or write down what they hear."""

import json
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headswap.tracked import Make, TrackedRun


@dataclass(frozen=True)
class Book:
    """Writes down what it hears, one JSON list a line; and may `kill` the run when it begins."""

    path: str
    kill: bool = False

    def open(self, run: TrackedRun, make: Make) -> Any:
        self.write(["open", run.id, run.resumed, run.step, os.environ.get("RANK")])
        if self.kill:
            os.kill(os.getppid(), signal.SIGKILL)
        return self

    def write(self, what: list) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(what) + "\n")

    def log(self, values: dict, step: int) -> None:
        self.write(["log", step, values])

    def close(self, writer: Any, status: str) -> None:
        self.write(["close", status])

    def told(self) -> list:
        return [json.loads(line) for line in Path(self.path).read_text().splitlines()]


@dataclass(frozen=True)
class Odd:
    """Does what it should not: `throw`, `hang` or `draw`, when it is opened or with the first values."""

    what: str
    when: str = "open"

    def open(self, run: TrackedRun, make: Make) -> Any:
        self._do("open")
        return self

    def log(self, values: dict, step: int) -> None:
        self._do("log")

    def close(self, writer: Any, status: str) -> None:
        """Nothing to end."""

    def _do(self, now: str) -> None:
        if now != self.when:
            return
        if self.what == "throw":
            raise ConnectionError("nobody answers\nat all")
        if self.what == "hang":
            time.sleep(600)
        import numpy
        import torch

        random.random(), numpy.random.rand(), torch.rand(1000)
        torch.set_num_threads(3)
