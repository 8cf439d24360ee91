"""Learn from texts alone: guess hidden tokens, or each next one. Floor 1; token_targets.py and masking.py do the work.

The body of such a run is the body of the next: domain-adaptive or self-pretraining is a chain of two ordinary runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from headswap.answers import Answers, Labels, Observed, Problem
from headswap.checks import Notes, text_rows
from headswap.contracts import Collator, LossFunction, Splits
from headswap.errors import ConfigError
from headswap.masking import Masking, Shares, Vocabulary
from headswap.results import Modelled
from headswap.rows import Rows
from headswap.seeds import Seeds
from headswap.sources import Table
from headswap.text_task import TextTask
from headswap.token_targets import (
    Chunk,
    TokenCrossEntropy,
    example_sums,
    framed_chunks,
    next_tokens,
    refuse_empty,
    running_chunks,
)

if TYPE_CHECKING:
    import datasets
    import numpy as np
    import torch
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class _LanguageModeling(TextTask):
    """What both directions share: a column of texts, no labels, rows above data.max_length cut into chunks.

    Args:
        stratify: a column, never learned, of which automatic splits and subsets keep the shares: name the label of the
            run that goes on with this body, and the rows of a single file fall into the same splits in both, so that
            no text that one tests on has been read by the other.
    """

    stratify: str | None = None
    kind: ClassVar[Problem]
    entropy: ClassVar[TokenCrossEntropy]

    @property
    def problem(self) -> Problem:
        return self.kind

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.stratify,) if self.stratify else ()

    def faults(self) -> Iterator[str]:
        yield from self.text_faults()
        if len(self.text) == 2:
            yield f"text: must name one column; found {', '.join(self.text)}; set task.text=[COLUMN]"

    def checked(self, tables: Sequence[Table], split: str, notes: Notes) -> Rows:
        rows = text_rows(tables, self.text, self.id, self.damaged, notes, split)
        if self.stratify:
            rows["label"] = [(value or "").strip() for table in tables for value in table.text(self.stratify)]
        return rows

    def strata(self, rows: Rows) -> Sequence[Any]:
        return rows.get("label") or super().strata(rows)

    def read(self, source: str, labels: Labels) -> datasets.Dataset:
        if self.stratify:  # new rows are not split
            return replace(self, stratify=None).read(source, labels)
        return super().read(source, labels)

    def settled(self, parts: Mapping[str, Rows], where: Mapping[str, str]) -> Labels:
        return Labels((), self.kind)

    def dataset(self, rows: Rows, labels: Labels) -> datasets.Dataset:
        import datasets

        values = {name: rows[name] for name in ("id", *self.text)}
        kinds = datasets.Features({name: datasets.Value("string") for name in values})
        return datasets.Dataset.from_dict(values, features=kinds)

    def loss(self, splits: Splits) -> LossFunction:
        return self.entropy

    def observe(self, model: Any, batch: Mapping[str, torch.Tensor], output: Any) -> list[np.ndarray]:
        """Return [3] a feature: the sum of its targets' losses, how many are right, how many there are."""
        return list(self.entropy.sums(output.logits, batch["labels"]).cpu().numpy())

    def answers(self, observed: Observed) -> Answers:
        import numpy as np

        sums = example_sums(observed)
        return Answers(sums, np.zeros((len(sums), 0)), observed.labels, list(sums))

    def results(self, observed: Observed) -> list[Modelled]:
        import math

        made = []
        for total, right, count in example_sums(observed).tolist():
            loss = total / count
            made.append(Modelled(loss, math.exp(loss) if loss < 700 else math.inf, right / count, int(count)))
        return made


@dataclass(frozen=True, kw_only=True)
class MaskedLanguageModeling(_LanguageModeling):
    """Learn to guess hidden tokens of a text from those on both sides.

    A text's score is that of one fixed masking, the same for every run and seed: good for comparing models, but not the
    text's probability.

    Args:
        mask_share: share of the tokens that are to be guessed; at least one of each chunk.
        random_share: share of these that a random token stands in for.
        kept_share: share of these that stay as they are; the mask token stands in for the rest.
        whole_word: hide all tokens of a word, or none; the share is then of the words.
    """

    mask_share: float = 0.15
    random_share: float = 0.1
    kept_share: float = 0.1
    whole_word: bool = False
    kind: ClassVar[Problem] = "masked_language_modeling"
    entropy: ClassVar[TokenCrossEntropy] = TokenCrossEntropy()

    @property
    def auto_class(self) -> str:
        return "AutoModelForMaskedLM"

    def faults(self) -> Iterator[str]:
        yield from super().faults()
        if not 0 < self.mask_share < 1:
            yield f"mask_share: must lie in (0, 1); found {self.mask_share}; set a share such as 0.15"
        parts = self.random_share, self.kept_share
        if min(parts) < 0 or sum(parts) > 1:
            yield f"random_share: it and kept_share are parts of 1; found {parts[0]} and {parts[1]}; lower them"

    def encode(self, rows: Mapping[str, list], tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, list]:
        """See Task.encode; with whole words, `target_word` is a token's word in its text from 1, 0 for special ones."""
        special = Vocabulary.of(tokenizer).special
        chunks = list(framed_chunks(rows[self.text[0]], tokenizer, max_length, self.whole_word))
        refuse_empty(chunks, [all(special[token] for token in chunk.tokens) for chunk in chunks], rows)
        return _columns(chunks) | ({"target_word": [chunk.words for chunk in chunks]} if self.whole_word else {})

    def collator(self, tokenizer: PreTrainedTokenizerBase, seeds: Seeds) -> Collator:
        shares = Shares(self.mask_share, self.random_share, self.kept_share)
        return Masking(Vocabulary.of(tokenizer), shares, seeds)


@dataclass(frozen=True, kw_only=True)
class CausalLanguageModeling(_LanguageModeling):
    """Learn to guess every next token of a text.

    Args:
        append_end: end each text with the end token, so that the model learns where texts end.
    """

    append_end: bool = True
    kind: ClassVar[Problem] = "causal_language_modeling"
    entropy: ClassVar[TokenCrossEntropy] = TokenCrossEntropy(ahead=True)

    @property
    def auto_class(self) -> str:
        return "AutoModelForCausalLM"

    def encode(self, rows: Mapping[str, list], tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, list]:
        end = _end_token(tokenizer) if self.append_end else None
        chunks = list(running_chunks(rows[self.text[0]], tokenizer, max_length, end))
        refuse_empty(chunks, [len(chunk.tokens) < 2 for chunk in chunks], rows)
        return _columns(chunks)

    def collator(self, tokenizer: PreTrainedTokenizerBase, seeds: Seeds) -> Collator:
        return next_tokens


def _columns(chunks: Sequence[Chunk]) -> dict[str, list]:
    return {
        "input_ids": [chunk.tokens for chunk in chunks],
        "example": [chunk.example for chunk in chunks],
        "truncated": [False] * len(chunks),
    }


def _end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    for token in (tokenizer.eos_token_id, tokenizer.sep_token_id):  # BERT's tokenizers end a text with the separator
        if isinstance(token, int):
            return token
    raise ConfigError(
        f"task.append_end: the tokenizer has no end token; found neither eos_token nor sep_token in "
        f"{type(tokenizer).__name__}; set task.append_end=false"
    )
