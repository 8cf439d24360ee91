"""What the warm server does once, so that a forked child starts training in milliseconds. Floor 4.

It imports, reads the rows that the runs share, and proves their tokenizer. Nothing here may multiply tensors: a thread
pool or a CUDA context does not survive a fork.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

import headswap.recurrent  # noqa: F401 (what every run reads its body's config with)
from headswap import run, worker
from headswap.config import build_plugs, read
from headswap.seeds import Seeds

__all__ = ["run", "worker"]

for _number in (signal.SIGUSR1, signal.SIGUSR2):  # SLURM sends them to all processes of a job; runs listen themselves
    signal.signal(_number, signal.SIG_IGN)

for _name in ("sklearn.metrics", "evaluate", "headswap.metrics.modules", "transformers.models.auto.modeling_auto"):
    importlib.import_module(_name)
for _kind in filter(None, os.environ.get("HEADSWAP_WARM", "").split(",")):  # model types, such as bert
    with contextlib.suppress(ImportError):  # the child will import what it needs
        importlib.import_module(f"transformers.models.{_kind}.modeling_{_kind}")
        get_checkpoint_conversion_mapping(_kind)  # the first call compiles the patterns of all architectures
for _name in filter(
    None, os.environ.get("HEADSWAP_WARM_IMPORTS", "").split(",")
):  # what a strategy needs, such as peft
    with contextlib.suppress(ImportError):
        importlib.import_module(_name)
if _text := os.environ.get("HEADSWAP_WARM_DATA"):  # the first run's configuration
    with contextlib.suppress(Exception):  # whatever is wrong with the data, the child will say it
        _config = read(_text, "the first run")
        _plugs, _seeds = build_plugs(_config), Seeds(_config.seed)
        _splits = _plugs.task.load(run.data_request(_config), _seeds)
        if _plugs.baseline is None:
            run.encoded(_plugs, _config, _splits, _seeds)
