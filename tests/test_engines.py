"""What is written for accelerate launch, taken as far as it goes without GPUs.

accelerate's own parser resolves the file, and its own plugins are made under what came out.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from headswap.config import compose
from headswap.engines import (
    accelerate_config,
    engine_environment,
    refuse_other_launchers,
)
from headswap.errors import ConfigError
from headswap.prepare import accelerate_yaml
from headswap.spine import Config

FSDP2, DEEPSPEED = ["hardware=fsdp2"], ["hardware=deepspeed", "train.save_every.seconds=null"]
TWO_MACHINES = [
    "hardware=multi",
    "hardware.launcher=accelerate",
    "hardware.num_machines=2",
    "hardware.num_processes=16",
]


@pytest.fixture(autouse=True)
def a_clean_environment(monkeypatch):
    """Trainings of other tests in this process have said that they use the CPU."""
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)


def resolved(config: Config, folder: Path, *words: str) -> tuple[Any, dict[str, str]]:
    """Return the arguments and the environment that `accelerate launch --config_file` comes to, by its own code."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    path = folder / "accelerate.yaml"
    path.write_text(accelerate_yaml(config))
    given = launch_command_parser().parse_args(["--config_file", str(path), *words, "-m", "headswap.worker", "RUN"])
    args, defaults, _ = _validate_launch_command(given)
    if not args.use_deepspeed:
        return args, prepare_multi_gpu_env(args)
    args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    command, environment = prepare_deepspeed_cmd_env(args)
    assert command is None  # torch's launcher starts the processes, not DeepSpeed's own
    return args, environment


def under(monkeypatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        if name.startswith(("ACCELERATE_", "FSDP_")):
            monkeypatch.setenv(name, value)


def fsdp_plugin() -> dict[str, Any]:
    from accelerate.utils import FullyShardedDataParallelPlugin

    plugin = FullyShardedDataParallelPlugin()
    policy = getattr(plugin.auto_wrap_policy, "__name__", plugin.auto_wrap_policy)
    return {**vars(plugin), "auto_wrap_policy": policy, "cpu_offload": type(plugin.cpu_offload).__name__}


def test_fsdp2_comes_out_as_version_2_of_accelerates_plugin(monkeypatch, tmp_path):
    args, environment = resolved(compose(FSDP2), tmp_path)
    assert (args.use_fsdp, args.num_processes, args.nproc_per_node, args.module) == (True, 8, "8", True)
    under(monkeypatch, environment)
    plugin = fsdp_plugin()
    assert plugin["fsdp_version"] == 2
    assert plugin["reshard_after_forward"] is True
    assert plugin["auto_wrap_policy"] == "transformer_auto_wrap_policy"
    assert plugin["state_dict_type"].name == "SHARDED_STATE_DICT"
    assert plugin["cpu_offload"] == "OffloadPolicy"
    assert [plugin[name] for name in ("cpu_ram_efficient_loading", "activation_checkpointing")] == [False, False]


def test_deepspeed_comes_out_as_zero_2_that_accumulates_nothing_itself(monkeypatch, tmp_path):
    from accelerate.utils import DeepSpeedPlugin

    args, environment = resolved(compose([*DEEPSPEED, "train.max_grad_norm=0.5"]), tmp_path)
    assert (args.use_deepspeed, args.nproc_per_node) == (True, "8")
    under(monkeypatch, environment)
    settings = DeepSpeedPlugin().deepspeed_config
    assert settings["zero_optimization"]["stage"] == 2
    assert (settings["gradient_accumulation_steps"], settings["gradient_clipping"]) == (1, 0.5)
    assert settings["zero_optimization"]["offload_optimizer"]["device"] == "none"


def test_no_clipping_stays_no_clipping_under_deepspeed(monkeypatch, tmp_path):
    from accelerate.utils import DeepSpeedPlugin

    _, environment = resolved(compose([*DEEPSPEED, "train.max_grad_norm=null"]), tmp_path)
    under(monkeypatch, environment)
    assert "gradient_clipping" not in DeepSpeedPlugin().deepspeed_config  # as `auto`, accelerate would fill in 1.0


@pytest.mark.parametrize("words", [FSDP2, DEEPSPEED, TWO_MACHINES])
def test_processes_of_srun_are_told_what_accelerate_launch_tells_its_own(words, tmp_path):
    config = compose(words)
    _, environment = resolved(config, tmp_path, "--machine_rank", "1", "--main_process_ip", "10.0.0.1")
    told = engine_environment(config)
    assert told.items() <= environment.items()
    engine = {name for name in environment if name.startswith(("FSDP_", "ACCELERATE_USE_", "ACCELERATE_DEEPSPEED_"))}
    idle = {"FSDP_MIN_NUM_PARAMS", "FSDP_SHARDING_STRATEGY", "FSDP_FORWARD_PREFETCH", "FSDP_USE_ORIG_PARAMS"}
    idle |= {"FSDP_SYNC_MODULE_STATES", "FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD", "FSDP_BACKWARD_PREFETCH"}  # of FSDP1
    assert engine - idle <= told.keys()


def test_the_plugin_is_the_same_by_srun_and_by_accelerate_launch(monkeypatch, tmp_path):
    config = compose(FSDP2)
    with monkeypatch.context() as patch:
        under(patch, engine_environment(config))
        by_srun = fsdp_plugin()
    _, environment = resolved(config, tmp_path)
    under(monkeypatch, environment)
    assert fsdp_plugin() == by_srun


def test_each_of_two_machines_starts_its_half_and_meets_the_others_at_machine_0(tmp_path):
    args, environment = resolved(
        compose(TWO_MACHINES), tmp_path, "--machine_rank", "1", "--main_process_ip", "10.0.0.1"
    )
    assert (args.multi_gpu, args.nnodes, args.nproc_per_node, args.node_rank) == (True, "2", "8", 1)
    assert (args.rdzv_backend, args.rdzv_endpoint) == ("static", "10.0.0.1:29500")
    assert "ACCELERATE_USE_FSDP" not in environment


@pytest.mark.parametrize("words", [FSDP2, DEEPSPEED, TWO_MACHINES])
def test_the_file_leaves_the_precision_to_the_worker(words, tmp_path):
    config = compose([*words, "train.precision=bf16"])
    _, environment = resolved(config, tmp_path, "--machine_rank", "1", "--main_process_ip", "10.0.0.1")
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no"
    assert accelerate_config(config)["mixed_precision"] == "no"


def test_accelerate_launch_starts_the_processes_and_loses_their_exit_code(tmp_path):
    config = compose([*FSDP2, "hardware.num_processes=2"])
    (tmp_path / "accelerate.yaml").write_text(accelerate_yaml(config))
    (tmp_path / "stand_in.py").write_text(
        "import json, os, sys, time\n"
        "name = f'rank{os.environ[\"RANK\"]}.json'\n"
        "open(f'{name}.new', 'w').write(json.dumps([sys.argv[1:], dict(os.environ)]))\n"
        "os.replace(f'{name}.new', name)\n"
        "while not (os.path.exists('rank0.json') and os.path.exists('rank1.json')):\n"  # one that ends ends the others
        "    time.sleep(0.05)\n"
        "sys.exit(75)\n"
    )
    words = ["--config_file", "accelerate.yaml", "-m", "stand_in", "RUN"]
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *words],
        cwd=tmp_path, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1  # so docs/distributed.md sends to run.json, and job.sh does without it
    for rank in ("0", "1"):
        words, environment = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert words == ["RUN"]
        assert (environment["WORLD_SIZE"], environment["LOCAL_RANK"], environment["FSDP_VERSION"]) == ("2", rank, "2")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hardware=fsdp2", "hardware.device=cpu"], "hardware.engine: fsdp2 shares a model out over GPUs alone; found"),
        ([*TWO_MACHINES, "hardware.device=cpu"], "hardware.launcher: accelerate launch starts one process where there"),
        (["hardware=deepspeed"], "train.save_every: DeepSpeed keeps the optimizer's state in partitions of its own"),
        (["hardware=slurm", "hardware.num_machines=3"], "hardware.num_processes: counts over all machines"),
    ],
)
def test_what_an_engine_or_a_launcher_cannot_do_is_refused(words, said):
    with pytest.raises(ConfigError) as caught:
        compose(words)
    assert said in str(caught.value)


def test_a_command_that_starts_processes_itself_sends_to_prepare():
    refuse_other_launchers(compose(["hardware=multi"]))
    with pytest.raises(ConfigError, match=r"^hardware\.launcher: .*; found slurm; type headswap prepare with the same"):
        refuse_other_launchers(compose(["hardware=slurm"]))


def test_the_file_is_plain_yaml_with_its_origin():
    text = accelerate_yaml(compose(FSDP2))
    assert text.startswith("# Written by headswap prepare.")
    assert yaml.safe_load(text)["fsdp_config"]["fsdp_version"] == 2
