"""FSDP2 where there is no GPU: two processes prove by gloo what sharding.py promises. A script for torch elastic.

accelerate passes over FSDP on CPUs. `shard_on_cpu` makes it take the way it takes on GPUs, all but the device: its own
`prepare`, `no_sync` and `clip_grad_norm_` then work on pieces. What was found is written to argv[1] by rank 0.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import fully_shard
from transformers import BertConfig, BertForSequenceClassification

from headswap.sharding import layer_classes, like, precision_policy, whole

Weights = dict[str, torch.Tensor]


def shard_on_cpu(accelerator: Accelerator, plugin: FullyShardedDataParallelPlugin) -> None:
    """Make an Accelerator on CPUs believe in FSDP2, as a GPU would have it."""
    accelerator.state.fsdp_plugin = plugin
    accelerator.state.distributed_type = DistributedType.FSDP
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP  # else the next state made of it forgets


def plugin(**settings: Any) -> FullyShardedDataParallelPlugin:
    return FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", reshard_after_forward=True, **settings
    )


def tiny(dropout: float = 0.0) -> Any:
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=41, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=21,
            max_position_embeddings=16, num_labels=3, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
        )
    )  # fmt: skip


def rows(step: int, micro: int, rank: int) -> dict[str, torch.Tensor]:
    dice = torch.Generator().manual_seed(100 * step + 10 * micro + rank)
    tokens = torch.randint(3, 41, (4, 8), generator=dice)
    return {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "labels": torch.randint(0, 3, (4,), generator=dice),
    }


def adamw(model: torch.nn.Module) -> torch.optim.AdamW:
    groups = [[weight for weight in model.parameters() if (weight.ndim > 1) is matrix] for matrix in (True, False)]
    return torch.optim.AdamW([{"params": group} for group in groups], lr=1e-3, fused=True)


def of(model: torch.nn.Module) -> Weights:
    return {name: whole(value.detach()).clone() for name, value in model.state_dict().items()}


def same(first: Weights, second: Weights) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def apart(first: Weights, second: Weights) -> float:
    return max((first[name] - second[name]).abs().max().item() for name in first)


def sharded(dropout: float = 0.1) -> tuple[Any, torch.optim.AdamW]:
    model = tiny(dropout)
    for layer in model.bert.encoder.layer:
        fully_shard(layer)
    fully_shard(model)
    return model, adamw(model)


def train(model: Any, optimizer: Any, steps: range, rank: int) -> None:
    for step in steps:
        torch.manual_seed(1000 * step + rank)
        model(**rows(step, 0, rank)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def resumed(rank: int) -> dict[str, Any]:
    """Six steps, and three whose whole tensors three more go on from in a new model and a new optimizer."""
    straight, optimizer = sharded()
    train(straight, optimizer, range(6), rank)
    first, optimizer = sharded()
    train(first, optimizer, range(3), rank)
    weights = of(first)
    kept = optimizer.state_dict()
    states = {place: {kind: whole(value) for kind, value in state.items()} for place, state in kept["state"].items()}
    plain = [value for state in states.values() for value in state.values()]

    second, optimizer = sharded()
    targets = second.state_dict()
    second.load_state_dict({name: like(value, targets[name]) for name, value in weights.items()})
    order = [weight for group in optimizer.param_groups for weight in group["params"]]
    again = {
        place: {kind: value if kind == "step" else like(value, order[place]) for kind, value in state.items()}
        for place, state in states.items()
    }
    optimizer.load_state_dict({"state": again, "param_groups": kept["param_groups"]})
    train(second, optimizer, range(3, 6), rank)
    return {
        "resumed_is_bit_identical": same(of(straight), of(second)),
        "moved_after_the_save": apart(weights, of(second)),
        "saved_is_plain": not any(hasattr(value, "placements") for value in [*weights.values(), *plain]),
        "pieces_are_smaller": next(second.parameters()).to_local().shape[0]
        < weights["bert.embeddings.word_embeddings.weight"].shape[0],
        "plain_stays_itself": (value := torch.ones(2)) is whole(value) is like(value, torch.zeros(2)),
    }


def reference(steps: range, world: int) -> tuple[Weights, list[float]]:
    """Train one whole model on what all processes see together, two micro-batches a step."""
    model = tiny()
    optimizer, norms = adamw(model), []
    for step in steps:
        for micro in range(2):
            for rank in range(world):
                (model(**rows(step, micro, rank)).loss / 2 / world).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.3)))
        optimizer.step()
        optimizer.zero_grad()
    return of(model), norms


def by_accelerate(accelerator: Accelerator, rank: int, *, checkpointed: bool) -> tuple[Any, Weights, list[float]]:
    """Train as the loop does, through accelerate's own FSDP2: two micro-batches a step, clipped."""
    shard_on_cpu(accelerator, plugin())
    model = tiny()
    if checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap = layer_classes(model)
    prepared, optimizer = accelerator.prepare(model, adamw(model))
    prepared.train()
    norms = []
    for step in range(3):
        with accelerator.no_sync(prepared):
            accelerator.backward(prepared(**rows(step, 0, rank)).loss / 2)
        accelerator.backward(prepared(**rows(step, 1, rank)).loss / 2)
        norms.append(float(whole(accelerator.clip_grad_norm_(list(model.parameters()), 0.3))))
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.inference_mode():
        model(**rows(0, 0, rank))
    assert prepared is model
    return model, of(model), norms


def phases(accelerator: Accelerator, model: Any, rank: int) -> list[str]:
    """Train a second phase on the same model, head alone; return what moved."""
    accelerator.free_memory()
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.startswith("classifier"))
    optimizer = torch.optim.AdamW(
        [weight for weight in model.parameters() if weight.requires_grad], lr=1e-3, fused=True
    )
    prepared, optimizer = accelerator.prepare(model, optimizer)
    before = of(model)
    prepared.train()
    accelerator.backward(prepared(**rows(7, 0, rank)).loss)
    optimizer.step()
    return [name for name, value in of(model).items() if not torch.equal(value, before[name])]


def fails_with_the_architectures_classes(accelerator: Accelerator) -> bool:
    """Whether accelerate still shards the embedding of a BERT twice when it is left to choose the classes."""
    shard_on_cpu(accelerator, plugin())
    model = tiny()
    try:
        accelerator.prepare(model, adamw(model))
    except TypeError:
        return True
    return False


def loss_in_bf16(accelerator: Accelerator, rank: int) -> tuple[float, str]:
    shard_on_cpu(accelerator, plugin(mixed_precision_policy=precision_policy("bf16")))
    model = tiny()
    accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap = layer_classes(model)
    prepared, _ = accelerator.prepare(model, adamw(model))
    output = prepared(**rows(0, 0, rank))
    accelerator.backward(output.loss)
    gradient = model.classifier.weight.grad
    return float(output.loss.detach()), f"{output.logits.dtype} {gradient.dtype}"


def main() -> None:
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True, mixed_precision="no", step_scheduler_with_optimizer=False)
    rank, world = accelerator.process_index, accelerator.num_processes
    found = {"world": world, **resumed(rank)}
    expected, norms = reference(range(3), world)
    model, weights, clipped = by_accelerate(accelerator, rank, checkpointed=False)
    found |= {"classes": layer_classes(tiny()), "apart": apart(weights, expected), "norms": [clipped, norms]}
    found["phase_moved"] = phases(accelerator, model, rank)
    accelerator.free_memory()
    _, weights, _ = by_accelerate(accelerator, rank, checkpointed=True)
    found["apart_checkpointed"] = apart(weights, expected)
    accelerator.free_memory()
    found["twice"] = fails_with_the_architectures_classes(accelerator)
    accelerator.free_memory()
    plain = float(tiny()(**rows(0, 0, rank)).loss.detach())
    found["bf16"] = [*loss_in_bf16(accelerator, rank), plain]
    if rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
