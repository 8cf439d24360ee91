"""How far gradients reach: exact for a linear recurrence, logarithms where floats end, the command and its page."""

import csv
import json
import math
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from headswap import cli
from headswap.errors import ConfigError, RunError
from headswap.measure_commands import run_configs
from headswap.measures.gradient_report import fall_words, power, title
from headswap.measures.gradients import Reach, norms, shown_distances


class Linear(torch.nn.Module):
    """h_t = W h_(t-1) + e_t, so that d h_T / d e_(T-k) is W^k."""

    def __init__(self, step, readings=1):
        super().__init__()
        self.step = torch.as_tensor(step, dtype=torch.float64)
        self.table = torch.nn.Embedding(7, len(step), dtype=torch.float64)
        self.readings = readings

    def get_input_embeddings(self):
        return self.table

    def forward(self, input_ids, attention_mask):
        for _ in range(self.readings):
            embedded = self.table(input_ids)
        state, states = torch.zeros_like(embedded[:, 0]), []
        for place in range(embedded.shape[1]):
            state = state @ self.step.T + embedded[:, place]
            states.append(state)
        return SimpleNamespace(last_hidden_state=torch.stack(states, dim=1))


def tokens(length):
    return torch.arange(length)[None] % 7


def test_the_gradient_of_a_linear_recurrence_is_a_power_of_its_matrix():
    step = np.random.default_rng(3).normal(size=(5, 5)) * 0.4
    found = norms(Linear(step), tokens(40), torch.eye(5, dtype=torch.float64))
    expected = [np.linalg.norm(np.linalg.matrix_power(step, k)) for k in range(40)]
    np.testing.assert_allclose(found, np.log10(expected), atol=1e-9)


def test_along_all_directions_the_norm_is_exact_whatever_they_are_and_along_some_it_is_right_on_average():
    dice = np.random.default_rng(5)
    step = dice.normal(size=(12, 12)) * 0.25
    turned = torch.from_numpy(np.linalg.qr(dice.normal(size=(12, 12)))[0])
    exact = norms(Linear(step), tokens(10), torch.eye(12, dtype=torch.float64))
    np.testing.assert_allclose(norms(Linear(step), tokens(10), turned), exact, atol=1e-9)
    squares = [10 ** (2 * norms(Linear(step), tokens(10), part)) for part in turned.split(3)]
    np.testing.assert_allclose(np.mean(squares, axis=0), 10 ** (2 * exact), rtol=1e-9)


def test_a_norm_whose_square_no_float_holds_has_its_logarithm_and_one_that_is_none_has_minus_infinity():
    found = norms(Linear(np.diag([0.1, 0.1])), tokens(400), torch.eye(2, dtype=torch.float64))
    np.testing.assert_allclose(found[:300], [math.log10(math.sqrt(2)) - k for k in range(300)], atol=1e-6)
    assert math.isinf(found[-1]) and found[-1] < 0


def test_embeddings_that_are_read_twice_are_refused():
    with pytest.raises(RunError, match=r"not read once for each token; found 2 readings in Linear"):
        norms(Linear(np.eye(2), readings=2), tokens(4), torch.eye(2, dtype=torch.float64))


def reach(name, slope, start="random", length=64):
    curve = np.array([0.0, *(-slope * k - 1 for k in range(1, length))])
    return Reach(name, start, "Made", 1000, 900, 8, 8, {0: curve, 1: curve + 5})


def test_a_fall_is_counted_between_distance_8_and_the_first_token_whatever_stands_at_0():
    made = reach("lstm", 0.25)
    assert made.relative[0] == 0 and made.relative[10] == pytest.approx(-3.5)
    assert made.fall == pytest.approx(0.25 * ((56 + 63) / 2 - (8 + 15) / 2))  # the middles of the two windows
    assert title([made, reach("flat", 0.0)], 64) == "The gradient holds over 64 tokens in flat, and fades in the others"


@pytest.mark.parametrize(
    ("orders", "said"),
    [(112.3, "10^112 times smaller"), (1.3, "20 times smaller"), (-0.3, "2 times larger"), (0.001, "no smaller"),
     (math.inf, "smaller than float64 can write")],
)  # fmt: skip
def test_a_fall_is_said_in_words(orders, said):
    assert fall_words(orders) == said


@pytest.mark.parametrize(
    ("exponent", "said"), [(-4.5, "3.2e-5"), (-1e-9, "1.0e0"), (-400.0, "1.0e-400"), (-math.inf, "0")]
)
def test_a_power_of_ten_is_written_where_no_float_holds_it(exponent, said):
    assert power(exponent) == said


def test_distances_are_near_ones_each_and_the_farthest():
    assert shown_distances(512)[:6] == [0, 1, 2, 3, 4, 5] and shown_distances(512)[-1] == 511


def called(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main(["gradients", *words])
    return ended.value.code, capsys.readouterr()


def test_the_command_writes_json_csv_page_and_drawings(tiny_body, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [f"body=[{tiny_body}]", "body.init=random", "--length", "40", "--seeds", "2", "--directions", "4"]
    code, said = called(capsys, *words, "--out", "made")
    assert code == 0 and said.out.splitlines()[-1] == "made"
    assert "40 tokens, 2 seeds, float64, cpu" in said.out and "At initialisation the gradient" in said.out
    content = json.loads((tmp_path / "made" / "gradients.json").read_text())
    assert [len(curve) for curve in content["bodies"][0]["log10_norm"].values()] == [40, 40]
    assert content["dtype"] == "float64" and content["threads"] >= 1
    rows = list(csv.DictReader((tmp_path / "made" / "gradients.csv").read_text().splitlines()))
    assert {row["seed"] for row in rows} == {"0", "1"} and float(rows[0]["log10_relative"]) == 0
    page = (tmp_path / "made" / "gradients.html").read_text()
    assert "default-src 'none'" in page and "estimated along some directions" in page
    assert {path.name for path in (tmp_path / "made" / "figures").iterdir()} == {"reach.svg", "reach.png"}


def test_a_run_is_measured_as_it_was_drawn_and_as_it_was_trained(tiny_body, tmp_path):
    shutil.copytree(tiny_body, tmp_path / "a run" / "model")
    (tmp_path / "a run" / "result.json").write_text("{}")
    found = run_configs([str(tmp_path / "a run")], [], [])
    assert {name: config.body["init"] for name, config in found.items()} == {
        "a run": "random",
        "a run, trained": "pretrained",
    }
    with pytest.raises(ConfigError, match=r"neither an override nor a finished run's folder; found no result.json"):
        run_configs([str(tiny_body)], [], [])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--length", "128"], "--length: longer than .* has positions; found 128 for 64; give --length 64 or less"),
        (["--length", "8"], "--length: too short to see a fall; found 8; give 32 tokens or more"),
        (["--seeds", "0"], "--seeds: must be a number of 1 or more; found 0"),
        (["--out", "file"], "--out: not a folder; found the file file"),
        (["hardware.device=mps", "--length", "40"], "hardware.device: not on this machine; found 'mps'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(words, said, tiny_body, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    code, found = called(capsys, f"body=[{tiny_body}]", *words)
    assert code == 2
    assert re.search(said, found.err), found.err
