"""Choose one of several texts: the answer to a question, the end of a story. Floor 1; one row is as many inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headswap.answers import Answers, Labels, Observed, Problem
from headswap.checks import Notes, text_rows
from headswap.contracts import SPLITS, LossFunction, Splits
from headswap.errors import DataError, shortly
from headswap.losses import CrossEntropy
from headswap.results import Chosen
from headswap.rows import Rows, normalised
from headswap.seeds import Seeds
from headswap.sources import Table
from headswap.table_task import TableTask
from headswap.text_task import encode_texts
from headswap.word_checks import choice_numbers, choice_texts
from headswap.words import json_list

if TYPE_CHECKING:
    import datasets
    import numpy as np
    import torch
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(TableTask):
    """Learn which choice is right: each is a pair, the context first, the choice second.

    Args:
        context: the columns of what precedes the choices, joined by a space: [premise, question].
        choices: one column of lists (in csv JSON lists), or one column a choice: [ending0, ending1].
        label: the column of the right choice: its number from 0, or its text.
        wording: column -> value -> what stands for it, {question: {cause: What was the cause?}}.
    """

    context: list[str]
    choices: list[str]
    label: str
    wording: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def auto_class(self) -> str:
        return "AutoModelForMultipleChoice"

    @property
    def problem(self) -> Problem:
        return "multiple_choice"

    @property
    def inputs(self) -> tuple[str, ...]:
        return (*self.context, *self.choices)

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.label,)

    def faults(self) -> Iterator[str]:
        columns = [*self.inputs, self.label, *([self.id] if self.id else [])]
        for name in ("context", "choices"):
            if not getattr(self, name):
                yield f"{name}: must name one column or more; found none; set task.{name}=[COLUMN]"
        if len(set(columns)) != len(columns) or not all(columns):
            found = ", ".join(map(repr, columns))
            yield f"context: context, choices, label and id must be different columns; found {found}; correct them"
        if {"id", "label"} & set(self.inputs):
            yield "context: the names id and label are taken; found one of them among the inputs; rename that column"
        for column in sorted(set(self.wording) - set(self.context)):
            yield f"wording: names no column of task.context; found {column!r}; use one of {', '.join(self.context)}"

    def checked(self, tables: Sequence[Table], split: str, notes: Notes) -> Rows:
        rows = text_rows(tables, self.context, self.id, self.damaged, notes, split)
        choices = [row for table in tables for row in choice_texts(table, self.choices, self.damaged, notes)]
        if len(self.choices) == 1:
            rows[self.choices[0]] = choices
        else:
            rows |= {name: [row[number] for row in choices] for number, name in enumerate(self.choices)}
        begin, numbers = 0, []
        for table in tables:
            numbers += choice_numbers(table, self.label, choices[begin : begin + table.row_count])
            begin += table.row_count
        self._contexts(rows)  # a value without wording is told now, with its row
        return {**rows, "label": numbers}

    def cell(self, column: str, value: Any) -> Any:
        """Return a text, or of the column of lists the choices; see TableTask.cell."""
        if self.choices != [column]:
            return super().cell(column, value)
        listed = json_list(value) if isinstance(value, str) else value
        if not isinstance(listed, list | tuple) or len(listed) < 2:
            raise DataError(f"no list of choices; found {shortly(value)}; give a list of 2 texts or more")
        return [super(MultipleChoice, self).cell(column, text) for text in listed]

    def strata(self, rows: Rows) -> Sequence[Any]:
        return rows["label"]

    def keys(self, rows: Rows) -> list[str]:
        choices = [" ".join(row) for row in self._choices(rows)]
        return normalised([*(rows[column] for column in self.context), choices])

    def settled(self, parts: Mapping[str, Rows], where: Mapping[str, str]) -> Labels:
        counts = {split: len(self._choices(parts[split])[0]) for split in SPLITS}
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{count} in {split}" for split, count in counts.items())
            raise DataError(f"task.choices: splits differ in their number of choices; found {found}; give equal ones")
        return Labels((), "multiple_choice")

    def counted(self, parts: Mapping[str, Rows], labels: Labels) -> dict[str, Any]:
        choices = range(len(self._choices(parts["train"])[0]))
        counts = {split: Counter(parts[split]["label"]) for split in SPLITS}
        return {"class_counts": {split: {str(number): counts[split][number] for number in choices} for split in SPLITS}}

    def dataset(self, rows: Rows, labels: Labels) -> datasets.Dataset:
        import datasets

        text = datasets.Value("string")
        kinds: dict[str, Any] = dict.fromkeys(rows, text)
        if len(self.choices) == 1:
            kinds[self.choices[0]] = datasets.List(text)
        if "label" in rows:
            kinds["label"] = datasets.Value("int64")
        return datasets.Dataset.from_dict(dict(rows), features=datasets.Features(kinds))

    def encode(self, rows: Mapping[str, list], tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, list]:
        """Return `input_ids/0`, `input_ids/1` ...: the context with each choice; only the context is cut."""
        contexts, choices = self._contexts(rows), self._choices(rows)
        count = len(choices[0])
        flat = [text for row in choices for text in row]
        _refuse_long(flat, tokenizer, max_length)
        repeated = [text for text in contexts for _ in range(count)]
        encoded = encode_texts([repeated, flat], tokenizer, max_length, cut="only_first")
        cut = encoded.pop("truncated")
        columns = {
            f"{name}/{number}": values[number::count] for name, values in encoded.items() for number in range(count)
        }
        columns["truncated"] = [any(cut[start : start + count]) for start in range(0, len(cut), count)]
        return columns | ({"labels": list(rows["label"])} if "label" in rows else {})

    def collator(self, tokenizer: PreTrainedTokenizerBase, seeds: Seeds) -> Stack:
        fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        return Stack({name: int(value or 0) for name, value in fill.items()}, tokenizer.padding_side)

    def loss(self, splits: Splits) -> LossFunction:
        return CrossEntropy()

    def answers(self, observed: Observed) -> Answers:
        import numpy as np

        predictions = np.stack(observed.outputs).argmax(axis=-1)
        return Answers(predictions, np.asarray(observed.rows["label"]), observed.labels, observed.outputs)

    def results(self, observed: Observed) -> list[Chosen]:
        import numpy as np
        from scipy.special import softmax

        shares = softmax(np.stack(observed.outputs).astype(np.float64), axis=-1).tolist()
        made = []
        for row, choices in zip(shares, self._choices(observed.rows), strict=True):
            number = max(range(len(row)), key=row.__getitem__)
            made.append(Chosen(number, choices[number], tuple(row)))
        return made

    def _contexts(self, rows: Mapping[str, Sequence[Any]]) -> list[str]:
        columns = [self._worded(column, rows[column]) for column in self.context]
        return [" ".join(row) for row in zip(*columns, strict=True)]

    def _worded(self, column: str, values: Sequence[str]) -> Sequence[str]:
        said = self.wording.get(column)
        if said is None:
            return values
        other = sorted(set(values) - set(said))
        if other:
            raise DataError(
                f"task.wording: says nothing for some values of {column!r}; found {', '.join(map(repr, other[:5]))}, "
                f"first in row {list(values).index(other[0]) + 1}; add them (known: {', '.join(said)})"
            )
        return [said[value] for value in values]

    def _choices(self, rows: Mapping[str, Sequence[Any]]) -> list[list[str]]:
        """Return each row's choices; of rows that were not checked, a JSON list may spell them."""
        if len(self.choices) > 1:
            return [list(row) for row in zip(*(rows[column] for column in self.choices), strict=True)]
        column = self.choices[0]
        found = [json_list(row) if isinstance(row, str) else row for row in rows[column]]
        count = len(found[0] or ())
        for place, row in enumerate(found):
            if not row or len(row) < 2 or len(row) != count or not all(isinstance(text, str) for text in row):
                raise DataError(
                    f"{column}: must hold equally many choices in every row, 2 or more texts; found {row!r} in row "
                    f"{place + 1} where the first has {count}; correct it"
                )
        return [list(row or ()) for row in found]


@dataclass(frozen=True)
class Stack:
    """Put `input_ids/0`, `input_ids/1` ... [rows, width] into one `input_ids` [rows, choices, width].

    Args:
        values: what fills a column up to the longest choice's width, 0 where none is named.
        side: where it is filled.
    """

    values: Mapping[str, int]
    side: str

    def __call__(
        self, batch: dict[str, torch.Tensor], split: str, features: np.ndarray, epoch: int
    ) -> dict[str, torch.Tensor]:
        from torch import stack
        from torch.nn.functional import pad

        found: dict[str, dict[int, torch.Tensor]] = {}
        for name, tensor in batch.items():
            kind, _, number = name.partition("/")
            if number:
                found.setdefault(kind, {})[int(number)] = tensor
        width = max(tensor.shape[1] for parts in found.values() for tensor in parts.values())
        made = {name: tensor for name, tensor in batch.items() if "/" not in name}
        for kind, parts in found.items():
            room = [(width - parts[number].shape[1]) for number in sorted(parts)]
            sides = [(each, 0) if self.side == "left" else (0, each) for each in room]
            value = self.values.get(kind, 0)
            made[kind] = stack(
                [pad(parts[number], side, value=value) for number, side in zip(sorted(parts), sides, strict=True)],
                dim=1,
            )
        return made


def _refuse_long(choices: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Refuse choices that leave no token of the context: to cut one would be to compare halves."""
    around = tokenizer.num_special_tokens_to_add(pair=True)
    found = tokenizer(list(choices), add_special_tokens=False, truncation=False, padding=False, verbose=False)
    lengths = [len(ids) + around for ids in found["input_ids"]]
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    if lengths[longest] >= max_length:
        raise DataError(
            f"data.max_length: a choice leaves no room for its context; found {lengths[longest]} tokens of "
            f"{max_length} for {choices[longest][:60]!r}; raise data.max_length, or shorten the choice"
        )
