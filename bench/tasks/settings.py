"""The rows of the comparison, one line of settings each, and what headswap is told for them: the only place for both.

A row is a problem on one data set with one recipe. reference.py reads the recipe, compare.py turns the same recipe into
headswap's overrides. Both train without selection (the last weights count), with AdamW, warm-up, linear decay and
clipping at 1.0, so that only the training is compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WARMUP_SHARE = 0.1
WEIGHT_DECAY = 0.01
EVALUATION_SIZE = 64


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        problem: the module of the reference that serves it.
        columns: the input columns.
        scores: score of the reference -> headswap's name for it; the first is the one that is judged.
        steps: optimizer steps of `batch_size` examples, over all training rows.
        max_length: tokens of an input; special tokens count.
        small_body: a small encoder-decoder without weights (small_body.py) instead of MiniLM.
        head_learning_rate: of what stands outside the base model; None for the same rate everywhere.
        options: what only this problem needs.
        task: overrides that choose and fill the task; {data} is the row's folder.
        test: the split that is scored.
    """

    problem: str
    folder: str
    columns: tuple[str, ...]
    target: str
    scores: Mapping[str, str]
    steps: int
    task: tuple[str, ...]
    learning_rate: float = 1e-4
    batch_size: int = 32
    max_length: int = 128
    head_learning_rate: float | None = None
    small_body: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    test: str = "test"

    def overrides(self, data: Path, seed: int, body: str = "FOLDER") -> list[str]:
        """Return the arguments of `headswap train` for this row; `body` is the small body's folder."""
        folder = data / self.folder
        splits = {"train": "train", "validation": "validation", "test": self.test}
        return [
            *(part.format(data=folder) for part in self.task),
            *(f"task.{split}={folder / name}.jsonl" for split, name in splits.items()),
            *(["body=transformer", f"body.source={body}", "body.init=random"] if self.small_body else ["body=minilm"]),
            f"metric=[{','.join(self.scores.values())}]",
            f"train.max_steps={self.steps}",
            f"train.batch_size={self.batch_size}",
            f"train.learning_rate={self.learning_rate}",
            f"train.head_learning_rate={'null' if self.head_learning_rate is None else self.head_learning_rate}",
            f"train.warmup_share={WARMUP_SHARE}",
            f"train.weight_decay={WEIGHT_DECAY}",
            "train.keep=last",
            "train.evaluations=1",
            f"train.eval_batch_size={EVALUATION_SIZE}",
            f"data.max_length={self.max_length}",
            "data.drop_duplicates=false",
            # The last weights count: where scoring takes long, few validation rows are enough.
            *(["data.validation_rows=64"] if self.problem in ("generation", "language") else []),
            f"seed={seed}",
        ]


CLASSES = {"accuracy": "accuracy", "macro_f1": "macro_f1", "matthews": "matthews"}
MATTHEWS_FIRST = {"matthews": "matthews", "accuracy": "accuracy", "macro_f1": "macro_f1"}
NUMBERS = {"pearson": "pearson", "spearman": "spearman", "rmse": "rmse"}
PREDICTED = {"accuracy": "target_accuracy", "loss": "token_loss", "perplexity": "perplexity"}
TEXT = ("task=text", "task.text=[text]", "task.label=label")
PAIR = ("task=pair", "task.text=[sentence1,sentence2]", "task.label=label")
SENTENCES = ("sentence1", "sentence2")

ROWS = {
    "sst2": Row("classes", "sst2", ("text",), "label", CLASSES, 200, TEXT),
    "sst5": Row("classes", "sst5", ("text",), "label", CLASSES, 200, TEXT),
    "cola": Row("classes", "cola", ("text",), "label", MATTHEWS_FIRST, 400, TEXT),
    "mrpc": Row("classes", "mrpc", SENTENCES, "label", CLASSES, 230, PAIR),
    "sick_nli": Row("classes", "sick_nli", SENTENCES, "label", CLASSES, 250, PAIR),
    "ag_news_small": Row("classes", "ag_news_small", ("text",), "label", CLASSES, 100, TEXT),
    "goemotions": Row(
        "label_sets", "goemotions", ("text",), "labels",
        {"micro_f1": "multi_label_micro_f1", "macro_f1": "multi_label_macro_f1", "map": "mean_average_precision"}, 600,
        ("task=multi_label", "task.text=[text]", "task.label=[labels]"), max_length=64, head_learning_rate=2e-2,
    ),
    "stsb_en": Row(
        "numbers", "stsb_en", SENTENCES, "score", NUMBERS, 250,
        ("task=regression", "task.text=[sentence1,sentence2]", "task.label=[score]"),
    ),
    "vader_tweets": Row(
        "numbers", "vader_tweets", ("text",), "score", NUMBERS, 300,
        ("task=regression", "task.text=[text]", "task.label=[score]"),
    ),
    "wnut17_ner": Row(
        "words", "wnut17_ner", ("tokens",), "ner_tags",
        {"entity_f1": "entity_f1", "accuracy": "token_accuracy"}, 300,
        ("task=token_classification", "task.tokens=tokens", "task.label=ner_tags"), learning_rate=2e-4,
    ),
    "ud_ewt_pos": Row(
        "words", "ud_ewt_pos", ("tokens",), "pos_tags", {"accuracy": "token_accuracy"}, 200,
        ("task=token_classification", "task.tokens=tokens", "task.label=pos_tags"), learning_rate=2e-4, max_length=192,
    ),
    "xquad_en": Row(
        "spans", "xquad_en", ("question", "context"), "answer_text", {"f1": "squad_f1", "exact": "exact_match"}, 200,
        ("task=question_answering", "task.stride=64"),
        learning_rate=3e-4, batch_size=16, max_length=256, options={"stride": 64, "longest_answer": 30},
    ),
    "balanced_copa": Row(
        "choices", "balanced_copa", ("premise", "question", "choices"), "label", {"accuracy": "accuracy"}, 200,
        ("task=multiple_choice", "task.context=[premise,question]", "task.choices=[choices]", "task.label=label"),
        batch_size=16, max_length=64,
    ),
    "multi30k_en_de": Row(
        "generation", "multi30k_en_de", ("en",), "de", {"bleu": "bleu", "chrf": "chrf"}, 1500,
        ("task=translation", "task.text=[en]", "task.target=de", "task.max_target_length=64"),
        learning_rate=1.5e-3, batch_size=64, max_length=64, small_body=True, options={"longest_target": 64},
    ),
    "scitldr": Row(
        "generation", "scitldr", ("document",), "summary",
        {"rouge1": "rouge1", "rouge2": "rouge2", "rougeL": "rougel"}, 250,
        ("task=summarization", "task.text=[document]", "task.target=summary", "task.max_target_length=48"),
        learning_rate=5e-4, batch_size=16, max_length=128, options={"longest_target": 48},
    ),
    "wikitext2_masked": Row(
        "language", "wikitext2_part", ("text",), "", PREDICTED, 150,
        ("task=masked_language_modeling", "task.text=[text]"),
        learning_rate=5e-4, batch_size=8, options={"masked_share": 0.15}, test="validation",
    ),
    "wikitext2_causal": Row(
        "language", "wikitext2_part", ("text",), "", PREDICTED, 150,
        ("task=causal_language_modeling", "task.text=[text]"),
        learning_rate=5e-4, batch_size=8, options={"masked_share": 0.0}, test="validation",
    ),
}  # fmt: skip
