"""Strategies are data for one loop. Expected values: the papers' formulas by hand, plain torch, the random twin's bits."""

import math
from dataclasses import replace

import pytest
import torch

from headswap.afterstep import averaged
from headswap.config import build, compose
from headswap.errors import ConfigError
from headswap.layers import layer_groups, layers
from headswap.loop import fit
from headswap.movement import movements
from headswap.phases import Adapts, Corrects, Phase, Rule, Schedule, StartsNew, Strategy
from headswap.schedule import factor_of, moving, parameter_groups, rate_factor, schedule_of, spans
from headswap.spine import TrainConfig
from headswap.strategies.bias_only import BiasOnly
from headswap.strategies.freeze import Freeze
from headswap.strategies.full import Full
from headswap.strategies.gradual import Gradual
from headswap.strategies.l2_sp import L2Sp
from headswap.strategies.layer_decay import LayerDecay
from headswap.strategies.lp_ft import LpFt
from headswap.strategies.probe import Probe
from headswap.strategies.reinit_top import ReinitTop
from headswap.study.plan import Arm, audit
from tiny_training import PLAIN, Watched, model, same, snapshot, training

NAMES = [
    "body.embeddings.word_embeddings.weight",
    "body.encoder.layer.0.output.dense.weight",
    "body.encoder.layer.0.output.dense.bias",
    "body.encoder.layer.1.output.dense.weight",
    "body.encoder.layer.1.output.dense.bias",
    "body.pooler.dense.weight",
    "head.classifier.weight",
    "head.classifier.bias",
]
TOP = [NAMES[3], NAMES[4], NAMES[5]]


def factors(phase, names=NAMES):
    return {name: rule.factor for name, rule in moving(phase, names).items()}


def fitted(strategy, train=PLAIN, net=None):
    """Train with `strategy`; return the weights before, what was seen, and the model."""
    net = net or model()
    before, watched = snapshot(net), Watched(net)
    roles = list(training(net).roles.values())
    correct = strategy.correct if isinstance(strategy, Corrects) else None
    watched.progress = fit(net, training(net, train, watched, phases=strategy.phases(roles), correct=correct))
    return before, watched, net


def test_weights_are_told_by_their_depth():
    groups = layer_groups(NAMES)
    assert list(groups) == ["embeddings", "layer 0", "layer 1", "head"]
    assert groups["layer 1"] == TOP and groups["head"] == NAMES[6:]
    assert layers(NAMES) == ["layer 0", "layer 1"]


def test_a_decoder_lies_above_its_encoder_and_looked_up_weights_below_both():
    names = [
        "body.shared.weight",
        "body.encoder.block.0.layer.0.SelfAttention.q.weight",
        "body.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "body.encoder.final_layer_norm.weight",
        "body.decoder.block.0.layer.0.SelfAttention.q.weight",
        "body.decoder.block.1.layer.0.SelfAttention.q.weight",
        "head.lm_head.weight",
    ]
    assert layer_groups(names) == {
        "embeddings": [names[0], names[2]],
        "encoder layer 0": [names[1], names[3]],
        "decoder layer 0": [names[4]],
        "decoder layer 1": [names[5]],
        "head": [names[6]],
    }


def test_layer_decay_divides_the_rate_from_layer_to_layer():
    (phase,) = LayerDecay(0.5).phases(NAMES)
    assert factors(phase) == {
        NAMES[0]: 0.125, NAMES[1]: 0.25, NAMES[2]: 0.25, NAMES[3]: 0.5, NAMES[4]: 0.5, NAMES[5]: 0.5, NAMES[6]: 1.0,
        NAMES[7]: 1.0,
    }  # fmt: skip


def test_gradual_unfreezing_adds_a_layer_a_phase_from_the_head_down():
    phases = Gradual(decay=2.0, unfreezing_share=0.6).phases(NAMES)
    assert [phase.name for phase in phases] == ["down to head", "down to layer 1", "down to layer 0", "all"]
    assert [len(moving(phase, NAMES)) for phase in phases] == [2, 5, 7, 8]
    assert factors(phases[1]) == {NAMES[6]: 1.0, NAMES[7]: 1.0, **dict.fromkeys(TOP, 0.5)}
    assert factors(phases[3])[NAMES[0]] == 0.125
    assert spans(phases, 100) == [(0, 20), (20, 40), (40, 60), (60, 100)]


def test_its_schedule_is_the_slanted_triangle_of_the_paper():
    """1801.06146, equation 3, its t counted from 1: a rate of 1 / ratio of the peak is not spent on a step."""
    schedule = schedule_of(Gradual().phases(NAMES)[0], TrainConfig())
    steps, cut_frac, ratio = 200, 0.1, 32
    cut = math.floor(steps * cut_frac)
    for step in range(steps):
        t = step + 1 if step < cut else step
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
        assert rate_factor(step, steps, schedule) == pytest.approx((1 + p * (ratio - 1)) / ratio)


def test_a_cosine_falls_by_half_a_period():
    found = [rate_factor(step, 8, Schedule("cosine", 0.0)) for step in range(8)]
    assert found == pytest.approx([0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(8)])


def test_lp_ft_lets_the_head_learn_before_the_body_moves():
    before, watched, _ = fitted(LpFt(probe_share=0.5, probe_factor=3.0))
    body = [name for name in before if name.startswith("bert.") and "position_ids" not in name]
    assert all(torch.equal(before[name], watched.weights[2][name]) for name in body)
    assert not torch.equal(before["classifier.weight"], watched.weights[0]["classifier.weight"])
    assert not any(torch.equal(before[name], watched.weights[-1][name]) for name in body if "query.weight" in name)
    assert watched.of("train", "learning_rate")[0] == pytest.approx(3.0 * PLAIN.learning_rate)  # 0.1 of 3 steps is none


def test_bias_only_moves_biases_and_the_head():
    (phase,) = BiasOnly().phases(NAMES)
    assert set(moving(phase, NAMES)) == {NAMES[2], NAMES[4], NAMES[6], NAMES[7]}
    with pytest.raises(ConfigError, match=r"strategy: this body has no biases to tune; found none"):
        BiasOnly().phases([name for name in NAMES if not name.endswith("bias") or name.startswith("head.")])


def test_freeze_holds_what_matches_and_refuses_what_matches_nothing():
    (phase,) = Freeze(["embeddings", "layer.0"]).phases(NAMES)
    assert set(moving(phase, NAMES)) == {*TOP, *NAMES[6:]}
    with pytest.raises(ConfigError, match=r"matches no weight; found 'layer.7'"):
        moving(Freeze(["layer.7"]).phases(NAMES)[0], NAMES)
    with pytest.raises(ConfigError, match=r"strategy.frozen: not a regex; found '\('"):
        Freeze(["("])


def test_l2_sp_pulls_the_body_back_after_each_step_as_plain_torch_would():
    alpha = 40.0
    before, watched, net = fitted(L2Sp(alpha))
    roles = training(net).roles
    plain = model()
    made = training(plain)
    groups = {True: [], False: []}
    for name, weight in plain.named_parameters():
        groups[roles[name].startswith("head.") and weight.ndim > 1].append(weight)
    optimizer = torch.optim.AdamW(
        [{"params": groups[decayed], "weight_decay": PLAIN.weight_decay * decayed} for decayed in groups]
    )
    plain.train()
    rows = [part for epoch in range(9) for part in made.batches.epoch(epoch)][: PLAIN.max_steps]
    for part, rate in zip(rows, watched.of("train", "learning_rate"), strict=True):
        batch = made.batches.collate("train", part)
        output = plain(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        torch.nn.functional.cross_entropy(output.logits, batch["labels"]).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), PLAIN.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for name, weight in plain.named_parameters():
                if roles[name].startswith("body."):
                    weight.sub_(rate * alpha * (weight - before[name]))
    for name, weight in plain.named_parameters():
        assert torch.allclose(weight, net.get_parameter(name), atol=1e-6), name
    assert not same(snapshot(net), snapshot(fitted(Full())[2]))


def test_a_mean_of_the_weights_is_what_is_kept():
    train = replace(PLAIN, ema=0.6)
    _, watched, net = fitted(Full(), train)
    raw = fitted(Full())[1]
    assert all(same(left, right) for left, right in zip(watched.weights, raw.weights, strict=True)), "it moves nothing"
    mean = {name: value.double() for name, value in raw.weights[0].items() if value.is_floating_point()}
    for step, weights in enumerate(raw.weights, start=1):
        share = min(0.6, step / (9 + step))
        mean = {name: share * value + (1 - share) * weights[name] for name, value in mean.items()}
    for name, value in net.state_dict().items():
        if name in mean:
            assert torch.allclose(value.double(), mean[name], atol=1e-6), name
    assert not torch.equal(net.classifier.weight, raw.weights[-1]["classifier.weight"])


def test_the_mean_is_what_validation_sees_and_the_weights_come_back():
    net = model()
    progress = fitted(Full(), replace(PLAIN, max_steps=1), net)[1].progress
    progress.average = {"classifier.bias": torch.tensor([1.0, 2.0, 3.0])}
    held = net.classifier.bias.detach().clone()
    with averaged(net, progress):
        assert net.classifier.bias.tolist() == [1.0, 2.0, 3.0]
    assert torch.equal(net.classifier.bias, held)


def test_the_best_mean_is_kept_and_validation_judged_it():
    """Scores rise, then fall: the mean of the third step is kept, and is what the third evaluation saw."""
    seen, values = [], iter([0.1, 0.2, 0.9, 0.3, 0.2, 0.1])
    net = model()
    made = training(net)

    def score(scored, split):
        seen.append(scored.classifier.bias.detach().clone())
        return replace(made.score(scored, split), values={"accuracy": next(values)})

    watched = Watched(net)
    train = replace(PLAIN, ema=0.6, keep="best", evaluate_every=1)
    fit(net, replace(training(net, train, watched), score=score))
    mean = watched.weights[0]["classifier.bias"].double()
    for step in (2, 3):
        share = min(0.6, step / (9 + step))
        mean = share * mean + (1 - share) * watched.weights[step - 1]["classifier.bias"]
    assert torch.allclose(seen[2].double(), mean, atol=1e-6)
    assert torch.equal(net.classifier.bias, seen[2])


def test_the_head_may_have_a_rate_of_its_own_in_any_strategy():
    train = TrainConfig(learning_rate=1e-4, head_learning_rate=1e-2)
    (phase,) = LayerDecay(0.5).phases(NAMES)
    found = {name: factor_of(name, rule, train) * train.learning_rate for name, rule in moving(phase, NAMES).items()}
    assert found[NAMES[6]] == pytest.approx(1e-2) and found[NAMES[5]] == pytest.approx(0.5e-4)
    weights = {name: torch.nn.Parameter(torch.zeros(2, 2)) for name in NAMES}
    rules = moving(Full().phases(NAMES)[0], NAMES)
    rates = sorted(group["lr"] for group in parameter_groups(weights, rules, train))
    assert rates == pytest.approx([1e-4, 1e-2])


def test_a_rule_can_keep_weights_from_decay():
    weights = {name: torch.nn.Parameter(torch.zeros(2, 2)) for name in NAMES}
    rules = {NAMES[0]: Rule("", 1.0, decay=False), NAMES[6]: Rule("", 1.0)}
    assert [group["weight_decay"] for group in parameter_groups(weights, rules, TrainConfig())] == [0.0, 0.01]


def test_patience_is_counted_in_the_last_phase():
    """Every evaluation after the first is worse: one phase stops after two of them, two phases reach their second."""
    scores = iter(range(100, 0, -1))
    net = model()
    made = training(net)
    judged = made.score

    def worse(scored, split):
        found = judged(scored, split)
        return replace(found, values={"accuracy": next(scores) / 100})

    train = replace(PLAIN, keep="best", patience=2, evaluate_every=1, max_steps=8)
    halves = [Phase("one", 0.5, (Rule("", 1.0),)), Phase("two", 0.5, (Rule("", 1.0),))]
    assert fit(net, replace(made, train=train, score=worse)).step == 3
    assert fit(model(), replace(training(model()), train=train, score=worse, phases=halves)).step == 6


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (lambda: LpFt(probe_share=1.0), r"strategy.probe_share: must lie between 0 and 1; found 1.0"),
        (lambda: LayerDecay(0.0), r"strategy.factor: must lie in \(0, 1\]; found 0.0"),
        (lambda: Gradual(unfreezing_share=0.0), r"strategy.unfreezing_share: must lie between 0 and 1; found 0.0"),
        (lambda: Gradual(decay=0.5), r"strategy.decay: must be 1 or more; found 0.5"),
        (lambda: L2Sp(-1.0), r"strategy.alpha: must not be negative; found -1.0"),
        (lambda: ReinitTop(3).starts_new(NAMES), r"no such number of layers; found 3 of 2; set 0 to 2, or all"),
    ],
)
def test_values_out_of_range_are_refused(strategy, message):
    with pytest.raises(ConfigError, match=message):
        strategy()


def test_what_a_strategy_offers_is_told_by_its_methods():
    everything = [Full(), Probe(), LpFt(), LayerDecay(), Gradual(), BiasOnly(), L2Sp(), ReinitTop(), Freeze()]
    assert all(isinstance(each, Strategy) for each in everything)
    assert [type(each) for each in everything if isinstance(each, Corrects)] == [L2Sp]
    assert [type(each) for each in everything if isinstance(each, StartsNew)] == [ReinitTop]
    assert not [each for each in everything if isinstance(each, Adapts)]


def test_a_plan_tells_what_moves_when_how_fast_and_how_much_of_it():
    sizes = dict(zip(NAMES, (1000, 100, 10, 200, 20, 30, 6, 3), strict=True))
    train = TrainConfig(learning_rate=1e-4, head_learning_rate=1e-3)
    phases = [
        *replace_share(Probe().phases(NAMES), 0.25),
        *replace_share(BiasOnly().phases(NAMES), 0.25),
        *replace_share(Gradual(decay=2.0).phases(NAMES)[1:2], 0.5),
    ]
    found = [
        (line.phase, line.first, line.last, line.weights, line.rate and round(line.rate, 9), line.parameters)
        for line in movements(phases, sizes, train, 40)
    ]
    assert found == [
        ("probe", 1, 10, "body", None, 1360), ("probe", 1, 10, "head", 1e-3, 9),
        ("bias_only", 11, 20, "embeddings", None, 1000), ("bias_only", 11, 20, "layer 0 to layer 1", None, 330),
        ("bias_only", 11, 20, "layer 0 to layer 1", 1e-4, 30), ("bias_only", 11, 20, "head", 1e-3, 9),
        ("down to layer 1", 21, 40, "embeddings to layer 0", None, 1110), ("down to layer 1", 21, 40, "layer 1", 5e-5, 250),
        ("down to layer 1", 21, 40, "head", 1e-3, 9),
    ]  # fmt: skip


def replace_share(phases, share):
    return [replace(phase, share=share) for phase in phases]


def test_an_arm_may_take_another_strategy_with_fields_of_its_own():
    config = compose(["study=strategies", "data.train_rows=100"])
    arms = {arm: Arm(config, arm, 50, 0, None).final() for arm in config.study.arms}
    assert arms["layer_decay"].strategy == {"_target_": "headswap.strategies.layer_decay.LayerDecay", "factor": 0.8}
    assert (arms["layer_decay"].choices["strategy"], arms["full"].choices["strategy"]) == ("layer_decay", "full")
    assert arms["discriminative"].strategy["factor"] == pytest.approx(1 / 2.6, abs=1e-3)
    audit(arms, "gradual", "full", config.study.may_differ)
    with pytest.raises(ConfigError, match=r"strategy \(.*\)|strategy\.\w+"):
        audit(arms, "gradual", "full", ["train.learning_rate"])


def test_the_arms_of_kept_layers_begin_one_layer_more_anew_each():
    config = compose(["study=kept_layers"])
    names = ["body.embeddings.weight", *(f"body.layer.{layer}.weight" for layer in range(6)), "head.weight"]
    anew = []
    for arm in config.study.arms:
        made = Arm(config, arm, 50, 0, None).final()
        strategy = build(made.strategy, "strategy", Strategy)
        assert isinstance(strategy, StartsNew)
        anew.append(list(strategy.starts_new(names)))
    assert anew == [names[7 - count : 7] for count in range(7)] + [names[:7]]
    audit(
        {arm: Arm(config, arm, 50, 0, None).final() for arm in config.study.arms}, "all_kept", "none_kept", ["strategy"]
    )
