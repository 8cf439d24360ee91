"""Probes in little on frozen bodies of many families: served from tables, or computed as ever."""

import functools
from dataclasses import replace

import torch
from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification

from exact import Points, wandering
from headswap.architecture import body_modules
from headswap.encoded import Padding
from headswap.frozen import Frozen
from headswap.loop import fit
from headswap.losses import CrossEntropy
from headswap.strategies.probe import Probe
from tiny_bodies import SETTINGS
from tiny_training import PLAIN, TASK, batches, hardware, snapshot, training

PROBE = Probe().phases([])
STILL = {"phases": PROBE, "score": wandering, "metric": Points()}
TOLERANCE = {"rtol": 0, "atol": 1e-5}


def net_of(kind, auto=AutoModelForSequenceClassification, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return auto.from_config(CONFIG_MAPPING[kind](**SETTINGS[kind] | {"num_labels": 3} | settings))


def served(change=lambda encoded: encoded, side="right", **more):
    """Return batches whose padding is what the tiny families pad with; `change` is made to every split."""
    made, padding = batches(**more), Padding({"input_ids": 1, "labels": -100}, side)
    rows = {name: change(replace(rows, padding=padding)) for name, rows in made.encoded.items()}
    return replace(made, encoded=rows)


def ended(encoded):
    """End each row as T5 asks for."""
    tokens, offsets = encoded.columns["input_ids"]
    tokens[offsets[1:] - 1] = 2
    return encoded


def frozen_on(cache, given, facts=None, **more):
    fields = {"task": TASK, "loss": CrossEntropy(), "hardware": hardware(), "about": {"weights": "tiny"}, **more}
    return Frozen(batches=given, cache=cache, note=(facts if facts is not None else {}).update, **fields)


def calls_of(net):
    """Return a list that grows with every batch that the body computes."""
    base, seen = body_modules(net)[0], []
    compute = base.forward

    @functools.wraps(compute)
    def counted(*args, **named):
        seen.append(1)
        return compute(*args, **named)

    base.forward = counted
    return seen


def learned(net, given, frozen=None, train=PLAIN, **changed):
    """Train the head of `net`; return its weights afterwards."""
    made = training(net, train, frozen=frozen, **{**STILL, **changed})
    fit(net, replace(made, batches=given))
    return snapshot(net)


def assert_close(first, second):
    assert all(torch.allclose(value, second[name], **TOLERANCE) for name, value in first.items())
