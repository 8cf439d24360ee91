"""Write a text for a text: translation, summarization. Floor 1; targets.py makes the labels, table_task.py the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headswap.answers import Answers, Labels, Observed, Problem
from headswap.checks import Notes, refuse, text_rows
from headswap.contracts import Collator, LossFunction, Splits
from headswap.errors import ConfigError, WeightsError
from headswap.losses import IGNORED, CrossEntropy
from headswap.results import Generated
from headswap.rows import Rows
from headswap.seeds import Seeds
from headswap.sources import Table
from headswap.table_task import model_inputs
from headswap.targets import Frame, altered, set_languages
from headswap.text_task import TextTask, encode_texts
from headswap.token_targets import TokenCrossEntropy

if TYPE_CHECKING:
    import datasets
    import numpy as np
    import torch
    from transformers import GenerationConfig, PreTrainedTokenizerBase

    Batch = Mapping[str, torch.Tensor]

_SUMS = 3
"""What stands before the tokens of an observed feature: the target's sum of losses, tokens right, tokens."""


@dataclass(frozen=True, kw_only=True)
class SequenceToSequence(TextTask):
    """Learn to write the column `target` from one text column; scored by what the model writes, token by token.

    Args:
        target: the column of texts to write; training uses it, and scoring where there are no `references`.
        references: a column of lists of texts, of which any is right; for scoring alone.
        prefix: what stands before every source text, such as T5's "summarize: ".
        max_target_length: tokens a target is cut to, special tokens included; data.max_length is the source's.
        source_language: its code, for tokenizers of many languages: de_DE (mBART), deu_Latn (NLLB), de (M2M100).
        target_language: likewise.
        label_smoothing: share of each target token that is spread over the vocabulary.
        num_beams: texts that are kept side by side while writing; 1 takes the likeliest token each time (greedy).
        max_new_tokens: tokens that are written at most; None is max_target_length.
        length_penalty: of beams: above 0, longer texts are preferred the more the higher it is.
        early_stopping: of beams: stop once num_beams texts are finished, though a better one might come.
        no_repeat_ngram_size: no run of so many tokens is written twice; 0 allows all.
    """

    target: str
    references: str | None = None
    prefix: str = ""
    max_target_length: int = 128
    source_language: str | None = None
    target_language: str | None = None
    label_smoothing: float = 0.0
    num_beams: int = 1
    max_new_tokens: int | None = None
    length_penalty: float = 1.0
    early_stopping: bool = False
    no_repeat_ngram_size: int = 0

    @property
    def auto_class(self) -> str:
        return "AutoModelForSeq2SeqLM"

    @property
    def problem(self) -> Problem:
        return "sequence_to_sequence"

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.target, self.references) if self.references else (self.target,)

    def faults(self) -> Iterator[str]:
        yield from self.text_faults()
        if len(self.text) == 2:
            yield f"text: must name one column; found {', '.join(self.text)}; set task.text=[COLUMN]"
        if "id" in self.targets:
            yield "target: the name id is taken; found it as target or references; rename that column"
        if self.max_target_length < 4:
            yield f"max_target_length: must be 4 or more; found {self.max_target_length}; set one such as 128"
        if not 0 <= self.label_smoothing < 1:
            yield f"label_smoothing: must lie in [0, 1); found {self.label_smoothing}; set a share such as 0.1"
        for name, least in (("num_beams", 1), ("max_new_tokens", 1), ("no_repeat_ngram_size", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                yield f"{name}: must be {least} or more; found {value}; raise it"

    def checked(self, tables: Sequence[Table], split: str, notes: Notes) -> Rows:
        rows = text_rows(tables, (*self.text, self.target), self.id, self.damaged, notes, split)
        if self.references:
            rows[self.references] = [texts for table in tables for texts in _references(table, self.references)]
        return rows

    def settled(self, parts: Mapping[str, Rows], where: Mapping[str, str]) -> Labels:
        return Labels((), "sequence_to_sequence")

    def dataset(self, rows: Rows, labels: Labels) -> datasets.Dataset:
        import datasets

        kinds: dict[str, Any] = {name: datasets.Value("string") for name in rows}
        if self.references in rows:
            kinds[self.references] = datasets.List(datasets.Value("string"))
        return datasets.Dataset.from_dict(dict(rows), features=datasets.Features(kinds))

    def encode(self, rows: Mapping[str, list], tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, list]:
        """See Task.encode; `target_first` and `target_start` tell observe() what the tokenizer knows of a target.

        `target_truncated` and `target_altered` are what data.py warns of.
        """
        set_languages(tokenizer, self.source_language, self.target_language)
        frame = Frame.of(tokenizer)
        encoded = encode_texts([[self.prefix + text for text in rows[self.text[0]]]], tokenizer, max_length)
        for name, token in (("target_first", frame.first), ("target_start", frame.start)):
            if token is not None:
                encoded[name] = [token] * len(encoded["input_ids"])
        if self.target in rows:
            encoded["labels"], cut = frame.labels(rows[self.target], tokenizer, self.max_target_length)
            encoded["target_truncated"] = [int(each) for each in cut]
            encoded["target_altered"] = altered(encoded["labels"], rows[self.target], tokenizer)
        return encoded

    def collator(self, tokenizer: PreTrainedTokenizerBase, seeds: Seeds) -> Collator | None:
        set_languages(tokenizer, self.source_language, self.target_language)  # it is saved, and encode() may be cached
        return _labels_first if tokenizer.padding_side == "left" else None

    def forward(self, model: Any, batch: Batch) -> Any:
        """Return the output beside the target's own words (teacher forcing); None where there is no target."""
        if "labels" not in batch:
            return None
        shift = getattr(_plain(model), "prepare_decoder_input_ids_from_labels", None)
        if shift is None:  # M2M100 and others shift inside, and compute a loss that nobody asks for
            return model(**model_inputs(batch), labels=batch["labels"], use_cache=False)
        started = shift(labels=batch["labels"].clone())  # FSMT's writes into its argument
        return model(**model_inputs(batch), decoder_input_ids=started, use_cache=False)

    def loss(self, splits: Splits) -> LossFunction:
        return CrossEntropy(smoothing=self.label_smoothing)

    def observe(self, model: Any, batch: Batch, output: Any) -> list[np.ndarray]:
        """Return the tokens that the model writes by itself, without what the decoder starts with and the end.

        Before them, of each feature: the unsmoothed losses of the target's tokens, each given the true ones before it
        (teacher forcing), their sum; how many of them are ranked first; how many there are; zeros without a target.

        The model keeps the settings: once saved, its generate() writes the same in plain transformers. (They cannot
        only be passed: generate() fills in what they leave open from the model's own.)
        """
        import numpy as np
        from transformers.modeling_outputs import BaseModelOutput

        plain, read = _plain(model), {}
        if output is not None and output.encoder_last_hidden_state is not None:  # the source is read once, not twice
            read = {"encoder_outputs": BaseModelOutput(last_hidden_state=output.encoder_last_hidden_state)}
        settings = plain.generation_config = self.generation(plain, batch)
        written = plain.generate(**model_inputs(batch), **read, generation_config=settings)
        ends = np.atleast_1d(settings.eos_token_id)
        found = [_until(row, ends).astype(np.float64) for row in written[:, 1:].cpu().numpy()]
        sums = np.zeros((len(found), _SUMS))
        if output is not None:
            sums = TokenCrossEntropy().sums(output.logits.detach(), batch["labels"]).cpu().numpy().astype(np.float64)
            sums[~output.logits.isfinite().flatten(1).all(dim=1).cpu().numpy()] = np.nan
        return [np.concatenate([before, row]) for before, row in zip(sums, found, strict=True)]

    def generation(self, model: Any, batch: Batch) -> GenerationConfig:
        """Return how texts are written: this task's fields, the model's special tokens and those it must not write.

        A checkpoint's other settings (BART's beams, least lengths, forbidden repeats) are those of the task that it was
        trained for before.

        Raises:
            WeightsError: the model has nothing to start or to end a text with.
            ConfigError: max_new_tokens is more than the decoder has positions for.
        """
        from transformers import GenerationConfig

        tokens = _tokens(model, batch)
        length = self.max_new_tokens or self.max_target_length
        positions = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        if positions is not None and length > positions:
            raise ConfigError(
                f"task.max_new_tokens: more than the decoder has positions for; found {length} for {positions}; set "
                f"{positions} or less"
            )
        beams = {"length_penalty": self.length_penalty, "early_stopping": self.early_stopping}
        return GenerationConfig(
            do_sample=False, num_beams=self.num_beams, max_new_tokens=length,
            no_repeat_ngram_size=self.no_repeat_ngram_size, **(beams if self.num_beams > 1 else {}), **tokens,
        )  # fmt: skip

    def answers(self, observed: Observed) -> Answers:
        targets = observed.rows[self.references or self.target]
        references = [list(each) if self.references else [each] for each in targets]
        return Answers(_texts(observed), references, observed.labels, [each[:_SUMS] for each in observed.outputs])

    def results(self, observed: Observed) -> list[Generated]:
        return [Generated(text) for text in _texts(observed)]


def _references(table: Table, column: str) -> list[list[str]]:
    values = table.columns[column]
    remedy = "give a list of texts, [one] or [one, another], in jsonl or parquet; or set task.references=null"
    wrong = [place for place, value in enumerate(values) if not isinstance(value, list) or not value]
    refuse(table, column, wrong, "no list of texts", remedy)
    empty = [place for place, value in enumerate(values) if not all(isinstance(each, str) and each for each in value)]
    refuse(table, column, empty, "empty text, or none, in a list", remedy)
    return values


def _plain(model: Any) -> Any:
    """Return the model inside DistributedDataParallel, which only knows forward()."""
    return getattr(model, "module", model)


def _tokens(model: Any, batch: Batch) -> dict[str, Any]:
    """Return what generation must know of the vocabulary; the checkpoint says it, or the batch (see encode)."""
    required = ("decoder_start_token_id", "eos_token_id")
    unwritten = ("bad_words_ids", "suppress_tokens")  # Marian's models would write its pad token
    found: dict[str, Any] = {}
    for name in (*required, "pad_token_id", "bos_token_id", *unwritten):
        own = getattr(model.generation_config, name, None)
        found[name] = getattr(model.config, name, None) if own is None else own
    for name, column in (("decoder_start_token_id", "target_start"), ("forced_bos_token_id", "target_first")):
        if column in batch:
            found[name] = int(batch[column][0])
    for name in required:
        if found[name] is None:
            raise WeightsError(
                f"body: the model does not know how a text begins or ends; found no {name} in its config; set "
                f"body.config_overrides={{{name}: NUMBER}}"
            )
    return found


def _until(tokens: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the tokens before the first end; after it a batch is only filled."""
    import numpy as np

    found = np.flatnonzero(np.isin(tokens, ends))
    return tokens[: found[0]] if len(found) else tokens


def _labels_first(batch: dict[str, torch.Tensor], split: str, features: np.ndarray, epoch: int) -> dict:
    """Move the filling of labels to their right: decoders count positions from the left, whatever encoders do."""
    if "labels" in batch:
        labels = batch["labels"]
        batch["labels"] = labels.gather(1, (labels == IGNORED).int().argsort(dim=1, stable=True))
    return batch


def _texts(observed: Observed) -> list[str]:
    rows = [each[_SUMS:].astype(int).tolist() for each in observed.outputs]
    return list(observed.tokenizer.batch_decode(rows, skip_special_tokens=True))
