"""Metrics of generated text beside one or more references: BLEU and chrF of the split, ROUGE of each example."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from headswap.answers import Answers, Problem
from headswap.metrics.offline import Offline

if TYPE_CHECKING:
    import numpy as np


class Generated(Offline):
    """What the metrics of generated text share."""

    problems: ClassVar[tuple[Problem, ...]] = ("sequence_to_sequence",)
    form: ClassVar[str] = "texts"


@dataclass(frozen=True)
class Bleu(Generated):
    """Corpus BLEU, 0 to 100: n-grams up to 4 in common over the whole split, and a penalty for too short outputs.

    Args:
        tokenize: sacrebleu's tokenizer; those that would fetch a model or a dictionary are not offered.
        lowercase: whether case is ignored; published numbers keep it.
    """

    tokenize: Literal["13a", "intl", "zh", "char", "none"] = "13a"
    lowercase: bool = False

    name: ClassVar[str] = "bleu"
    library: ClassVar[str] = "sacrebleu BLEU.corpus_score"

    def score(self, predictions: Any, references: Any) -> float:
        from sacrebleu.metrics.bleu import BLEU

        measure = BLEU(tokenize=self.tokenize, lowercase=self.lowercase)
        return float(measure.corpus_score(predictions, _streams(references)).score)

    def sums(self, answers: Answers) -> np.ndarray:
        """Return each example's n-grams in common, its n-grams, its length and that of the nearest reference."""
        import numpy as np
        from sacrebleu.metrics.bleu import BLEU

        # The counts do not hang on effective_order; without it sentence_score logs that a sentence has no BLEU.
        measure = BLEU(tokenize=self.tokenize, lowercase=self.lowercase, effective_order=True)
        pairs = zip(answers.predictions, answers.references, strict=True)
        found = [measure.sentence_score(text, texts) for text, texts in pairs]
        rows = [[*each.counts, *each.totals, each.sys_len, each.ref_len] for each in found]
        return np.array(rows, dtype=np.float64)

    def of_sums(self, totals: np.ndarray) -> float:
        from sacrebleu.metrics.bleu import BLEU

        right, given = totals[:-2].reshape(2, -1).tolist()
        lengths = (int(length) for length in totals[-2:])
        return float(BLEU.compute_bleu(right, given, *lengths, smooth_method="exp").score)


@dataclass(frozen=True)
class Chrf(Generated):
    """chrF, 0 to 100: F-score (recall counts double) of character n-grams up to 6 over the whole split.

    Args:
        word_order: word n-grams counted beside the characters'; 2 is chrF++.
    """

    word_order: int = 0

    name: ClassVar[str] = "chrf"
    library: ClassVar[str] = "sacrebleu CHRF.corpus_score"

    def score(self, predictions: Any, references: Any) -> float:
        from sacrebleu.metrics.chrf import CHRF

        return float(CHRF(word_order=self.word_order).corpus_score(predictions, _streams(references)).score)


def _streams(references: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return sacrebleu's form: the first reference of every example, then the second, None where there is none."""
    return [list(stream) for stream in itertools.zip_longest(*references)]


@dataclass(frozen=True)
class Rouge(Generated):
    """ROUGE's F-measure, mean over examples; of several references the best counts.

    Args:
        use_stemmer: whether English endings are cut off before words are compared.
    """

    use_stemmer: bool = False

    kind: ClassVar[str]
    library: ClassVar[str] = "rouge-score RougeScorer.score_multi, fmeasure"
    per_example: ClassVar[bool] = True

    def each(self, predictions: Any, references: Any) -> np.ndarray:
        import numpy as np
        from rouge_score.rouge_scorer import RougeScorer
        from rouge_score.tokenizers import DefaultTokenizer

        # Without a tokenizer given, RougeScorer logs through absl, which puts a handler on the root logger.
        scorer = RougeScorer([self.kind], tokenizer=DefaultTokenizer(self.use_stemmer))
        pairs = zip(references, predictions, strict=True)
        return np.asarray([float(scorer.score_multi(texts, text)[self.kind].fmeasure) for texts, text in pairs])


@dataclass(frozen=True)
class Rouge1(Rouge):
    """F-measure of the single words in common, mean over examples."""

    name: ClassVar[str] = "rouge1"
    kind: ClassVar[str] = "rouge1"


@dataclass(frozen=True)
class Rouge2(Rouge):
    """F-measure of the word pairs in common, mean over examples."""

    name: ClassVar[str] = "rouge2"
    kind: ClassVar[str] = "rouge2"


@dataclass(frozen=True)
class RougeL(Rouge):
    """F-measure of the longest common subsequence of words, mean over examples."""

    name: ClassVar[str] = "rougel"
    kind: ClassVar[str] = "rougeL"


@dataclass(frozen=True)
class RougeLsum(Rouge):
    """rougel sentence by sentence, one sentence a line: of texts without line ends it equals rougel."""

    name: ClassVar[str] = "rougelsum"
    kind: ClassVar[str] = "rougeLsum"
