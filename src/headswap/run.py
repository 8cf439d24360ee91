"""One run, top to bottom: a configuration becomes a finished run folder. Floor 4.

load the data -> swap the head -> train -> score the test rows once -> write what was found
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from headswap import config as configuration
from headswap.contracts import DataRequest, Metric, Scores, Splits
from headswap.data import Batches, make_batches, pad_token_id
from headswap.errors import ConfigError
from headswap.evaluate import Judge
from headswap.hardware import Hardware, start
from headswap.ledger import Ledger
from headswap.loop import Progress, Report, Training, fit
from headswap.model import join, role_names, save
from headswap.modelcard import card
from headswap.records import RunFolder, write_json
from headswap.seeds import Seeds
from headswap.spine import Config

PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "accelerate", "evaluate", "hydra-core", "numpy")


def run(config: Config, folder: RunFolder, report: Report) -> dict[str, Any]:
    """Train and score one run; return what result.json holds.

    Raises:
        HeadswapError: the data, the weights or the training failed; the folder keeps config, log and metrics so far.
    """
    clock = Clock()
    plugs = configuration.build_plugs(config)
    hardware = start(config.hardware, config.train.precision)
    seeds = Seeds(config.seed)
    folder.note(status="running", **environment(config, hardware))

    splits = plugs.task.load(data_request(config), seeds)
    tokenizer = plugs.body.tokenizer()
    batches = make_batches(splits, plugs.task, tokenizer, config, seeds)
    folder.note(
        data={
            "fingerprint": splits.fingerprint,
            "labels": splits.labels.names,
            **rows_of(splits),
            "notes": dict(splits.notes),
            "encoding": batches.notes,
        }
    )
    clock.lap("data")

    model, ledger = join(
        plugs.body,
        plugs.head,
        splits.labels,
        seeds,
        plugs.task.auto_class,
        pad_token_id=pad_token_id(tokenizer),
        vocabulary_size=len(tokenizer),
    )
    write_json(folder / "ledger.json", ledger.to_dict())
    check_positions(model, tokenizer, batches)
    folder.note(attention=hardware.choose_attention(model, config.train.attention, config.data.max_length))
    report(
        {
            "kind": "ledger",
            "table": ledger.table(),
            "rows": rows_of(splits)["rows"],
            "warnings": said_of(splits, batches),
        }
    )
    clock.lap("body")

    loss = plugs.task.loss(splits)
    judge = Judge(batches, plugs.task, loss, plugs.metrics, splits.labels.count, hardware)
    roles = role_names(model)
    training = Training(
        plugs.strategy.phases(list(roles.values())),
        roles,
        batches,
        loss,
        judge.score,
        plugs.metrics[0],
        hardware,
        config.train,
        seeds,
        _both(folder, report),
    )
    progress = fit(model, training)
    clock.lap("fit")

    placed = hardware.place(model)
    scores = {split: judge.score(placed, split) for split in ("validation", "test")}
    hardware.plain(placed)
    clock.lap("score")
    write_predictions(folder / "predictions.parquet", scores)
    if config.output.keep_model:
        save(model, tokenizer, folder / "model", card(config, ledger, scores["test"], rows_of(splits)["rows"]))
    clock.lap("save")
    result = summary(plugs.metrics, (splits, ledger, progress, hardware), scores)
    result["seconds"] = {**clock.laps, "train": round(progress.seconds, 3), "total": clock.total}
    folder.finish(result)
    return result


def data_request(config: Config) -> DataRequest:
    """Return what the configuration asks of the task's data."""
    data = config.data
    return DataRequest(data.train_rows, data.validation_rows, data.test_rows, data.split_seed, data.drop_duplicates)


def check_positions(model: Any, tokenizer: Any, batches: Batches) -> None:
    """Refuse inputs longer than the body has positions for, before an index error in the middle of training does."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is None:
        return
    if 0 < positions - tokenizer.model_max_length <= 4:  # RoBERTa counts from its pad token: 514 positions hold 512
        positions = tokenizer.model_max_length
    longest = max(int(batches.of(split).lengths.max()) for split in ("train", "validation", "test"))
    if longest > positions:
        raise ConfigError(
            f"data.max_length: longer than this body's positions; found inputs of {longest} tokens for {positions} "
            f"positions; set data.max_length={positions} or less"
        )


def said_of(splits: Splits, batches: Batches) -> list[str]:
    """Return what a person should know of the data: repeats dropped, rows cut short, unknown tokens."""
    dropped = sum(splits.notes.get("rows_dropped_as_repeats", {}).values())
    return [*([f"{dropped:,} repeated rows were left out"] if dropped else []), *batches.notes["warnings"]]


def rows_of(splits: Splits) -> dict[str, dict[str, int]]:
    """Return the number of rows of each split."""
    return {"rows": {name: len(splits.of(name)) for name in ("train", "validation", "test")}}


def summary(
    metrics: Sequence[Metric], made: tuple[Splits, Ledger, Progress, Hardware], scores: Mapping[str, Scores]
) -> dict[str, Any]:
    """Return result.json without its timings."""
    splits, ledger, progress, hardware = made
    test = scores["test"]
    counts = ledger.summary()
    return {
        "status": "finished",
        "primary": metrics[0].name,
        "greater_is_better": metrics[0].greater_is_better,
        "per_example": {metric.name: metric.per_example for metric in metrics},
        "scores": {split: {**found.values, "loss": found.loss} for split, found in scores.items()},
        "steps": progress.step,
        "planned_steps": progress.total,
        "best_step": progress.best_step,
        "stopped_early": progress.stopped_early,
        "examples": progress.examples,
        "labels": list(splits.labels.names),
        **rows_of(splits),
        "parameters": {"trainable": progress.trainable, **parameter_counts(counts)},
        "collapsed": bool(splits.labels.problem != "regression" and len(set(test.predictions.tolist())) == 1),
        **{key: hardware.describe()[key] for key in ("device", "threads", "precision")},
    }


def parameter_counts(counts: Mapping[str, Any]) -> dict[str, int]:
    """Return the elements of the model's body and head, from the ledger's summary."""
    return {part: int(counts["elements"].get(part, 0)) for part in ("body", "head")}


def write_predictions(path: Path, scores: Mapping[str, Scores]) -> None:
    """Write every scored example: split, id, label, prediction, logits. Paired statistics need it."""
    tables = [
        pyarrow.table(
            {
                "split": [split] * len(found.ids),
                "id": list(found.ids),
                "label": found.references,
                "prediction": found.predictions,
                "logits": list(found.logits),
            }
        )
        for split, found in scores.items()
    ]
    temporary = path.with_suffix(".tmp")
    pyarrow.parquet.write_table(pyarrow.concat_tables(tables), temporary)
    temporary.replace(path)


def environment(config: Config, hardware: Hardware) -> dict[str, Any]:
    """Return what run.json says of the place: versions, git, machine, seeds, the start."""
    return {
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}},
        "headswap": metadata.version("headswap"),
        "git": git_state(),
        "hardware": hardware.describe(),
        "seed": config.seed,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "pid": os.getpid(),
    }


def git_state() -> dict[str, Any] | None:
    """Return the commit of the working folder and whether it is dirty, or None outside a repository."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": found.removesuffix("-dirty"), "dirty": found.endswith("-dirty")}


class Clock:
    """Seconds of a run's parts."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 3)
        self._last = now

    @property
    def total(self) -> float:
        return round(time.perf_counter() - self._start, 3)


def _both(folder: RunFolder, report: Report) -> Report:
    """Write every line to metrics.jsonl and tell whoever watches."""

    def tell(line: Mapping[str, Any]) -> None:
        folder.log_metrics(line)
        report(line)

    return tell
