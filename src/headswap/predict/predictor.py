"""Texts in, labels and probabilities out. Predict chain: folder -> predictor (this) -> tables.

texts -> tokens, as in training -> batches of like length, padded to their longest -> softmax -> the input's order
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headswap import config as configuration
from headswap.contracts import Task
from headswap.errors import ConfigError, DataError
from headswap.predict.folder import is_regression, load, locate, max_length

if TYPE_CHECKING:
    import torch

Answer = dict[str, Any]
_ROWS_AT_ONCE = 10_000


class Predictor:
    """Call it with texts, or with pairs of texts, and it returns one answer each, in their order.

    Args:
        run: a finished run's folder, or any folder with a transformers sequence classifier and its tokenizer.
        batch_size: texts of one forward pass; the answers do not depend on it.
        trust_remote_code: run the Python code that lies in the folder, which a model of unknown architecture needs.

    Raises:
        ConfigError, RunError, WeightsError: the folder is not there, is a study, has not finished, or holds no
            classifier with all of its weights.
    """

    def __init__(self, run: Path | str, batch_size: int = 64, trust_remote_code: bool = False) -> None:
        if batch_size < 1:
            raise ConfigError(f"--batch-size: must be 1 or more; found {batch_size}; set a number such as 64")
        self.folder, self.config = locate(Path(run))
        task = self.config.task if self.config else None
        self.text_columns: tuple[str, ...] = tuple(task["text"]) if task else ()
        """The columns that the run learned from; empty for a checkpoint that is not a run's."""
        self._task: Task | None = configuration.build(task, "task", Task, self.config.plugins) if self.config else None
        self._tokenizer, self._model = load(self.folder, trust_remote_code)
        self.regression: bool = is_regression(self.folder, self._model)
        names: Any = self._model.config.id2label
        self.labels: tuple[str, ...] = tuple(str(names[index]) for index in range(len(names)))
        """In the order of the model's outputs; of a regression, the name of its value."""
        self._max_length = max_length(self._tokenizer, self._model, self.config)
        self._batch_size = batch_size

    def __call__(self, texts: Iterable[str] | Iterable[Sequence[str]]) -> list[Answer]:
        """Label texts, or (text, text) pairs where the task is one of pairs.

        Returns:
            For each text {"label": str, "score": its probability, "scores": {label: probability}}; where the run
            learned a number, {"label": its column, "value": float, "scores": {its column: value}}.

        Raises:
            DataError: no texts, an empty one, something that is not text, one text where pairs are needed or two where
                one is.
        """
        columns = self._checked(texts)
        rows = []
        for start in range(0, len(columns[0]), _ROWS_AT_ONCE):
            rows += self._outputs([column[start : start + _ROWS_AT_ONCE] for column in columns])
        return [self._answer(row) for row in rows]

    def _answer(self, row: list[float]) -> Answer:
        scores = dict(zip(self.labels, row, strict=True))
        label = max(scores, key=lambda name: scores[name])
        name = "value" if self.regression else "score"
        return {"label": label, name: scores[label], "scores": scores}

    def _checked(self, texts: Any) -> list[list[str]]:
        """Return one list a text column."""
        if isinstance(texts, str):
            raise DataError(f"texts: one text alone; found {_short(texts)}; give a list of texts")
        given = [[text] if isinstance(text, str) else text for text in texts]
        if not given:
            raise DataError("texts: nothing to label; found an empty list; give one text or more")
        width = len(self.text_columns) or (2 if isinstance(given[0], tuple | list) and len(given[0]) == 2 else 1)
        said = f" ({', '.join(self.text_columns)})" if self.text_columns else ""
        for place, parts in enumerate(given):
            if not isinstance(parts, tuple | list) or not all(isinstance(part, str) for part in parts):
                raise DataError(f"texts[{place}]: not a text; found {_short(parts)}; give a str, or a pair of them")
            if len(parts) != width:
                fault = f"found {len(parts)} where this model takes {width}{said}"
                remedy = "give (text, text) pairs" if width == 2 else "give one str each"
                raise DataError(f"texts[{place}]: wrong number of texts; {fault}; {remedy}")
            if not all(part.strip() for part in parts):
                raise DataError(f"texts[{place}]: empty text; found {_short(parts)}; fill or remove it")
        return [[str(parts[column]) for parts in given] for column in range(width)]

    def _outputs(self, columns: list[list[str]]) -> list[list[float]]:
        """Return the model's probabilities, or values, row by row."""
        import torch

        encoded = self._encode(columns)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
        outputs = torch.empty(len(order), len(self.labels))
        with torch.inference_mode():
            for start in range(0, len(order), self._batch_size):
                places = order[start : start + self._batch_size]
                logits = self._model(**self._padded(encoded, places)).logits.float()
                outputs[places] = (logits if self.regression else logits.softmax(dim=-1)).cpu()
        return outputs.tolist()

    def _encode(self, columns: list[list[str]]) -> Mapping[str, list]:
        """Tokenise as the run's task did in training, or as the tokenizer does by itself."""
        if self._task is not None:
            rows = dict(zip(self.text_columns, columns, strict=True))
            encoded = self._task.encode(rows, self._tokenizer, self._max_length)
            return {name: values for name, values in encoded.items() if name != "truncated"}
        options: dict[str, Any] = {"padding": False, "return_attention_mask": False, "verbose": False}
        return dict(self._tokenizer(*columns, truncation=True, max_length=self._max_length, **options))

    def _padded(self, encoded: Mapping[str, list], places: list[int]) -> dict[str, torch.Tensor]:
        from torch import ones, tensor
        from torch.nn.utils.rnn import pad_sequence

        from headswap.data import pad_token_id

        fill = {"input_ids": pad_token_id(self._tokenizer), "token_type_ids": self._tokenizer.pad_token_type_id}

        def pad(rows: list[torch.Tensor], value: int) -> torch.Tensor:
            padded = pad_sequence(rows, True, value, padding_side=self._tokenizer.padding_side)
            return padded.to(self._model.device)

        batch = {name: pad([tensor(rows[i]) for i in places], fill.get(name, 0)) for name, rows in encoded.items()}
        mask = [ones(len(encoded["input_ids"][i]), dtype=batch["input_ids"].dtype) for i in places]
        return {**batch, "attention_mask": pad(mask, 0)}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
