"""Tensors that FSDP2 keeps in pieces: whole ones out of them, and pieces out of whole ones. Floor 2.

A saved state and a saved model hold whole tensors, so that they do not hang on how many processes shared them. Where
nothing is in pieces, these functions give back what they were given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor

from headswap.errors import RunError


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return the whole of a tensor. All processes must call it, in the same order: they exchange their pieces."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(value: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return `value`, whole and the same on every process, in pieces as `target` is and on its device."""
    if not isinstance(target, DTensor):
        return value
    # Every process cuts its piece out of its own copy: nothing is sent.
    return distribute_tensor(value.to(target.device), target.device_mesh, target.placements, src_data_rank=None)


def at_rest(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the parameters by name, in pieces where the model is.

    After a pass without gradients FSDP2 leaves those of the outermost module whole, copies that the next pass goes on
    with: what is written then would be lost.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    return dict(model.named_parameters())


def gathered(tensors: Mapping[str, torch.Tensor], keep: bool = True) -> dict[str, torch.Tensor]:
    """Return whole tensors of what lies in pieces, on the CPU, one at a time; all processes must call it.

    Args:
        keep: whether this process wants them; it takes part in any case.
    """
    found = {}
    for name, tensor in tensors.items():
        value = tensor.detach()
        if isinstance(value, DTensor):
            value = whole(value).cpu()
        if keep:
            found[name] = value
    return found


@torch.no_grad()
def fill(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put whole tensors into a model, in pieces where it is. Raises RunError for a name that the model lacks."""
    state = model.state_dict()
    strange = [name for name in tensors if name not in state]
    if strange:
        raise RunError(
            f"checkpoint: not of this model; found weights {', '.join(strange[:3])}; remove the run's folder and train "
            f"again"
        )
    for name, value in tensors.items():
        state[name].copy_(like(value, state[name]))


def layer_classes(model: Any) -> list[str]:
    """Return the names of the layers that FSDP2 gathers one at a time: the architecture's own but for the embeddings.

    accelerate 1.15 shards the input embedding by itself, after these. BERT, RoBERTa and their kin name the module
    around it as well (`BertEmbeddings`), and torch then fails because the embedding's weight is in pieces already.
    """
    names = set(getattr(model, "_no_split_modules", None) or ())
    embedding = model.get_input_embeddings()
    layers = [module for module in model.modules() if type(module).__name__ in names]
    around = {type(layer).__name__ for layer in layers if any(part is embedding for part in layer.modules())}
    return sorted({type(layer).__name__ for layer in layers} - around)


def precision_policy(name: str) -> MixedPrecisionPolicy | None:
    """Return how FSDP2 computes in `name` (fp32, bf16, fp16); gradients are summed over the processes in float32.

    accelerate's own policy sums them in bf16 too, which DDP under autocast does not.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name)
    return None if dtype is None else MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
