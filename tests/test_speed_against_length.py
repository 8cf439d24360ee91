"""Seconds and memory against length: what is timed, how repeats become sentences, the command and its page."""

import csv
import json
import re
import time
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from headswap import cli
from headswap.config import compose
from headswap.measures.bodies import sizes, subjects
from headswap.measures.speed import WRITTEN, Asked, Cell, grown, measure, timed, written
from headswap.measures.speed_report import against, report_of, statements, title
from tiny_bodies import saved

MIB = 2**20
ABOUT = {"devices": {"cpu": "a processor"}, "threads": 2}


def cell(body, length, *seconds, operation="train", batch=4):
    return Cell("cpu", operation, body, length, batch, batch * length, "fp32", "sdpa", seconds, 3 * MIB)


def cells():
    return [
        cell("lstm", 64, 0.5, 0.4, 0.6), cell("twin", 64, 0.4, 0.5, 0.5),
        cell("lstm", 512, 0.1, 0.2, 0.1), cell("twin", 512, 0.3, 0.4, 0.5),
    ]  # fmt: skip


def test_speed_is_that_of_the_median_repeat_and_a_ratio_the_middle_one_of_the_pairs():
    found = cells()
    assert found[0].speed == 4 * 64 / 0.5 and found[0].best == 4 * 64 / 0.4
    beside = against(found, "lstm", "twin")
    assert beside.ratios == {64: pytest.approx(0.5 / 0.6), 512: pytest.approx(3.0)}
    assert beside.senses == {64: "", 512: "faster"}


def test_the_sentence_names_device_threads_batch_and_lengths_and_claims_what_all_repeats_say():
    (said,) = statements(cells(), ABOUT)
    assert said == (
        "Training step, cpu, 2 threads, fp32: lstm is not told apart from twin at length 64 (batch 4; 510 against 510 "
        "tokens/s); lstm is 3× as fast as twin at length 512 (batch 4; 20,000 against 5,100 tokens/s). By all 3 "
        "repeats: not told apart at 64; faster at 512."
    )
    assert title(cells()) == "lstm is the fastest in a training step of 512 tokens a text on cpu"


def test_what_was_left_out_and_bodies_of_other_sizes_are_cautions():
    left = [*cells(), Cell("cpu", "decode", "twin", 64, 1, 1, "fp32", why="does not write")]
    made = report_of(left, Asked((64, 512), repeats=3), {"lstm": ("A", 120, 100), "twin": ("B", 130, 90)}, ABOUT)
    assert made.cautions[0].startswith("The bodies differ in size (parameters without embeddings: lstm 100, twin 90")
    assert made.cautions[-1] == "Left out where they cannot: twin (does not write)."
    assert [row["left_out"] for row in made.rows] == ["", "", "", "", "does not write"]


def test_time_is_that_of_the_act():
    assert 0.05 <= timed(lambda: time.sleep(0.05), "cpu") < 5


def test_memory_is_what_an_act_needs_at_its_height():
    def act():
        torch.ones(16 * MIB).sum()

    act()
    found = grown(act, "cpu")
    if found is None:
        pytest.skip("this kernel counts no peaks anew")
    assert 60 * MIB <= found <= 90 * MIB  # 16 Mi numbers of 4 bytes


def test_writing_is_timed_from_the_first_token_on():
    def generate(streamer, **given):
        streamer.put("prompt")
        time.sleep(0.4)  # reading the prompt writes the first token
        for place in range(WRITTEN):
            streamer.put(place)
            time.sleep(0.004)
        time.sleep(0.4)
        streamer.end()

    model = SimpleNamespace(config=SimpleNamespace(pad_token_id=None), generate=generate)
    assert 0.004 <= written(model, torch.ones(1, 3, dtype=torch.long)) < 0.1


@pytest.fixture(scope="module")
def two(tmp_path_factory, tiny_body):
    gpt2 = saved("gpt2", tmp_path_factory.mktemp("gpt2"), AutoModelForCausalLM)
    return {"bert": tiny_body, "gpt2": gpt2}


def test_a_body_is_left_out_where_it_cannot_write_or_has_too_few_positions(two):
    measured = subjects({name: compose(["body=transformer", f"body.source={path}"]) for name, path in two.items()})
    found = measure(measured, Asked((8, 48), tokens=32, repeats=2), "cpu")
    made = {(each.body, each.operation, each.length): each for each in found}
    assert made["bert", "decode", 8].why == "does not write: each of its states sees both sides"
    assert made["gpt2", "train", 48].why == "has 32 positions"
    assert len(made["gpt2", "decode", 8].seconds) == len(made["bert", "train", 48].seconds) == 2
    assert (made["bert", "train", 8].batch, made["bert", "train", 48].batch) == (4, 1)
    assert made["bert", "inference", 48].tokens == 48


def test_parameters_are_counted_with_and_without_embeddings(two):
    (measured,) = subjects({"gpt2": compose(["body=transformer", f"body.source={two['gpt2']}"])})
    total, rest = sizes(measured.drawn(0))
    assert total - rest == 40 * 16 + 32 * 16  # its vocabulary and its positions, times its width


def called(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main(["speed", *words])
    return ended.value.code, capsys.readouterr()


def test_the_command_writes_json_csv_page_and_drawings(tiny_body, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--lengths", "8,16", "--operations", "train,inference", "--tokens", "32", "--repeats", "2"]
    code, said = called(capsys, f"body=[{tiny_body}]", *words, "hardware=cpu", "--out", "made")
    assert code == 0 and said.out.splitlines()[-2:] == ["made/speed.html", "made"]
    rows = list(csv.DictReader((tmp_path / "made" / "speed.csv").read_text().splitlines()))
    assert [(row["operation"], row["length"], row["batch"]) for row in rows] == [
        ("train", "8", "4"), ("train", "16", "2"), ("inference", "8", "4"), ("inference", "16", "2"),
    ]  # fmt: skip
    for row in rows:
        assert float(row["tokens_per_second"]) == pytest.approx(32 / float(row["seconds_median"]))
    content = json.loads((tmp_path / "made" / "speed.json").read_text())
    assert [len(each["repeats"]) for each in content["cells"]] == [2] * 4 and content["tokens"] == 32
    assert "default-src 'none'" in (tmp_path / "made" / "speed.html").read_text()
    assert (tmp_path / "made" / "figures" / "speed.svg").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--operations", "train,fly"], "--operations: no such operation; found fly; choose train, inference, decode"),
        (["--lengths", "64,x"], "--lengths: must be a number of 1 or more; found x"),
        (["--lengths", "1"], "--lengths: a text has 2 tokens or more; found 1"),
        (["hardware.device=mps"], "hardware.device: not on this machine; found 'mps'"),
        (["--tokens", "-4"], "--tokens"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(words, said, tiny_body, capsys):
    code, found = called(capsys, f"body=[{tiny_body}]", *words)
    assert code == 2 and re.search(said, found.err), found.err
