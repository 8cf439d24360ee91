"""What several ranks do together over gloo, on the CPU: each writes down what it saw, the tests compare it with one.

A scenario is a function that one process can play alone, too. `played` forks the ranks from the warm server of the
test session, so that their imports are paid for once.
"""

import multiprocessing
import os
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import BertForSequenceClassification

import tiny_training
from headswap import step
from headswap.checkpoint import Checkpoints
from headswap.data import Batches
from headswap.errors import Stopped
from headswap.hardware import start
from headswap.loop import fit
from headswap.losses import CrossEntropy
from headswap.metrics.classification import Accuracy, MacroF1, Matthews
from headswap.model import role_names
from headswap.phases import Phase, Rule
from headswap.seeds import Seeds
from headswap.spine import HardwareConfig, SaveConfig, TrainConfig
from headswap.stopping import SIGNALS, Stop
from headswap.strategies.full import Full
from headswap.strategies.gradual import Gradual
from headswap.strategies.l2_sp import L2Sp
from headswap.strategies.lora import Lora
from headswap.strategies.probe import Probe
from headswap.training import Keeper
from tiny_training import PLAIN, Watched, batches, encoded, hardware, model, snapshot, training

RARE = 11  # a token that few rows hold
DICED = replace(PLAIN, micro_batch_size=3)


def played(names: Sequence[str], folder: Path, world: int = 2) -> dict[str, list[Any]]:
    """Let `world` ranks play scenarios one after the other; return what each rank wrote down, by scenario."""
    os.environ.setdefault("HEADSWAP_WARM", "bert")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["headswap.warm"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks: list[Any] = []
    for rank in range(world):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ranks.append(context.Process(target=_play, args=(place, list(names), folder), daemon=True))
        ranks[-1].start()
    for process in ranks:
        process.join(100)
    for process in ranks:
        process.kill()
    said = "\n".join(path.read_text() for path in sorted(folder.glob("*.txt")))
    assert [process.exitcode for process in ranks] == [0] * world, said
    found = {name: [folder / f"{name}-{world}-{rank}.pickle" for rank in range(world)] for name in names}
    return {name: [pickle.loads(path.read_bytes()) for path in paths] for name, paths in found.items()}


def _play(place: Mapping[str, Any], names: Sequence[str], folder: Path) -> None:
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ |= {"ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo"}
    try:
        for name in names:
            (folder / f"{name}-{place['WORLD_SIZE']}-{place['RANK']}.pickle").write_bytes(
                pickle.dumps(SCENARIOS[name](folder))
            )
    except Exception:  # noqa: BLE001 (whatever it was, the test shows it)
        (folder / f"{place['RANK']}.txt").write_text(traceback.format_exc())
        sys.exit(1)


def places(folder: Path) -> dict[str, Any]:
    """Return what the hardware says of itself, asked for the first time."""
    return hardware().describe()


def trained(net: Any, train: TrainConfig = PLAIN, **changed: Any) -> dict[str, Any]:
    """Train `net`; return its weights, and loss and gradient norm of every step."""
    watched = Watched(net)
    fit(net, training(net, train, watched, **changed))
    return {
        "weights": snapshot(net),
        "losses": watched.of("train", "loss"),
        "norms": watched.of("train", "gradient_norm"),
        "validation": watched.of("validation", "loss"),
    }


class PerToken:
    """A loss whose weight is the number of tokens, as a tagging task's is."""

    def weight(self, batch):
        return batch["attention_mask"].sum().double()

    def __call__(self, output, batch):
        rows = torch.nn.functional.cross_entropy(output.logits, batch["labels"], reduction="none")
        return (rows * batch["attention_mask"].sum(dim=1)).sum()


LOSSES = {"per row": CrossEntropy(), "class weights": CrossEntropy((0.5, 1.0, 4.0)), "per token": PerToken()}
WINDOWS = [(rows, size, loss) for rows in (29, 25) for size in (None, 4) for loss in LOSSES]


def windows(folder: Path) -> dict[tuple, dict[str, Any]]:
    """Train on uneven windows: the last one of 29 rows has 5, that of 25 has a single row, none for the second rank."""
    return {
        (rows, size, loss): trained(
            model().double(), replace(PLAIN, micro_batch_size=size), batches=batches(rows), loss=LOSSES[loss]
        )
        for rows, size, loss in WINDOWS
    }


class Sparse(BertForSequenceClassification):
    """A model with a weight that never gets a gradient, and one that only rows with a rare token use."""

    def __init__(self, config):
        super().__init__(config)
        self.never = torch.nn.Parameter(torch.ones(2))
        self.seldom = torch.nn.Parameter(torch.zeros(3))

    def forward(self, input_ids, **inputs):
        made = super().forward(input_ids=input_ids, **inputs)
        if (rows := (input_ids == RARE).any(dim=1)).any():
            made.logits = made.logits + rows[:, None] * self.seldom
        return made


def sparse() -> Sparse:
    net = Sparse(model().config)
    net.load_state_dict(model().state_dict(), strict=False)
    return net


HEAD_THEN_BODY = [
    Phase("head", 0.5, (Rule(r"^head\.", 1.0), Rule("", None))),
    Phase("body", 0.5, (Rule(r"^head\.", None), Rule("", 1.0))),
]


def pulled(net: Any) -> dict[str, Any]:
    return {"phases": L2Sp().phases([]), "correct": L2Sp(alpha=300.0).correct}


def unfrozen(net: Any) -> dict[str, Any]:
    return {"phases": Gradual().phases(list(role_names(net).values()))}


def adapted(net: Any) -> dict[str, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        Lora(rank=2).adapt(net, {name for name, role in role_names(net).items() if role.startswith("head.")})
    net.double()
    roles = role_names(net)
    return {"phases": Lora().phases(list(roles.values())), "roles": roles}


def strategies(folder: Path) -> dict[str, dict[str, Any]]:
    """Train with a frozen body, in two phases, with weights that get a gradient never or seldom, and by strategies."""
    train, made = replace(PLAIN, micro_batch_size=3), {}
    for name, net, phases in (
        ("frozen body", model(), Probe().phases([])),
        ("two phases", model(), HEAD_THEN_BODY),
        ("unused weights", sparse(), Full().phases([])),
    ):
        made[name] = trained(net.double(), train, phases=phases)
    mean = replace(train, ema=0.6, keep="best", evaluate_every=2)
    for name, strategy, settings in (("pull", pulled, mean), ("gradual", unfrozen, mean), ("adapters", adapted, train)):
        net = model().double()
        made[name] = trained(net, settings, **strategy(net))
    return made


class Noted(Batches):
    """Batches that note which rows were asked for in evaluation."""

    def collate(self, split, indices, epoch=0):
        self._epochs.setdefault(-1, []).append(indices)
        return super().collate(split, indices, epoch)

    @property
    def noted(self):
        return [int(row) for rows in self._epochs.get(-1, []) for row in rows]


def scores(folder: Path) -> dict[int, tuple]:
    """Score 9 examples, then one, in batches of 5; return the scores and the rows that passed through this rank."""
    made = {}
    for count, metrics in ((9, [Accuracy(), MacroF1(), Matthews()]), (1, [Accuracy()])):
        split = encoded(count, seed=5, name="example")
        served = Noted({"train": encoded(4), "validation": encoded(4), "test": split}, 4, 5, Seeds(0))
        judging = tiny_training.judge(served, CrossEntropy((0.5, 1.0, 4.0)), metrics)
        made[count] = (judging.score(model(dropout=0.5), "test"), served.noted)
    return made


def served(folder: Path) -> dict[int, list[list[tuple]]]:
    """Return the micro-batches of this rank for each step of two epochs."""
    heard: list[list[tuple]] = []
    share = step.micro_batches

    def listening(rows, constants, size):
        heard.append([(part.tolist(), counts) for part, counts in share(rows, constants, size)])
        return share(rows, constants, size)

    step.micro_batches = listening
    try:
        for rows in (29, 25):
            trained(model(), replace(PLAIN, micro_batch_size=2), batches=batches(rows))
    finally:
        step.micro_batches = share
    return {29: heard[:6], 25: heard[6:]}


def dropout(folder: Path) -> list[dict[str, Any]]:
    """Train twice with dropout; return the seeds of all forward passes of each training, and what came of it."""
    runs = []
    for disturbance in (3, 4):
        torch.manual_seed(disturbance)
        net, seeds = model(dropout=0.2), []
        net.bert.embeddings.dropout.register_forward_hook(
            lambda module, given, made, seeds=seeds: seeds.append(torch.initial_seed()) if module.training else None
        )
        runs.append({"seeds": seeds, **trained(net, DICED)})
    return runs


def ending(folder: Path, stop: Stop, strike: Callable[[int], None] = lambda at: None) -> tuple[dict[str, Any], str]:
    """Train until somebody stops it, then go on with another model in the state's place; return it and what was said."""
    place = Path(hardware().from_first(str(folder / f"{stop.at_step}-{os.urandom(4).hex()}")))
    checkpoints = Checkpoints(place, SaveConfig(seconds=None), lambda line: None)
    said, net = "", model(dropout=0.2)
    watched = Watched(net)

    def report(line):
        watched(line)
        if line["kind"] == "train":
            strike(line["step"])

    try:
        fit(net, training(net, DICED, report, keeper=Keeper(checkpoints, stop)))
    except Stopped as error:
        said = str(error)
    found = hardware().from_first(checkpoints.newest(0))
    return trained(model(seed=9, dropout=0.2), DICED, keeper=Keeper(checkpoints, Stop(), resume=found)), said


def stops(folder: Path) -> dict[Any, tuple]:
    """Train straight; stop at every step and go on."""
    made: dict[Any, tuple] = {"straight": (trained(model(dropout=0.2), DICED), "")}
    for at in range(1, PLAIN.max_steps):
        made[at] = ending(folder, Stop(at))
    return made


def signals(folder: Path) -> dict[tuple, tuple]:
    """Let one rank alone hear a signal after step 3; stop, and go on."""
    made = {}
    for number in SIGNALS:
        for struck in range(hardware().world):

            def strike(at, number=number, struck=struck):
                if at == 3 and hardware().rank == struck:
                    os.kill(os.getpid(), number)

            stop = Stop()
            with stop.listening():
                made[signal.Signals(number).name, struck] = ending(folder, stop, strike)
    return made


def halves(folder: Path) -> dict[Any, dict[str, Any]]:
    """Train in bf16, with and without gradient checkpointing. Play it last: all later scenarios compute in bf16."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    tiny_training.hardware = lambda: start(HardwareConfig("cpu", threads=1), TrainConfig(precision="bf16"))
    made = {}
    for checkpointing in (False, True, True):
        net = model(dropout=0.2)
        if checkpointing:
            net.gradient_checkpointing_enable({"use_reentrant": False})
        made[checkpointing, len(made)] = trained(net, DICED)
    return made


SCENARIOS: dict[str, Callable[[Path], Any]] = {
    each.__name__: each for each in (places, windows, strategies, scores, served, dropout, stops, signals, halves)
}
