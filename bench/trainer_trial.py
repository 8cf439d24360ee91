"""One trial as a script of its own: a pretrained body, a new head, transformers' Trainer; prints its scores as JSON.

    python bench/trainer_trial.py --rows FOLDER --body FOLDER --learning-rate 3e-5 --weight-decay 0.01 --batch-size 32

What one writes without headswap, at Trainer's quick settings: batches by length, bf16 where the CPU has it, the best
epoch's weights kept. FOLDER holds train.jsonl, validation.jsonl and test.jsonl with `text` and `label`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy
import torch
import transformers
from datasets import Dataset
from sklearn.metrics import accuracy_score


def rows_of(folder: Path, split: str, tokenizer: Any, length: int) -> Any:
    lines = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
    encoded = tokenizer([line["text"] for line in lines], truncation=True, max_length=length)
    return Dataset.from_dict({**encoded, "labels": [line["label"] for line in lines]})


def accuracy(predicted: Any) -> dict[str, float]:
    return {"accuracy": float(accuracy_score(predicted.label_ids, numpy.argmax(predicted.predictions, -1)))}


def main() -> None:
    parser = argparse.ArgumentParser(description="one trial with transformers' Trainer")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--body", required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--weight-decay", type=float, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", action="store_true", help="random weights in place of the pretrained ones")
    parser.add_argument("--probe", action="store_true", help="train the head alone")
    flags = parser.parse_args()
    transformers.set_seed(flags.seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(flags.body)
    splits: dict[str, Any] = {
        split: rows_of(flags.rows, split, tokenizer, flags.max_length) for split in ("train", "validation", "test")
    }
    auto, labels = (
        transformers.AutoModelForSequenceClassification,
        1 + max(max(each["labels"]) for each in splits.values()),
    )
    model: Any = (
        auto.from_config(transformers.AutoConfig.from_pretrained(flags.body, num_labels=labels), dtype=torch.float32)
        if flags.scratch
        else auto.from_pretrained(flags.body, num_labels=labels, dtype=torch.float32)
    )
    if flags.probe:
        model.base_model.requires_grad_(False)
    bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder, num_train_epochs=flags.epochs, per_device_train_batch_size=flags.batch_size,
            per_device_eval_batch_size=64, learning_rate=flags.learning_rate, weight_decay=flags.weight_decay,
            warmup_steps=0.1, eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True,
            metric_for_best_model="accuracy", save_total_limit=1, save_only_model=True, report_to="none",
            use_cpu=True, bf16=bf16, dataloader_pin_memory=False, disable_tqdm=True, optim="adamw_torch_fused",
            train_sampling_strategy="group_by_length", seed=flags.seed,
        )  # fmt: skip
        trainer = transformers.Trainer(
            model, arguments, train_dataset=splits["train"], eval_dataset=splits["validation"],
            data_collator=transformers.DataCollatorWithPadding(tokenizer), compute_metrics=accuracy,
        )  # fmt: skip
        trainer.train()
        found = {split: trainer.evaluate(splits[split])["eval_accuracy"] for split in ("validation", "test")}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
