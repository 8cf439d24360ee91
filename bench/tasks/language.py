"""The text itself is the target: masked tokens by AutoModelForMaskedLM, the next one by the body as a decoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn.functional import cross_entropy
from training import Job, Outcome, predict, train

EVALUATION_SEED = 0
UNREAD = -100


def language(job: Job) -> Outcome:
    """A line is one text, in pieces of max_length tokens. Trivial: the frequencies of training's tokens."""
    share = job.row.options["masked_share"]
    if share:
        model = transformers.AutoModelForMaskedLM.from_pretrained(job.body)
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(job.body, is_decoder=True)
    collate = transformers.DataCollatorForLanguageModeling(
        job.tokenizer, mlm=bool(share), mlm_probability=share or None
    )  # fmt: skip
    features, tests = _features(job, "train"), _features(job, "test")
    model = train(model, features, collate, job)
    judge = _fixed_masks(job.tokenizer, share) if share else collate
    losses, right = _observed(model, tests, judge, shifted=not share)
    scores = {"loss": float(losses.mean()), "accuracy": float(right.mean()), "perplexity": float(np.exp(losses.mean()))}
    return Outcome(scores, {"frequencies": _by_frequency(features, tests, job.tokenizer)})


def _features(job: Job, split: str) -> list[dict[str, Any]]:
    """Cut nothing off: masked, each piece stands between special tokens; causal, it begins with the last one's end."""
    texts = [row[job.row.columns[0]] for row in job.split(split)]
    length = job.row.max_length
    if job.row.options["masked_share"]:
        encoded = job.tokenizer(
            texts, truncation=True, max_length=length, return_overflowing_tokens=True, return_special_tokens_mask=True
        )
        names = ("input_ids", "special_tokens_mask", "attention_mask")
        return [{name: encoded[name][number] for name in names} for number in range(len(encoded["input_ids"]))]
    whole = job.tokenizer(texts)["input_ids"]
    pieces = [ids[start : start + length] for ids in whole for start in range(0, len(ids) - 1, length - 1)]
    return [{"input_ids": piece, "attention_mask": [1] * len(piece)} for piece in pieces]


def _fixed_masks(tokenizer: Any, share: float) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    """Return a collator for the evaluation: of each piece a fixed number of tokens, at least one.

    The one of training throws a coin for each token: then headings weigh otherwise, and scores are of another thing.
    """
    dice = np.random.default_rng(EVALUATION_SEED)  # every seed of the training is judged on the same masks
    words = np.array(sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)))

    def collate(pieces: list[dict[str, Any]]) -> dict[str, Any]:
        batch = dict(tokenizer.pad([{key: piece[key] for key in ("input_ids", "attention_mask")} for piece in pieces]))
        batch = {name: torch.tensor(values) for name, values in batch.items()}
        labels = torch.full_like(batch["input_ids"], UNREAD)
        for row, piece in enumerate(pieces):
            places = [place for place, special in enumerate(piece["special_tokens_mask"]) if not special]
            for place in dice.choice(places, size=max(1, round(share * len(places))), replace=False):
                labels[row, place] = batch["input_ids"][row, place]
                coin = dice.random()
                if coin < 0.9:
                    batch["input_ids"][row, place] = tokenizer.mask_token_id if coin < 0.8 else int(dice.choice(words))
        return {**batch, "labels": labels}

    return collate


def _observed(model: Any, features: list[dict[str, Any]], collate: Any, shifted: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the loss of every target token, and whether it was the likeliest."""
    losses, right = [], []

    def labelled(batch: list[dict[str, Any]]) -> dict[str, Any]:
        collated = collate(batch)
        labels.append(collated.pop("labels"))
        return collated

    labels: list[torch.Tensor] = []
    for _, output, place in predict(model, features, labelled):
        logits, target = output["logits"][place].float(), labels[-1][place]
        if shifted:
            logits, target = logits[:-1], target[1:]
        read = target != UNREAD
        losses.append(cross_entropy(logits[read], target[read], reduction="none").numpy())
        right.append((logits[read].argmax(-1) == target[read]).numpy())
    return np.concatenate(losses), np.concatenate(right)


def _by_frequency(features: list[dict[str, Any]], tests: list[dict[str, Any]], tokenizer: Any) -> dict[str, float]:
    """Score the training frequencies (one added to each) on all tokens of the tests."""
    special = set(tokenizer.all_special_ids)
    counts = Counter(token for feature in features for token in feature["input_ids"] if token not in special)
    seen = [token for feature in tests for token in feature["input_ids"] if token not in special]
    total = sum(counts.values()) + len(tokenizer)
    loss = float(np.mean([-np.log((counts[token] + 1) / total) for token in seen]))
    most = counts.most_common(1)[0][0]
    accuracy = float(np.mean([token == most for token in seen]))
    return {"loss": loss, "accuracy": accuracy, "perplexity": float(np.exp(loss))}
