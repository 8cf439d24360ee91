"""Metrics of one label a word: over words (parts of speech), and over the entities that BIO tags spell out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from headswap.answers import Answers, Problem
from headswap.errors import ConfigError
from headswap.metrics import counts
from headswap.metrics.offline import Offline

if TYPE_CHECKING:
    import numpy as np

Scheme = Literal["IOB1", "IOB2", "IOE1", "IOE2", "IOBES", "BILOU"]
_PREFIXES = {"IOB1": "BI", "IOB2": "BI", "IOE1": "IE", "IOE2": "IE", "IOBES": "BIES", "BILOU": "BILU", None: "BIES"}


class Words(Offline):
    """What the metrics over words share."""

    problems: ClassVar[tuple[Problem, ...]] = ("token_classification",)
    form: ClassVar[str] = "label lists"


@dataclass(frozen=True)
class TokenAccuracy(Words):
    """Share of all words of the split whose label is right; not a mean over examples, since long ones count more."""

    name: ClassVar[str] = "token_accuracy"
    library: ClassVar[str] = "scikit-learn accuracy_score over all words"

    def score(self, predictions: Any, references: Any) -> float:
        from sklearn.metrics import accuracy_score

        return float(accuracy_score(_flat(references), _flat(predictions)))

    def sums(self, answers: Answers) -> np.ndarray:
        """Return each example's right words and its words."""
        import numpy as np

        pairs = zip(answers.predictions, answers.references, strict=True)
        return np.array([[np.sum(np.equal(told, true)), len(true)] for told, true in pairs], dtype=np.float64)

    def of_sums(self, totals: np.ndarray) -> float:
        return float(counts.share(totals[:1], totals[1:])[0])


@dataclass(frozen=True)
class TokenMacroF1(Words):
    """Unweighted mean over all the task's labels of each label's F1 over words; an absent label counts 0."""

    name: ClassVar[str] = "token_macro_f1"
    library: ClassVar[str] = "scikit-learn f1_score(average='macro', zero_division=0) over all words"

    def given(self, answers: Answers) -> dict[str, Any]:
        return {**super().given(answers), "labels": list(range(answers.labels.count))}

    def score(self, predictions: Any, references: Any, labels: Any = None) -> float:
        from sklearn.metrics import f1_score

        given = _flat(references), _flat(predictions)
        return float(f1_score(*given, labels=labels, average="macro", zero_division=0))  # type: ignore[arg-type]

    def sums(self, answers: Answers) -> np.ndarray:
        """Return each label's right, predicted and actual words of each example."""
        import numpy as np

        labels, pairs = answers.labels.count, zip(answers.predictions, answers.references, strict=True)
        return np.stack([counts.of_labels(told, true, labels).sum(axis=0) for told, true in pairs])

    def of_sums(self, totals: np.ndarray) -> float:
        return float(counts.f1(totals.reshape(3, -1)).mean())


def _flat(rows: Sequence[Sequence[int]]) -> list[int]:
    return [int(label) for row in rows for label in row]


@dataclass(frozen=True)
class Entities(Words):
    """Entities found among all of the split: found are those whose type, first and last word are all right.

    Args:
        scheme: None reads tags as conlleval does (an I- after O or another type begins an entity); a scheme's name
            reads them strictly, so that a malformed sequence is no entity (seqeval's mode="strict").
    """

    scheme: Scheme | None = None

    form: ClassVar[str] = "tags"

    def given(self, answers: Answers) -> dict[str, Any]:
        names = answers.labels.names
        _check_tags(names, self.scheme, self.name)
        read = super().given(answers)
        return {side: [[names[label] for label in row] for row in rows] for side, rows in read.items()}

    def settings(self) -> dict[str, Any]:
        """Return seqeval's keyword arguments."""
        if self.scheme is None:
            return {"zero_division": 0}
        from seqeval import scheme

        return {"zero_division": 0, "mode": "strict", "scheme": getattr(scheme, self.scheme)}

    def sums(self, answers: Answers) -> np.ndarray:
        """Return each example's entities that are right, predicted and actual."""
        import numpy as np

        read = self.given(answers)
        pairs = zip(map(self.entities, read["predictions"]), map(self.entities, read["references"]), strict=True)
        return np.array([[len(told & true), len(told), len(true)] for told, true in pairs], dtype=np.float64)

    def entities(self, tags: list[str]) -> set[tuple]:
        """Return (type, first word, last word) of the entities that the tags of one example spell out."""
        if self.scheme is None:
            from seqeval.metrics.sequence_labeling import get_entities

            return set(get_entities(tags))
        from seqeval import scheme

        found = scheme.Entities([tags], getattr(scheme, self.scheme)).entities[0]
        return {(each.tag, each.start, each.end) for each in found}


@dataclass(frozen=True)
class EntityF1(Entities):
    """F1 over entities: one is found when its type, first and last word are all right; 0 if there is none."""

    name: ClassVar[str] = "entity_f1"
    library: ClassVar[str] = "seqeval f1_score(average='micro', zero_division=0)"

    def score(self, predictions: Any, references: Any) -> float:
        from seqeval.metrics import f1_score

        return float(f1_score(references, predictions, **self.settings()))  # type: ignore[arg-type]

    def of_sums(self, totals: np.ndarray) -> float:
        return float(counts.f1(totals[:, None])[0])


@dataclass(frozen=True)
class EntityPrecision(Entities):
    """Share of the predicted entities that are right in type, first and last word; 0 if none is predicted."""

    name: ClassVar[str] = "entity_precision"
    library: ClassVar[str] = "seqeval precision_score(average='micro', zero_division=0)"

    def score(self, predictions: Any, references: Any) -> float:
        from seqeval.metrics import precision_score

        return float(precision_score(references, predictions, **self.settings()))  # type: ignore[arg-type]

    def of_sums(self, totals: np.ndarray) -> float:
        return float(counts.share(totals[:1], totals[1:2])[0])


@dataclass(frozen=True)
class EntityRecall(Entities):
    """Share of the true entities that are found with their type, first and last word; 0 if there is none."""

    name: ClassVar[str] = "entity_recall"
    library: ClassVar[str] = "seqeval recall_score(average='micro', zero_division=0)"

    def score(self, predictions: Any, references: Any) -> float:
        from seqeval.metrics import recall_score

        return float(recall_score(references, predictions, **self.settings()))  # type: ignore[arg-type]

    def of_sums(self, totals: np.ndarray) -> float:
        return float(counts.share(totals[:1], totals[2:])[0])


def _check_tags(names: Sequence[str], scheme: str | None, metric: str) -> None:
    """Refuse label names that spell out no entities; seqeval would guess, and score parts of speech as entities."""
    letters = _PREFIXES[scheme]
    strange = [name for name in names if not re.fullmatch(rf"O|[{letters}](-.+)?", name)]
    if strange or set(names) <= {"O"}:
        more = " ..." if len(strange) > 5 else ""
        allowed = ", ".join(f"{letter}-" for letter in letters)
        raise ConfigError(
            f"metric={metric}: the labels must be O or a type after {allowed} (scheme {scheme or 'null'}); "
            f"found {', '.join(strange[:5]) or ', '.join(names) or 'none'}{more}; "
            f"choose metric=token_accuracy for other labels, or the metric.{metric}.scheme that they follow"
        )
