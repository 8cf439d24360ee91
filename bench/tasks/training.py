"""What every problem of the reference shares: rows in, transformers' Trainer at the row's recipe, outputs back."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from settings import EVALUATION_SIZE, WARMUP_SHARE, WEIGHT_DECAY, Row

Features = Sequence[dict[str, Any]]
Collate = Callable[[list[dict[str, Any]]], Any]


@dataclass(frozen=True)
class Job:
    """One run of the reference: a row of the table, its data, the body's folder, a seed."""

    row: Row
    data: Path
    body: str
    seed: int
    tokenizer: Any = field(repr=False)

    def split(self, name: str) -> list[dict[str, Any]]:
        name = self.row.test if name == "test" else name
        with (self.data / self.row.folder / f"{name}.jsonl").open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]


@dataclass(frozen=True)
class Outcome:
    """The scores on the test split, and those of answers that nobody had to learn: name of the baseline -> scores."""

    scores: dict[str, float]
    trivial: dict[str, dict[str, float]]


def has_bf16() -> bool:
    """Whether this CPU computes in bfloat16: the same rule as headswap's train.precision=auto."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def train(model: Any, features: Features, collate: Collate, job: Job, by_length: bool = True) -> Any:
    """Fine-tune all weights of `model` with Trainer and return it, ready to predict.

    Args:
        by_length: batch features of similar length together, as headswap does.
    """
    row = job.row
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder, max_steps=row.steps, per_device_train_batch_size=row.batch_size, learning_rate=row.learning_rate,
            warmup_steps=WARMUP_SHARE, lr_scheduler_type="linear", weight_decay=WEIGHT_DECAY, max_grad_norm=1.0,
            seed=job.seed, bf16=has_bf16(), use_cpu=True, dataloader_pin_memory=False, report_to="none",
            save_strategy="no", logging_steps=max(1, row.steps // 10), disable_tqdm=True, remove_unused_columns=False,
            train_sampling_strategy="group_by_length" if by_length else "random",
        )  # fmt: skip
        rows: Any = list(features)
        optimizers = (_two_rates(model, row), None)
        trainer = transformers.Trainer(
            model, arguments, train_dataset=rows, data_collator=collate, optimizers=optimizers
        )
        trainer.train()
        return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()


def _two_rates(model: Any, row: Row) -> torch.optim.Optimizer | None:
    """Return AdamW with a rate of its own for what stands outside the base model, None where the row asks for none."""
    if row.head_learning_rate is None:
        return None
    groups: dict[tuple[bool, bool], list[Any]] = {}
    for name, weight in model.named_parameters():
        groups.setdefault((name.startswith(f"{model.base_model_prefix}."), weight.ndim >= 2), []).append(weight)
    return torch.optim.AdamW(
        [
            {
                "params": weights,
                "lr": row.learning_rate if body else row.head_learning_rate,
                "weight_decay": WEIGHT_DECAY if matrix else 0.0,
            }
            for (body, matrix), weights in groups.items()
        ]
    )


def predict(model: Any, features: Features, collate: Collate) -> Iterator[tuple[int, dict[str, Any], int]]:
    """Yield (number of the feature, its batch's outputs by name, its place in the batch), similar lengths together."""
    by_length = sorted(range(len(features)), key=lambda number: -len(features[number]["input_ids"]))
    for start in range(0, len(by_length), EVALUATION_SIZE):
        numbers = by_length[start : start + EVALUATION_SIZE]
        batch = collate([features[number] for number in numbers])
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=has_bf16()):
            outputs = dict(model(**batch))
        for place, number in enumerate(numbers):
            yield number, outputs, place
