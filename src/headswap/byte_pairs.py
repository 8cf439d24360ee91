"""A tokenizer of a task's own texts: byte-level BPE over the training rows, and no others. Floor 5.

    Config -> training rows -> every column of texts -> merges -> a folder that AutoTokenizer reads

A body with weights brings its tokenizer; one that is drawn at random needs one. Bytes leave no text unknown, and case,
accents and spaces as they are: what a model learns to write is what the text says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headswap.config import build_plugs
from headswap.durable import cannot_write, published
from headswap.errors import ConfigError, DataError
from headswap.run_data import data_request
from headswap.seeds import Seeds
from headswap.spine import Config

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerFast

ROLES = {"pad_token": "<pad>", "cls_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
"""The first tokens, in this order. `<s>` opens a source and is what a decoder starts with; `</s>` closes both."""
LEAST = 256 + len(ROLES)
FACTS = "learned.json"
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Learned:
    """What a tokenizer was learned from.

    Args:
        tokens: special ones included; fewer than asked for where the texts have no pair left that stands there twice.
        texts: sha256 over them, so that two folders can be told apart.
    """

    tokens: int
    asked: int
    rows: int
    columns: tuple[str, ...]
    characters: int
    texts: str


def learn(config: Config, size: int) -> tuple[PreTrainedTokenizerFast, Learned]:
    """Learn a byte-level BPE (Sennrich et al. 2016, 1508.07909, over bytes) from what a run of `config` trains on.

    Args:
        size: tokens, special ones and the 256 bytes included.

    Raises:
        ConfigError: fewer tokens than bytes and special tokens.
        DataError: the training rows hold no texts.
    """
    if size < LEAST:
        raise ConfigError(
            f"--size: too few tokens; found {size}; give {LEAST} (256 bytes and {len(ROLES)} special ones) or more, "
            "such as 4000"
        )
    rows = build_plugs(config).task.load(data_request(config), Seeds(config.seed)).train
    columns = text_columns(rows)
    if not columns:
        raise DataError("task: its training rows hold no texts; found no column of them; choose a task over texts")
    tokenizer = _trained(_texts(rows, columns), size)
    characters, digest = _measured(_texts(rows, columns))
    return tokenizer, Learned(len(tokenizer), size, len(rows), columns, characters, digest)


def text_columns(rows: datasets.Dataset) -> tuple[str, ...]:
    """Return the columns that hold texts, or lists of them: sources and targets alike, but not the rows' names."""
    return tuple(
        name
        for name, kind in rows.features.items()
        if name != "id" and getattr(getattr(kind, "feature", kind), "dtype", None) == "string"
    )


def write(folder: Path, tokenizer: PreTrainedTokenizerFast, learned: Learned) -> None:
    """Write a tokenizer and what it was learned from, all or nothing. Raises ConfigError, RunError."""
    refuse_taken(folder)
    try:
        with published(folder) as draft:
            tokenizer.save_pretrained(str(draft.path))
            draft.write_json(FACTS, asdict(learned))
    except OSError as error:
        raise cannot_write(folder, error) from error


def refuse_taken(folder: Path) -> None:
    """Raise ConfigError where something lies at `folder`: a body may be reading its tokenizer there."""
    if folder.exists():
        raise ConfigError(f"--output: must be new; found {folder}; name another folder, or remove that one")


def _trained(texts: Iterator[list[str]], size: int) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    raw: Any = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size, min_frequency=2, special_tokens=list(ROLES.values()), show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )  # fmt: skip
    start, end = ROLES["cls_token"], ROLES["eos_token"]
    raw.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} $B:1 {end}:1",
        special_tokens=[(token, raw.token_to_id(token)) for token in (start, end)],
    )
    # No begin token but a class token: a decoder starts with it and need not learn to write it (targets.Frame).
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, model_input_names=["input_ids", "attention_mask"], sep_token=end,
        clean_up_tokenization_spaces=False, **ROLES,
    )  # fmt: skip


def _texts(rows: datasets.Dataset, columns: tuple[str, ...]) -> Iterator[list[str]]:
    """Yield the texts of all columns, in the rows' order."""
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[start : start + _ROWS_AT_ONCE]
        for name in columns:
            yield [text for value in part[name] for text in ([value] if isinstance(value, str) else value or ())]


def _measured(texts: Iterator[list[str]]) -> tuple[int, str]:
    digest, characters = hashlib.sha256(), 0
    for part in texts:
        for text in part:
            characters += len(text)
            digest.update(hashlib.sha256(text.encode()).digest())
    return characters, digest.hexdigest()
