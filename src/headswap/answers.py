"""What passes between a model and its judges: outputs a feature, answers an example, scores. Floor 0, light.

model -> Task.observe -> Observed -> Task.answers -> Answers -> Metric -> Scores
                                  -> Task.results -> what a person is told
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedTokenizerBase

Problem = Literal[
    "single_label_classification",
    "multi_label_classification",
    "regression",
    "token_classification",
    "question_answering",
    "multiple_choice",
    "sequence_to_sequence",
    "masked_language_modeling",
    "causal_language_modeling",
]


@dataclass(frozen=True)
class Labels:
    """What the head's outputs mean: `names[i]` is output i; a regression's are named by their columns.

    Empty where outputs are no labels: question answering, multiple choice, sequence to sequence, language modelling.
    """

    names: tuple[str, ...]
    problem: Problem = "single_label_classification"

    @property
    def count(self) -> int:
        return len(self.names)


class Collator(Protocol):
    """What a task does to a padded batch before it is a batch: mask tokens, stack choices."""

    def __call__(
        self, batch: dict[str, torch.Tensor], split: str, features: np.ndarray, epoch: int
    ) -> dict[str, torch.Tensor]:
        """Return the batch; any chance is keyed by (split, feature's number, epoch), never by the batch's make-up."""
        ...


class Features(Protocol):
    """A tokenised split as a task sees it again (data.Encoded): an example is one feature, or several."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The examples' names, in order."""
        ...

    @property
    def example(self) -> np.ndarray:
        """[features] the number of the example that each feature was cut from, rising."""
        ...

    def column(self, name: str, feature: int) -> np.ndarray:
        """Return a list column of one feature as encode() gave it."""
        ...


@dataclass(frozen=True)
class Observed:
    """What a model gave for a split, or for rows without targets, before it is read as answers.

    Args:
        outputs: what `Task.observe` kept, one float array a feature, in their order.
        rows: the examples' columns; targets among them unless one only predicts.
        calibration: what `Task.calibrate` found on validation, {} before.
    """

    outputs: Sequence[np.ndarray]
    features: Features
    rows: Mapping[str, Sequence[Any]]
    tokenizer: PreTrainedTokenizerBase
    labels: Labels
    calibration: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers:
    """Predictions beside what is true, both one item an example, in the split's order.

    | problem | predictions | references | outputs of an example |
    |---|---|---|---|
    | single_label_classification | int array [n] | int array [n] | logits [labels] |
    | multi_label_classification | bool array [n, labels] | bool array [n, labels] | logits [labels] |
    | regression, one output | float array [n] | float array [n] | value [1] |
    | regression, several outputs | float array [n, outputs] | float array [n, outputs] | values [outputs] |
    | token_classification | list of int arrays [words] | list of int arrays [words] | logits [words, labels] |
    | question_answering | list of str, "" for none | list of lists of str, [] for none | [score, that of no answer] |
    | multiple_choice | int array [n] | int array [n] | logits [choices] |
    | sequence_to_sequence | list of str | list of lists of str | target's loss sum, right ones, tokens |
    | masked, causal language modelling | float array [n, 3], the outputs | [n, 0] | loss sum, right ones, targets |
    """

    predictions: Any
    references: Any
    labels: Labels
    outputs: Sequence[np.ndarray] = ()


@runtime_checkable
class Summed(Protocol):
    """What a metric of a whole split offers besides, if it is a function of sums over examples.

    A study resamples examples with it: F1 hangs on sums of counts, perplexity on a sum of losses and one of targets.
    """

    def sums(self, answers: Answers) -> np.ndarray:
        """Return [examples, k], what each example adds to the sums."""
        ...

    def of_sums(self, totals: np.ndarray) -> float:
        """Return the metric of the examples whose rows add up to `totals` [k]; NaN where it is not defined."""
        ...


@dataclass(frozen=True)
class Scores:
    """Metrics of one split with the answers they were computed from, each example once, in the split's order.

    `examples`: metric name -> one value an example, for the metrics that are means of such. `lengths`: the input tokens
    of each example, None where they are not known.
    """

    values: Mapping[str, float]
    loss: float
    ids: tuple[str, ...]
    answers: Answers
    examples: Mapping[str, np.ndarray] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    lengths: np.ndarray | None = None


def misfits(metrics: Sequence[Any], problem: str) -> str:
    """Return what is wrong with scoring a problem by these metrics, empty where they all read it."""
    other = [metric.name for metric in metrics if metric.problems and problem not in metric.problems]
    if not other:
        return ""
    remedy = "leave metric out (the task names its own), or choose others: headswap list metric"
    return f"metric: does not fit the task; found {', '.join(other)} for {problem}; {remedy}"
