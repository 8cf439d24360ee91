"""Stretches of a context as tokens and back: overlapping windows, places of answers, the best span. Floor 0.

windows: question and context -> features of at most max_length tokens, with each token's characters of the context
placed:  where an answer starts and ends in each of them
found:   start and end scores of every token -> the best stretches of characters over all windows of an example

NumPy is imported inside the functions.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from headswap.answers import Observed
from headswap.errors import DataError, WeightsError

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

OUTSIDE = -1
"""The place of a token in which no answer starts or ends: the question's, special ones, white space."""
NO_SPAN = -1e30
"""The score where no stretch may be an answer, as in a context of which the tokenizer keeps nothing."""

_BLANK = re.compile(r"\s")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")


class Candidate(NamedTuple):
    """Characters `start` to `end` (exclusive) of a context; score: the sum of the two tokens' logits."""

    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Found:
    """What a model found in one context: different spans, best first, and the score of there being no answer."""

    spans: tuple[Candidate, ...]
    no_answer: float

    @property
    def score(self) -> float:
        return self.spans[0].score if self.spans else NO_SPAN

    @property
    def doubt(self) -> float:
        """How much more speaks for no answer than for the best span."""
        return self.no_answer - self.score


@dataclass(frozen=True)
class Windows:
    """How a pair becomes features.

    Args:
        max_length: tokens of a feature, the question and special tokens included.
        overlap: tokens of the context that two neighbouring windows share.
    """

    max_length: int
    overlap: int

    def cut(
        self, questions: list[str], contexts: list[str], ids: Sequence[str], tokenizer: PreTrainedTokenizerBase
    ) -> dict[str, list]:
        """Return `input_ids`, `token_type_ids` where there are such, `example`, `target_from` and `target_to`.

        The last two are a token's characters of the context, without white space at their ends, and OUTSIDE elsewhere.

        Raises:
            WeightsError: the tokenizer cannot tell where in the text its tokens stand.
            DataError: a question leaves no room for the context.
        """
        if not tokenizer.is_fast:
            raise WeightsError(
                f"body: this tokenizer does not tell which characters a token stands for; found "
                f"{type(tokenizer).__name__} without tokenizer.json; use a body with a fast tokenizer"
            )
        self._refuse_long(questions, ids, tokenizer)
        types = "token_type_ids" in tokenizer.model_input_names
        encoded = tokenizer(
            questions, contexts, truncation="only_second", max_length=self.max_length, stride=self.overlap,
            return_overflowing_tokens=True, return_attention_mask=False, return_token_type_ids=types, padding=False,
            verbose=False,
        )  # fmt: skip
        columns: dict[str, Any] = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
        columns["example"] = encoded["overflow_to_sample_mapping"]
        columns |= {"target_from": [], "target_to": []}
        edges, last = None, None
        for example, feature in zip(columns["example"], encoded.encodings or (), strict=True):
            if edges is None or example != last:
                edges, last = _edges(contexts[example]), example
            starts, ends = _characters(feature, edges)
            columns["target_from"].append(starts.tolist())
            columns["target_to"].append(ends.tolist())
        return columns

    def _refuse_long(self, questions: list[str], ids: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
        """A window must be longer than the overlap, or the tokenizer's library dies of it."""
        options: dict[str, Any] = {"add_special_tokens": False, "truncation": False, "padding": False, "verbose": False}
        lengths = [len(tokens) for tokens in tokenizer(questions, **options)["input_ids"]]
        room = self.max_length - tokenizer.num_special_tokens_to_add(pair=True) - self.overlap - 1
        long = [place for place, length in enumerate(lengths) if length > room]
        if long:
            shown = ", ".join(ids[place] for place in long[:3]) + (f" and {len(long) - 3} more" if long[3:] else "")
            longest = max(lengths[place] for place in long)
            raise DataError(
                f"data.max_length: no room for a context beside these questions; found {longest} tokens where "
                f"{max(room, 0)} of {self.max_length} may be the question's (rows with id {shown}); shorten them, "
                f"raise data.max_length, or lower task.stride ({self.overlap})"
            )


def _edges(context: str) -> tuple[np.ndarray, np.ndarray]:
    """Return for each place of a context where what is not white space begins at or after it, and ends at or before.

    Marks that combine with the character before an end belong to it: many tokenizers drop them.
    """
    import numpy as np

    blank = np.zeros(len(context), dtype=bool)
    blank[[found.start() for found in _BLANK.finditer(context)]] = True
    places = np.arange(len(context) + 1)
    begins = np.append(np.where(blank, len(context), places[:-1]), len(context))
    begins = np.minimum.accumulate(begins[::-1])[::-1]
    ends = np.maximum.accumulate(np.append(0, np.where(blank, 0, places[1:])))
    marked = [found.start() for found in _BEYOND_ASCII.finditer(context) if unicodedata.category(found[0])[0] == "M"]
    if marked:
        marks = np.zeros(len(context), dtype=bool)
        marks[marked] = True
        beyond = np.append(np.where(marks, len(context), places[:-1]), len(context))
        ends = np.minimum.accumulate(beyond[::-1])[::-1][ends]
    return begins, ends


def _characters(feature: Any, edges: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return where each token of a feature starts and ends in the context."""
    import numpy as np

    given = np.asarray(feature.offsets, dtype=np.int64).reshape(-1, 2)
    within = np.asarray(feature.sequence_ids, dtype=np.float32) == 1  # None, a special token's, is no number
    given = np.where(within[:, None], given, 0)
    starts, ends = edges[0][given[:, 0]], edges[1][given[:, 1]]
    solid = within & (given[:, 0] < given[:, 1]) & (starts < ends)
    return np.where(solid, starts, OUTSIDE), np.where(solid, ends, OUTSIDE)


def placed(
    columns: Mapping[str, list], answers: Sequence[tuple[int, int] | None], tokenizer: PreTrainedTokenizerBase
) -> dict[str, list]:
    """Return `target_start`, `target_end` and `truncated` of features that Windows.cut made.

    A window that does not hold the whole answer is given the place that stands for none (null_place), as in BERT's and
    transformers' own SQuAD scripts. `truncated` says that no window holds it.

    Args:
        answers: the characters of each example's answer, None for no answer.
    """
    import numpy as np

    examples = columns["example"]
    covered = [
        _covered(np.asarray(starts), np.asarray(ends), answers[example])
        for example, starts, ends in zip(examples, columns["target_from"], columns["target_to"], strict=True)
    ]
    reach: dict[int, tuple[int, int]] = {}  # the answer's characters that have a token in any window
    for example, each in zip(examples, covered, strict=True):
        if each is not None:
            known = reach.get(example, (each.start, each.end))
            reach[example] = (min(known[0], each.start), max(known[1], each.end))
    places, held = [], set()
    for feature, (example, each) in enumerate(zip(examples, covered, strict=True)):
        if each is not None and (each.start, each.end) == reach[example]:
            held.add(example)
            places.append(each.tokens)
        else:
            ids, starts = (np.asarray(columns[name][feature]) for name in ("input_ids", "target_from"))
            places.append((null_place(ids, starts, tokenizer),) * 2)
    return {
        "target_start": [first for first, _ in places],
        "target_end": [last for _, last in places],
        "truncated": [answers[example] is not None and example not in held for example in examples],
    }


class _Covered(NamedTuple):
    """The first and last token of a window that share characters with an answer, and what these two span."""

    tokens: tuple[int, int]
    start: int
    end: int


def _covered(starts: np.ndarray, ends: np.ndarray, answer: tuple[int, int] | None) -> _Covered | None:
    if answer is None:
        return None
    tokens = ((starts >= 0) & (starts < answer[1]) & (ends > answer[0])).nonzero()[0].tolist()
    return _Covered((tokens[0], tokens[-1]), int(starts[tokens[0]]), int(ends[tokens[-1]])) if tokens else None


def null_place(ids: np.ndarray, starts: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that stands for no answer: the class token, else the begin token, else the first."""
    for token in (tokenizer.cls_token_id, tokenizer.bos_token_id):
        places = ((ids == token) & (starts == OUTSIDE)).nonzero()[0]
        if token is not None and len(places):
            return int(places[0])
    return 0


@dataclass(frozen=True)
class Search:
    """Which stretches may be answers: at most `longest` tokens; `count` of them are kept."""

    longest: int
    count: int = 1

    def found(self, observed: Observed) -> list[Found]:
        """Return what the outputs [2, tokens] of all features say of each example.

        A span that two windows hold counts once, with its better score; the score of no answer is the lowest of all
        windows', since one window that holds the answer is enough.
        """
        import numpy as np

        features = observed.features
        spans: list[dict[tuple[int, int], float]] = [{} for _ in features.ids]
        nothing = [float("inf")] * len(spans)
        for feature, (example, output) in enumerate(zip(features.example.tolist(), observed.outputs, strict=True)):
            starts, ends = features.column("target_from", feature), features.column("target_to", feature)
            logits = output.astype(np.float64)
            none = null_place(features.column("input_ids", feature), starts, observed.tokenizer)
            nothing[example] = min(nothing[example], float(logits[:, none].sum()))
            kept = spans[example]
            for span in self.best(logits, starts, ends):
                kept[span[:2]] = max(kept.get(span[:2], span.score), span.score)
        whole = [sorted((Candidate(*place, score) for place, score in each.items()), key=_rank) for each in spans]
        return [Found(tuple(each[: self.count]), none) for each, none in zip(whole, nothing, strict=True)]

    def best(self, logits: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> list[Candidate]:
        """Return the best spans of one window, at most `count`; every pair of a start and an end is looked at.

        Args:
            logits: [2, tokens] of start and end.
            starts, ends: [tokens] the characters that a token stands for; OUTSIDE where no answer starts or ends.
        """
        import numpy as np

        within = np.flatnonzero(starts >= 0)
        if not len(within):
            return []
        first, last = within[0], within[-1] + 1
        barred = np.where(starts[first:last] >= 0, 0.0, -np.inf)
        padded = np.append(logits[1, first:last] + barred, np.full(self.longest - 1, -np.inf))
        ahead = np.lib.stride_tricks.sliding_window_view(padded, self.longest)
        scores = ((logits[0, first:last] + barred)[:, None] + ahead).ravel()
        least = np.partition(scores, -self.count)[-self.count] if self.count < len(scores) else -np.inf
        places = np.flatnonzero((scores >= least) & (scores > -np.inf))
        places = places[np.argsort(-scores[places], kind="stable")][: self.count]
        from_, further = np.divmod(places, self.longest)
        begins, finishes = starts[first + from_], ends[first + from_ + further]
        return [
            Candidate(*each) for each in zip(begins.tolist(), finishes.tolist(), scores[places].tolist(), strict=True)
        ]


def _rank(span: Candidate) -> tuple[float, int, int]:
    return -span.score, span.start, span.end
