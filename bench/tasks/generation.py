"""A text becomes a text: EncoderDecoderModel, both halves warm-started from the body, its cross-attention new."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import sacrebleu
import torch
import transformers
from rouge_score.rouge_scorer import RougeScorer
from settings import EVALUATION_SIZE
from training import Job, Outcome, has_bf16, train


def generation(job: Job) -> Outcome:
    """Greedy. Trivial: the source itself, its first sentence, and one target of training for all."""
    model = _model(job)
    rows = job.split("train")
    collate = transformers.DataCollatorForSeq2Seq(job.tokenizer)
    model = train(model, _features(job, rows), collate, job)
    tests = job.split("test")
    sources = [row[job.row.columns[0]] for row in tests]
    true = [row[job.row.target] for row in tests]
    found = _generated(model, sources, job)
    for source, right, text in list(zip(sources, true, found, strict=True))[:3]:
        print(f"  {source[:100]!r} -> {text!r} ({right!r})")
    middle = sorted((row[job.row.target] for row in rows), key=len)[len(rows) // 2]
    trivial = {
        "copy of the source": sources,
        "first sentence": [re.split(r"(?<=[.!?]) ", source)[0] for source in sources],
        "one target for all": [middle] * len(true),
    }
    scores = _rouge if "rouge1" in job.row.scores else _translation_scores
    return Outcome(scores(true, found), {name: scores(true, texts) for name, texts in trivial.items()})


def _model(job: Job) -> Any:
    if job.row.small_body:
        return transformers.AutoModelForSeq2SeqLM.from_config(transformers.AutoConfig.from_pretrained(job.body))
    model = transformers.EncoderDecoderModel.from_encoder_decoder_pretrained(job.body, job.body)
    tokens = {
        "decoder_start_token_id": job.tokenizer.cls_token_id,
        "eos_token_id": job.tokenizer.sep_token_id,
        "pad_token_id": job.tokenizer.pad_token_id,
    }
    for name, token in tokens.items():
        setattr(model.config, name, token)
        setattr(model.generation_config, name, token)
    return model


def _features(job: Job, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return inputs and labels; a label begins after the start token, which the model puts before it."""
    encoded = _encode(job, [row[job.row.columns[0]] for row in rows])
    targets = job.tokenizer(
        [row[job.row.target] for row in rows], truncation=True, max_length=job.row.options["longest_target"] + 1
    )["input_ids"]
    return [
        {name: encoded[name][number] for name in encoded} | {"labels": targets[number][1:]}
        for number in range(len(rows))
    ]


def _encode(job: Job, texts: list[str]) -> Any:
    return job.tokenizer(texts, truncation=True, max_length=job.row.max_length, return_token_type_ids=False)


def _generated(model: Any, sources: list[str], job: Job) -> list[str]:
    found = [""] * len(sources)
    encoded = _encode(job, sources)["input_ids"]
    by_length = sorted(range(len(sources)), key=lambda number: -len(encoded[number]))
    for start in range(0, len(by_length), EVALUATION_SIZE):
        numbers = by_length[start : start + EVALUATION_SIZE]
        batch = job.tokenizer.pad({"input_ids": [encoded[number] for number in numbers]}, return_tensors="pt")
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=has_bf16()):
            tokens = model.generate(
                **batch, max_new_tokens=job.row.options["longest_target"], num_beams=1, do_sample=False
            )
        for number, text in zip(numbers, job.tokenizer.batch_decode(tokens, skip_special_tokens=True), strict=True):
            found[number] = text
    return found


def _translation_scores(true: list[str], found: list[str]) -> dict[str, float]:
    return {
        "bleu": sacrebleu.corpus_bleu(found, [true]).score,
        "chrf": sacrebleu.corpus_chrf(found, [true]).score,
    }


def _rouge(true: list[str], found: list[str]) -> dict[str, float]:
    kinds = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(kinds)
    scores = [scorer.score(right, text) for right, text in zip(true, found, strict=True)]
    return {kind: float(np.mean([score[kind].fmeasure for score in scores])) for kind in kinds}
