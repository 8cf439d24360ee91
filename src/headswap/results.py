"""What a prediction tells a person: one class a kind of task, one object an example. Floor 0, light.

`Task.results` makes them; `headswap predict` prints them and writes their columns beside the input's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

Cells = dict[str, Any]
"""New columns of one row of a file: name -> value."""


@dataclass(frozen=True)
class Labelled:
    """One label of several: the likeliest, its probability, and those of all labels, in the order of the outputs."""

    label: str
    score: float
    scores: Mapping[str, float]

    def cells(self) -> Cells:
        scores = {f"score_{name}": digits(value) for name, value in self.scores.items()}
        return {"predicted_label": self.label, "score": digits(self.score), **scores}

    def __str__(self) -> str:
        return f"{self.label}\t{'  '.join(f'{name} {value:.4f}' for name, value in self.scores.items())}"


@dataclass(frozen=True)
class MultiLabelled:
    """Any number of labels: those whose probability reaches their threshold, and the probabilities of all."""

    labels: tuple[str, ...]
    scores: Mapping[str, float]

    def cells(self) -> Cells:
        scores = {f"score_{name}": digits(value) for name, value in self.scores.items()}
        return {"predicted_labels": list(self.labels), **scores}

    def __str__(self) -> str:
        return "  ".join(f"{name} {self.scores[name]:.4f}" for name in self.labels) or "no label"


@dataclass(frozen=True)
class Valued:
    """One value an output, by the name of the column that it was learned from."""

    values: Mapping[str, float]

    @property
    def value(self) -> float:
        """The first output's, which is the only one of most regressions."""
        return next(iter(self.values.values()))

    def cells(self) -> Cells:
        if len(self.values) == 1:
            return {"predicted_value": digits(self.value)}
        return {f"predicted_{name}": digits(value) for name, value in self.values.items()}

    def __str__(self) -> str:
        return "  ".join(f"{name} {value:.4f}" for name, value in self.values.items())


@dataclass(frozen=True)
class Span:
    """A stretch of text: characters `start` to `end` (exclusive) of the text it was found in."""

    text: str
    start: int
    end: int
    label: str = ""
    score: float = 1.0


@dataclass(frozen=True)
class Tagged:
    """One tag a word; `entities` are the stretches that BIO tags mark, empty where tags are no such scheme."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    scores: tuple[float, ...]
    entities: tuple[Span, ...] = ()

    def cells(self) -> Cells:
        scores = [digits(each) for each in self.scores]
        found = [asdict(each) | {"score": digits(each.score)} for each in self.entities]
        tags = {"tagged_words": list(self.words), "predicted_tags": list(self.tags)}
        return {**tags, "tag_scores": scores, "entities": found}

    def __str__(self) -> str:
        return " ".join(f"{word}/{tag}" for word, tag in zip(self.words, self.tags, strict=True))


@dataclass(frozen=True)
class Answered:
    """The answer's characters in the context, or no answer (empty text, start and end 0).

    Args:
        score: probability of what is answered, no answer included: a softmax over the best different spans, and over
            no answer where the task knows such.
        start, end: characters of the context, `end` exclusive.
        no_answer_score: the same probability of there being no answer; 0 where the task has an answer to everything.
    """

    text: str
    score: float
    start: int = 0
    end: int = 0
    no_answer_score: float = 0.0

    def cells(self) -> Cells:
        place = {"predicted_start": self.start, "predicted_end": self.end}
        scores = {"score": digits(self.score), "no_answer_score": digits(self.no_answer_score)}
        return {"predicted_answer": self.text, **place, **scores}

    def __str__(self) -> str:
        place = f"characters {self.start} to {self.end}" if self.text else f"no answer {self.no_answer_score:.4f}"
        return f"{self.text or '(no answer)'}\t{self.score:.4f}\t{place}"


@dataclass(frozen=True)
class Chosen:
    """The likeliest choice: its number from 0, its text, and the probabilities of all."""

    number: int
    choice: str
    scores: tuple[float, ...]

    def cells(self) -> Cells:
        scores = [digits(each) for each in self.scores]
        return {"predicted_choice": self.number, "predicted_text": self.choice, "choice_scores": scores}

    def __str__(self) -> str:
        return f"{self.number}\t{self.choice}\t{'  '.join(f'{each:.4f}' for each in self.scores)}"


@dataclass(frozen=True)
class Generated:
    """A text that the model wrote."""

    text: str

    def cells(self) -> Cells:
        return {"predicted_text": self.text}

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Modelled:
    """How well a language model expects a text: the mean loss a token (nats), its exponential, right predictions."""

    loss: float
    perplexity: float
    accuracy: float
    tokens: int

    def cells(self) -> Cells:
        found = {"token_loss": self.loss, "perplexity": self.perplexity, "target_accuracy": self.accuracy}
        return {name: digits(value) for name, value in found.items()} | {"tokens": self.tokens}

    def __str__(self) -> str:
        right = f"{self.accuracy:.1%} of {self.tokens} tokens right"
        return f"loss {self.loss:.4f}  perplexity {self.perplexity:.2f}  {right}"


def digits(value: float) -> float:
    """Return a number with the 8 digits that float32 has."""
    return float(f"{value:.8g}")
