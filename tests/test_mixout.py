"""Mixout: the paper's equation by hand, means and gradients, copies, and a plain model at the end."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, GPT2Config, XLNetConfig
from transformers.pytorch_utils import Conv1D

from adapting import IDS, adapted, heads, logits, seeded, tied
from headswap.config import compose
from headswap.errors import ConfigError
from headswap.model import role_names
from headswap.strategies.mixout import Mixout
from swapping import swap
from tiny_runs import ran, reviews, tiny

WEIGHT = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])  # 2 outputs x 3 inputs
START = torch.tensor([[0.5, 1.0, -1.0], [0.0, 2.0, 8.0]])


@pytest.fixture
def model(tiny_body):
    return swap(tiny_body, pad_token_id=0)[0]


class Layered(nn.Module):
    """A model of one layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer


def layer_of(strategy, kind=nn.Linear):
    """Return a mixed layer that started at START and stands at WEIGHT; a Conv1D holds them transposed."""
    layer = nn.Linear(3, 2) if kind is nn.Linear else Conv1D(2, 3)
    turned = (lambda each: each) if kind is nn.Linear else torch.t
    with torch.no_grad():
        layer.weight.copy_(turned(START))
        layer.bias.copy_(torch.tensor([0.25, -0.5]))
        strategy.adapt(Layered(layer), ())
        layer.weight.copy_(turned(WEIGHT))
    return layer


def fix(monkeypatch, mask):
    """Let dropout hit where `mask` is 1, in the form that it is asked for."""
    kept = 1 - torch.tensor(mask, dtype=torch.float32)
    monkeypatch.setattr(functional, "dropout", lambda ones, p: ones * kept.view(ones.shape) / (1 - p))


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
def test_a_mixed_neuron_reads_with_its_pretrained_weights_as_in_the_papers_equation(monkeypatch, kind):
    layer = layer_of(Mixout(0.75), kind)
    fix(monkeypatch, [0, 1, 0])
    values = torch.eye(3)
    # (M u + (1 - M) w - 0.75 u) / 0.25 by hand: the columns of inputs 0 and 2 are u + 4 (w - u), that of input 1 is u
    by_hand = torch.tensor([[2.5, 1.0, 15.0], [16.0, 2.0, 0.0]])
    torch.testing.assert_close(layer(values), by_hand.t() + torch.tensor([0.25, -0.5]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
def test_mixed_by_weight_each_has_its_own_chance(monkeypatch, kind):
    layer = layer_of(Mixout(0.5, "weight"), kind)
    mask = [[1, 0, 0], [0, 0, 1]]
    fix(monkeypatch, mask if kind is nn.Linear else torch.tensor(mask).t().tolist())
    mixed = torch.tensor(mask, dtype=torch.float32)
    paper = (mixed * START + (1 - mixed) * WEIGHT - 0.5 * START) / 0.5
    torch.testing.assert_close(layer(torch.eye(3)), paper.t() + torch.tensor([0.25, -0.5]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("unit", ["neuron", "weight"])
def test_the_mean_of_many_passes_is_the_weight_itself_and_the_share_mixed_is_p(unit):
    layer = layer_of(Mixout(0.7, unit))
    torch.manual_seed(0)
    with torch.no_grad():
        passes = torch.stack([layer(torch.eye(3)) - layer.bias for _ in range(4000)]).transpose(1, 2)
    spread = (WEIGHT - START).abs() * (0.7 / 0.3) ** 0.5  # the standard deviation of one pass
    assert bool(((passes.mean(0) - WEIGHT).abs() < 4 * spread / 4000**0.5 + 1e-6).all())
    share = (passes - START).abs().lt(1e-5).float().mean(0)
    assert bool(((share - 0.7).abs() < 4 * (0.21 / 4000) ** 0.5).all())
    together = (passes - START).abs().lt(1e-5).float().std(dim=1).amax()
    assert (together == 0) == (unit == "neuron")


def test_the_gradient_is_that_of_the_equation(monkeypatch):
    layer = layer_of(Mixout(0.75))
    fix(monkeypatch, [0, 1, 0])
    values, heights = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, -2.0]])
    layer(values).backward(heights)
    # d/dw of a column is (1 - M) / (1 - p) of the plain one: outer(heights, values) x 4, and 0 where mixed
    torch.testing.assert_close(layer.weight.grad, torch.tensor([[4.0, 0.0, 12.0], [-8.0, 0.0, -24.0]]))
    torch.testing.assert_close(layer.bias.grad, heights[0])


def test_at_p_0_and_in_evaluation_it_is_the_plain_model_to_the_bit(model):
    plain = copy.deepcopy(model)
    adapted(Mixout(0.0), model)
    shift(model, plain)
    assert torch.equal(trained(model), trained(plain))
    other = copy.deepcopy(plain)
    adapted(Mixout(0.9), other)
    assert torch.equal(logits(other), logits(plain))
    assert not torch.equal(trained(shift(other)), trained(shift(plain)))


def test_training_starts_at_the_pretrained_model(model):
    plain = copy.deepcopy(model)
    adapted(Mixout(), model)
    for each in (model, plain):
        without_dropout(each)
    assert torch.equal(model.train()(IDS).logits, plain.train()(IDS).logits)


def shift(*models):
    """Move all weights alike, as training would."""
    for model in models:
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.empty_like(weight).normal_(0, 0.1, generator=generator))
    return models[0]


def trained(model):
    torch.manual_seed(6)
    return model.train()(IDS).logits


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def test_names_stay_and_every_weight_moves(model):
    names, state = role_names(model), list(model.state_dict())
    adapted(Mixout(), model)
    assert role_names(model) == names and list(model.state_dict()) == state
    (phase,) = Mixout().phases(list(names.values()))
    assert [(rule.pattern, rule.factor) for rule in phase.rules] == [("", 1.0)]


def test_the_bodys_linear_layers_mix_and_nothing_else_does(model):
    adapted(Mixout(), model)
    mixed = {name for name, module in model.named_modules() if "forward" in vars(module)}
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert mixed == linear - {"classifier"} and len(mixed) == 2 * 6 + 1


def test_an_output_layer_that_is_the_embeddings_once_more_does_not_mix():
    model = tied()
    adapted(Mixout(), model)
    assert "forward" not in vars(model.cls.predictions.decoder)
    assert "cls.predictions.transform.dense.weight" in heads(model)
    assert "forward" not in vars(model.cls.predictions.transform.dense)


def test_a_copy_mixes_its_own_weights(model):
    adaptation = adapted(Mixout(), model)
    twin = shift(copy.deepcopy(model))
    query = twin.bert.encoder.layer[0].attention.self.query
    assert query.forward.__self__ is query
    trained(twin).sum().backward()
    assert query.weight.grad.abs().sum() > 0
    assert model.bert.encoder.layer[0].attention.self.query.weight.grad is None
    both, its = copy.deepcopy((model, adaptation))
    its.remove()
    assert not any("forward" in vars(module) for module in both.modules())
    assert "forward" in vars(model.bert.encoder.layer[0].attention.self.query)


def test_the_same_dice_mix_alike_and_autocast_computes_in_its_precision(model):
    adapted(Mixout(), model)
    shift(model)
    assert torch.equal(trained(model), trained(model))
    exact = trained(model)
    with torch.autocast("cpu", torch.bfloat16):
        assert trained(model).dtype == torch.bfloat16
        torch.testing.assert_close(trained(model).float(), exact, rtol=0.1, atol=0.1)


def test_taken_out_it_leaves_a_plain_model(model, tmp_path):
    plain = copy.deepcopy(model)
    adaptation = adapted(Mixout(), model)
    shift(model, plain)
    adaptation.save(tmp_path / "adapter")
    adaptation.remove()
    assert not (tmp_path / "adapter").exists()
    assert all(
        vars(one).keys() == vars(other).keys() for one, other in zip(model.modules(), plain.modules(), strict=True)
    )
    assert torch.equal(trained(model), trained(plain))


def test_a_body_that_computes_in_another_way_is_refused():
    config = XLNetConfig(vocab_size=40, d_model=16, n_layer=1, n_head=2, d_inner=20)
    model = seeded(AutoModelForSequenceClassification, config)
    with pytest.raises(
        ConfigError, match=r"strategy: mixout mixes nn.Linear and Conv1D; found .*mask_emb.* in XLNetFor"
    ):
        adapted(Mixout(), model)
    gpt2 = seeded(AutoModelForSequenceClassification, GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2))
    assert len(adapted(Mixout(), gpt2).layers) == 4


def test_a_setting_that_cannot_be_is_refused_at_once():
    with pytest.raises(ConfigError, match=r"strategy.probability: must be from 0 to below 1; found 1.0"):
        compose(["strategy=mixout", "strategy.probability=1.0"])
    with pytest.raises(ConfigError, match=r"strategy.unit: no such unit; found 'row'; choose neuron or weight"):
        compose(["strategy=mixout", "strategy.unit=row"])


def test_a_stopped_run_goes_on_to_the_same_bits_and_leaves_a_plain_model(tiny_body, tmp_path):
    config = tiny(reviews(tmp_path / "reviews.csv"), tiny_body, tmp_path, "strategy=mixout", "train.micro_batch_size=4")
    assert ran(tmp_path / "straight", config)["kind"] == "finished"
    assert ran(tmp_path / "stopped", config, stop_at=2)["status"] == "stopped"
    assert ran(tmp_path / "stopped", config)["kind"] == "finished"
    straight, stopped = (
        (tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("straight", "stopped")
    )
    assert straight == stopped
    assert not (tmp_path / "straight" / "adapter").exists()
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "straight" / "model")
    assert model(IDS).logits.shape == (2, 2)
    full = tiny(reviews(tmp_path / "reviews.csv"), tiny_body, tmp_path, "train.micro_batch_size=4")
    assert ran(tmp_path / "full", full)["kind"] == "finished"
    assert (tmp_path / "full" / "model" / "model.safetensors").read_bytes() != straight
