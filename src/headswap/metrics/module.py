"""Any module of the evaluate library as a metric: a hub id, or a local script or folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from headswap.answers import Answers, Problem
from headswap.errors import ConfigError

if TYPE_CHECKING:
    import evaluate
    import numpy as np


@dataclass(frozen=True)
class EvaluateModule:
    """The value `key` of what `evaluate.load(path).compute(**options)` returns; its code runs, so trust it.

    It is given predictions and references as answers.Answers has them; of a value that is a list the mean is taken.

    Args:
        path: hub id, folder or .py file; a local path wins over a hub id.
        config_name: the module's own configuration, such as multilabel of f1; None for its default.
        key: which value of the result to take; None when there is only one.
        per_example: whether the value is the mean of one value per example; a study's interval depends on it.
    """

    path: str
    config_name: str | None = None
    key: str | None = None
    greater_is_better: bool = True
    per_example: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    problems: ClassVar[tuple[Problem, ...]] = ()

    @property
    def name(self) -> str:
        return self.key or Path(self.path).stem

    def module(self) -> evaluate.EvaluationModule:
        import evaluate

        if not Path(self.path).exists() and self.path.endswith(".py"):
            raise ConfigError(f"metric.evaluate.path: no such file; found {self.path}; name a script, folder or hub id")
        try:
            return evaluate.load(self.path, self.config_name)
        except (FileNotFoundError, ConnectionError, ImportError) as error:
            raise ConfigError(
                f"metric.evaluate.path: cannot be loaded; found {self.path} ({error}); "
                f"name a local folder or script, or go online for a hub id"
            ) from error

    def compute(self, answers: Answers) -> float:
        import numpy as np

        return float(np.mean(self._value(self.module(), answers.predictions, answers.references)))

    def values(self, answers: Answers) -> np.ndarray | None:
        """Return the value's list where it is one, else what the module says of each example alone."""
        import numpy as np

        if not self.per_example:
            return None
        module, predictions, references = self.module(), answers.predictions, answers.references
        whole = np.asarray(self._value(module, predictions, references), dtype=np.float64)
        if whole.shape == (len(predictions),):
            return whole
        alone = (slice(row, row + 1) for row in range(len(predictions)))
        return np.asarray([float(np.mean(self._value(module, predictions[at], references[at]))) for at in alone])

    def _value(self, module: evaluate.EvaluationModule, predictions: Any, references: Any) -> Any:
        result = module.compute(predictions=predictions, references=references, **self.options) or {}
        if self.key is None and len(result) == 1:
            return next(iter(result.values()))
        if self.key not in result:
            raise ConfigError(
                f"metric.evaluate.key: no such value; found {self.key!r}; {self.path} returns {', '.join(result)}"
            )
        return result[self.key]
