"""Examples a second of headswap's loop against transformers' Trainer, on the same rows, alternating in one process.

    python bench/train_speed.py [--rows 640] [--rounds 5] [--json FILE]

Arms: `headswap` as it comes; `trainer_best`, Trainer at its best setting (grouped by length, bf16, fused AdamW, dynamic
padding); `run_glue`, the example script's defaults (padding to 128, fp32). Same body, rows, batch size, learning rate;
every round trains each arm from the same weights. The ratio of medians over the rounds is the result: the machine's
noise falls on all arms alike.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import datasets
import torch
import transformers

from headswap.answers import Answers, Labels, Scores
from headswap.config import build_plugs, compose
from headswap.contracts import DataRequest
from headswap.data import make_batches
from headswap.encoded import pad_token_id
from headswap.hardware import cpu_name, start
from headswap.loop import fit
from headswap.model import join, role_names
from headswap.seeds import Seeds
from headswap.taskconfig import SpecialTokens
from headswap.training import Training

LEARNING_RATE = 5e-5


class Bench:
    """The rows, the body and one method an arm; each returns training seconds from the same fresh weights."""

    def __init__(self, rows: int, batch_size: int, overrides: list[str]) -> None:
        size = [
            f"data.train_rows={rows}",
            f"train.batch_size={batch_size}",
            "data.validation_rows=64",
            "data.test_rows=64",
        ]
        self.config = compose([*size, f"train.learning_rate={LEARNING_RATE}", "train.epochs=1", *overrides])
        self.plugs = build_plugs(self.config)
        self.seeds = Seeds(0)
        request = DataRequest(rows, 64, 64)
        self.splits = self.plugs.task.load(request, self.seeds)
        self.tokenizer = self.plugs.body.tokenizer()
        self.hardware = start(self.config.hardware, self.config.train)
        texts = {"text": self.splits.train["text"], "label": self.splits.train["label"]}
        self.rows = datasets.Dataset.from_dict({name: list(values) for name, values in texts.items()})

    def model(self) -> Any:
        tokens = SpecialTokens.of(self.tokenizer, pad_token_id(self.tokenizer))
        plugs = self.plugs
        return join(plugs.body, plugs.head, self.splits.labels, self.seeds, plugs.task.auto_class, tokens)[0]

    def headswap(self) -> float:
        model, plugs = self.model(), self.plugs
        self.hardware.choose_attention(model, self.config.train.attention, self.config.data.max_length)
        batches = make_batches(self.splits, plugs.task, self.tokenizer, self.config, self.seeds)
        roles = role_names(model)
        training = Training(
            plugs.strategy.phases(list(roles.values())), roles, batches, plugs.task.loss(self.splits), no_score,
            plugs.metrics[0], self.hardware, self.config.train, self.seeds, lambda line: None,
        )  # fmt: skip
        started = time.perf_counter()
        fit(model, training)
        return time.perf_counter() - started

    def trainer_best(self) -> float:
        return self._trainer(
            padding=False, train_sampling_strategy="group_by_length", bf16=self.hardware.precision.name == "bf16",
            optim="adamw_torch_fused",
        )  # fmt: skip

    def run_glue(self) -> float:
        return self._trainer(padding="max_length")

    def _trainer(self, padding: bool | str, **arguments: Any) -> float:
        def encode(batch: dict[str, list]) -> Any:
            return self.tokenizer(batch["text"], truncation=True, max_length=128, padding=padding)

        rows = self.rows.map(encode, batched=True).remove_columns("text")
        collator = transformers.DataCollatorWithPadding(self.tokenizer) if not padding else None
        with tempfile.TemporaryDirectory() as folder:
            settings = transformers.TrainingArguments(
                folder, per_device_train_batch_size=self.config.train.batch_size, num_train_epochs=1,
                learning_rate=LEARNING_RATE, weight_decay=0.01, warmup_steps=0.1, report_to="none",
                save_strategy="no", logging_strategy="no", disable_tqdm=True,
                dataloader_pin_memory=torch.cuda.is_available(),
                use_cpu=not torch.cuda.is_available(), **arguments,
            )  # fmt: skip
            trainer = transformers.Trainer(self.model(), settings, train_dataset=rows, data_collator=collator)
            started = time.perf_counter()
            trainer.train()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            return time.perf_counter() - started


def no_score(model: torch.nn.Module, split: str) -> Scores:
    """Stand in for evaluation, so that only training is timed."""

    return Scores({"accuracy": 0.0}, 0.0, (), Answers((), (), Labels(())))


def main() -> None:
    parser = argparse.ArgumentParser(description="headswap's loop against transformers' Trainer")
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--glue-rounds", type=int, default=2, help="rounds of the slow arm")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--json", type=Path)
    parser.add_argument("overrides", nargs="*")
    flags = parser.parse_args()
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    bench = Bench(flags.rows, flags.batch_size, flags.overrides)
    arms = ("headswap", "trainer_best", "run_glue")
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for round_number in range(flags.rounds + 1):  # the first round warms up and does not count
        for arm in arms if round_number % 2 else reversed(arms):
            if arm == "run_glue" and not 0 < round_number <= flags.glue_rounds:
                continue
            taken = getattr(bench, arm)()
            if round_number:
                seconds[arm].append(taken)
                print(f"round {round_number} {arm:<13} {flags.rows / taken:7.1f} examples/s", flush=True)
    median = {arm: statistics.median(flags.rows / taken for taken in taken_s) for arm, taken_s in seconds.items()}
    result = {
        "examples_per_second": median,
        "against_trainer_best": median["headswap"] / median["trainer_best"],
        "against_run_glue": median["headswap"] / median["run_glue"],
        "rows": flags.rows, "rounds": flags.rounds, "batch_size": flags.batch_size,
        "precision": bench.hardware.precision.name,
        "device": bench.hardware.describe()["device_name"] or cpu_name(), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "transformers": transformers.__version__,
    }  # fmt: skip
    print(json.dumps(result, indent=2))
    if flags.json:
        flags.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
