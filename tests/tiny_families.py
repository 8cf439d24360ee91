"""Tiny bodies of many families, each with a tokenizer of its own kind, made offline from a few sentences."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    CONFIG_MAPPING,
    AlbertTokenizer,
    AutoModelForSequenceClassification,
    BertTokenizer,
    DebertaV2Tokenizer,
    DistilBertTokenizer,
    GPT2Tokenizer,
    LlamaTokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    T5Tokenizer,
)

CORPUS = [
    "the film was a good one and the plot was fine",
    "a dull movie: nobody loved it, many hated the poor acting",
    "is this a great film? it is not bad, but it's long",
    "he said that she was here; they were there in 1999 and 2024",
    "naïve cafés serve good tea, don't they?",
]
SIZE = 200
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


@functools.cache
def wordpieces(special: tuple[str, ...]) -> Mapping[str, int]:
    raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    raw.normalizer, raw.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=SIZE, special_tokens=list(special), show_progress=False)
    raw.train_from_iterator(CORPUS, trainer)
    return raw.get_vocab()


@functools.cache
def byte_pairs(special: tuple[str, ...]) -> dict[str, Any]:
    """Return the vocabulary and merges of a byte-level BPE: no text is unknown to it."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE + 256, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(CORPUS, trainer)
    return _vocabulary_and_merges(raw)


@functools.cache
def sentencepiece_pairs(special: tuple[str, ...]) -> dict[str, Any]:
    """Return a BPE over ▁words with a byte for what it does not know, as Llama's."""
    raw = Tokenizer(models.BPE(byte_fallback=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    known = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=SIZE + len(known), special_tokens=known, show_progress=False)
    raw.train_from_iterator(CORPUS, trainer)
    return _vocabulary_and_merges(raw)


def _vocabulary_and_merges(raw: Tokenizer) -> dict[str, Any]:
    import json

    model = json.loads(raw.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}


@functools.cache
def unigrams(special: tuple[str, ...], unknown: str) -> list[tuple[str, float]]:
    """Return the pieces of a Unigram model with their scores, as SentencePiece has them; the special ones first."""
    raw = Tokenizer(models.Unigram())
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=SIZE, special_tokens=list(special), unk_token=unknown, show_progress=False
    )
    raw.train_from_iterator(CORPUS, trainer)
    import json

    return [(piece, score) for piece, score in json.loads(raw.to_str())["model"]["vocab"]]


def modern_bert_tokenizer() -> PreTrainedTokenizerFast:
    special = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
    raw = Tokenizer(models.BPE(**byte_pairs(special)))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {f"{name.strip('[]').lower()}_token": name for name in special}
    inputs = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_input_names=inputs, **names)


def marian_tokenizer() -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.Unigram(unigrams(("</s>", "<unk>", "<pad>"), "<unk>"), unk_id=1))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    raw.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", unk_token="<unk>", pad_token="<pad>")


@dataclass(frozen=True)
class Family:
    """A model type of transformers, its tokenizer, and the settings that make it tiny."""

    kind: str
    tokenizer: Callable[[], PreTrainedTokenizerBase]
    settings: Mapping[str, Any] = field(default_factory=dict)


WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}
ALBERT = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
ENCODER_DECODER = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 64,
}  # fmt: skip
FAMILIES = {
    "BERT": Family("bert", lambda: BertTokenizer(vocab=dict(wordpieces(tuple(BERT)))), WIDE),
    "RoBERTa": Family(
        "roberta", lambda: RobertaTokenizer(**byte_pairs(tuple(ROBERTA))), WIDE | {"type_vocab_size": 1}
    ),
    "DistilBERT": Family(
        "distilbert", lambda: DistilBertTokenizer(vocab=dict(wordpieces(tuple(BERT)))),
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 40},
    ),
    "ALBERT": Family("albert", lambda: AlbertTokenizer(vocab=unigrams(ALBERT, "<unk>")), WIDE | {"embedding_size": 16}),
    "DeBERTa-v2": Family(
        "deberta-v2", lambda: DebertaV2Tokenizer(vocab=unigrams(tuple(BERT), "[UNK]")),
        WIDE | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0},
    ),
    "ELECTRA": Family("electra", lambda: BertTokenizer(vocab=dict(wordpieces(tuple(BERT)))), WIDE | {"embedding_size": 16}),
    "MPNet": Family(
        "mpnet", lambda: MPNetTokenizer(vocab=dict(wordpieces(("<s>", "<pad>", "</s>", "[UNK]", "<mask>")))), WIDE
    ),
    "ModernBERT": Family("modernbert", modern_bert_tokenizer, WIDE),
    "GPT-2": Family(
        "gpt2", lambda: GPT2Tokenizer(**byte_pairs(("<|endoftext|>",))), {"n_embd": 32, "n_layer": 2, "n_head": 4}
    ),
    "Llama": Family(
        "llama", lambda: LlamaTokenizer(**sentencepiece_pairs(("<unk>", "<s>", "</s>"))),
        WIDE | {"num_key_value_heads": 2, "head_dim": 8},
    ),
    "T5": Family(
        "t5", lambda: T5Tokenizer(vocab=unigrams(("<pad>", "</s>", "<unk>"), "<unk>"), extra_ids=0),
        {"d_model": 32, "num_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 40, "decoder_start_token_id": 0},
    ),
    "BART": Family("bart", lambda: RobertaTokenizer(**byte_pairs(tuple(ROBERTA))), ENCODER_DECODER),
    "Marian": Family("marian", marian_tokenizer, ENCODER_DECODER | {"decoder_start_token_id": 2}),
}  # fmt: skip


def config_of(name: str, tokenizer: PreTrainedTokenizerBase, **settings: Any) -> Any:
    family = FAMILIES[name]
    special = {
        f"{each}_token_id": getattr(tokenizer, f"{each}_token_id", None) for each in ("pad", "bos", "eos", "cls", "sep")
    }
    known = {key: number for key, number in special.items() if number is not None}
    return CONFIG_MAPPING[family.kind](**{**family.settings, "vocab_size": len(tokenizer), **known, **settings})


def saved(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    """Save a model whose weights, biases and norms among them, are all drawn: no tensor equals a fresh one."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in filter(lambda each: each.requires_grad, model.parameters()):  # sines stay sines
            weight.add_(torch.empty_like(weight).normal_(0, 0.05, generator=generator))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def two_labels(name: str, folder: Path) -> Path:
    """Save a classifier of the labels no and yes with its tokenizer."""
    tokenizer = FAMILIES[name].tokenizer()
    labels = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AutoModelForSequenceClassification.from_config(config_of(name, tokenizer, **labels))
    return saved(model, tokenizer, folder)
