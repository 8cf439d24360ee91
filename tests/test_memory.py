"""Out of memory: the same step in smaller passes where that is allowed, a remedy where it is not."""

import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

import faults
import tiny_training
from exact import BASE, Points, every, go, mismatches, wandering, without_clocks
from headswap.contracts import LossFunction, Splits
from headswap.errors import OutOfMemory
from headswap.losses import CrossEntropy
from headswap.records import RunFolder, read_json, read_jsonl
from headswap.tasks.text_classification import TextClassification
from headswap.verify import compare_runs
from tiny_runs import ran, reviews, tiny
from tiny_training import batches, model
from tiny_training import logits as logits_of

FINDING = replace(
    BASE, micro_batch_size=None, find_batch_size=True, keep="last"
)  # 12 rows a step, and a short one of 5


@dataclass(frozen=True)
class Small(CrossEntropy):
    """A loss on a device whose memory holds `room` rows."""

    room: int = 5
    error: str = "CUDA out of memory. Tried to allocate 1.00 EiB"

    def __call__(self, output, batch):
        if len(output.logits) > self.room:
            faults.injected("out of memory")
            raise torch.OutOfMemoryError(self.error)
        return super().__call__(output, batch)


@dataclass(frozen=True)
class Short(TextClassification):
    """A task on a device whose memory holds `room` rows of a pass."""

    room: int = 3

    def loss(self, splits: Splits) -> LossFunction:
        return Small(room=self.room)


def losses(left):
    return [line["loss"] for line in left.lines if line["kind"] == "train"]


@pytest.mark.parametrize("room", faults.ROOMS)
def test_the_steps_are_those_of_a_run_that_had_small_passes_from_the_start(room, tmp_path):
    """Steps of 12 rows are halved to what fits; without dropout the weights are the same to the bit."""

    def still(net):
        net.config.hidden_dropout_prob = 0.0
        for module in net.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0

    size = {11: 6, 5: 3, 2: 1, 1: 1}[room]
    judged = {"score": wandering, "metric": Points(), "change": still}
    found = go(tmp_path / "found", FINDING, loss=Small(room=room), **judged)
    given = go(tmp_path / "given", replace(BASE, micro_batch_size=size, keep="last"), **judged)
    assert losses(found) == losses(given)
    assert all(torch.equal(value, given.weights[name]) for name, value in found.weights.items())
    assert found.progress.micro_batch_size == size
    told = [line for line in found.lines if line["kind"] == "out_of_memory"]
    sizes = [line["micro_batch_size"] for line in told]
    assert sizes == [each for each in (6, 3, 1) if each >= size]
    assert all((line["step"], line["said"]) == (0, "CUDA out of memory. Tried to allocate 1.00 EiB") for line in told)


def test_the_random_numbers_of_a_repeated_step_are_its_own(tmp_path):
    """With dropout too: the masks are keyed by step and pass, not by what was drawn before."""
    found = go(tmp_path / "found", FINDING, loss=Small(room=5))
    given = go(tmp_path / "given", replace(BASE, micro_batch_size=3, keep="last"))
    assert losses(found) == losses(given)


def test_a_resume_goes_on_with_the_passes_that_fitted(tmp_path):
    straight = go(tmp_path / "straight", FINDING, loss=Small(room=5))
    train = replace(FINDING, save_every=every(1))
    go(tmp_path / "pieces", train, 3, loss=Small(room=5))
    pieces = go(tmp_path / "pieces", train, loss=Small(room=5))
    in_training = [line for line in pieces.lines if line["kind"] == "out_of_memory"]
    assert [line["step"] for line in in_training] == [0, 0]  # none after the resume
    faults.resumed(mismatches(straight, pieces))


def test_memory_that_shrinks_later_is_met_where_it_happens(tmp_path):
    """The step in which it happens is taken whole, once: examples and steps are counted as ever."""
    calls = []

    class Shrinking(Small):
        def __call__(self, output, batch):
            calls.append(len(output.logits))
            if output.logits.requires_grad and len(calls) > 8 and len(output.logits) > 6:
                faults.injected("out of memory")
                raise torch.OutOfMemoryError(self.error)
            return CrossEntropy.__call__(self, output, batch)

    left = go(tmp_path, FINDING, loss=Shrinking())
    sizes = [len(rows) for epoch in range(3) for rows in batches().epoch(epoch)]
    (told,) = [line for line in left.lines if line["kind"] == "out_of_memory"]
    assert told["step"] > 0
    trained = [line for line in left.lines if line["kind"] == "train"]
    assert [line["step"] for line in trained] == list(range(1, 9))
    assert [line["examples"] for line in trained] == np.cumsum(sizes[:8]).tolist()


@pytest.mark.parametrize("mark", [RuntimeError("not enough memory: you tried to allocate 9 bytes"), MemoryError()])
def test_the_cpu_has_its_own_words_for_it(mark, tmp_path):
    class Words(CrossEntropy):
        def __call__(self, output, batch):
            if len(output.logits) > 6:
                faults.injected("out of memory")
                raise mark
            return super().__call__(output, batch)

    assert go(tmp_path, FINDING, loss=Words()).progress.micro_batch_size == 6


@pytest.mark.parametrize(("finding", "room", "remedy"), [(False, 5, "set train.find_batch_size=true"), (True, 0, "take a smaller body or data.max_length")])  # fmt: skip
def test_what_cannot_be_made_smaller_names_the_key_and_the_remedy(finding, room, remedy, tmp_path):
    size = 1 if finding else 12
    said = f"train.micro_batch_size: does not fit into memory; found {size} examples a pass (CUDA out of memory. "
    with pytest.raises(OutOfMemory, match=re.escape(said) + ".*" + re.escape(remedy)):
        go(tmp_path, replace(FINDING, find_batch_size=finding), loss=Small(room=room))


def test_another_runtime_error_is_not_swallowed(tmp_path):
    class Bug(CrossEntropy):
        def __call__(self, output, batch):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        go(tmp_path, FINDING, loss=Bug())
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        judge(Bug(), True).score(model(), "validation")


def judge(loss, finding):
    served = replace(batches(), evaluation_size=9)
    return tiny_training.judge(served, loss, find_batch_size=finding)


@pytest.mark.parametrize("room", [8, 4, 1])
def test_scoring_goes_on_in_halves(room):
    net = model()
    whole = judge(CrossEntropy(), False).score(net, "validation")
    halved = judge(Small(room=room), True).score(net, "validation")
    assert halved.ids == whole.ids
    assert halved.answers.predictions.tolist() == whole.answers.predictions.tolist()
    torch.testing.assert_close(torch.tensor(logits_of(halved)), torch.tensor(logits_of(whole)), rtol=0, atol=1e-6)
    assert halved.values == whole.values
    assert halved.loss == pytest.approx(whole.loss, abs=1e-6)
    with pytest.raises(
        OutOfMemory, match=r"^train\.eval_batch_size: does not fit into memory; found 9 examples a pass "
    ):
        judge(Small(room=room), False).score(net, "validation")
    with pytest.raises(OutOfMemory, match=r"found 1 examples a pass .*; take a smaller body or data.max_length"):
        judge(Small(room=0), True).score(net, "validation")


@pytest.fixture(scope="module")
def words(tmp_path_factory, tiny_body):
    place = tmp_path_factory.mktemp("memory")
    plug = ["plugins=[test_memory]", "task._target_=test_memory.Short", "train.find_batch_size=true"]
    return place, reviews(place / "reviews.csv", 48), tiny_body, plug


def test_a_run_records_what_its_memory_held_and_resumes_with_it(words):
    place, table, body, plug = words
    config = tiny(table, body, place, *plug, "+task.room=3")
    assert ran(place / "straight", config)["kind"] == "finished"
    assert RunFolder(place / "straight").result()["micro_batch_size"] == 2  # of 8: 4 and 2
    assert ran(place / "pieces", config, stop_at=2)["status"] == "stopped"
    assert ran(place / "pieces", config)["kind"] == "finished"
    found = compare_runs(place / "straight", place / "pieces")
    faults.resumed([] if found.same else found.lines)
    assert RunFolder(place / "pieces").result()["micro_batch_size"] == 2
    lines = [without_clocks(line) for line in read_jsonl(place / "straight" / "metrics.jsonl")]
    assert [line["micro_batch_size"] for line in lines if line["kind"] == "out_of_memory"] == [4, 2]


def test_a_run_that_may_not_find_its_batch_size_ends_with_its_status(words):
    place, table, body, plug = words
    ended = ran(place / "plain", tiny(table, body, place, *plug, "+task.room=3", "train.find_batch_size=false"))
    assert (ended["code"], ended["status"]) == (1, "out of memory")
    about = read_json(place / "plain" / "run.json")
    assert (about["status"], about["error"]) == ("out of memory", ended["error"])
    assert ended["error"].startswith("train.micro_batch_size: does not fit into memory; found 8 examples a pass (CUDA")


def test_memory_that_ends_anywhere_else_is_out_of_memory_too(words, monkeypatch):
    """The optimizer's state, for one, is made in the first step; no smaller pass helps, and no traceback."""
    place, table, body, plug = words

    def full(*given, **named):
        faults.injected("out of memory")
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(torch.optim.AdamW, "step", full)
    ended = ran(place / "optimizer", tiny(table, body, place, *plug, "+task.room=9"))
    assert (ended["code"], ended["status"]) == (1, "out of memory")
    assert "CUDA out of memory. Tried to allocate 2.00 GiB" in ended["error"]
    assert "\n" not in ended["error"]
