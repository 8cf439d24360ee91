"""What the rows of each kind of problem are called in a study's sentences. Study chain: beside units, pure words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Words:
    """The words of one problem.

    Args:
        row: what a row of the data counts as; what labels cost is a label, where there are none it is the row.
        collapsed: what a run does that has learned nothing from the inputs; "" where that cannot be told.
        seen: what a model is given: an example, or a feature where one row may be several.
    """

    row: str
    collapsed: str = ""
    seen: str = "example"

    @property
    def rows(self) -> str:
        return f"{self.row}s"

    @property
    def note(self) -> str:
        """Say that rows and what is seen of them are counted differently, where they are."""
        return f" A long {self.row} is several features." if self.seen == "feature" else ""


_LABEL = Words("label", "test no better than always naming the commonest label")
_TEXT = Words("text", seen="feature")
_WORDS = {
    "multi_label_classification": Words("labelled row", "give every row the same labels"),
    "regression": Words("labelled row"),
    "token_classification": Words("labelled text", "give every word the same label", "feature"),
    "question_answering": Words("question", "give every question the same answer", "feature"),
    "multiple_choice": Words("labelled row", "test no better than always choosing at the same place"),
    "sequence_to_sequence": Words("pair", "write the same for every row"),
    "masked_language_modeling": _TEXT,
    "causal_language_modeling": _TEXT,
}


def words_of(problem: str) -> Words:
    return _WORDS.get(problem, _LABEL)


def head_starts(ledgers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return what each arm's head starts as, from the ledgers' summaries; arms without a head of their own are out."""
    fates = {arm: set(ledger.get("counts", {}).get("head", {})) - {"dropped"} for arm, ledger in ledgers.items()}
    return {arm: _start(found) for arm, found in fates.items() if found}


def _start(fates: set[str]) -> str:
    if fates <= {"new"}:
        return "new"
    return "the checkpoint's own" if fates <= {"kept"} else "in part the checkpoint's own"
