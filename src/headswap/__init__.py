"""headswap: fine-tune a pretrained body with a new head from config, and learn what its weights bought.

Importing this package costs nothing: the names below load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "compose": "headswap.config",
    "Predictor": "headswap.predict",
    "load": "headswap.predict",
    "train": "headswap.launch",
    "compare": "headswap.study",
}
__all__ = ["__version__", "compose", "load", "Predictor", "train", "compare"]  # noqa: RUF022

if TYPE_CHECKING:
    from headswap.config import compose
    from headswap.launch import train
    from headswap.predict import Predictor, load
    from headswap.study import compare


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'headswap' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
