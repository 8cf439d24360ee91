"""Give each word of a sentence one of several tags: entities, parts of speech. Floor 1; words.py aligns the tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headswap import losses
from headswap.answers import Answers, Labels, Observed, Problem
from headswap.checks import Notes, name_counts, refuse_unlearned
from headswap.contracts import SPLITS, LossFunction, Splits
from headswap.errors import DataError, shortly
from headswap.results import Tagged
from headswap.rows import Rows, normalised
from headswap.sources import Table
from headswap.table_task import UNKNOWN, TableTask
from headswap.word_checks import TagColumns, tag_names, tagged_rows
from headswap.words import NO_WORD, entities, first_words, json_list, marks_entities, sentence, windows

if TYPE_CHECKING:
    import datasets
    import numpy as np
    import torch
    from transformers import PreTrainedTokenizerBase

OUTSIDE = "O"


@dataclass(frozen=True, kw_only=True)
class TokenClassification(TableTask):
    """Learn a tag for each word; a word is answered by its first token.

    Args:
        tokens: the column of words: a list, in csv a JSON list or words with spaces between.
        label: the column of tags, one a word, by name, or as numbers from 0 where `labels` names them.
        labels: names in the order of the head's outputs; None takes the sorted names of training.
        label_map: raw tag -> name, compared as text.
        label_subwords: which tokens of a word are learned from: its first, or all.
        stride: tokens that the windows of a sentence longer than data.max_length share, at most half of a window.
        class_weights: None, "balanced" (words / (tags x words of the tag)), or a weight for every tag's name.
    """

    tokens: str
    label: str
    labels: list[str] | None = None
    label_map: dict[str, str] | None = None
    label_subwords: str = "first"
    stride: int = 32
    class_weights: Any = None

    @property
    def auto_class(self) -> str:
        return "AutoModelForTokenClassification"

    @property
    def problem(self) -> Problem:
        return "token_classification"

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.tokens,)

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.label,)

    def faults(self) -> Iterator[str]:
        columns = [self.tokens, self.label, *([self.id] if self.id else [])]
        if len(set(columns)) != len(columns) or not all(columns):
            found = ", ".join(map(repr, columns))
            yield f"tokens: tokens, label and id must be different columns; found {found}; correct them"
        if self.tokens in ("id", "label"):
            yield f"tokens: the names id and label are taken; found {self.tokens!r}; rename that column"
        if self.labels is not None and (len(self.labels) < 2 or len(set(self.labels)) != len(self.labels)):
            yield f"labels: must be two different names or more; found {self.labels}; correct them, or set null"
        if self.label_subwords not in ("first", "all"):
            yield f"label_subwords: unknown choice; found {self.label_subwords!r}; choose one of first, all"
        if self.stride < 0:
            yield f"stride: must be 0 or more; found {self.stride}; set tokens such as 32"
        weights = self.class_weights
        each_positive = isinstance(weights, Mapping) and all(map(_positive, weights.values()))
        if not (weights in (None, "balanced") or each_positive):
            yield f"class_weights: must be null, balanced or {{name: weight above 0}}; found {weights!r}; correct it"

    def checked(self, tables: Sequence[Table], split: str, notes: Notes) -> Rows:
        columns = TagColumns(self.tokens, self.label, self.id, self.labels, self.label_map or {}, self.damaged)
        return tagged_rows(tables, split, columns, notes)

    def keys(self, rows: Rows) -> list[str]:
        return normalised([[" ".join(words) for words in rows[self.tokens]]])

    def cell(self, column: str, value: Any) -> list[str] | str:
        """Return plain text as it is, and words as a list of them; see TableTask.cell."""
        listed = json_list(value) if isinstance(value, str) else value
        if listed is None:
            return super().cell(column, value)
        if not isinstance(listed, list | tuple) or not all(isinstance(word, str) for word in listed):
            raise DataError(f"neither words nor a text; found {shortly(value)}; give a list of str, or a str")
        if not " ".join(listed).strip():
            raise DataError(f"no words; found {shortly(value)}; fill or remove it")
        return list(listed)

    def file_cell(self, column: str, value: Any) -> list[str] | str:
        """Return words: text in a file is words with spaces between, as in training."""
        spaced = isinstance(value, str) and json_list(value) is None
        return self.cell(column, value.split() if spaced else value)

    def settled(self, parts: Mapping[str, Rows], where: Mapping[str, str]) -> Labels:
        names = tag_names(parts, self.labels, where)
        losses.class_weights(self.class_weights, names, [])  # a wrong name is told now, not after the body is loaded
        return Labels(names, "token_classification")

    def refuse_unknown(self, rows: Rows, labels: Labels, source: str) -> None:
        refuse_unlearned(rows, "the file", labels.names, source, UNKNOWN, what="tags")

    def counted(self, parts: Mapping[str, Rows], labels: Labels) -> dict[str, Any]:
        counts = {split: name_counts(parts[split]) for split in SPLITS}
        return {"class_counts": {split: {name: counts[split][name] for name in labels.names} for split in SPLITS}}

    def dataset(self, rows: Rows, labels: Labels) -> datasets.Dataset:
        import datasets

        values, text = dict(rows), datasets.Value("string")
        kinds: dict[str, Any] = {name: datasets.List(text) if name == self.tokens else text for name in values}
        if "label" in values:
            number = {name: index for index, name in enumerate(labels.names)}
            values["label"] = [[number[tag] for tag in tags] for tags in rows["label"]]
            kinds["label"] = datasets.List(datasets.Value("int64"))
        return datasets.Dataset.from_dict(values, features=datasets.Features(kinds))

    def encode(self, rows: Mapping[str, list], tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, list]:
        """Return one feature a window; `target_word` is 1 + the number of the word that a token answers for, else 0."""
        import numpy as np

        words = [sentence(value).words for value in rows[self.tokens]]
        found = windows(words, tokenizer, max_length, self.stride)
        begin = first_words(words)
        numbers = [
            np.where(first, word - begin[example] + 1, 0).tolist()
            for word, first, example in zip(found.word, found.first, found.example, strict=True)
        ]
        encoded = {"input_ids": found.input_ids, "example": found.example, "target_word": numbers}
        if "label" in rows:
            tags = np.array([tag for tags in rows["label"] for tag in tags])
            learned = found.first if self.label_subwords == "first" else [word != NO_WORD for word in found.word]
            pairs = zip(found.word, learned, strict=True)
            encoded["labels"] = [np.where(learn, tags[word], losses.IGNORED).tolist() for word, learn in pairs]
        return {**encoded, "truncated": [False] * len(numbers)}

    def loss(self, splits: Splits) -> LossFunction:
        targets = [tag for tags in splits.train["label"] for tag in tags] if self.class_weights == "balanced" else []
        return losses.CrossEntropy(losses.class_weights(self.class_weights, splits.labels.names, targets))

    def observe(self, model: Any, batch: Mapping[str, torch.Tensor], output: Any) -> list[np.ndarray]:
        """Return [words, labels], the logits of the tokens that answer for a word, in its order."""
        answering = batch["target_word"] > 0
        logits = output.logits[answering].float().cpu()
        return [each.numpy() for each in logits.split(answering.sum(dim=1).tolist())]

    def calibrate(self, observed: Observed) -> dict[str, Any]:
        """Settle the tag of words without a token, such as control characters: O, or validation's commonest tag."""
        names = observed.labels.names
        counts = Counter(int(tag) for tags in observed.rows["label"] for tag in tags)
        commonest = OUTSIDE if OUTSIDE in names else names[max(counts, key=lambda tag: (counts[tag], -tag))]
        without = sum(int((~has).sum()) for _, has in self._by_word(observed))
        return {"tag_of_words_without_tokens": commonest, "validation_words_without_tokens": without}

    def answers(self, observed: Observed) -> Answers:
        import numpy as np

        found = list(self._by_word(observed))
        rest = self._rest(observed)
        tags = [np.where(has, logits.argmax(axis=-1), rest) for logits, has in found]
        true = [np.asarray(row, dtype=np.int64) for row in observed.rows["label"]]
        return Answers(tags, true, observed.labels, [logits for logits, _ in found])

    def results(self, observed: Observed) -> list[Tagged]:
        """Return tags; the score of a word without a token is that of a guess among all tags."""
        import numpy as np
        from scipy.special import softmax

        names, rest = observed.labels.names, self._rest(observed)
        made = []
        for value, (logits, has) in zip(observed.rows[self.tokens], self._by_word(observed), strict=True):
            of, numbers = sentence(value), np.where(has, logits.argmax(axis=-1), rest)
            shares = softmax(logits.astype(np.float64), axis=-1)[np.arange(len(numbers)), numbers].tolist()
            tags = tuple(names[number] for number in numbers)
            spans = entities(of, tags, shares) if marks_entities(names) else ()
            made.append(Tagged(of.words, tags, tuple(shares), spans))
        return made

    def _by_word(self, observed: Observed) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield each example's logits [words, labels], zeros for words without a token, and which words have one."""
        import numpy as np

        of_example: dict[int, list[int]] = {}
        for feature, example in enumerate(observed.features.example.tolist()):
            of_example.setdefault(example, []).append(feature)
        for example, value in enumerate(observed.rows[self.tokens]):
            count = len(sentence(value).words)
            logits, has = np.zeros((count, observed.labels.count), np.float32), np.zeros(count, bool)
            for feature in of_example.get(example, []):
                word = observed.features.column("target_word", feature)
                places = word[word > 0] - 1
                logits[places], has[places] = observed.outputs[feature], True
            yield logits, has

    def _rest(self, observed: Observed) -> int:
        """Return the tag of words that have no token."""
        settled = observed.calibration.get("tag_of_words_without_tokens", OUTSIDE)
        return observed.labels.names.index(settled) if settled in observed.labels.names else 0


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0
