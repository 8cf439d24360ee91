"""What a run asks of its data, and what it says of it, whether it trains or not. Floor 4."""

from __future__ import annotations

from typing import Any

from headswap.checks import imbalance
from headswap.contracts import DataRequest, Splits
from headswap.data import Batches
from headswap.spine import Config
from headswap.summary import rows_of


def data_request(config: Config) -> DataRequest:
    """Return what the configuration asks of the task's data."""
    return DataRequest.of(config.data)


def data_facts(splits: Splits) -> dict[str, Any]:
    return {"fingerprint": splits.fingerprint, "labels": splits.labels.names, **rows_of(splits)}


def said_of(splits: Splits, batches: Batches) -> list[str]:
    """Return what a person should know of the data: repeats dropped, uneven labels, rows cut short, unknown tokens."""
    return [*repeats_and_imbalance(splits), *batches.notes["warnings"]]


def repeats_and_imbalance(splits: Splits) -> list[str]:
    """Return what a person should know of the rows themselves."""
    dropped = sum(splits.notes.get("rows_dropped_as_repeats", {}).values())
    uneven = imbalance(splits.labels.problem, splits.notes.get("class_counts", {}).get("train", {}))
    return [*filter(None, (f"{dropped:,} repeated rows were left out" if dropped else None, uneven))]
