"""The page to read first: what a plug must offer and what passes between the floors. Floor 0, imports nothing heavy.

A run is: `Task.load` gives `Splits`; `Body` names the files that `join` (model.py) builds a plain transformers model
from, with the `Head` deciding what its head starts as; `Strategy.phases` (phases.py) says which weights move; the loop
trains and the `Metric`s score. Each plug is a frozen dataclass (its fields are the schema of its conf group) in a
module that imports torch, transformers, datasets and evaluate only inside its methods, so that a wrong config is told
at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from headswap.answers import Answers, Collator, Labels, Observed, Problem
from headswap.seeds import Seeds

if TYPE_CHECKING:
    import datasets
    import evaluate
    import numpy as np
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headswap.spine import DataConfig

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class DataRequest:
    """How much of a task's data a run wants; every task serves it the same way.

    Args:
        train_rows: rows of the training split to use, None for all; nested: 100 of seed 3 lie inside 400 of seed 3.
        validation_rows: likewise for validation.
        test_rows: likewise for test, but drawn by `split_seed`: every run of a study sees the same test rows.
        split_seed: seeds the automatic split of a single file and the cut of the test split.
        drop_duplicates: drop training (then validation) rows whose normalised input also stands in a later split,
            and repeats inside training.
    """

    train_rows: int | None = None
    validation_rows: int | None = None
    test_rows: int | None = None
    split_seed: int = 0
    drop_duplicates: bool = True

    @classmethod
    def of(cls, data: DataConfig) -> DataRequest:
        """Return what a configuration asks for."""
        return cls(data.train_rows, data.validation_rows, data.test_rows, data.split_seed, data.drop_duplicates)


@dataclass(frozen=True)
class Splits:
    """Checked rows, before tokenisation.

    Each dataset has the columns `id` (string, unique in its split), the task's input columns and its targets: `label`
    (int output index, float, or a list of either) or columns that the task names.
    """

    train: datasets.Dataset
    validation: datasets.Dataset
    test: datasets.Dataset
    labels: Labels
    fingerprint: str
    """sha256 over all rows, ids and labels of the three splits."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What loading found and did: rows read and used, class counts, duplicates dropped, damaged characters ..."""

    def of(self, split: str) -> datasets.Dataset:
        return getattr(self, split)


class LossFunction(Protocol):
    """A training loss in two parts, so that the loop can normalise over a whole window of micro-batches."""

    def weight(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the batch's total weight (scalar): its examples, its target tokens, or the sum of class weights."""
        ...

    def __call__(self, output: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the weighted sum (scalar) of the losses of the model's output against the targets in `batch`."""
        ...


@runtime_checkable
class Task(Protocol):
    """What is learned: data source, columns, labels, loss and the form of a prediction."""

    @property
    def auto_class(self) -> str:
        """The transformers class that serves the task, such as `AutoModelForSequenceClassification`."""
        ...

    @property
    def processor(self) -> str:
        """The transformers class that turns its inputs into tensors: `AutoTokenizer`, the only one served so far."""
        ...

    @property
    def problem(self) -> Problem:
        """The kind of learning, one of answers.Problem: it says what answers look like and which metrics read them."""
        ...

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that a prediction is made from."""
        ...

    def cell(self, column: str, value: Any) -> Any:
        """Return an input of a prediction as encode() reads it. Raises DataError: `fault; found ...; remedy`."""
        ...

    def file_cell(self, column: str, value: Any) -> Any:
        """Return a cell of a file likewise, cut as training cut it."""
        ...

    def identity(self) -> dict[str, str]:
        """Name the content of the sources: path or id -> sha256 or revision. Reads local bytes, never the network."""
        ...

    def read(self, source: str, labels: Labels) -> datasets.Dataset:
        """Read new labelled rows for a model that knows `labels`. Raises DataError."""
        ...

    def load(self, request: DataRequest, seeds: Seeds) -> Splits:
        """Load, check and cut the rows. Raises DataError with file, column, row numbers and remedy."""
        ...

    def encode(self, rows: Mapping[str, list], tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, list]:
        """Turn rows into features; targets too where the rows have them, as `labels...` or `target...` columns.

        Returns:
            Columns of equal length, one item a feature: a number, or a list of numbers (`input_ids`,
            `token_type_ids`, `labels` ...), not padded; `truncated` (bool); and `example`, the number among these rows
            that each feature was cut from, rising, where a row may give several (absent: one a row).
        """
        ...

    def collator(self, tokenizer: PreTrainedTokenizerBase, seeds: Seeds) -> Collator | None:
        """Return what makes batches of padded columns, None where they are batches as they are."""
        ...

    def forward(self, model: Any, batch: Mapping[str, torch.Tensor]) -> Any:
        """Return the model's output for a batch, without its own loss."""
        ...

    def loss(self, splits: Splits) -> LossFunction:
        """Return the training loss (class weights and smoothing included)."""
        ...

    def observe(self, model: Any, batch: Mapping[str, torch.Tensor], output: Any) -> list[np.ndarray]:
        """Return what scoring keeps, one float array a feature: logits without padding, or what it generates."""
        ...

    def calibrate(self, observed: Observed) -> dict[str, Any]:
        """Return what the final weights' validation outputs settle for later answers, such as thresholds; JSON."""
        ...

    def answers(self, observed: Observed) -> Answers:
        """Read outputs as predictions, and set them beside the targets."""
        ...

    def results(self, observed: Observed) -> list[Any]:
        """Read outputs as what a person is told, one of the classes of results.py an example; no targets needed."""
        ...


@dataclass(frozen=True)
class BodyFiles:
    """Where a body lies on this machine."""

    folder: Path
    weights: tuple[Path, ...]
    """The safetensors files, in order; empty only for `init: random` of a source that has none."""
    origin: str
    """The source as a person would cite it: hub id and revision, package and path, or folder."""
    code: tuple[Path, ...] = ()
    """The checkpoint's own Python files, which run when it is loaded; empty unless the user trusts them."""


@runtime_checkable
class Body(Protocol):
    """The shared layers: where they come from and what they start as."""

    source: str
    init: str
    require_coverage: float
    allow_new: Sequence[str]
    allow_unexpected: Sequence[str]
    resize_embeddings: bool
    config_overrides: Mapping[str, Any]

    def identity(self) -> dict[str, str]:
        """Name the content: pinned sha256, revision or the local files' hashes. Never the network."""
        ...

    def starts_new(self, names: Sequence[str]) -> Collection[str]:
        """Return which of these weights (role names) of the body begin with the values of the random twin."""
        ...

    def locate(self, weights: bool = True) -> BodyFiles:
        """Return the files, downloading a hub id if needed; without `weights`, the config and tokenizer files alone.

        Raises WeightsError (pin, pickle, remote code, absence).
        """
        ...

    def tokenizer(self) -> PreTrainedTokenizerBase: ...

    def check_texts(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str] | Sequence[tuple[str, str]]) -> None:
        """Raise WeightsError where the tokenizer is wrong for texts, or pairs of texts, that the run learns from."""
        ...

    def notices(self) -> list[str]:
        """Return what a person must be told before this body is used, such as whose code runs."""
        ...


@dataclass(frozen=True)
class SourceHead:
    """The head that lies in a body's checkpoint: its tensors (float32, by model parameter name) and label names."""

    tensors: Mapping[str, torch.Tensor]
    labels: tuple[str, ...]
    init: str = "pretrained"
    """What the body starts as: a body drawn at random has no use for a head that knows the pretrained one."""


@dataclass(frozen=True)
class HeadTensor:
    """What a head plug did to one tensor of the model's head."""

    name: str
    fate: Literal["new", "kept", "rows copied"]
    rows: tuple[tuple[int, int], ...] = ()
    """(row of the source, row of the model) pairs for `rows copied`."""


@runtime_checkable
class Head(Protocol):
    """What the head starts as. It is always drawn afresh first, so `fresh` has nothing to do."""

    def place(
        self, model: PreTrainedModel, head: Mapping[str, torch.Tensor], source: SourceHead, labels: Labels
    ) -> list[HeadTensor]:
        """Write source values into `head` (parameter name -> the model's own tensor) in place; say what was done.

        Raises WeightsError when the source cannot serve (no head, other labels, other shapes).
        """
        ...


@runtime_checkable
class Metric(Protocol):
    """One number over a split. `per_example`: the mean of a value that each example has (accuracy is, F1 is not)."""

    @property
    def name(self) -> str: ...

    @property
    def greater_is_better(self) -> bool: ...

    @property
    def per_example(self) -> bool: ...

    @property
    def problems(self) -> Sequence[str]:
        """The problems (Labels.problem) whose answers it reads; empty for any."""
        ...

    def module(self) -> evaluate.EvaluationModule:
        """Return the evaluate module that computes it; ours need no network."""
        ...

    def compute(self, answers: Answers) -> float: ...

    def values(self, answers: Answers) -> np.ndarray | None:
        """Return one value an example whose mean is `compute`, None where `per_example` is false."""
        ...
