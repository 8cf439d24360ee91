"""The constants of a small training without files: rows of random tokens, a BERT of one layer, every part replaceable."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import datasets
import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

from headswap.answers import Labels
from headswap.contracts import Splits
from headswap.data import Batches
from headswap.encoded import Encoded, Padding
from headswap.evaluate import Judge
from headswap.hardware import Hardware, start
from headswap.losses import CrossEntropy
from headswap.metrics.classification import Accuracy
from headswap.model import role_names
from headswap.seeds import Seeds
from headswap.spine import HardwareConfig, TrainConfig
from headswap.strategies.full import Full
from headswap.tasks.text_classification import TextClassification
from headswap.training import Training

ONE = Seeds(1)
TASK = TextClassification(text=["text"], source="nowhere.csv")
PLAIN = TrainConfig(batch_size=12, max_steps=6, learning_rate=1e-3, precision="fp32", keep="last", evaluations=1)


def hardware() -> Hardware:
    return start(HardwareConfig("cpu", threads=1), TrainConfig(precision="fp32"))


def encoded(count: int, labels: int = 3, seed: int = 0, name: str = "row") -> Encoded:
    """Return rows of 3 to 9 random tokens; the label is the second token modulo `labels`."""
    dice = np.random.default_rng(seed)
    lengths = dice.integers(3, 10, count).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    tokens = dice.integers(3, 40, int(offsets[-1])).astype(np.int32)
    return Encoded(
        ids=tuple(f"{name}{number}" for number in range(count)),
        example=np.arange(count),
        lengths=lengths,
        truncated=np.zeros(count, dtype=bool),
        numbers={"labels": (tokens[offsets[:-1] + 1] % labels).astype(np.int64)},
        columns={"input_ids": (tokens, offsets)},
        padding=Padding({"input_ids": 0}),
    )


def batches(train: int = 29, validation: int = 10, *, seeds: Seeds = ONE, batch_size: int = 12) -> Batches:
    rows = {"train": encoded(train, seed=1), "validation": encoded(validation, seed=2), "test": encoded(9, seed=3)}
    return Batches(rows, batch_size, 4, seeds)


def splits(served: Batches) -> Splits:
    """Return the rows that the encoded ones could have come from: ids and labels."""
    rows = {
        name: datasets.Dataset.from_dict({"id": list(part.ids), "label": part.numbers["labels"].tolist()})
        for name, part in served.encoded.items()
    }
    return Splits(**rows, labels=Labels(("a", "b", "c")), fingerprint="tiny")


def judge(served: Batches, loss: Any, metrics: Any = None, **more: Any) -> Judge:
    """Return what scores `served`; `more` are fields of Judge."""
    given = {"metrics": metrics or [Accuracy()], "tokenizer": None, "hardware": hardware(), **more}
    return Judge(splits(served), served, TASK, loss, **given)


def logits(scores: Any) -> np.ndarray:
    return np.stack(scores.answers.outputs)


def model(seed: int = 0, dropout: float = 0.0) -> Any:
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20,
        max_position_embeddings=16, num_labels=3, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BertForSequenceClassification(config)


@dataclass
class Watched:
    """What a training reported, and the weights after every step."""

    model: torch.nn.Module
    lines: list[dict] = field(default_factory=list)
    weights: list[dict[str, torch.Tensor]] = field(default_factory=list)

    def __call__(self, line) -> None:
        self.lines.append(dict(line))
        if line["kind"] == "train":
            self.weights.append(snapshot(self.model))

    def of(self, kind: str, key: str) -> list:
        return [line[key] for line in self.lines if line["kind"] == kind]


def snapshot(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def training(net: Any, train: TrainConfig = PLAIN, report: Callable = lambda line: None, **changed: Any) -> Training:
    """Return the training of `net`; any of its constants can be given."""
    roles = role_names(net)
    served = changed.get("batches") or batches(seeds=changed.get("seeds", ONE), batch_size=train.batch_size)
    loss = changed.get("loss", CrossEntropy())
    judging = judge(served, loss)
    made = Training(
        Full().phases(list(roles.values())), roles, served, loss, judging.score, Accuracy(), judging.hardware, train,
        ONE, report,
    )  # fmt: skip
    return replace(made, **changed)
