"""Steps, marks, rates and trainable sets are plain arithmetic; the expected values are worked out by hand."""

import pytest
import torch

from headswap.errors import ConfigError
from headswap.phases import Phase, Rule, Schedule
from headswap.schedule import evaluation_steps, moving, parameter_groups, rate_factor, spans, total_steps
from headswap.spine import TrainConfig

NAMES = ["body.layer.weight", "body.layer.bias", "head.classifier.weight", "head.classifier.bias"]


def test_steps_follow_epochs_unless_max_steps_is_given():
    assert total_steps(TrainConfig(epochs=3), 25) == 75
    assert total_steps(TrainConfig(epochs=0.5), 25) == 12
    assert total_steps(TrainConfig(epochs=0.01), 5) == 1
    assert total_steps(TrainConfig(epochs=3, max_steps=7), 25) == 7


def test_evaluations_are_log_spaced_and_end_with_the_last_step():
    assert evaluation_steps(TrainConfig(evaluations=5), 81) == [1, 3, 9, 27, 81]
    assert evaluation_steps(TrainConfig(evaluations=1), 50) == [50]
    assert evaluation_steps(TrainConfig(evaluate_every=20), 50) == [20, 40, 50]


def test_a_short_run_is_scored_as_often_as_a_long_one_as_far_as_it_has_steps():
    assert evaluation_steps(TrainConfig(evaluations=5), 6) == [1, 2, 3, 4, 6]
    for count in range(2, 20):
        for total in range(1, 100):
            steps = evaluation_steps(TrainConfig(evaluations=count), total)
            assert len(steps) == min(count, total)
            assert steps[-1] == total


def test_the_rate_climbs_to_its_peak_and_falls_to_almost_nothing():
    assert [round(rate_factor(step, 10, Schedule("linear", 0.2)), 4) for step in range(10)] == [
        0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125,
    ]  # fmt: skip
    assert rate_factor(9, 10, Schedule("constant", 0.0)) == 1.0


def test_phases_share_all_steps():
    rules = (Rule("", 1.0),)
    assert spans([Phase("a", 0.25, rules), Phase("b", 0.75, rules)], 10) == [(0, 2), (2, 10)]
    with pytest.raises(ConfigError, match="sum to 1; found"):
        spans([Phase("a", 0.5, rules)], 10)


def test_the_first_matching_rule_decides():
    phase = Phase("p", 1.0, (Rule(r"^head\.", 2.0), Rule(r"bias$", None), Rule("", 1.0)))
    assert {name: rule.factor for name, rule in moving(phase, NAMES).items()} == {
        "body.layer.weight": 1.0, "head.classifier.weight": 2.0, "head.classifier.bias": 2.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((Rule(r"^head\.", 1.0),), "no rule for 2 weights; found body.layer.weight"),
        ((Rule("encoder", 1.0), Rule("", 1.0)), "matches no weight; found 'encoder'"),
        ((Rule("", None),), "freezes every weight"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(rules, message):
    with pytest.raises(ConfigError, match=message):
        moving(Phase("p", 1.0, rules), NAMES)


def test_vectors_are_not_decayed():
    weights = {
        name: torch.nn.Parameter(torch.zeros(2, 2) if name.endswith("weight") else torch.zeros(2)) for name in NAMES
    }
    groups = parameter_groups(
        weights, dict.fromkeys(NAMES, Rule("", 1.0)), TrainConfig(weight_decay=0.1, learning_rate=2.0)
    )
    assert sorted((group["weight_decay"], len(group["params"]), group["lr"]) for group in groups) == [
        (0.0, 2, 2.0), (0.1, 2, 2.0),
    ]  # fmt: skip
