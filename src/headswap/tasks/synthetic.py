"""Synthetic tasks: what must a body remember, over how many tokens? Floor 1; drawn.py draws their rows from a seed.

    Recall, AssociativeRecall, Adding    one label a text         like text classification
    Copy, Parity                         a label for each word    like token classification

A text is words with spaces between, one token each under the tokenizer package:headswap/tokenizers/symbols. A causal
body that is read at its last token can answer only from what it kept of the tokens before; a body that sees both sides,
or is pooled over all tokens, has an easier task.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from headswap import losses
from headswap.answers import Answers, Observed
from headswap.rows import Rows
from headswap.tasks.drawn import DrawnTask
from headswap.tasks.text_classification import TextClassification
from headswap.tasks.token_classification import TokenClassification

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

DIGITS = tuple("0123456789")
MARKED = tuple(f"*{digit}" for digit in DIGITS)
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
ASK, FILLER = "?", "."


@dataclass(frozen=True, kw_only=True)
class _OneLabel(DrawnTask):
    """A text with one label."""

    @functools.cached_property
    def like(self) -> TextClassification:
        return TextClassification(text=["text"], label="label", labels=list(self.names), train="drawn rows")

    def drawn(self, dice: np.random.Generator, count: int) -> Rows:
        words, labels = self.texts(dice, count)
        return {"text": [" ".join(row) for row in words], "label": labels}

    def texts(self, dice: np.random.Generator, count: int) -> tuple[Sequence[Sequence[str]], list[str]]:
        """Return the words of so many texts, `length` of them each, and their labels."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Recall(_OneLabel):
    """Name the digit that was marked, one in the first quarter of a text of digits: it lies 3/4 of the length back."""

    @property
    def names(self) -> tuple[str, ...]:
        return DIGITS

    def texts(self, dice: np.random.Generator, count: int) -> tuple[Sequence[Sequence[str]], list[str]]:
        values = dice.integers(0, 10, (count, self.length))
        places = dice.integers(0, self.length // 4, count)
        words = _words(values, [[place] for place in places])
        return words, [DIGITS[row[place]] for row, place in zip(values, places, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Adding(_OneLabel):
    """Add the two marked digits, one in each half of a text of digits (Hochreiter and Schmidhuber 1997, in tokens)."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(str(total) for total in range(19))

    def texts(self, dice: np.random.Generator, count: int) -> tuple[Sequence[Sequence[str]], list[str]]:
        half = self.length // 2
        values = dice.integers(0, 10, (count, self.length))
        first, second = dice.integers(0, half, count), dice.integers(half, self.length - 1, count)
        words = _words(values, list(zip(first, second, strict=True)))
        sums = [row[one] + row[other] for row, one, other in zip(values, first, second, strict=True)]
        return words, [str(total) for total in sums]


@dataclass(frozen=True, kw_only=True)
class AssociativeRecall(_OneLabel):
    """Name the digit that stood after a letter: pairs of a letter and a digit lie somewhere among dots.

    Args:
        pairs: how many there are, of as many letters.
    """

    pairs: int = 8

    @property
    def names(self) -> tuple[str, ...]:
        return DIGITS

    def faults(self) -> Iterator[str]:
        yield from super().faults()
        most = min(len(LETTERS), (self.length - 2) // 2)
        if not 1 <= self.pairs <= most:
            yield f"pairs: must be 1 to {most} at this length; found {self.pairs}; lower it, or raise task.length"

    def texts(self, dice: np.random.Generator, count: int) -> tuple[Sequence[Sequence[str]], list[str]]:
        made = [self._text(dice) for _ in range(count)]
        return [words for words, _ in made], [label for _, label in made]

    def _text(self, dice: np.random.Generator) -> tuple[list[str], str]:
        import numpy as np

        keys = dice.permutation(len(LETTERS))[: self.pairs]
        values = dice.integers(0, 10, self.pairs)
        room = self.length - 2 - self.pairs  # each pair stands in one place of a text in which it is one word
        places = np.sort(dice.permutation(room)[: self.pairs]) + np.arange(self.pairs)
        words = [FILLER] * (self.length - 2)
        for place, key, value in zip(places, keys, values, strict=True):
            words[place : place + 2] = [LETTERS[key], DIGITS[value]]
        asked = int(dice.integers(self.pairs))
        return [*words, ASK, LETTERS[keys[asked]]], DIGITS[values[asked]]


@dataclass(frozen=True, kw_only=True)
class _Tagged(DrawnTask):
    """A text of words with a label each, of which the last `answered` ones are asked for."""

    @functools.cached_property
    def like(self) -> TokenClassification:
        return TokenClassification(tokens="tokens", label="label", labels=list(self.names), train="drawn rows")

    @property
    def answered(self) -> int:
        return self.length

    def encode(self, rows: Mapping[str, list], tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, list]:
        """See Task.encode; words that are not asked for are not learned from."""
        found = super().encode(rows, tokenizer, max_length)
        given = self.length - self.answered
        if given and "labels" in found:
            pairs = (zip(*pair, strict=True) for pair in zip(found["labels"], found["target_word"], strict=True))
            found["labels"] = [[label if word > given else losses.IGNORED for label, word in row] for row in pairs]
        return found

    def answers(self, observed: Observed) -> Answers:
        """Return what is asked for alone."""
        found, last = super().answers(observed), slice(-self.answered, None)
        predictions, references = ([each[last] for each in rows] for rows in (found.predictions, found.references))
        return replace(
            found, predictions=predictions, references=references, outputs=[each[last] for each in found.outputs]
        )

    def results(self, observed: Observed) -> list[Any]:
        last = slice(-self.answered, None)
        return [
            replace(each, words=each.words[last], tags=each.tags[last], scores=each.scores[last])
            for each in super().results(observed)
        ]


@dataclass(frozen=True, kw_only=True)
class Copy(_Tagged):
    """Write the first half of a text again, word by word, under the question marks of its second half."""

    @property
    def names(self) -> tuple[str, ...]:
        return DIGITS

    @property
    def answered(self) -> int:
        return self.length // 2

    def drawn(self, dice: np.random.Generator, count: int) -> Rows:
        given = self.length - self.answered
        values = dice.integers(0, 10, (count, given))
        words = [[DIGITS[value] for value in row] for row in values]
        # What stands under the given words is not asked for; each word needs some label.
        labels = [[*row, *row[: self.answered]] for row in words]
        return {"tokens": [[*row, *[ASK] * self.answered] for row in words], "label": labels}


@dataclass(frozen=True, kw_only=True)
class Parity(_Tagged):
    """Say after each bit whether the ones so far are even or odd: a state of one bit, which every bit may turn."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("even", "odd")

    def drawn(self, dice: np.random.Generator, count: int) -> Rows:
        bits = dice.integers(0, 2, (count, self.length))
        odd = bits.cumsum(axis=1) % 2
        return {
            "tokens": [[DIGITS[bit] for bit in row] for row in bits],
            "label": [[self.names[each] for each in row] for row in odd],
        }


def _words(values: np.ndarray, marked: Sequence[Sequence[int]]) -> list[list[str]]:
    """Return digits as words, those at the marked places marked, and the question at the end."""
    made = []
    for row, places in zip(values, marked, strict=True):
        words = [DIGITS[value] for value in row]
        for place in places:
            words[place] = MARKED[row[place]]
        made.append([*words[:-1], ASK])
    return made
