"""FSDP2's pieces and wholes, and accelerate's own FSDP2 on them: two gloo processes on CPUs stand in for two GPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from headswap.sharding import layer_classes, precision_policy

SCRIPT = Path(__file__).parent / "sharded_on_cpu.py"


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    """What two processes found, see sharded_on_cpu.py."""
    path = tmp_path_factory.mktemp("sharded") / "found.json"
    words = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT), str(path)]
    env = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, "-m", *words], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())


def test_weights_and_adamw_state_saved_whole_go_on_to_the_bit(found):
    assert found["world"] == 2
    assert found["saved_is_plain"]
    assert found["pieces_are_smaller"]
    assert found["moved_after_the_save"] > 1e-4
    assert found["resumed_is_bit_identical"]


def test_what_is_not_in_pieces_stays_itself(found):
    assert found["plain_stays_itself"]


def test_accelerate_trains_in_pieces_as_one_process_does_on_all_rows(found):
    assert found["apart"] < 1e-6
    assert found["norms"][0] == pytest.approx(found["norms"][1], rel=1e-5)


def test_layers_recomputed_in_the_backward_pass_give_the_same_gradient(found):
    assert found["apart_checkpointed"] < 1e-6


def test_a_second_phase_moves_its_own_weights_alone(found):
    assert found["phase_moved"] == ["classifier.weight", "classifier.bias"]


def test_bf16_sums_gradients_in_float32(found):
    loss, dtypes, expected = found["bf16"]
    assert dtypes == "torch.bfloat16 torch.float32"
    assert loss == pytest.approx(expected, rel=0.01)


def test_the_classes_to_gather_leave_out_what_holds_the_input_embedding(found):
    assert found["classes"] == ["BertLayer"]
    assert found["twice"], "accelerate no longer shards a BERT's embedding twice: layer_classes may go"


def test_a_model_that_names_no_layers_has_none_to_gather():
    class Bare(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(3, 2)

        def get_input_embeddings(self):
            return self.embedding

    assert layer_classes(Bare()) == []


def test_fp32_needs_no_policy():
    assert precision_policy("fp32") is None
    policy = precision_policy("fp16")
    assert policy is not None
    assert (policy.param_dtype, policy.reduce_dtype) == (torch.float16, torch.float32)
