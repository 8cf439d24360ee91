"""A tag for every word, read at its first piece, by AutoModelForTokenClassification."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import seqeval.metrics
import transformers
from training import Job, Outcome, predict, train

UNREAD = -100


def words(job: Job) -> Outcome:
    """Trivial: the most frequent tag of training, and of each word by itself (unknown words: the most frequent)."""
    rows = job.split("train")
    names = sorted(set(chain.from_iterable(row[job.row.target] for row in rows)))
    model = transformers.AutoModelForTokenClassification.from_pretrained(job.body, num_labels=len(names))
    collate = transformers.DataCollatorForTokenClassification(job.tokenizer)
    model = train(model, _without_words(_features(job, rows, names)), collate, job)
    tests = job.split("test")
    true = [row[job.row.target] for row in tests]
    most = Counter(chain.from_iterable(row[job.row.target] for row in rows)).most_common(1)[0][0]
    found = [[most] * len(tags) for tags in true]  # a word without a piece: a lone control character, or cut off
    for number, places, tags in _tags(model, _features(job, tests, names), collate, names):
        for place, tag in zip(places, tags, strict=True):
            found[number][place] = tag
    by_word = _by_word(rows, job.row.target)
    trivial = {
        "majority": [[most] * len(tags) for tags in true],
        "tag of the word": [[by_word.get(word, most) for word in row["tokens"]] for row in tests],
    }
    return Outcome(_scores(true, found), {name: _scores(true, tags) for name, tags in trivial.items()})


def _features(job: Job, rows: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    """Return inputs with `labels` (UNREAD but at a word's first piece) and `words`, the words that have a piece."""
    encoded = job.tokenizer(
        [row["tokens"] for row in rows], is_split_into_words=True, truncation=True, max_length=job.row.max_length
    )
    features = []
    for number, row in enumerate(rows):
        owners = encoded.word_ids(number)
        labels, before = [], None
        for owner in owners:
            labels.append(UNREAD if owner in (None, before) else names.index(row[job.row.target][owner]))
            before = owner
        present = sorted({owner for owner in owners if owner is not None})
        features.append({name: encoded[name][number] for name in encoded} | {"labels": labels, "words": present})
    return features


def _tags(
    model: Any, features: list[dict[str, Any]], collate: Any, names: list[str]
) -> Iterator[tuple[int, list[int], list[str]]]:
    """Yield (number of the row, its words that have a piece, their tags)."""
    for number, output, place in predict(model, _without_words(features), collate):
        labels = features[number]["labels"]
        best = output["logits"][place].argmax(-1)[: len(labels)].tolist()
        tags = [names[index] for index, label in zip(best, labels, strict=True) if label != UNREAD]
        yield number, features[number]["words"], tags


def _without_words(features: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: values for name, values in feature.items() if name != "words"} for feature in features]


def _by_word(rows: list[dict[str, Any]], target: str) -> dict[str, str]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for word, tag in zip(row["tokens"], row[target], strict=True):
            counts[word][tag] += 1
    return {word: tags.most_common(1)[0][0] for word, tags in counts.items()}


def _scores(true: list[list[str]], found: list[list[str]]) -> dict[str, float]:
    right = np.array(list(chain.from_iterable(true))) == np.array(list(chain.from_iterable(found)))
    scores = {"accuracy": float(right.mean())}
    if any(tag.startswith("B-") for tags in true for tag in tags):
        scores["entity_f1"] = float(seqeval.metrics.f1_score(true, found, zero_division=0))  # type: ignore[arg-type]
    return scores
