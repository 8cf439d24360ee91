"""What a checkpoint must pass before its tensors become a body. Floor 2, between weights.py and join().

plain transformers initialises what it does not find and goes on; here every tensor has a reason, or the run stops.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel

from headswap.architecture import body_prefixes, split
from headswap.contracts import Body, BodyFiles
from headswap.errors import WeightsError
from headswap.ledger import Entry, Part
from headswap.weights import (
    FLOATS,
    Checkpoint,
    NameMap,
    aliases,
    belongs_to_body,
    convert,
    ignored_by_design,
    names_by_prefix,
    same_bits,
)


@dataclass(frozen=True)
class Plan:
    """What will be read for which tensor of the body.

    Args:
        sources: the model's name -> the checkpoint's, for tensors that the file holds one to one.
        converted: values that transformers fused or split, by the model's name.
        new: body tensors that the file lacks and may lack.
        by_design: why, for those of them that a checkpoint of its kind cannot have; they do not count as uncovered.
        dropped: entries for the checkpoint's tensors that go nowhere.
        notes: remarks by the model's name.
    """

    sources: dict[str, str]
    converted: Mapping[str, torch.Tensor]
    new: tuple[str, ...]
    dropped: tuple[Entry, ...]
    notes: dict[str, str]
    by_design: Mapping[str, str] = field(default_factory=dict)


def parts(model: PreTrainedModel) -> dict[str, Part]:
    """Return body, head or buffer for each tensor of the model, a tied one once, under its first name."""
    body, head = split(model)
    found: dict[str, Part] = {}
    for name, names in aliases(model).items():
        if name == names[0]:
            owners = {"body" if each in body else "head" if each in head else "" for each in names}
            found[name] = "body" if "body" in owners else "head" if "head" in owners else "buffer"
    return found


def plan(model: PreTrainedModel, body: Body, files: BodyFiles, checkpoint: Checkpoint, names: NameMap) -> Plan:
    """Decide the fate of every tensor of the body and of the checkpoint.

    Raises:
        WeightsError: with all the faults that the checkpoint has, each with the key that would let it pass.
    """
    converted = convert(model, files.folder, checkpoint, names) if names.converted else {}
    tied, known, state, prefixes = aliases(model), parts(model), model.state_dict(), tuple(body_prefixes(model))
    sources, notes = {}, {}
    for name in known:
        held = [names.one_to_one[each] for each in tied[name] if each in names.one_to_one]
        fits = held and checkpoint.stored[held[0]].shape == tuple(state[name].shape)
        if held and (known[name] == "body" or name.startswith(prefixes) or (known[name] == "buffer" and fits)):
            sources[name] = held[0]
            notes[name] = _check_copies(checkpoint, name, held, files)
    results = {name: converted[each] for name in known for each in tied[name] if each in converted}
    results = {name: value for name, value in results.items() if known[name] != "head"}
    absent = [name for name in known if known[name] != "head" and name not in sources and name not in results]
    by_design = _new_by_design(model, absent, names, checkpoint)
    absent = [name for name in absent if name not in by_design]
    new, missing = _sort_absent(model, absent, known, body.allow_new)
    dropped, unexpected = _sort_left(model, checkpoint, names, body.allow_unexpected)
    sizes = {name: state[name].numel() for name, part in known.items() if part == "body" and name not in by_design}
    share = sum(sizes.get(name, 0) for name in [*sources, *results]) / sum(sizes.values())
    if share == 0:
        raise WeightsError(_strange_names(model, checkpoint, files, sizes))
    faults = [*_misfits(checkpoint, state, sources), *_faults(missing, unexpected, share)]
    if not faults and body.require_coverage < 1.0 and share < body.require_coverage:
        faults = [
            f"too little of the body comes from the checkpoint; found {share:.2%} of its elements where "
            f"body.require_coverage={body.require_coverage:g}; {_some(new)} would be new: narrow body.allow_new"
        ]
    if faults:
        raise WeightsError(f"{files.folder}: {'; also '.join(faults)}")
    return Plan(sources, results, (*new, *by_design), tuple(dropped), notes, by_design)


def _new_by_design(
    model: PreTrainedModel, absent: Iterable[str], names: NameMap, checkpoint: Checkpoint
) -> dict[str, str]:
    """Return the absent tensors that a whole checkpoint of its kind lacks, and why.

    Masked language modelling needs no pooler; a checkpoint that holds a part of one is damaged. Marian's positions are
    a formula, frozen, and never saved.
    """
    pooled = any("pooler" in name.split(".") for name in checkpoint.stored)
    computed = list(model._keys_to_ignore_on_load_missing or ())
    fixed = {name for name, each in model.named_parameters() if not each.requires_grad and matches(computed, name)}
    why = {name: "no pooler in the checkpoint" for name in absent if "pooler" in name.split(".") and not pooled}
    why |= {name: "computed by the architecture" for name in absent if name in fixed}
    return why | {name: names.added[name] for name in absent if name in names.added}


def _strange_names(model: PreTrainedModel, checkpoint: Checkpoint, files: BodyFiles, wanted: Iterable[str]) -> str:
    prefixes = list(body_prefixes(model))
    bare = [name.removeprefix(next((each for each in prefixes if name.startswith(each)), "")) for name in wanted]
    return (
        f"{files.folder}: 0 % of the body is in the checkpoint, its names do not fit; found "
        f"{names_by_prefix(checkpoint.stored)} where {type(model).__name__} has {'*, '.join(prefixes)}* with or "
        f"without that prefix ({names_by_prefix(bare)}); rename the tensors, or use the checkpoint of this architecture"
    )


def _check_copies(checkpoint: Checkpoint, name: str, held: Sequence[str], files: BodyFiles) -> str:
    """Refuse a file whose copies of a tied weight differ: the model can only have one of them."""
    for other in held[1:]:
        if not same_bits(checkpoint.read(held[0]), checkpoint.read(other)):
            raise WeightsError(
                f"{files.folder}: the architecture ties two tensors that differ in the checkpoint; found {held[0]} and "
                f"{other} for {name}; set body.config_overrides={{tie_word_embeddings: false}} if they are meant to"
            )
    return f"also stored as {', '.join(held[1:])}" if held[1:] else ""


def _sort_absent(
    model: PreTrainedModel, absent: Sequence[str], known: Mapping[str, Part], allow_new: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Split into the tensors that may be new and those that are missing."""
    computed = list(model._keys_to_ignore_on_load_missing or ())  # read for buffers only: weights are never optional
    prefixes = tuple(body_prefixes(model))
    optional = [
        name
        for name in absent
        if known[name] == "buffer" and (matches(computed, name) or not name.startswith(prefixes))
    ]
    new = [name for name in absent if matches(allow_new, name) or name in optional]
    return new, [name for name in absent if name not in new]


def _sort_left(
    model: PreTrainedModel, checkpoint: Checkpoint, names: NameMap, allowed: Sequence[str]
) -> tuple[list[Entry], list[str]]:
    """Split the checkpoint's tensors without a place into harmless ones and unexpected ones."""
    dropped, unexpected = [], []
    for name, target in names.left.items():
        why = ignored_by_design(model, name, target)
        inside = belongs_to_body(model, name, target)
        if matches(allowed, name):
            why = why or "allowed by body.allow_unexpected"
        if inside and not why:
            unexpected.append(name)
        inside = inside or why.endswith("for this task")
        part: Part = "buffer" if "buffer" in why else "body" if inside else "head"
        dropped.append(dropped_entry(checkpoint, name, part, why or "another task's head"))
    return dropped, unexpected


def dropped_entry(checkpoint: Checkpoint, name: str, part: Part, note: str) -> Entry:
    """Return the ledger's entry for a tensor of the checkpoint that goes nowhere."""
    stored = checkpoint.stored[name]
    elements = torch.Size(stored.shape).numel()
    return Entry(name, part, "dropped", stored.shape, elements, stored.dtype, source=name, note=note)


def _misfits(checkpoint: Checkpoint, state: Mapping[str, torch.Tensor], sources: Mapping[str, str]) -> Iterable[str]:
    shapes = [
        f"{source} {list(checkpoint.stored[source].shape)} for {list(state[name].shape)}"
        for name, source in sources.items()
        if checkpoint.stored[source].shape != tuple(state[name].shape)
    ]
    if shapes:
        yield (
            f"{len(shapes)} body tensors have another shape; found {_some(shapes)}; config.json and the weights are "
            "not of one model: mend config.json or body.config_overrides"
        )
    kinds = [
        f"{source} ({checkpoint.stored[source].dtype})"
        for name, source in sources.items()
        if state[name].is_floating_point() and checkpoint.stored[source].dtype not in FLOATS
    ]
    if kinds:
        yield (
            f"{len(kinds)} weights are not stored as {', '.join(FLOATS)}; found {_some(kinds)}; the checkpoint is "
            "quantised: use the float original"
        )


def _faults(missing: Sequence[str], unexpected: Sequence[str], share: float) -> Iterable[str]:
    if missing:
        yield (
            f"{len(missing)} body tensors are missing from the checkpoint; found {share:.2%} of the body's elements, "
            f"not {_some(missing)}; if they may start new: {_allow('allow_new', missing)}"
        )
    if unexpected:
        yield (
            f"{len(unexpected)} body tensors of the checkpoint have no place in the architecture; found "
            f"{_some(unexpected)}; if they may be dropped: {_allow('allow_unexpected', unexpected)}"
        )


def _allow(key: str, names: Sequence[str]) -> str:
    """Return the override that lets these names pass, such as body.allow_new=[pooler]."""
    split_names = [name.split(".") for name in names]
    shared = [piece for piece in split_names[0] if all(piece in pieces for pieces in split_names)]
    named = [piece for piece in shared if not piece.isdigit() and piece not in ("weight", "bias")][1:2] or shared[-1:]
    piece = (["pooler"] if "pooler" in shared else named or [split_names[0][0]])[0]
    return f"body.{key}=[{piece}]"  # no backslash: shells, Hydra and YAML each read one differently


def matches(patterns: Iterable[str], name: str) -> bool:
    """Say whether one of the regexes occurs in `name`."""
    return any(re.search(pattern, name) for pattern in patterns)


def _some(names: Sequence[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
