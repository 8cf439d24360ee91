"""Which models have an ONNX form, what goes into it and comes out, and batches to trace and prove it with.

Export chain: graph (this) -> onnx.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headswap.bodyfiles import OWN_TYPES, read_json
from headswap.errors import ConfigError
from headswap.tokenizer_check import PROBES

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Form:
    """What a class of models gives: its outputs, whether one a token, and whether inputs are [batch, choice, token]."""

    outputs: tuple[str, ...] = ("logits",)
    per_token: bool = False
    choices: bool = False
    pairs: bool = False


FORMS = {
    "ForSequenceClassification": Form(),
    "ForTokenClassification": Form(per_token=True),
    "ForQuestionAnswering": Form(("start_logits", "end_logits"), per_token=True, pairs=True),
    "ForMultipleChoice": Form(choices=True, pairs=True),
    "ForMaskedLM": Form(per_token=True),
}


def form_of(folder: Path) -> tuple[str, Form]:
    """Return a checkpoint's class and its form. Raises ConfigError where ONNX cannot serve it."""
    config = read_json(folder / "config.json")
    names = config.get("architectures") or ["none"]
    if config.get("model_type") in OWN_TYPES:
        raise ConfigError(
            f"{folder}: recurrent cells are not exported; found {names[0]}: torch.onnx fixes the number of tokens that "
            "a layer of cells reads; use headswap predict, or a transformer body"
        )
    for ending, form in FORMS.items():
        if names[0].endswith(ending):
            return names[0], form
    raise ConfigError(
        f"{folder}: this kind of model is not exported; found {names[0]}: text is generated in a loop around the "
        f"model, which one ONNX graph does not hold; exported are {', '.join(FORMS)}; use headswap predict"
    )


def batches(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, form: Form, max_length: int
) -> Iterator[Mapping[str, torch.Tensor]]:
    """Yield batches of other sizes and lengths each; the first is the one to trace."""
    probes = PROBES.splitlines()
    for texts in (probes[:2], probes[4:5], probes[3:12], [" ".join(probes), probes[0], probes[9]]):
        yield _batch(tokenizer, model, form, (texts, max_length))


def _batch(tokenizer: Any, model: Any, form: Form, what: tuple[Sequence[str], int]) -> Mapping[str, torch.Tensor]:
    import torch

    from headswap.encoded import pad_token_id
    from headswap.text_task import encode_texts

    texts, max_length = what
    choices = 2 + len(texts) % 2 if form.choices else 1
    rows = [text for text in texts for _ in range(choices)]
    pairs = form.pairs or takes_segments(model)
    columns = [rows, [f"{row} {text[::-1]}" for row, text in enumerate(rows)]] if pairs else [rows]
    found = encode_texts(columns, tokenizer, max_length)
    values = {"input_ids": pad_token_id(tokenizer), "token_type_ids": 0}
    found["attention_mask"] = [[1] * len(ids) for ids in found["input_ids"]]
    if takes_segments(model):
        found.setdefault("token_type_ids", [[0] * len(ids) for ids in found["input_ids"]])
    longest = max(map(len, found["input_ids"]))
    batch = {
        name: torch.tensor([[*row, *[values.get(name, 0)] * (longest - len(row))] for row in found[name]])
        for name in input_names(model)
    }
    return {name: each.view(len(texts), choices, -1) for name, each in batch.items()} if form.choices else batch


def input_names(model: Any) -> tuple[str, ...]:
    return ("input_ids", "attention_mask", *(("token_type_ids",) if takes_segments(model) else ()))


def takes_segments(model: Any) -> bool:
    """Say whether the model tells the two texts of a pair apart by `token_type_ids`."""
    count = getattr(model.config, "type_vocab_size", None) or 0
    return count > 1 and "token_type_ids" in inspect.signature(model.forward).parameters
