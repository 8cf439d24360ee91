"""The head swap: one body, one new head, one plain transformers model, and a ledger of every tensor. Floor 2.

config -> names and gates -> model -> draw the head -> copy the body -> place the head -> prove it, tensor by tensor
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from headswap import architecture, bodyconfig
from headswap.architecture import role_names
from headswap.contracts import Body, BodyFiles, Head, HeadTensor, Labels, SourceHead
from headswap.durable import cannot_write, published
from headswap.errors import RunError, WeightsError
from headswap.gates import Plan, dropped_entry, parts, plan
from headswap.layers import EMBEDDINGS, layer_groups
from headswap.ledger import Entry, Ledger, tensor_sha256
from headswap.restart import StartsNew, drawn_alike, restarted
from headswap.seeds import Seeds
from headswap.taskconfig import SpecialTokens, fit_vocabulary, require_causal, serve, set_generation
from headswap.warm_start import map_twice
from headswap.weights import (
    Checkpoint,
    NameMap,
    aliases,
    has_own_output,
    is_finite,
    map_names,
    open_checkpoint,
    prove_saved,
    same_bits,
)

NO_TOKENS = SpecialTokens()


@torch.no_grad()
def join(
    body: Body,
    head: Head,
    labels: Labels,
    seeds: Seeds,
    auto_class: str,
    tokens: SpecialTokens = NO_TOKENS,
    *,
    starts_new: StartsNew | None = None,
) -> tuple[PreTrainedModel, Ledger]:
    """Build the model that a run trains: the body's weights, a head for `labels`, all in float32, in training mode.

    Args:
        auto_class: the transformers class of the task, such as AutoModelForSequenceClassification.
        tokens: what the config must know of the tokenizer.
        starts_new: the strategy's choice of body weights that begin as in the random twin (phases.StartsNew).

    Returns:
        The model, and the ledger of what became of every tensor. The global random state is left as it was.

    Raises:
        ConfigError: body.config_overrides names a setting that the architecture lacks.
        WeightsError: the checkpoint does not fit in a way that no key allows, or holds NaN or infinite weights.
    """
    files = body.locate()
    config, source_labels = bodyconfig.make_config(body, files, labels, tokens.pad)
    served = serve(config, auto_class, body, files, tokens)
    with architecture.aside(), open_checkpoint(files.weights) as checkpoint:
        blank = architecture.build(served.kind, served.config, 0, blank=True)
        names = (map_twice if served.warm else map_names)(blank, checkpoint)
        own_output = has_own_output(blank, checkpoint, names)
        if own_output:
            architecture.untie(blank)
        nothing = Plan({}, {}, tuple(parts(blank)), (), {})
        todo = nothing if body.init == "random" else plan(blank, body, files, checkpoint, names)
        asked = {f"body.init={body.init}": body.starts_new, **({"strategy": starts_new} if starts_new else {})}
        todo = restarted(todo, role_names(blank), asked)
        model = _start(blank, served.config, todo, seeds.stream("body"))
        fit_vocabulary(model, body, seeds, files, tokens)
        if own_output:
            architecture.untie(model)
        architecture.draw_head(model, seeds)
        _copy_body(model, checkpoint, todo)
        if body.init == "mean_var":
            known = parts(model)
            held = [name for name in (*todo.sources, *todo.converted) if known[name] == "body"]
            todo = drawn_alike(todo, model, held, seeds)
        swap = _Swap(body, files, checkpoint, names, todo, served.notes)
        placed = _place_head(model, head, swap, source_labels, labels)
        ledger = _ledger(model, swap, placed, labels)
        require_causal(model, auto_class)
        set_generation(model, served, files)
    return model.train(), ledger


def describe(body: Body, labels: Labels, auto_class: str) -> dict[str, Any]:
    """Count the parameters of body and head from the config alone; no weights are read or downloaded.

    `embeddings` are those of the body below its first layer. `model` is on the meta device: names and shapes alone.
    """
    files = body.locate(weights=False)
    config, _ = bodyconfig.make_config(body, files, labels)
    served = serve(config, auto_class, body, files, NO_TOKENS)
    with torch.device("meta"):
        model = architecture.build(served.kind, served.config, 0)
    counts = [sum(each.numel() for each in group.values()) for group in architecture.split(model)]
    roles, weights = role_names(model), dict(model.named_parameters())
    sizes = {role: weights[name].numel() for name, role in roles.items()}
    below = sum(sizes[role] for role in layer_groups(list(sizes)).get(EMBEDDINGS, ()))
    facts = {"architecture": served.kind.__name__, "model_type": config.model_type}
    return {**facts, "body": counts[0], "embeddings": below, "head": counts[1], "model": model}


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, card: str) -> None:
    """Write a plain transformers checkpoint in float32 with its tokenizer, README.md and a manifest of their hashes.

    All at once or not at all.

    What was written is read back and compared with the model, bit for bit, before it takes its name.
    """
    other = sorted({str(each.dtype) for each in model.parameters() if each.dtype != torch.float32})
    if other:
        raise WeightsError(f"{folder}: only float32 weights are saved; found {other}; call model.float() first")
    try:
        with published(folder) as draft:
            with architecture.quiet():
                model.save_pretrained(str(draft.path))
                tokenizer.save_pretrained(str(draft.path))
            (draft.path / "README.md").write_text(card, encoding="utf-8")
            prove_saved(model, draft.path)
    except OSError as error:
        raise cannot_write(folder, error) from error
    except SafetensorError as error:  # its writer's name for what the disk refused
        raise RunError(f"{folder}: cannot be written; {error}; free space or change output.root") from error


@dataclass(frozen=True)
class _Swap:
    """What the steps read."""

    body: Body
    files: BodyFiles
    checkpoint: Checkpoint
    names: NameMap
    todo: Plan
    notes: tuple[str, ...] = ()


def _start(blank: PreTrainedModel, config: PreTrainedConfig, todo: Plan, seed: int) -> PreTrainedModel:
    """Return the model whose body the checkpoint fills; where anything of it starts new, all is drawn first.

    So a tensor that the checkpoint lacks starts as it does in the random twin.
    """
    if todo.new:
        return architecture.build(type(blank), config, seed)
    architecture.finish_blank(blank, seed)
    return blank


def _copy_body(model: PreTrainedModel, checkpoint: Checkpoint, todo: Plan) -> None:
    state = model.state_dict()
    for name, value in todo.converted.items():
        state[name].copy_(value)
    for name, source in todo.sources.items():
        value, target = checkpoint.read(source), state[name]
        (target if value.dim() == 0 else target[: value.shape[0]]).copy_(value)


def _head_sources(model: PreTrainedModel, names: NameMap) -> dict[str, str]:
    """Return the checkpoint's name for each head tensor that it has, under whichever of its names."""
    tied = aliases(model)
    held = {
        name: [names.one_to_one[each] for each in tied[name] if each in names.one_to_one]
        for name in architecture.split(model)[1]
    }
    return {name: sources[0] for name, sources in held.items() if sources}


@dataclass(frozen=True)
class _Placed:
    """What the head plug did, and what it worked from."""

    names: Mapping[str, str]
    source: SourceHead
    told: Mapping[str, HeadTensor]


def _place_head(model: PreTrainedModel, head: Head, swap: _Swap, known: tuple[str, ...], labels: Labels) -> _Placed:
    """Let the plug place the head, and hold it to its word: a value it did not tell of must not have moved."""
    _, tensors = architecture.split(model)
    names = _head_sources(model, swap.names)
    held = {name: swap.checkpoint.read(stored).to(torch.float32) for name, stored in names.items()}
    source = SourceHead(held, known, swap.body.init)
    drawn = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    told = {each.name: each for each in head.place(model, {n: t.detach() for n, t in tensors.items()}, source, labels)}
    for name, tensor in tensors.items():
        each = told.get(name, HeadTensor(name, "new"))
        expected = drawn[name].clone()
        if each.fate == "kept":
            expected = source.tensors[name]
        for old, new in each.rows:
            expected[new] = source.tensors[name][old]
        if not same_bits(tensor, expected):
            raise WeightsError(
                f"head: {type(head).__name__} did not do what it told; found other values in {name} ({each.fate}); "
                "correct its place()"
            )
    return _Placed(names, source, told)


def _ledger(model: PreTrainedModel, swap: _Swap, placed: _Placed, labels: Labels) -> Ledger:
    """Compare every tensor with the file once more, hash it, and write down its fate."""
    state = model.state_dict()
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:  # hashing and comparing free the GIL
        entries = list(
            pool.map(lambda item: _entry(state[item[0]], item[0], item[1], swap, placed), parts(model).items())
        )
    broken = [entry.name for entry in entries if not is_finite(state[entry.name]) and entry.part != "buffer"]
    broken += [entry.name for entry in entries if entry.part == "buffer" and bool(state[entry.name].isnan().any())]
    if broken:
        raise WeightsError(
            f"{swap.files.folder}: {len(broken)} tensors hold NaN or infinite values; found {', '.join(broken[:3])}; "
            "the checkpoint is damaged or its training diverged: use another one"
        )
    entries += swap.todo.dropped + _dropped_heads(swap, placed)
    return Ledger(
        swap.files.origin,
        type(model).__name__,
        swap.body.init,
        tuple(entries),
        labels.names,
        *_label_fates(placed, labels),
        notes=swap.notes,
    )


def _entry(tensor: torch.Tensor, name: str, part: Any, swap: _Swap, placed: _Placed) -> Entry:
    shape, elements, sha256 = tuple(tensor.shape), tensor.numel(), tensor_sha256(tensor)
    if part == "head":
        told = placed.told.get(name, HeadTensor(name, "new"))
        source = placed.names.get(name) if told.fate != "new" else None
        copied = elements if told.fate == "kept" else len(told.rows) * (elements // max(1, tensor.shape[0]))
        dtype = swap.checkpoint.stored[source].dtype if source else None
        return Entry(name, part, told.fate, shape, elements, dtype, sha256, source, told.rows, copied)
    if name in swap.todo.converted:
        if not same_bits(tensor, swap.todo.converted[name]):
            raise _unproved(swap, name)
        note = "the file's values, rearranged by transformers"
        return Entry(name, part, "kept", shape, elements, None, sha256, None, (), elements, note)
    source = swap.todo.sources.get(name)
    if source is None:
        why = swap.todo.by_design.get(name, "")
        note = why or swap.todo.notes.get(name, "")
        return Entry(name, part, "new", shape, elements, sha256=sha256, note=note, by_design=bool(why))
    stored = swap.checkpoint.stored[source]
    held = tensor if tensor.dim() == 0 else tensor[: stored.shape[0]]
    if not same_bits(held, swap.checkpoint.read(source)):
        raise _unproved(swap, name)
    notes = [swap.todo.notes.get(name, "")] + (
        [f"{stored.dtype} as float32"] if stored.dtype in ("F16", "BF16", "F64") else []
    )
    if stored.shape != shape:
        notes.append(f"{stored.shape[0]} rows of the file and {shape[0] - stored.shape[0]} new ones")
    fate = "kept" if stored.shape == shape else "resized"
    note = ", ".join(filter(None, notes))
    return Entry(name, part, fate, shape, elements, stored.dtype, sha256, source, (), held.numel(), note)


def _unproved(swap: _Swap, name: str) -> WeightsError:
    return WeightsError(
        f"{swap.files.folder}: a body tensor is not the file's after the swap; found other bits in {name}; was the "
        "file replaced meanwhile? If not, report it"
    )


def _dropped_heads(swap: _Swap, placed: _Placed) -> tuple[Entry, ...]:
    used = {name for name, told in placed.told.items() if told.fate != "new"}
    idle = [name for name in placed.source.tensors if name not in used] if swap.body.init != "random" else []
    note = "the head starts anew"
    return tuple(dropped_entry(swap.checkpoint, placed.names[name], "head", note) for name in idle)


def _label_fates(placed: _Placed, labels: Labels) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the labels that the head took over, those it drew, and the source's that it left."""
    pairs = {pair for told in placed.told.values() for pair in told.rows}
    kept = bool(placed.told) and all(told.fate == "kept" for told in placed.told.values())
    if not pairs and not kept:
        return (), (), ()
    rows = {new for _, new in pairs} or set(range(labels.count))
    old = {old for old, _ in pairs} or set(range(len(placed.source.labels)))
    copied = tuple(name for number, name in enumerate(labels.names) if number in rows)
    new = tuple(name for number, name in enumerate(labels.names) if number not in rows)
    return copied, new, tuple(name for number, name in enumerate(placed.source.labels) if number not in old)
