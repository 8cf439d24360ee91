"""What a body starts as: every tensor is the file's, or the random twin's of the same seed, and the ledger says which."""

import pytest
import torch

from headswap.architecture import role_names
from headswap.bodies.transformer import TransformerBody
from headswap.errors import ConfigError
from headswap.heads.fresh import Fresh
from headswap.model import join
from headswap.seeds import Seeds
from headswap.strategies.reinit_top import ReinitTop
from swapping import TASK, THREE, stored, swap


def reinitialised(folder, count, **body):
    strategy = ReinitTop(count)
    given = TransformerBody(str(folder), **body), Fresh(), THREE, Seeds(0), TASK
    return join(*given, starts_new=strategy.starts_new)


def origins(model, folder):
    """Return the role names of weights that are the file's bits, and of those that are the random twin's."""
    file, twin = stored(folder), swap(folder, init="random")[0].state_dict()
    roles = {name: role for name, role in role_names(model).items() if role.startswith("body.")}
    state = model.state_dict()
    from_file = {role for name, role in roles.items() if torch.equal(state[name], file[name.removeprefix("bert.")])}
    return from_file, {role for name, role in roles.items() if torch.equal(state[name], twin[name])}


def numbered(roles, *layers):
    """Return the roles that belong to these layers; the pooler goes with the top one."""
    return {
        role for role in roles for layer in layers if f".layer.{layer}." in role or (layer == 1 and "pooler" in role)
    }


def constant(model):
    """Return the roles whose start is a constant, which file and twin may share: norms at 1, biases at 0."""
    return {role for name, role in role_names(model).items() if name.endswith("bias") or "LayerNorm" in name}


@pytest.mark.parametrize(
    ("start", "layers_from_file"),
    [
        ({"init": "embeddings_only"}, ()),
        ({"init": "keep_layers", "keep_layers": 0}, ()),
        ({"init": "keep_layers", "keep_layers": 1}, (0,)),
        ({"init": "keep_layers", "keep_layers": 2}, (0, 1)),
    ],
)
def test_layers_from_below_are_kept_and_the_others_are_the_random_twins(start, layers_from_file, tiny_body):
    model, ledger = swap(tiny_body, **start)
    roles = {role for role in role_names(model).values() if role.startswith("body.")}
    embeddings = {role for role in roles if "embeddings" in role}
    kept = embeddings | numbered(roles, *layers_from_file)
    from_file, from_twin = origins(model, tiny_body)
    assert kept <= from_file and roles - kept <= from_twin
    assert from_file - kept <= constant(model) and from_twin & kept <= constant(model)
    names = role_names(model)
    fates = {names[each.name]: each.fate for each in ledger.entries if each.part == "body"}
    assert {role for role, fate in fates.items() if fate == "kept"} == kept
    notes = {each.note for each in ledger.entries if each.part == "body" and each.fate == "new"}
    assert notes == ({f"begins anew: body.init={start['init']}"} if kept != roles else set())
    sizes = {names[name]: weight.numel() for name, weight in model.named_parameters() if name in names}
    assert ledger.coverage == pytest.approx(sum(sizes[role] for role in kept) / sum(sizes[role] for role in roles))


def test_reinit_top_is_the_complement_and_all_of_it_is_training_from_scratch(tiny_body):
    one, _ = reinitialised(tiny_body, 1)
    kept, _ = swap(tiny_body, init="keep_layers", keep_layers=1)
    none, _ = reinitialised(tiny_body, 0)
    plain, _ = swap(tiny_body)
    every, ledger = reinitialised(tiny_body, "all")
    twin, _ = swap(tiny_body, init="random")
    for left, right in ((one, kept), (none, plain), (every, twin)):
        assert all(torch.equal(*pair) for pair in zip(left.parameters(), right.parameters(), strict=True))
    assert ledger.coverage == 0.0
    assert not all(torch.equal(*pair) for pair in zip(one.parameters(), plain.parameters(), strict=True))


def test_mean_var_keeps_each_tensors_mean_and_variance_and_nothing_else(tiny_body):
    model, ledger = swap(tiny_body, init="mean_var", seed=3)
    again, _ = swap(tiny_body, init="mean_var", seed=3)
    other, _ = swap(tiny_body, init="mean_var", seed=4)
    plain, _ = swap(tiny_body, seed=3)
    file = stored(tiny_body)
    for name, value in model.bert.state_dict().items():
        if value.is_floating_point() and value.numel() > 500:
            assert value.mean().item() == pytest.approx(file[name].mean().item(), abs=4 * file[name].std().item() / 20)
            assert value.std().item() == pytest.approx(file[name].std().item(), rel=0.15), name
            assert abs(torch.corrcoef(torch.stack([value.flatten(), file[name].flatten()]))[0, 1]) < 0.2
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), again.parameters(), strict=True))
    query = "bert.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(model.get_parameter(query), other.get_parameter(query))
    assert torch.equal(model.classifier.weight, plain.classifier.weight)
    assert {each.fate for each in ledger.entries if each.part == "body"} == {"new"} and ledger.coverage == 0.0


def test_a_start_that_cannot_be_is_refused(tiny_body):
    with pytest.raises(
        ConfigError, match=r"body.keep_layers: belongs to body.init=keep_layers, which needs it; found 2"
    ):
        TransformerBody(str(tiny_body), keep_layers=2)
    with pytest.raises(ConfigError, match=r"body.keep_layers: the body has no such number of layers; found 9 of 2"):
        swap(tiny_body, init="keep_layers", keep_layers=9)
    with pytest.raises(
        ConfigError, match=r"body.init: no such start; found 'mean_vra'; choose .*did you mean mean_var"
    ):
        TransformerBody(str(tiny_body), init="mean_vra")


def test_a_strategy_may_only_restart_the_body(tiny_body):
    given = TransformerBody(str(tiny_body)), Fresh(), THREE, Seeds(0), TASK
    with pytest.raises(ConfigError, match=r"strategy: only weights of the body can begin anew; found head.classifier"):
        join(*given, starts_new=lambda names: [name for name in names if name.startswith("head.")])
