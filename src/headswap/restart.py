"""Parts of a pretrained body that begin anew all the same: as in the random twin, or drawn like the file's. Floor 2."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from transformers import PreTrainedModel

from headswap.architecture import dice
from headswap.errors import ConfigError
from headswap.gates import Plan
from headswap.seeds import Seeds

StartsNew = Callable[[Sequence[str]], Collection[str]]


def restarted(todo: Plan, roles: Mapping[str, str], asked: Mapping[str, StartsNew]) -> Plan:
    """Return `todo` without the body tensors that shall begin as in the random twin of the same seed.

    Args:
        roles: the model's parameter names -> role names.
        asked: who asks -> which of the role names shall.
    """
    names = {role: name for name, role in roles.items()}
    why: dict[str, str] = {}
    for who, choose in asked.items():
        chosen = list(choose(list(names)))
        if strange := [role for role in chosen if not (role.startswith("body.") and role in names)]:
            raise ConfigError(f"{who}: only weights of the body can begin anew; found {strange[0]}; correct starts_new")
        why |= {names[role]: f"begins anew: {who}" for role in chosen}
    return _without(todo, why)


@torch.no_grad()
def drawn_alike(todo: Plan, model: PreTrainedModel, names: Sequence[str], seeds: Seeds) -> Plan:
    """Replace body tensors by normal draws with each one's own mean and variance; return `todo` without them.

    Raghu et al. 2019 (1902.07208) call it mean-var initialisation: it keeps the scale of pretrained weights and nothing
    of what they learned. Every tensor has a stream of its own.
    """
    state = model.state_dict()
    for name in names:
        value = state[name]
        deviation, mean = torch.std_mean(value.double(), correction=0)
        with dice(seeds.stream("body", "mean_var", name)):
            value.copy_(torch.randn(value.shape) * deviation + mean)
    return _without(todo, dict.fromkeys(names, "drawn with the file's mean and variance"))


def _without(todo: Plan, why: Mapping[str, str]) -> Plan:
    kept = {name: source for name, source in todo.sources.items() if name not in why}
    converted = {name: value for name, value in todo.converted.items() if name not in why}
    new = (*todo.new, *(name for name in why if name not in todo.new))
    return dataclasses.replace(todo, sources=kept, converted=converted, new=new, notes={**todo.notes, **why})
