"""What a saved state is made of: plain safetensors and JSON that the library itself reads, equal to the live tensors."""

import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, load_file

from exact import BASE, TWO_PHASES, go
from headswap.checkpoint import Checkpoints, State, read_state, safetensors_bytes
from headswap.checkpoint import load as load_state
from headswap.durable import verify
from headswap.spine import SaveConfig

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
]  # fmt: skip
SHAPES = {
    "0-d": lambda: torch.tensor(3),
    "one": lambda: torch.ones(1),
    "vector": lambda: torch.arange(7),
    "empty": lambda: torch.empty(0),
    "empty with a shape": lambda: torch.empty(3, 0, 2),
    "matrix": lambda: torch.arange(12).reshape(3, 4),
    "transposed": lambda: torch.arange(12).reshape(3, 4).T,
    "strided": lambda: torch.arange(24).reshape(4, 6)[1::2, ::3],
    "expanded": lambda: torch.arange(3).expand(4, 3),
    "channels last": lambda: torch.arange(48).reshape(1, 3, 4, 4).contiguous(memory_format=torch.channels_last),
    "offset view": lambda: torch.arange(20)[5:],
}


def written(tensors) -> bytes:
    return b"".join(bytes(piece) for piece in safetensors_bytes(tensors))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_dtype_and_shape_is_read_back_by_the_library(shape, dtype):
    tensor = SHAPES[shape]().to(dtype)
    content = written({"it": tensor, "a/b.c": torch.ones(3)})
    (length,) = [int.from_bytes(content[:8], "little")]
    assert length % 8 == 0  # the data starts aligned
    found = load(content)
    assert found.keys() == {"it", "a/b.c"}
    assert (found["it"].dtype, found["it"].shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(found["it"], tensor)


def test_numbers_that_are_none_keep_their_bits():
    odd = torch.tensor([math.nan, math.inf, -math.inf, -0.0, 1e-45, 3.4e38])
    found = load(written({"odd": odd}))["odd"]
    assert torch.equal(found.view(torch.int32), odd.view(torch.int32))


def test_a_parameter_with_a_gradient_is_saved_without_it():
    weight = torch.nn.Parameter(torch.randn(4, 4))
    weight.sum().backward()
    assert torch.equal(load(written({"w": weight}))["w"], weight.detach())


def test_no_tensors_are_a_whole_file_too(tmp_path):
    (tmp_path / "none.safetensors").write_bytes(written({}))
    assert load_file(tmp_path / "none.safetensors") == {}


def test_the_files_of_a_state_hold_the_live_tensors(tmp_path):
    left = go(tmp_path, BASE, 5)
    place = tmp_path / "checkpoint" / "step-00000005"
    assert {path.name for path in place.iterdir()} == {
        "model.safetensors", "optimizer.safetensors", "state.json", "manifest.json",
    }  # fmt: skip
    weights = load_file(place / "model.safetensors")
    assert weights.keys() == left.weights.keys()
    assert all(torch.equal(value, left.weights[name]) for name, value in weights.items())
    moments = load_file(place / "optimizer.safetensors")
    kinds = {"exp_avg", "exp_avg_sq", "step"}
    assert moments.keys() == {f"{kind}/{name}" for kind in kinds for name in weights}
    assert all(value == 5 for name, value in moments.items() if name.startswith("step/"))
    assert all((value >= 0).all() for name, value in moments.items() if name.startswith("exp_avg_sq/"))
    state = read_state(place)
    assert (state["step"], state["progress"]["step"], state["scale"]) == (5, 5, None)
    json.dumps(state, allow_nan=False)
    verify(place)


def test_the_state_of_a_second_phase_holds_the_optimizer_of_that_phase_alone(tmp_path):
    go(tmp_path, BASE, 6, phases=TWO_PHASES)
    with safe_open(tmp_path / "checkpoint" / "step-00000006" / "optimizer.safetensors", "pt") as file:
        assert all(file.get_tensor(name) == 2 for name in file.keys() if name.startswith("step/"))  # noqa: SIM118


def test_a_state_is_what_was_saved(tmp_path):
    tensors = {"w": torch.randn(3, 5).bfloat16(), "n": torch.tensor(7)}
    state = State(12, {"metrics_lines": 3, "x": [1, None]}, tensors, {"m/w": tensors["w"]}, {"w": tensors["w"] + 1}, 9)
    checkpoints = Checkpoints(tmp_path, SaveConfig(), lambda event: None)
    assert checkpoints.save(state)
    found = load_state(tmp_path / "step-00000012")
    assert (found.step, found.best_step, found.facts) == (12, 9, {"metrics_lines": 3, "x": [1, None]})
    for one, other in ((state.weights, found.weights), (state.optimizer, found.optimizer), (state.best, found.best)):
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in one.items())
