"""Tasks whose input is one text or a pair of texts: how it is tokenised. Floor 0; see table_task.py for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headswap.table_task import TableTask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class TextTask(TableTask):
    """A table with one text column, or with two that form a pair.

    Args:
        text: the text column, or the two columns of a pair.
    """

    text: list[str]

    @property
    def auto_class(self) -> str:
        return "AutoModelForSequenceClassification"

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.text)

    def encode(self, rows: Mapping[str, list], tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, list]:
        columns = encode_texts([list(rows[column]) for column in self.text], tokenizer, max_length)
        return columns | ({"labels": list(rows["label"])} if "label" in rows else {})

    def text_faults(self) -> Iterator[str]:
        """Yield what is wrong with the columns' names."""
        columns = [*self.text, *self.targets, *([self.id] if self.id else [])]
        if len(self.text) not in (1, 2):
            yield f"text: must name one column, or two of a pair; found {len(self.text)}; set task.text=[COLUMN]"
        if len(set(columns)) != len(columns) or not all(columns):
            found = ", ".join(map(repr, columns))
            yield f"text: text, label and id must be different columns; found {found}; correct them"
        if {"id", "label"} & set(self.text):
            yield "text: the names id and label are taken; found one of them among the texts; rename that column"


def encode_texts(
    columns: list[list[str]], tokenizer: PreTrainedTokenizerBase, max_length: int, cut: bool | str = True
) -> dict[str, list]:
    """Return `input_ids`, `token_type_ids` where the tokenizer gives other ones than 0, and `truncated` of each row.

    Args:
        cut: what a tokenizer's `truncation` takes: True cuts the longer text of a pair, "only_first" never the second.
    """
    first, second = columns[0], columns[1] if len(columns) == 2 else None
    types = "token_type_ids" in tokenizer.model_input_names
    options: dict[str, Any] = {"return_attention_mask": False, "return_token_type_ids": types, "verbose": False}
    encoded = tokenizer(first, second, truncation=cut, max_length=max_length, padding=False, **options)
    found = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
    if second is None and not any(map(any, found.get("token_type_ids", ()))):  # XLNet's class token has its own type
        found.pop("token_type_ids", None)
    if encoded.encodings is not None:  # the Rust tokenizers keep what they cut off
        return {**found, "truncated": [bool(item.overflowing) for item in encoded.encodings]}
    whole = tokenizer(first, second, truncation=False, **options)["input_ids"]
    cut_off = [len(full) > len(kept) for full, kept in zip(whole, found["input_ids"], strict=True)]
    return {**found, "truncated": cut_off}
