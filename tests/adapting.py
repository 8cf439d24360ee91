"""Models with a strategy's layers in them: put in, moved as training would, read back by PEFT itself."""

import contextlib
import copy
import warnings
from pathlib import Path

import torch
import transformers

from headswap import architecture
from headswap.model import role_names
from headswap.schedule import moving

IDS = torch.tensor([[5, 9, 12, 7, 2], [8, 6, 30, 11, 2]])


def heads(model) -> set[str]:
    return set(architecture.split(model)[1])


def adapted(strategy, model, seed=0):
    """Adapt in place as a run does; return what stands in the model."""
    with architecture.dice(seed):
        return strategy.adapt(model, heads(model))


def moved(strategy, model) -> list[str]:
    """Freeze and move weights as the strategy's phase says, by a random step each; return the moved names."""
    roles = role_names(model)
    (phase,) = strategy.phases(list(roles.values()))
    rules = moving(phase, list(roles.values()))
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        weight.requires_grad_(roles[name] in rules)
        if roles[name] in rules:
            with torch.no_grad():
                weight.add_(torch.empty_like(weight).normal_(0, 0.1, generator=generator))
    return [name for name in roles if roles[name] in rules]


@torch.no_grad()
def logits(model, ids=IDS, **inputs):
    answer = model.eval()(ids, **inputs)
    return answer.logits if "logits" in answer else answer.start_logits


def by_peft(model, folder: Path):
    """Load an adapter folder as any user of PEFT does, over a model whose head holds other values."""
    import peft

    fresh = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in fresh.named_parameters():
            if name in heads(model):
                weight.add_(7.0)
    with foreign():
        return peft.PeftModel.from_pretrained(fresh, str(folder))


@contextlib.contextmanager
def foreign():
    """PEFT's own class of model reads a property that transformers has renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        yield


def tied(decoder=False):
    """Return a BERT that writes in the place of masked words, or the next word, with its own embeddings."""
    kind = transformers.BertLMHeadModel if decoder else transformers.BertForMaskedLM
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20,
        max_position_embeddings=32, is_decoder=decoder,
    )  # fmt: skip
    return seeded(kind, config)


def seeded(kind, config):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return (kind.from_config if hasattr(kind, "from_config") else kind._from_config)(config)
