"""Answer a question with a stretch of a context, or say that it holds none. Floor 1; spans.py cuts and searches.

A long context becomes overlapping windows, each a feature of its own; the best span over all of them is the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headswap import squad
from headswap.answers import Answers, Labels, Observed, Problem
from headswap.checks import Notes, text_rows
from headswap.contracts import SPLITS, LossFunction, Splits
from headswap.losses import SpanCrossEntropy
from headswap.references import ReferenceColumns, References
from headswap.results import Answered
from headswap.rows import Rows
from headswap.sources import Table
from headswap.spans import Found, Search, Windows, placed
from headswap.table_task import TableTask

if TYPE_CHECKING:
    import datasets
    import numpy as np
    import torch
    from transformers import PreTrainedTokenizerBase

TEXTS, STARTS, MENDED = COLUMNS = ("answer_texts", "answer_starts", "answer_mended")
"""The columns of References: texts, where each starts in the context (these two go into Splits), whether one moved."""


@dataclass(frozen=True, kw_only=True)
class QuestionAnswering(TableTask):
    """Learn where in `context` the answer to `question` stands. Offsets count characters from 0.

    Args:
        answer_text: the column of the answer's text; empty or null where there is none (`no_answer`).
        answer_start: the column of the character at which it starts.
        references: instead of these two, a column in SQuAD's form, {text: [...], answer_start: [...]} or a list of
            {text, answer_start}; the first is learned, any of them counts as right, none means no answer.
        no_answer: whether a question may have no answer; the threshold for it is tuned on validation.
        mend_offsets: where an answer does not stand at its place, take the nearest place where it does.
        stride: tokens that neighbouring windows of a long context share; None for a quarter of data.max_length.
        max_answer_tokens: no longer stretch is an answer.
        n_best: spans over which probabilities are taken.
    """

    question: str = "question"
    context: str = "context"
    answer_text: str = "answer_text"
    answer_start: str = "answer_start"
    references: str | None = None
    no_answer: bool = False
    mend_offsets: bool = False
    stride: int | None = None
    max_answer_tokens: int = 30
    n_best: int = 20

    @property
    def problem(self) -> Problem:
        return "question_answering"

    @property
    def auto_class(self) -> str:
        return "AutoModelForQuestionAnswering"

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.question, self.context)

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.references,) if self.references else (self.answer_text, self.answer_start)

    def faults(self) -> Iterator[str]:
        columns = [*self.inputs, *self.targets, *([self.id] if self.id else [])]
        if len(set(columns)) != len(columns) or not all(columns):
            found = ", ".join(map(repr, columns))
            yield f"question: question, context, answers and id must be different columns; found {found}; correct them"
        if taken := {"id", *COLUMNS} & set(self.inputs):
            names = ", ".join(("id", *COLUMNS))
            yield f"question: the names {names} are taken; found {', '.join(sorted(taken))}; rename that column"
        if self.damaged == "remove":
            yield "damaged: removing characters moves the answers' places; found remove; set refuse or keep"
        if self.stride is not None and self.stride < 0:
            yield f"stride: must be 0 tokens or more; found {self.stride}; set null for a quarter of data.max_length"
        for name in ("max_answer_tokens", "n_best"):
            if getattr(self, name) < 1:
                yield f"{name}: must be 1 or more; found {getattr(self, name)}; leave it out for the default"

    def checked(self, tables: Sequence[Table], split: str, notes: Notes) -> Rows:
        rows = text_rows(tables, self.inputs, self.id, self.damaged, notes, split)
        columns = ReferenceColumns(
            self.answer_text, self.answer_start, self.references, self.no_answer, self.mend_offsets
        )
        found: list[References] = []
        for table in tables:
            contexts = rows[self.context][len(found) : len(found) + table.row_count]
            found += columns.read(table, contexts)
        return {**rows, **dict(zip(COLUMNS, map(list, zip(*found, strict=True)), strict=True))}

    def settled(self, parts: Mapping[str, Rows], where: Mapping[str, str]) -> Labels:
        return Labels((), "question_answering")

    def counted(self, parts: Mapping[str, Rows], labels: Labels) -> dict[str, Any]:
        return {
            "questions_without_answer": {split: sum(not texts for texts in parts[split][TEXTS]) for split in SPLITS},
            "rows_with_mended_offsets": {split: sum(parts[split][MENDED]) for split in SPLITS},
        }

    def dataset(self, rows: Rows, labels: Labels) -> datasets.Dataset:
        import datasets

        kinds: dict[str, Any] = {name: datasets.Value("string") for name in ("id", *self.inputs)}
        if TEXTS in rows:
            kinds |= {TEXTS: datasets.List(datasets.Value("string")), STARTS: datasets.List(datasets.Value("int64"))}
        return datasets.Dataset.from_dict({name: rows[name] for name in kinds}, features=datasets.Features(kinds))

    def encode(self, rows: Mapping[str, list], tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, list]:
        questions, contexts = list(rows[self.question]), list(rows[self.context])
        overlap = max_length // 4 if self.stride is None else self.stride
        ids = [str(each) for each in rows.get("id", range(1, len(questions) + 1))]
        columns = Windows(max_length, overlap).cut(questions, contexts, ids, tokenizer)
        if TEXTS not in rows:
            return {**columns, "truncated": [False] * len(columns["example"])}
        answers = [
            (starts[0], starts[0] + len(texts[0])) if texts else None
            for texts, starts in zip(rows[TEXTS], rows[STARTS], strict=True)
        ]
        return {**columns, **placed(columns, answers, tokenizer)}

    def loss(self, splits: Splits) -> LossFunction:
        return SpanCrossEntropy()

    def observe(self, model: Any, batch: Mapping[str, torch.Tensor], output: Any) -> list[np.ndarray]:
        """Return the logits [2, tokens] of start and end, without padding."""
        import torch

        logits = torch.stack([output.start_logits, output.end_logits], dim=1).float().cpu().numpy()
        masks = batch["attention_mask"].bool().cpu().numpy()
        return [each[:, mask] for each, mask in zip(logits, masks, strict=True)]

    def calibrate(self, observed: Observed) -> dict[str, Any]:
        """Return the doubt above which there is no answer: it gives the best mean F1 on these rows."""
        import numpy as np

        if not self.no_answer:
            return {}
        found, references = self._found(observed, 1), observed.rows[TEXTS]
        answered = squad.f1(self._texts(observed, found), references)
        unanswered = squad.f1([""] * len(found), references)
        return {
            "no_answer_threshold": squad.best_threshold(np.array([each.doubt for each in found]), answered, unanswered)
        }

    def answers(self, observed: Observed) -> Answers:
        import numpy as np

        found = self._found(observed, 1)
        texts = [
            "" if self._is_none(observed, each) else text
            for each, text in zip(found, self._texts(observed, found), strict=True)
        ]
        outputs = [np.array([each.score, each.no_answer], dtype=np.float32) for each in found]
        return Answers(texts, [list(each) for each in observed.rows[TEXTS]], observed.labels, outputs)

    def results(self, observed: Observed) -> list[Answered]:
        contexts = observed.rows[self.context]
        found = self._found(observed, self.n_best)
        return [
            self._told(context, each, self._is_none(observed, each))
            for context, each in zip(contexts, found, strict=True)
        ]

    def _told(self, context: str, found: Found, none: bool) -> Answered:
        from scipy.special import softmax

        logits = [each.score for each in found.spans] + [found.no_answer] * self.no_answer
        scores = softmax(logits or [0.0])
        no_answer = float(scores[-1]) if self.no_answer else 0.0
        if none or not found.spans:
            return Answered("", no_answer, no_answer_score=no_answer)
        best = found.spans[0]
        return Answered(context[best.start : best.end], float(scores[0]), best.start, best.end, no_answer)

    def _found(self, observed: Observed, count: int) -> list[Found]:
        return Search(self.max_answer_tokens, count).found(observed)

    def _texts(self, observed: Observed, found: Sequence[Found]) -> list[str]:
        """Return the best span of each example, whatever speaks for no answer."""
        pairs = zip(observed.rows[self.context], found, strict=True)
        return [context[each.spans[0].start : each.spans[0].end] if each.spans else "" for context, each in pairs]

    def _is_none(self, observed: Observed, found: Found) -> bool:
        return self.no_answer and found.doubt > observed.calibration.get("no_answer_threshold", 0.0)
