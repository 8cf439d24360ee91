"""The same runs as scripts of their own: the very rows of headswap's run, and bench/trainer_trial.py on them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headswap import config as configuration
from headswap.run_data import data_request
from headswap.seeds import Seeds
from headswap.spine import Config

SCRIPT = Path(__file__).parent / "trainer_trial.py"


def write_rows(config: Config, place: Path) -> Path:
    """Write the very rows of a run as train.jsonl, validation.jsonl and test.jsonl; return the body's folder."""
    plugs = configuration.build_plugs(config)
    splits = plugs.task.load(data_request(config), Seeds(config.seed))
    ids = {name: number for number, name in enumerate(splits.labels.names)}
    place.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation", "test"):
        rows: Any = splits.of(split)
        lines = [json.dumps({"text": row["text"], "label": ids.get(row["label"], row["label"])}) for row in rows]
        (place / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return plugs.body.locate(weights=True).folder


def run_script(rows: Path, body: Path, options: Sequence[str]) -> dict[str, float]:
    """Run one Trainer script with all cores to its end; return its accuracies on validation and test."""
    given = [sys.executable, str(SCRIPT), f"--rows={rows}", f"--body={body}", *options]
    said = subprocess.run(given, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return json.loads(said.splitlines()[-1])
