"""The ledger of a head swap: every tensor of the model, and of the checkpoint, with its fate. Floor 2.

`join` (model.py) writes it, the run folder keeps it as ledger.json, the report shows `table()`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from headswap.layers import EMBEDDINGS, layer_groups

Part = Literal["body", "head", "buffer"]
Fate = Literal["kept", "new", "dropped", "resized", "rows copied"]
PARTS: tuple[Part, ...] = ("body", "head", "buffer")
FATES: tuple[Fate, ...] = ("kept", "resized", "rows copied", "new", "dropped")


@dataclass(frozen=True)
class Entry:
    """What became of one tensor.

    Args:
        name: the model's name for it; for `dropped`, the checkpoint's.
        part: inside the model's base model (`body`), outside it (`head`), or a persistent buffer of either.
        fate: `kept` is bit for bit the file's value as float32; `resized` the file's rows with new ones below them.
        dtype_in_file: the safetensors dtype, None when nothing was read.
        sha256: of the little-endian bytes that the model starts training with; None for `dropped`.
        source: the checkpoint's name for it, None when nothing was read.
        rows: (row of the source, row of the model) pairs of `rows copied`.
        from_file: how many of the elements have the file's value.
        by_design: new because no checkpoint of its kind has it, as `note` says; the coverage leaves it out.
    """

    name: str
    part: Part
    fate: Fate
    shape: tuple[int, ...]
    elements: int
    dtype_in_file: str | None = None
    sha256: str | None = None
    source: str | None = None
    rows: tuple[tuple[int, int], ...] = ()
    from_file: int = 0
    note: str = ""
    by_design: bool = False


@dataclass(frozen=True)
class Ledger:
    """All entries of one head swap, the model's in its own order, then the dropped ones.

    `copied_labels`, `new_labels` and `retired_labels` say what a head that starts from the source's did with labels.
    `notes` say what was changed in the architecture for the task.
    """

    origin: str
    architecture: str
    init: str
    entries: tuple[Entry, ...]
    labels: tuple[str, ...]
    copied_labels: tuple[str, ...] = ()
    new_labels: tuple[str, ...] = ()
    retired_labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def coverage(self) -> float:
        """The share of the body's elements whose value came from the checkpoint; 0 for a random start."""
        body = [entry for entry in self.entries if entry.part == "body" and entry.fate != "dropped"]
        body = [entry for entry in body if not entry.by_design]
        return sum(entry.from_file for entry in body) / max(1, sum(entry.elements for entry in body))

    @property
    def embeddings(self) -> int:
        """The elements of the body below its first layer: tables of tokens, positions and segments, and their norm."""
        sizes = {f"body.{each.name}": each.elements for each in self.entries if each.part == "body" and each.sha256}
        return sum(sizes[name] for name in layer_groups(list(sizes)).get(EMBEDDINGS, ()))

    @property
    def body_sha256(self) -> str:
        """The sha256 over the names and hashes of all tensors of the model that are not the head's."""
        told = [f"{entry.name} {entry.sha256}" for entry in self.entries if entry.part != "head" and entry.sha256]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()

    def summary(self) -> dict[str, Any]:
        """Count tensors and elements per part and fate, with the coverage and the labels' fates."""
        counts: dict[str, dict[str, dict[str, int]]] = {}
        for entry in self.entries:
            cell = counts.setdefault(entry.part, {}).setdefault(entry.fate, {"tensors": 0, "elements": 0})
            cell["tensors"] += 1
            cell["elements"] += entry.elements
        return {
            "origin": self.origin,
            "architecture": self.architecture,
            "init": self.init,
            "coverage": self.coverage,
            "elements": {part: self._elements(part) for part in PARTS},
            "counts": counts,
            "labels": list(self.labels),
            "copied_labels": list(self.copied_labels),
            "new_labels": list(self.new_labels),
            "retired_labels": list(self.retired_labels),
            "notes": list(self.notes),
        }

    def _elements(self, part: Part) -> int:
        return sum(entry.elements for entry in self.entries if entry.part == part and entry.fate != "dropped")

    def table(self) -> list[tuple[str, str, str, str, str]]:
        """Return at most 12 rows (part, fate, tensors, elements, remark) for a person, without a heading."""
        rows = []
        for part in PARTS:
            for fate in FATES:
                group = [entry for entry in self.entries if (entry.part, entry.fate) == (part, fate)]
                if group:
                    elements = sum(entry.elements for entry in group)
                    rows.append((part, fate, f"{len(group):,}", f"{elements:,}", _remark(group)))
        if self.copied_labels or self.retired_labels:
            fates = {"copied": self.copied_labels, "new": self.new_labels, "retired": self.retired_labels}
            told = "; ".join(f"{fate}: {', '.join(names)}" for fate, names in fates.items() if names)
            rows.append(("labels", "", f"{len(self.labels)}", "", told))
        if self.notes:
            rows.append(("task", "", "", "", "; ".join(self.notes)))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, `summary()` among them; `from_dict` is the inverse."""
        plain = asdict(self)
        plain["entries"] = [
            entry | {"shape": list(entry["shape"]), "rows": [list(pair) for pair in entry["rows"]]}
            for entry in plain["entries"]
        ]
        for key in ("labels", "copied_labels", "new_labels", "retired_labels", "notes"):
            plain[key] = list(plain[key])
        return plain | {"summary": self.summary()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Ledger:
        """Rebuild a ledger from `to_dict()` or the JSON made of it."""
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()
        }
        fields.pop("summary", None)
        fields["entries"] = tuple(
            Entry(**(entry | {"shape": tuple(entry["shape"]), "rows": tuple(tuple(pair) for pair in entry["rows"])}))
            for entry in plain["entries"]
        )
        return cls(**fields)


def tensor_sha256(tensor: torch.Tensor) -> str:
    """Return the sha256 of a tensor's bytes in row-major order."""
    flat: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(flat.numpy()).hexdigest()


def _remark(group: list[Entry]) -> str:
    names = [entry.name for entry in group]
    shown = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
    notes = list(dict.fromkeys(entry.note for entry in group if entry.note))
    return f"{shown} ({'; '.join(notes[:2])})" if notes else shown
