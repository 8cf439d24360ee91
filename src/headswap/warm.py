"""What the warm server imports once, so that a forked child starts training in milliseconds. Floor 4.

Only imports: nothing here may compute, because a thread pool or a CUDA context does not survive a fork.
"""

from __future__ import annotations

import importlib
import os
import warnings

warnings.filterwarnings("ignore", message=".*torch_dtype.*")

import headswap.run  # noqa: E402
import headswap.worker  # noqa: E402, F401

for _name in ("sklearn.metrics", "evaluate", "headswap.metrics.modules", "transformers.models.auto.modeling_auto"):
    importlib.import_module(_name)
for _kind in filter(None, os.environ.get("HEADSWAP_WARM", "").split(",")):  # model types, such as bert
    try:
        importlib.import_module(f"transformers.models.{_kind}.modeling_{_kind}")
    except ImportError:
        continue  # the child will import what it needs
