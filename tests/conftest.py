"""Tiny bodies, made here: no test reads the network."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from absl import logging

os.environ.setdefault("HF_HUB_OFFLINE", "1")

# rouge-score imports absl, whose log handler takes the sys.stderr of that moment, pytest's, for its own; Hydra closes all
# handlers when it sweeps, and pytest could write no more. It never closes the process's own.
logging.get_absl_handler().python_handler.stream = sys.__stderr__

WORDS = ["the", "a", "good", "bad", "fine", "film", "plot", "was", "is", "very", "not", "and", "but", "dull", "great"]
WORDS += ["poor", "loved", "hated", "it", "this", "movie", "so"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"

Variant = Callable[..., Path]


def make_tokenizer():
    """Return a fast WordPiece tokenizer of about 120 tokens with BERT's special ones."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = special + WORDS + list(LETTERS) + [f"##{letter}" for letter in LETTERS[:36]]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    raw = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=64,
    )  # fmt: skip


def tiny_config(**settings):
    """Return the config of a 2-layer BERT of width 32."""
    from transformers import BertConfig

    fixed = {"vocab_size": len(make_tokenizer()), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return BertConfig(**fixed, intermediate_size=37, max_position_embeddings=64, pad_token_id=0, **settings)


@pytest.fixture(scope="session")
def tiny_body(tmp_path_factory) -> Path:
    """A BertModel in safetensors with its tokenizer."""
    import torch
    from transformers import BertModel

    folder = tmp_path_factory.mktemp("bodies") / "tiny"
    with torch.random.fork_rng():
        torch.manual_seed(11)
        BertModel(tiny_config()).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory) -> Path:
    """A BertForSequenceClassification with the labels negative, neutral, positive, and its tokenizer."""
    import torch
    from transformers import BertForSequenceClassification

    names = ["negative", "neutral", "positive"]
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: row for row, name in enumerate(names)}}
    folder = tmp_path_factory.mktemp("bodies") / "classifier"
    with torch.random.fork_rng():
        torch.manual_seed(12)
        BertForSequenceClassification(tiny_config(**labels)).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def variant(tmp_path: Path) -> Variant:
    """Return a function that copies a body's folder with other tensors or another config.json."""

    def make(folder: Path, change: Callable[[dict], dict] | None = None, **config) -> Path:
        from safetensors.torch import load_file, save_file

        copy = tmp_path / f"variant{len(list(tmp_path.iterdir()))}"
        shutil.copytree(folder, copy)
        if change:
            changed = {
                name: tensor.contiguous() for name, tensor in change(load_file(copy / "model.safetensors")).items()
            }
            save_file(changed, copy / "model.safetensors", metadata={"format": "pt"})
        settings = json.loads((copy / "config.json").read_text()) | config
        settings = {key: value for key, value in settings.items() if value is not None}
        (copy / "config.json").write_text(json.dumps(settings))
        return copy

    return make


def pytest_sessionfinish(session):
    """Hand what this process counted to the one that prints the summary, where several run tests."""
    import faults

    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["faults"] = dict(faults.INJECTED), dict(faults.RESUMES)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Take over what a process that ran tests had counted."""
    import faults

    for kept, counted in zip(
        (faults.INJECTED, faults.RESUMES), getattr(node, "workeroutput", {}).get("faults", ()), strict=False
    ):
        kept.update(counted)


def pytest_terminal_summary(terminalreporter):
    """Say how many faults were injected, and whether every resume was exact."""
    import faults

    if faults.INJECTED:
        found = ", ".join(f"{kind} {count}" for kind, count in sorted(faults.INJECTED.items()))
        terminalreporter.write_line(f"faults injected: {found}")
        same, other = faults.RESUMES["exact"], faults.RESUMES["different"]
        terminalreporter.write_line(f"resumes compared with a straight run: {same + other}, resume mismatches {other}")
