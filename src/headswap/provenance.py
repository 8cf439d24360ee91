"""What run.json says of where and with what a run computed: enough to repeat it, nothing that is secret. Floor 4."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from headswap.lineage import lineage
from headswap.placeholders import looks_secret
from headswap.spine import Config

PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "accelerate", "evaluate", "hydra-core", "numpy")
# Variables that change what is computed or how; all others stay out, because they may hold secrets.
VARIABLES = re.compile(
    r"(OMP|MKL|OPENBLAS|KMP|GOMP)_\w+|CUBLAS_WORKSPACE_CONFIG|CUDA_VISIBLE_DEVICES|CUDA_LAUNCH_BLOCKING|NVIDIA_TF32_OVERRIDE"
    r"|(NCCL|GLOO)_\w+|PYTORCH_(CUDA_)?ALLOC_CONF|TORCH_(ALLOW_TF32_CUBLAS_OVERRIDE|CUDNN_\w+)|ATEN_CPU_CAPABILITY"
    r"|DNNL_MAX_CPU_ISA|ONEDNN_MAX_CPU_ISA|TOKENIZERS_PARALLELISM|PYTHONHASHSEED|HF_HUB_OFFLINE|ACCELERATE_USE_\w+"
    r"|HEADSWAP_THREADS|WORLD_SIZE|SLURM_JOB_ID"
)


def provenance(config: Config, hardware: Mapping[str, Any]) -> dict[str, Any]:
    """Return versions, git state, machine, seed, the variables that matter, what trained the body, and the start."""
    return {
        "versions": versions(),
        "headswap": metadata.version("headswap"),
        "git": git_state(),
        "hardware": dict(hardware),
        "variables": variables(os.environ),
        "seed": config.seed,
        "lineage": lineage(str(config.body.get("source", ""))) if config.baseline is None else [],
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "pid": os.getpid(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that compute."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that matter to a result."""
    return {
        name: environment[name] for name in sorted(environment) if VARIABLES.fullmatch(name) and not looks_secret(name)
    }


def git_state() -> dict[str, Any] | None:
    """Return the commit of the working folder and whether it is dirty, or None outside a repository."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": found.removesuffix("-dirty"), "dirty": found.endswith("-dirty")}
