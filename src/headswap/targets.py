"""Texts that a model is to write, as the labels of its decoder. Floor 0; tasks/sequence_to_sequence.py asks here.

    Frame.of(tokenizer): what stands around a target -> Frame.labels(texts): [before] tokens [after]

Labels are what transformers' run_translation.py and run_summarization.py take, `tokenizer(text_target=...)`, but for
two things: the class token of BERT's tokenizers is no label, and an end token is added where the tokenizer adds none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headswap.errors import ConfigError, WeightsError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "a 1"


@dataclass(frozen=True)
class Frame:
    """The special tokens of a target's labels, the same for every text.

    Args:
        before: BART's <s>, the code of the target language (NLLB, M2M100, mBART-50); mostly none.
        after: the end token; the first mBART writes the language's code behind it.
        ends: what says that a target is over; anything in `after` behind it is the decoder's start.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Frame:
        """Read the frame off a tokenised probe.

        BERT's tokenizers have a class token and no begin token. A decoder made of a BERT starts with the class token,
        so that its first label is the first word. RoBERTa's and BART's tokenizers are alike, and BART predicts its <s>:
        there it is a label, as in pretraining.

        Raises:
            WeightsError: the tokenizer has no token that ends a target.
        """
        whole, bare = (_tokens(tokenizer, [_PROBE], special)[0] for special in (True, False))
        place = next(start for start in range(len(whole)) if whole[start : start + len(bare)] == bare)
        before, after = whole[:place], whole[place + len(bare) :]
        if tokenizer.bos_token_id is None and before == [tokenizer.cls_token_id]:
            before = []
        ends = tuple(each for each in (tokenizer.eos_token_id, tokenizer.sep_token_id) if isinstance(each, int))
        if not ends:
            raise WeightsError(
                f"body: its tokenizer has nothing that ends a text; found no eos_token and no sep_token in "
                f"{type(tokenizer).__name__}; save it with an eos_token, then name that folder in body.source"
            )
        return cls(tuple(before), tuple(after) if set(after) & set(ends) else (*after, ends[0]), ends)

    @property
    def start(self) -> int | None:
        """What the decoder starts with, where the tokenizer says so (mBART's language), None for the model's own."""
        return None if self.after[-1] in self.ends else self.after[-1]

    @property
    def first(self) -> int | None:
        """The label that every target begins with."""
        return self.before[0] if self.before else None

    def labels(
        self, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> tuple[list[list[int]], list[bool]]:
        """Return the labels of each text, at most `max_length` with the frame, and whether it was cut; ends stay."""
        room = max_length - len(self.before) - len(self.after)
        rows = _tokens(tokenizer, list(texts), special=False)
        return [[*self.before, *row[:room], *self.after] for row in rows], [len(row) > room for row in rows]


def altered(labels: list[list[int]], texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return 1 for each text that its labels do not spell, spaces aside: case, accents or signs are lost, 0 for others.

    No training mends it: a perfect model writes the altered text and is scored against the true one.
    """
    found = ["".join(text.split()) for text in tokenizer.batch_decode(labels, skip_special_tokens=True)]
    wanted = ["".join(text.split()) for text in texts]
    return [int(not text.startswith(spelt)) for text, spelt in zip(wanted, found, strict=True)]


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str], special: bool) -> list[list[int]]:
    options: dict[str, Any] = {"truncation": False, "padding": False, "return_attention_mask": False, "verbose": False}
    found: Any = tokenizer(text_target=texts, add_special_tokens=special, **options)["input_ids"]
    return [list(row) for row in found]


def set_languages(tokenizer: PreTrainedTokenizerBase, source: str | None, target: str | None) -> None:
    """Tell a tokenizer of many languages (mBART, NLLB, M2M100) which two it serves.

    Raises:
        ConfigError: it needs a target language, knows no languages, or not this one.
    """
    for key, attribute, wanted in (("source", "src_lang", source), ("target", "tgt_lang", target)):
        if wanted is None:
            if getattr(tokenizer, attribute, "") is None:
                raise ConfigError(
                    f"task.{key}_language: this body's tokenizer writes the language before a text; found none; set "
                    f"its code, such as {_some_languages(tokenizer)}"
                )
            continue
        if not hasattr(tokenizer, attribute):
            raise ConfigError(
                f"task.{key}_language: this body's tokenizer knows no languages; found {wanted!r}; set null, and "
                "task.prefix where the body was trained with one"
            )
        if not _knows(tokenizer, wanted):
            raise ConfigError(
                f"task.{key}_language: unknown to this body's tokenizer; found {wanted!r}; use one such as "
                f"{_some_languages(tokenizer)}"
            )
        setattr(tokenizer, attribute, wanted)


def _knows(tokenizer: PreTrainedTokenizerBase, language: str) -> bool:
    as_token = getattr(tokenizer, "lang_code_to_token", {}).get(language, language)  # M2M100 writes __de__ for de
    number = tokenizer.convert_tokens_to_ids(as_token)
    return number is not None and number != tokenizer.unk_token_id


def _some_languages(tokenizer: PreTrainedTokenizerBase) -> str:
    codes = list(getattr(tokenizer, "lang_code_to_token", ())) or tokenizer.all_special_tokens
    return ", ".join(sorted(code for code in codes if code.isascii() and code[0].isalpha())[:5])
