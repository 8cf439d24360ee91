"""Any module of the evaluate library as a metric: a hub id, or a local script or folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headswap.errors import ConfigError

if TYPE_CHECKING:
    import evaluate
    import numpy as np


@dataclass(frozen=True)
class EvaluateModule:
    """The value `key` of what `evaluate.load(path).compute(**options)` returns; its code runs, so trust it.

    Args:
        path: hub id, folder or .py file; a local path wins over a hub id.
        key: which value of the result to take; None when there is only one.
        per_example: whether the value is the mean of one value per example; a study's interval depends on it.
    """

    path: str
    key: str | None = None
    greater_is_better: bool = True
    per_example: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.key or Path(self.path).stem

    def module(self) -> evaluate.EvaluationModule:
        import evaluate

        if not Path(self.path).exists() and self.path.endswith(".py"):
            raise ConfigError(f"metric.evaluate.path: no such file; found {self.path}; name a script, folder or hub id")
        try:
            return evaluate.load(self.path)
        except (FileNotFoundError, ConnectionError, ImportError) as error:
            raise ConfigError(
                f"metric.evaluate.path: cannot be loaded; found {self.path} ({error}); "
                f"name a local folder or script, or go online for a hub id"
            ) from error

    def compute(self, predictions: np.ndarray, references: np.ndarray, label_count: int) -> float:
        result = self.module().compute(predictions=predictions, references=references, **self.options) or {}
        if self.key is None and len(result) == 1:
            return float(next(iter(result.values())))
        if self.key not in result:
            raise ConfigError(
                f"metric.evaluate.key: no such value; found {self.key!r}; {self.path} returns {', '.join(result)}"
            )
        return float(result[self.key])
