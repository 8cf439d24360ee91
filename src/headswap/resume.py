"""Whether a run folder holds a state to go on from, and what keeps the rest from being exact. Floor 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headswap.checkpoint import Checkpoints, read_state
from headswap.contracts import Splits
from headswap.hardware import Hardware
from headswap.provenance import versions
from headswap.records import RunFolder
from headswap.spine import TrainConfig

STATE_FORMAT = 1  # one more whenever a state of before cannot be gone on from


def continued(folder: RunFolder, checkpoints: Checkpoints, hardware: Hardware) -> Path | None:
    """Return the state to go on from, the same for every process; where there is none, clear the folder."""
    found = None
    if hardware.first:
        found = checkpoints.newest(folder.metrics.whole())
        if found is None:
            size = folder.about().get("micro_batch_size")
            folder.clear()
            if size:  # what did not fit before the first save does not fit now
                folder.note(micro_batch_size=size)
        for said in checkpoints.rejected:
            checkpoints.tell({"kind": "warning", "text": f"{said}; an older checkpoint is used, or none"})
        if found is not None:
            state = read_state(found)
            folder.metrics.keep(state["metrics_lines"])
            checkpoints.tell({"kind": "resumed", "step": state["step"]})
        if found is not None or checkpoints.rejected:
            _note_resume(folder, found, checkpoints.rejected, hardware)
    return hardware.from_first(found)


def micro_batch_of(folder: RunFolder, train: TrainConfig, hardware: Hardware) -> TrainConfig:
    """Return the recipe with the micro-batch that earlier starts of the run's processes came down to for memory."""
    found = hardware.from_first(folder.about().get("micro_batch_size"))
    return replace(train, micro_batch_size=found) if found else train


def _note_resume(folder: RunFolder, found: Path | None, rejected: Sequence[str], hardware: Hardware) -> None:
    """Write into run.json where the run goes on, and what keeps it from doing so to the bit."""
    state = read_state(found) if found else {"step": 0, "place": place_facts(hardware)}
    now = place_facts(hardware)
    differs = {key: [state["place"].get(key), now[key]] for key in now if state["place"].get(key) != now[key]}
    note = {"step": state["step"], "exact": not differs, "differs": differs, "rejected": list(rejected)}
    folder.note(resumed=[*folder.about().get("resumed", []), note])


def state_facts(splits: Splits, hardware: Hardware) -> dict[str, Any]:
    """Return what a saved state holds besides the training: what it must agree with, and where it was computed."""
    return {"made_of": {"data": splits.fingerprint, "format": STATE_FORMAT}, "place": place_facts(hardware)}


def place_facts(hardware: Hardware) -> dict[str, Any]:
    """Return what must stay the same for a resumed run to be exact to the bit."""
    about = hardware.describe()
    return {
        key: about[key] for key in ("device", "device_name", "processes", "engine", "threads", "precision")
    } | versions()
