"""Whole runs in little: a labelled table, a configuration on the tiny body, tasks that break in a known way."""

import os
import random
import signal
from dataclasses import dataclass
from pathlib import Path

from headswap.config import compose, dump
from headswap.contracts import DataRequest, Splits
from headswap.records import RunFolder, write_text
from headswap.seeds import Seeds
from headswap.spine import Config
from headswap.stopping import Stop
from headswap.tasks.text_classification import TextClassification
from headswap.worker import outcome
from tiny_tables import written

GOOD, BAD = ["good", "fine", "great", "loved"], ["bad", "dull", "poor", "hated"]
FILLER = ["the", "a", "film", "plot", "was", "is", "very", "not", "and", "but", "it", "this", "movie", "so"]


def reviews(path: Path, count: int = 60, seed: int = 0) -> str:
    """Write `count` different texts, each with one word that says its label; every ninth label is wrong."""
    dice = random.Random(seed)
    rows: dict[str, str] = {}
    while len(rows) < count:
        good = len(rows) % 2 == 0
        words = dice.choices(FILLER, k=dice.randint(2, 9))
        words.insert(dice.randrange(len(words)), dice.choice(GOOD if good else BAD))
        rows.setdefault(" ".join(words), "pos" if good != (len(rows) % 9 == 0) else "neg")
    return written(path, list(rows.items()))


def words_of(table: str, body: Path, root: Path) -> list[str]:
    """Return the overrides of a small run on the CPU."""
    return [
        "task=text", f"task.source={table}", "task.text=[text]", "task.label=label", "task.validation_share=0.2",
        "task.test_share=0.2", "body=transformer", f"body.source={body}", "data.max_length=32", "train.max_steps=4",
        "train.batch_size=8", "train.evaluations=2", "train.learning_rate=1e-3", "train.precision=fp32", "hardware=cpu", "hardware.threads=1",
        f"output.root={root}", "name=tiny",
    ]  # fmt: skip


def tiny(table: str, body: Path, root: Path, *overrides: str) -> Config:
    return compose([*words_of(table, body, root), *overrides])


def ran(folder: Path, config: Config, report=lambda line: None, stop_at: int | None = None) -> dict:
    """Run in this process as a child does; return how it ended."""
    write_text(folder / "config.yaml", dump(config))
    return outcome(RunFolder(folder), report, Stop(stop_at))


@dataclass(frozen=True)
class Killed(TextClassification):
    """A task whose process dies as the kernel's out-of-memory killer would end it."""

    def load(self, request: DataRequest, seeds: Seeds) -> Splits:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("a killed process goes no further")


@dataclass(frozen=True)
class Telling(TextClassification):
    """A task that writes down which GPUs its process may see."""

    place: str = ""

    def load(self, request: DataRequest, seeds: Seeds) -> Splits:
        Path(self.place, os.environ.get("CUDA_VISIBLE_DEVICES", "all")).touch()
        return super().load(request, seeds)


@dataclass(frozen=True)
class Buggy(TextClassification):
    """A task with a programmer's mistake."""

    def load(self, request: DataRequest, seeds: Seeds) -> Splits:
        raise ZeroDivisionError("a bug of the plug")
