"""Sentences with what is to be written for them, bodies that write, and tokenizers of many languages; all tiny."""

import numpy as np
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    MBart50Tokenizer,
    MBartTokenizer,
    NllbTokenizer,
)

from headswap.encoded import encode_rows
from headswap.tasks.sequence_to_sequence import SequenceToSequence
from tiny_families import config_of, sentencepiece_pairs, unigrams

TEXTS = ["the film was a good one", "a dull movie", "is this a great film? it is not bad", "tea"]
WRITTEN = ["le film", "a film that nobody loved and many hated", "good", "they serve good tea"]
ROWS = {"id": list("abcd"), "en": TEXTS, "de": WRITTEN}
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


def task(**fields):
    return SequenceToSequence(
        **{"source": "x.jsonl", "text": ["en"], "target": "de", "max_target_length": 12, **fields}
    )


def model_of(family, tokenizer, **settings):
    """Return a model whose weights are all drawn, wide enough to write different tokens for different texts."""
    torch.manual_seed(1)
    if family == "BERT":
        half = config_of("BERT", tokenizer).to_dict()
        decoder = half | {"is_decoder": True, "add_cross_attention": True}
        special = {"pad_token_id": 0, "decoder_start_token_id": 2, "eos_token_id": 3}
        model = EncoderDecoderModel(EncoderDecoderConfig(encoder=half, decoder=decoder, **special))
    else:
        model = AutoModelForSeq2SeqLM.from_config(config_of(family, tokenizer, **settings))
    return spread(model)


def spread(model):
    with torch.no_grad():
        for weight in filter(lambda each: each.requires_grad, model.parameters()):
            weight.add_(torch.randn_like(weight) * 0.2)
    return model.eval()


def batch_of(made, tokenizer, rows=None, features=range(4)):
    return encode_rows(rows or ROWS, made, tokenizer, 32).collate(np.asarray(features))


def plain_ids(observed):
    return [row[3:].astype(int).tolist() for row in observed]


def until_the_end(rows, end):
    return [row[: row.index(end) if end in row else None] for row in rows[:, 1:].tolist()]


def tokenizer_of(kind):
    pieces = unigrams(SPECIAL, "<unk>")
    if kind == "NLLB":
        return NllbTokenizer(**sentencepiece_pairs(SPECIAL))
    return MBartTokenizer(vocab=pieces) if kind == "mBART" else MBart50Tokenizer(vocab=pieces, src_lang="fr_XX")
