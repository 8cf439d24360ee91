"""Score a finished run on new labelled rows. Predict chain: predictor -> score (this)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from headswap import config as configuration
from headswap.answers import Answers
from headswap.contracts import Metric
from headswap.errors import ConfigError
from headswap.predict.predictor import Predictor


@dataclass(frozen=True)
class Score:
    """One metric on `rows` rows; `low` and `high` are the ends of a 95 % interval over examples, where it has one.

    Wilson's where an example is right or wrong, else Student's t.
    """

    name: str
    value: float
    rows: int
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        ends = "" if self.low is None else f"  (95 % interval over examples {self.low:.4f} to {self.high:.4f})"
        return f"{self.name} {self.value:.4f}{ends}"


def evaluate(predictor: Predictor, source: str) -> list[Score]:
    """Score a run's model on new labelled rows, with the run's own metrics.

    Args:
        source: a file, glob or `package:` path that is read as the run's task reads its own; nothing is dropped or cut.

    Raises:
        ConfigError: the predictor is of a plain checkpoint, which names no metrics.
        DataError: a fault of the rows, or labels that the model does not know.
    """
    if predictor.config is None:
        raise ConfigError(
            f"{predictor.folder}: only a run knows what it is scored by; found a plain checkpoint; name a run's folder"
        )
    rows = predictor.task.read(source, predictor.labels)[:]
    answers = predictor.task.answers(predictor.observed(rows))
    nodes = predictor.config.metric.items()
    plugs = [configuration.build(node, f"metric.{name}", Metric, predictor.config.plugins) for name, node in nodes]
    return [_score(metric, answers, len(rows["id"])) for metric in plugs]


def _score(metric: Metric, answers: Answers, rows: int) -> Score:
    value = float(metric.compute(answers))
    each: Any = metric.values(answers) if metric.per_example else None
    if each is None or rows < 2:
        return Score(metric.name, value, rows)
    from scipy import stats

    if set(each.tolist()) <= {0.0, 1.0}:
        ends = stats.binomtest(int(each.sum()), rows).proportion_ci(0.95, method="wilson")
        return Score(metric.name, value, rows, float(ends.low), float(ends.high))
    reach = float(stats.t.ppf(0.975, rows - 1)) * float(each.std(ddof=1)) / math.sqrt(rows)
    return Score(metric.name, value, rows, value - reach, value + reach)
