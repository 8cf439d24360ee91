"""What training changed in a body, layer by layer: how far its weights went, how alike its outputs are. Floor 3.

    measured() -> the start, made once more -> relative_changes() of weights, likeness() of outputs -> body.json

All of it happens after training and scoring. The starting weights are not kept meanwhile: they follow from the
checkpoint, the seed and the strategy, so the head swap makes them again, also where a run was stopped and gone on with;
the ledger's hash says that they are the same. So training costs neither memory nor a bit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headswap.architecture import role_names
from headswap.errors import HeadswapError, Stopped
from headswap.hardware import is_out_of_memory
from headswap.layers import EMBEDDINGS, HEAD, layer_groups
from headswap.ledger import Ledger
from headswap.training import Training

SAMPLE = 128  # texts: 256 would cost a short fine-tuning 3 % of its time instead of 1.5
FEWEST = 4  # texts that the unbiased estimator needs
_SLICE = 1 << 18  # elements compared at a time: no second copy of an embedding

Groups = Mapping[str, Sequence[str]]
"""Layer -> the names of its parameters, from below."""


class Unmeasured(Exception):
    """Why something of a body's change is not known."""


def measured(model: Any, training: Training, ledger: Ledger, again: Callable[[], tuple[Any, Ledger]]) -> dict[str, Any]:
    """Return what body.json holds: what cannot be measured is null, with the reason; no finished run is lost to it.

    Args:
        model: plain, with the weights that were scored.
        ledger: of the start.
        again: makes the start once more, with its ledger.

    Raises:
        Stopped: somebody asked for it.
    """
    groups = body_groups(model)
    if not any(role.startswith("body.") for role in training.ever_moving):
        still = dict.fromkeys(groups, 0.0), dict.fromkeys(groups, 1.0)
        return _report(model, groups, *still, absent="", moved=False)
    try:
        start = _start(model, ledger, again)
    except Unmeasured as why:
        return _report(model, groups, {}, {}, absent=str(why))
    changes = relative_changes(start, model, groups)
    places = sample(len(training.batches.of("validation")))
    try:
        return _report(model, groups, changes, likeness(start, model, training, places), texts=len(places))
    except Unmeasured as why:
        return _report(model, groups, changes, {}, absent=f"no outputs were compared: {why}")


def body_groups(model: Any) -> dict[str, list[str]]:
    """Return the names of the body's parameters by layer."""
    names = {role: name for name, role in role_names(model).items()}
    groups = layer_groups(list(names))
    return {layer: [names[role] for role in members] for layer, members in groups.items() if layer != HEAD}


@torch.no_grad()
def relative_changes(start: Any, model: Any, groups: Groups) -> dict[str, float]:
    """Return |end - start| / |start| over all weights of each layer; a layer that starts at zero is left out."""
    before, after = dict(start.named_parameters()), dict(model.named_parameters())
    found = {}
    for layer, names in groups.items():
        moved = size = 0.0
        for name in names:
            for first, last in zip(*(each[name].reshape(-1).split(_SLICE) for each in (before, after)), strict=True):
                moved += float(torch.linalg.vector_norm(last.cpu() - first.cpu())) ** 2
                size += float(torch.linalg.vector_norm(first)) ** 2
        if size:
            found[layer] = (moved / size) ** 0.5
    return found


def likeness(start: Any, model: Any, training: Training, places: NDArray[np.integer]) -> dict[str, float]:
    """Return the debiased CKA of each layer's outputs at the start and at the end, on the same texts.

    Layers whose outputs are not one vector a token, or are the same for every text, are left out.

    Raises:
        Unmeasured: too few texts, weights in pieces, or no memory.
        Stopped: somebody asked for it.
    """
    if len(places) < FEWEST:
        raise Unmeasured(f"{FEWEST} validation texts are needed, there are {len(places)}")
    if training.hardware.in_pieces or training.hardware.by_deepspeed:
        raise Unmeasured("this engine shares the weights or their optimizer among processes")
    try:
        first, last = (layer_outputs(each, training, places) for each in (start, model))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise Unmeasured("a pass over the texts did not fit into memory") from error
    found = {layer: cka(first[layer], last[layer]) for layer in first if layer in last}
    return {layer: value for layer, value in found.items() if value is not None}


def cka(first: NDArray, second: NDArray) -> float | None:
    """Return the debiased linear CKA of two sets of vectors of the same texts, None where one set is constant.

    Kornblith et al. 2019 (1905.00414): HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), K and L the inner products of the
    centred vectors. HSIC is the unbiased estimator of Song et al. 2012: with zero diagonals,
    [tr KL + sum K sum L / ((n-1)(n-2)) - 2 sum KL / (n-2)] / (n(n-3)). The biased one comes near 1 for any two sets
    that have fewer texts than dimensions (Murphy et al. 2024, 2405.01012).

    Args:
        first: [texts, width]; the other may have another width. At least 4 texts.
    """
    grams = []
    for vectors in (first.astype(np.float64), second.astype(np.float64)):
        centred = vectors - vectors.mean(axis=0)
        if np.linalg.norm(centred) <= 1e-6 * np.linalg.norm(vectors):  # only rounding is left
            return None
        grams.append(centred @ centred.T)
        np.fill_diagonal(grams[-1], 0.0)
    (own, both), (_, other) = ([_hsic(each, beside) for beside in grams] for each in grams)
    return both / (own * other) ** 0.5 if own > 0 and other > 0 else None


def _hsic(first: NDArray, second: NDArray) -> float:
    count = len(first)
    ends = first.sum() * second.sum() / ((count - 1) * (count - 2))
    middle = 2 * (first.sum(axis=0) @ second.sum(axis=0)) / (count - 2)
    return float(((first * second).sum() + ends - middle) / (count * (count - 3)))


def sample(count: int) -> NDArray[np.integer]:
    """Return which of `count` texts are compared: all of them, or 128 at even distances."""
    return np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).round().astype(int))


@torch.inference_mode()
def layer_outputs(model: Any, training: Training, places: NDArray[np.integer]) -> dict[str, NDArray]:
    """Return each layer's outputs for validation texts, the mean over a text's tokens: layer -> [texts, width].

    `embeddings` is what enters the first layer. Raises Stopped when somebody asked for it.
    """
    batches, hardware, stop = training.batches, training.hardware, training.keeper.stop
    rows = places[np.argsort(-batches.of("validation").lengths[places], kind="stable")]
    modules, placed = layer_modules(model), hardware.place(model)
    placed.eval()
    found: dict[str, list[Any]] = {}
    for first in range(0, len(rows), batches.evaluation_size):
        if stop.reason:
            raise Stopped(f"stopped by {stop.reason} while the body's change was measured")
        batch = hardware.move(batches.collate("validation", rows[first : first + batches.evaluation_size]))
        with listening(modules) as heard:
            training.forward(placed, batch)
        for layer, states in heard.items():
            found.setdefault(layer, []).append(_means(states, _mask(layer, batch)))
    hardware.plain(placed)
    return {layer: np.concatenate(parts) for layer, parts in found.items() if all(part is not None for part in parts)}


def layer_modules(model: Any) -> dict[str, torch.nn.Module]:
    """Return the module of each layer, from below; a layer that is no module of its own is left out."""
    found = {}
    for layer, names in body_groups(model).items():
        number = layer.split()[-1]
        roots = {match[1] for name in names if (match := re.match(rf"(.*?\.{number})\.", name))}
        if layer != EMBEDDINGS and len(roots) == 1:
            found[layer] = model.get_submodule(roots.pop())
    return found


@contextmanager
def listening(modules: Mapping[str, torch.nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """Yield what will hold the outputs of one pass: of a layer that is passed several times, those of the last."""
    heard: dict[str, torch.Tensor] = {}

    def enter(module: Any, given: tuple, named: dict[str, Any]) -> None:
        states = next((each for each in (*given, *named.values()) if isinstance(each, torch.Tensor)), None)
        if states is not None:
            heard.setdefault(EMBEDDINGS, states)

    def leave(layer: str) -> Callable[[Any, Any, Any], None]:
        def hear(module: Any, given: Any, output: Any) -> None:
            heard[layer] = output[0] if isinstance(output, tuple) else output

        return hear

    with ExitStack() as stack:
        for place, (layer, module) in enumerate(modules.items()):
            if place == 0:
                stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(leave(layer)).remove)
        yield heard


def _mask(layer: str, batch: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """Return which tokens of a batch are real, [texts, tokens]: a decoder's are those of the targets."""
    if layer.startswith("decoder "):
        return batch["labels"] != -100 if "labels" in batch else None
    mask = batch.get("attention_mask")
    return None if mask is None else mask.reshape(-1, mask.shape[-1])  # choices stand side by side in a batch


def _means(states: Any, mask: torch.Tensor | None) -> NDArray | None:
    if mask is None or not isinstance(states, torch.Tensor) or states.dim() != 3 or states.shape[:2] != mask.shape:
        return None
    weight = mask.to(torch.float32).unsqueeze(-1)
    return ((states.float() * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)).cpu().numpy()


def _start(model: Any, ledger: Ledger, again: Callable[[], tuple[Any, Ledger]]) -> Any:
    """Return the model as it was before the first step. Raises Unmeasured where it cannot be had any more."""
    try:
        start, found = again()
    except (HeadswapError, OSError) as error:
        raise Unmeasured(f"the start could not be made again: {error}") from error
    if found.body_sha256 != ledger.body_sha256:
        raise Unmeasured("the start could not be made again: the body's files changed while the run trained")
    start.set_attn_implementation(model.config._attn_implementation)
    return start


def _report(
    model: Any,
    groups: Groups,
    changes: Mapping[str, float],
    alike: Mapping[str, float],
    *,
    texts: int = 0,
    absent: str = "",
    moved: bool = True,
) -> dict[str, Any]:
    weights = dict(model.named_parameters())
    layers = [
        {
            "layer": layer,
            "weights": sum(weights[name].numel() for name in names),
            "relative_change": changes.get(layer),
            "cka": alike.get(layer),
        }
        for layer, names in groups.items()
    ]
    return {"moved": moved, "texts": texts, "absent": absent, "layers": layers}
