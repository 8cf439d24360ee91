"""Random faults against random runs for as long as you like: `make soak`, or python tests/soak.py --minutes 30.

Every run is trained straight through once, and once under kills, signals, disk errors and damaged states until it is
finished. The two must be the same to the bit. Ends with one line of figures, and with code 1 if any run was not.
"""

import argparse
import contextlib
import errno
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faults
from conftest import make_tokenizer, tiny_config
from headswap.launch import Job, run_jobs
from headswap.records import RunFolder
from headswap.verify import compare_runs
from tiny_runs import reviews, tiny

MOST_FAULTS = 8  # of one run, so that it ends
PLUG = ["plugins=[faults]", "task._target_=faults.Faulty"]


@dataclass
class Soak:
    """What happened so far."""

    place: Path
    dice: random.Random
    faults: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    different: list[str] = field(default_factory=list)


def settings(dice: random.Random) -> list[str]:
    """Draw the recipe of a run."""
    return [
        f"seed={dice.randrange(1000)}",
        f"train.max_steps={dice.randint(8, 40)}",
        f"train.micro_batch_size={dice.choice(['null', 4, 2, 1])}",
        dice.choice(["train.evaluations=3", "train.evaluate_every=4", "train.evaluate_every=1"]),
        *dice.choice([["train.keep=last"], ["train.keep=best"], ["train.keep=best", "train.patience=3"]]),
        f"train.gradient_checkpointing={dice.choice(['true', 'false'])}",
        f"train.max_grad_norm={dice.choice(['null', 1.0, 0.05])}",
        f"strategy={dice.choice(['full', 'full', 'probe'])}",
        f"train.learning_rate={dice.choice([1e-3, 1e-2])}",
    ]


@dataclass
class Trouble:
    """One fault of a run, met at an event, or at a call to the disk by the plug in the child."""

    soak: Soak
    table: str
    left: int = 1
    kind: str = ""
    delay: float = 0.0
    number: int = 0
    killed: bool = False

    def draw(self) -> None:
        """Plan what the next start of the run meets, or nothing."""
        dice = self.soak.dice
        order = Path(self.table).with_suffix(".fault")
        order.unlink(missing_ok=True)
        how = dice.choice(["event", "call"])
        self.left, self.number, self.killed = dice.randint(1, 6), 0, False
        if how == "event":
            self.kind = dice.choice(["ledger", "saving", "saved", "validation", "train"])
            self.number = dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
            self.delay = dice.choice([0.0, dice.uniform(0, 0.01), dice.uniform(0, 0.1)])
        elif how == "call":
            call = dice.choice(["_write", "_sync", "_rename"])
            when = dice.choice(["before", "middle", "after"] if call == "_write" else ["before", "after"])
            code = dice.choice([0, errno.ENOSPC, errno.EIO])
            most = {"_write": 2000, "_sync": 60, "_rename": 15}[call]
            faults.order_fault(self.table, (call, "", when), int(most ** dice.random()), code)

    def __call__(self, job: Job, event: Any) -> None:
        self.soak.faults["disk error in a save"] += "not saved" in event.get("text", "")
        if not self.number or event["kind"] != self.kind:
            return
        self.left -= 1
        if self.left > 0:
            return
        number, self.number = self.number, 0
        self.killed = number == signal.SIGKILL
        time.sleep(self.delay)
        pid = int((job.folder / ".lock").read_text().split()[1])
        if pid in {child.pid for child in multiprocessing.active_children()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                self.soak.faults[signal.Signals(number).name] += 1


def damage(soak: Soak, folder: RunFolder) -> None:
    """Now and then damage a file of the states that a run goes on from, its metrics or its notes."""
    files = [path for path in folder.path.rglob("*") if path.is_file() and path.name not in ("config.yaml", ".lock")]
    files = [path for path in files if path.stat().st_size]
    if not files or soak.dice.random() < 0.6:
        return
    path, how = soak.dice.choice(files), soak.dice.choice(faults.HARMS)
    if path.name == "metrics.jsonl" and "bit" in how:
        return  # a digit that flips there is not noticed: the states count its lines
    faults.harm(path, how)
    soak.faults["damaged file"] += 1


def one_round(soak: Soak, body: Path) -> None:
    """Train one run straight and one under faults, and compare them."""
    soak.runs += 1
    place = soak.place / str(soak.runs)
    place.mkdir()
    table = reviews(place / "reviews.csv", 48)
    words = settings(soak.dice)
    straight = Job(
        tiny(table, body, place, *PLUG, *words, "train.save_every.seconds=null"), RunFolder(place / "straight")
    )
    every = f"train.save_every.steps={soak.dice.randint(1, 4)}"
    job = Job(tiny(table, body, place, *PLUG, *words, every), RunFolder(place / "run"))
    trouble = Trouble(soak, table)
    must(run_jobs([straight], 1, lambda job, event: None)[0].finished, "a straight run failed")
    starts = 0
    while not job.folder.finished:
        starts += 1
        must(starts < 3 * MOST_FAULTS, f"a run does not finish: {job.folder.path}")
        if starts <= MOST_FAULTS:
            trouble.draw()
        outcome = run_jobs([job], 1, trouble)[0]
        if not outcome.finished:
            soak.faults["disk error elsewhere"] += "cannot be written" in outcome.error
            soak.faults["SIGKILL in a call to the disk"] += "SIGKILL" in outcome.error and not trouble.killed
            if starts <= MOST_FAULTS:
                damage(soak, job.folder)
    found = compare_runs(straight.folder.path, job.folder.path)
    if found.same:
        shutil.rmtree(place)
    else:
        soak.different.append(f"{place}: {words}: {found.lines}")


def must(well: bool, said: str) -> None:
    if not well:
        raise SystemExit(f"soak: {said}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None, help="of the faults; the clock's when left out")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else int(time.time())
    soak = Soak(Path(tempfile.mkdtemp(prefix="headswap-soak-")), random.Random(seed))
    body = soak.place / "body"
    from transformers import BertModel

    BertModel(tiny_config()).save_pretrained(body)
    make_tokenizer().save_pretrained(body)
    print(f"soak: seed {seed} in {soak.place}", flush=True)
    end = time.monotonic() + 60 * given.minutes
    while time.monotonic() < end:
        one_round(soak, body)
    told = ", ".join(f"{kind} {count}" for kind, count in sorted(soak.faults.items()))
    for line in soak.different:
        print(line)
    print(
        f"soak: {given.minutes:g} minutes, {soak.runs} runs under {sum(soak.faults.values())} faults ({told}), "
        f"resume mismatches {len(soak.different)}"
    )
    if not soak.different:
        shutil.rmtree(soak.place)
    return 1 if soak.different else 0


if __name__ == "__main__":
    sys.exit(main())
