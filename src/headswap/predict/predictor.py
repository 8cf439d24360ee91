"""Inputs in, typed results out, for every task. Predict chain: folder -> predictor (this) -> files, score.

rows -> features, as in training -> batches of like length -> Task.observe -> Task.results, in the input's order
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headswap import config as configuration
from headswap.answers import Observed
from headswap.contracts import Task
from headswap.errors import ConfigError, DataError, shortly
from headswap.predict import folder as places
from headswap.predict.plain import labels_of, plain_task
from headswap.records import read_json

ROWS_AT_ONCE = 2_000


class Predictor:
    """Call it with inputs, and it returns one result each (headswap.results), in their order.

    Args:
        run: a finished run's folder, or any folder with a fine-tuned transformers model and its tokenizer.
        batch_size: features of one forward pass; the results do not depend on it.
        trust_remote_code: run the Python code that lies in the folder, which a model of unknown architecture needs.
        changes: fields of the task to change, such as `num_beams=4` for a translation.

    Raises:
        ConfigError, RunError, WeightsError: the folder is not there, is a study, has not finished, or holds no
            fine-tuned model with all of its weights.
    """

    def __init__(self, run: Path | str, batch_size: int = 64, trust_remote_code: bool = False, **changes: Any) -> None:
        if batch_size < 1:
            raise ConfigError(f"--batch-size: must be 1 or more; found {batch_size}; set a number such as 64")
        self.folder, self.config = places.locate(Path(run))
        places.check(self.folder, trust_remote_code)
        if self.config:
            task = configuration.build(self.config.task, "task", Task, self.config.plugins)
        else:
            task = plain_task(self.folder)
        self.task: Task = _changed(task, changes)
        self.tokenizer, self.model = places.load(self.folder, self.task.auto_class, trust_remote_code)
        self.labels = labels_of(self.folder, self.task)
        """The names of the model's outputs, and the kind of problem."""
        self.max_length = places.max_length(self.tokenizer, self.model, self.config)
        result = self.folder.parent / "result.json"
        self.calibration: dict[str, Any] = read_json(result).get("calibration", {}) if self.config else {}
        self._batch_size = batch_size

    def __call__(self, inputs: Iterable[Any]) -> list[Any]:
        """Predict.

        Args:
            inputs: one item an example. For a task with one input column: its value (a str; for token classification a
                str or a list of words). For several: a tuple in the columns' order, or a mapping by their names.

        Returns:
            One object of headswap.results an example: Labelled, MultiLabelled, Valued, Tagged, Answered, Chosen,
            Generated or Modelled.

        Raises:
            DataError: no inputs, an empty text, or something that is not what the task reads.
        """
        given = self.rows(inputs)
        count = len(given["id"])
        results: list[Any] = []
        for start in range(0, count, ROWS_AT_ONCE):
            part = {name: values[start : start + ROWS_AT_ONCE] for name, values in given.items()}
            results += self.task.results(self.observed(part))
        return results

    def rows(self, inputs: Any) -> dict[str, list[Any]]:
        """Return checked inputs as columns, with an `id`."""
        if isinstance(inputs, str | Mapping):
            raise DataError(f"inputs: one input alone; found {shortly(inputs)}; give a list of inputs")
        items = list(inputs)
        if not items:
            raise DataError("inputs: nothing to predict; found an empty list; give one input or more")
        names = self.inputs_for(items[0] if isinstance(items[0], tuple | list | Mapping) else ())
        columns: dict[str, list[Any]] = {"id": [str(place) for place in range(len(items))]}
        cells = [self._cells(item, place, names) for place, item in enumerate(items)]
        return columns | {name: [row[number] for row in cells] for number, name in enumerate(names)}

    def observed(self, rows: Mapping[str, list[Any]]) -> Observed:
        """Return what the model gives for checked rows, feature by feature."""
        import torch

        from headswap.data import evaluation_batches
        from headswap.encoded import encode_rows
        from headswap.seeds import Seeds

        encoded = encode_rows(rows, self.task, self.tokenizer, self.max_length)
        collator = self.task.collator(self.tokenizer, Seeds(0))
        outputs: list[Any] = [None] * len(encoded)
        with torch.inference_mode():
            for features in evaluation_batches(encoded.lengths, self._batch_size):
                batch = encoded.collate(features)
                batch = batch if collator is None else collator(batch, "test", features, 0)
                placed = {name: tensor.to(self.model.device) for name, tensor in batch.items()}
                found = self.task.observe(self.model, placed, self.task.forward(self.model, placed))
                for feature, output in zip(features, found, strict=True):
                    outputs[feature] = output
        return Observed(outputs, encoded, rows, self.tokenizer, self.labels, self.calibration)

    def inputs_for(self, values: Collection[Any]) -> tuple[str, ...]:
        """Return the input columns; a plain sequence classifier takes pairs where it is given two values."""
        if self.config is None and self.task.auto_class == "AutoModelForSequenceClassification":
            names = ["text", "text_pair"] if len(values) == 2 else ["text"]
            self.task = _changed(self.task, {"text": names})
        return self.task.inputs

    def _cells(self, item: Any, place: int, names: Sequence[str]) -> list[Any]:
        if isinstance(item, Mapping):
            odd = sorted(set(names) ^ set(item))
            if odd:
                found = ", ".join(map(repr, item))
                raise DataError(f"inputs[{place}]: wrong columns; found {found}; give {', '.join(map(repr, names))}")
            item = [item[name] for name in names]
        elif len(names) == 1:
            item = [item]
        if not isinstance(item, tuple | list) or len(item) != len(names):
            found = len(item) if isinstance(item, tuple | list) else 1
            told = ", ".join(names)
            raise DataError(
                f"inputs[{place}]: wrong number of values; found {found} where this model takes {len(names)} ({told}); "
                f"give a ({told}) tuple"
            )
        try:
            return [self.task.cell(name, value) for name, value in zip(names, item, strict=True)]
        except DataError as fault:
            raise DataError(f"inputs[{place}]: {fault}") from None


def load(run: Path | str, **options: Any) -> Predictor:
    """Return a finished run, or a plain checkpoint, ready to predict: `headswap.load(run)(inputs)`; see Predictor."""
    return Predictor(run, **options)


def _changed(task: Task, changes: Mapping[str, Any]) -> Task:
    """Return the task with other values of its fields."""
    known = [field.name for field in dataclasses.fields(task)]  # type: ignore[arg-type]
    for name in changes:
        if name not in known:
            raise ConfigError(f"{name}: this task has no such setting; found {type(task).__name__}; leave it out")
    return dataclasses.replace(task, **changes) if changes else task  # type: ignore[type-var]
