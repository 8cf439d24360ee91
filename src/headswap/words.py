"""Words and their tokens: which token speaks for which word, in which window of a long sentence. Floor 0.

    words -> one text, joined by spaces -> windows of tokens -> each word answered once, where it has most context

The words are tokenised as the text they make, so a word's tokens are those of running text whatever the tokenizer
(byte-level ones write a space into the token), and what pipeline("token-classification") makes of that text. Characters
say which word a token belongs to; a word of which no token is left (a control character) shifts nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headswap.errors import ConfigError
from headswap.results import Span

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

NO_WORD = -1
_WORD = re.compile(r"\w+|[^\w\s]")
_ENTITY_TAG = re.compile(r"O|[BIESLU](-.+)?")


@dataclass(frozen=True)
class Sentence:
    """Words with the characters of `text` that each is: words of a list are joined by spaces."""

    words: tuple[str, ...]
    text: str
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Windows:
    """Sentences as features of the model; the words are numbered through all sentences.

    Args:
        example: [features] the number of each feature's sentence, rising.
        word: token by token, the word that it belongs to, where the feature answers for it; else NO_WORD.
        first: token by token, whether it is the first of such a word.
    """

    input_ids: list[list[int]]
    example: list[int]
    word: list[np.ndarray]
    first: list[np.ndarray]


def sentence(value: Any) -> Sentence:
    """Read a list of words, a JSON list of them, or plain text: runs of letters and digits, and each other sign."""
    listed = json_list(value) if isinstance(value, str) else value
    if listed is None:
        found = list(_WORD.finditer(value))
        return Sentence(tuple(one.group() for one in found), value, tuple(one.span() for one in found))
    words, places, start = tuple(map(str, listed)), [], 0
    for word in words:
        places.append((start, start + len(word)))
        start += len(word) + 1
    return Sentence(words, " ".join(words), tuple(places))


def json_list(value: str) -> list[Any] | None:
    """Return the list that a text spells in JSON, None for any other text."""
    if not value.lstrip().startswith("["):
        return None
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return None


def windows(
    sentences: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, max_length: int, stride: int
) -> Windows:
    """Cut sentences into windows of at most `max_length` tokens.

    Args:
        stride: tokens that neighbouring windows share, at most half of a window.

    Raises:
        ConfigError: the tokenizer cannot say where its tokens come from, or a window holds no token.
    """
    import numpy as np

    found = _tokens(sentences, tokenizer, max_length, stride)
    ids, example = found["input_ids"], np.asarray(found["overflow_to_sample_mapping"])
    lengths = np.array([len(row) for row in ids])
    feature = np.repeat(np.arange(len(ids)), lengths)
    starts, ends = _word_places(sentences)
    begin = np.cumsum([0, *(len(" ".join(words)) + 1 for words in sentences)])[example][feature]
    spans = np.concatenate([np.asarray(row).reshape(-1, 2) for row in found["offset_mapping"]]) + begin[:, None]
    word = np.searchsorted(ends, spans[:, 0], side="right")
    inside = (word < len(ends)) & (starts[np.minimum(word, len(ends) - 1)] < spans[:, 1])
    word = np.where(inside, word, NO_WORD)
    first = _answering(word, feature, spans[:, 0], lengths)
    owner = np.full(len(ends), NO_WORD)
    owner[word[first]] = feature[first]
    word = np.where((word != NO_WORD) & (owner[word] == feature), word, NO_WORD)
    speaks = np.zeros(len(word), dtype=bool)
    speaks[first] = True
    cuts = np.cumsum(lengths)[:-1]
    kept = _kept(example, np.bincount(feature[first], minlength=len(ids)))
    by_feature = np.split(word, cuts), np.split(speaks, cuts)
    return Windows(
        [ids[number] for number in kept],
        [int(example[number]) for number in kept],
        [by_feature[0][number] for number in kept],
        [by_feature[1][number] for number in kept],
    )


def _tokens(
    sentences: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, max_length: int, stride: int
) -> Any:
    if not tokenizer.is_fast:
        raise ConfigError(
            f"body: token classification needs a tokenizer that knows which characters its tokens are; found "
            f"{type(tokenizer).__name__}, a slow one; use a body with a tokenizer.json"
        )
    room = max_length - tokenizer.num_special_tokens_to_add(pair=False)
    if room < 1:
        raise ConfigError(f"data.max_length: no room for a word; found {max_length}; set 8 or more")
    return tokenizer(
        [" ".join(words) for words in sentences], truncation=True, max_length=max_length, stride=min(stride, room // 2),
        padding=False, return_overflowing_tokens=True, return_offsets_mapping=True, return_attention_mask=False,
        return_token_type_ids=False, verbose=False,
    )  # fmt: skip


def _word_places(sentences: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the first character of each word, and the one behind it, in all sentences joined by spaces."""
    import numpy as np

    lengths = np.array([len(word) for words in sentences for word in (words or [""])])
    ends = np.cumsum(lengths + 1) - 1
    return ends - lengths, ends


def first_words(sentences: Sequence[Sequence[str]]) -> list[int]:
    """Return the number that the first word of each sentence has in `Windows.word`."""
    import numpy as np

    return np.cumsum([0, *(max(1, len(words)) for words in sentences)])[:-1].tolist()


def _answering(word: np.ndarray, feature: np.ndarray, start: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the token that speaks for each word: its first, in the window where it has most tokens on both sides."""
    import numpy as np

    tokens = np.flatnonzero(word != NO_WORD)
    _, unique = np.unique(word[tokens] * len(lengths) + feature[tokens], return_index=True)
    tokens = tokens[unique]
    earliest = np.full(word.max(initial=0) + 1, np.iinfo(np.int64).max)
    np.minimum.at(earliest, word[tokens], start[tokens])
    tokens = tokens[start[tokens] == earliest[word[tokens]]]  # not the rest of a word that a window begins with
    place = tokens - (np.cumsum(lengths) - lengths)[feature[tokens]]
    context = np.minimum(place, lengths[feature[tokens]] - 1 - place)
    tokens = tokens[np.lexsort((feature[tokens], -context, word[tokens]))]
    _, best = np.unique(word[tokens], return_index=True)
    return tokens[best]


def _kept(example: np.ndarray, words: np.ndarray) -> list[int]:
    """Return the features that answer for a word, and of a sentence that has none the first."""
    heads = {int(number): feature for feature, number in reversed(list(enumerate(example)))}
    spoken = {int(number) for number in example[words > 0]}
    silent = {feature for number, feature in heads.items() if number not in spoken}
    return [feature for feature in range(len(example)) if words[feature] > 0 or feature in silent]


def marks_entities(names: Iterable[str]) -> bool:
    """Say whether tags mark stretches of words: O, and prefixes of BIO, BIOES or BILOU such as B-person."""
    found = set(names)
    return found > {"O"} and all(_ENTITY_TAG.fullmatch(name) for name in found)


def entities(of: Sentence, tags: Sequence[str], scores: Sequence[float]) -> tuple[Span, ...]:
    """Return the stretches that tags mark, read as conlleval does: an I- after O or another type begins one too.

    A stretch's score is the mean of its words'.
    """
    found = []
    for kind, first, last in _stretches(tags):
        start, end = of.places[first][0], of.places[last][1]
        score = sum(scores[first : last + 1]) / (last + 1 - first)
        found.append(Span(of.text[start:end], start, end, kind, score))
    return tuple(found)


def _stretches(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield type, first and last word of each entity."""
    kind, first, ended = "", None, False
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        goes_on = first is not None and prefix in "IEL" and name == kind and not ended
        if first is not None and not goes_on:
            yield kind, first, place - 1
            first = None
        if first is None and prefix != "O":
            kind, first = name, place
        ended = prefix in "ESLU"
