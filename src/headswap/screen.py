"""Rank bodies for a task by their frozen vectors, before anyone pays for fine-tuning. Floor 5.

    a Config a body -> training rows -> vectors (features.py, kept on disk) -> scores (transferability.py) -> Ranking

The rows are those that a run of the same configuration trains on; validation and test rows are not looked at. The
model is the one that the run would start from (model.join), gates and all, and its vectors are computed in float32.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headswap.bodyfiles import one_line
from headswap.bodyload import blank_body
from headswap.config import Plugs, build_plugs
from headswap.contracts import BodyFiles, Metric, Splits
from headswap.data import sample_texts
from headswap.encoded import Encoded, encode_rows, pad_token_id, tokenizer_hash
from headswap.errors import ConfigError, DataError, HeadswapError, WeightsError
from headswap.features import Extraction, extract, vectors
from headswap.hashes import file_sha256
from headswap.model import join
from headswap.predict.folder import max_length as longest_input
from headswap.run_data import data_request
from headswap.seeds import Seeds
from headswap.spine import Config
from headswap.taskconfig import SpecialTokens
from headswap.transferability import FOLDS, Targets, h_score, log_me, probe, targets_of

SERVED = ("single_label_classification", "multi_label_classification", "regression")
WARNING = (
    "Screening ranks bodies by what a linear model reads off their frozen vectors. It is no result of fine-tuning, and "
    "it cannot say whether transfer beats training from scratch: headswap compare does."
)
_PLACES = ("source", "revision", "sha256", "mirrors", "check_tokenizer")  # fields of a body that change no weight

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Scored:
    """What one body's vectors are worth.

    Args:
        folds: the probe's metric on each held-out fold.
        h_score: None for numbers, which have no classes; of several labels, the mean over them.
        seconds: of the `vectors` (tokens, weights and forward pass, unless `cached`) and of the `scores`.
    """

    width: int
    tokens: int
    folds: list[float]
    h_score: float | None
    log_me: float
    seconds: Mapping[str, float]
    cached: bool

    @property
    def probe(self) -> float:
        return float(np.mean(self.folds))

    @property
    def spread(self) -> float:
        """The standard deviation of the folds; they share training rows, so it is no standard error."""
        return float(np.std(self.folds, ddof=1))


@dataclass(frozen=True)
class Row:
    """A body: its own vectors, those of the same architecture drawn at random, or why there are none."""

    name: str
    scored: Scored | None = None
    random: Scored | None = None
    fault: str = ""


@dataclass(frozen=True)
class Ranking:
    """Bodies, the best probe first, those that failed last."""

    metric: str
    greater_is_better: bool
    rows: list[Row]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether no body could be scored."""
        return all(row.scored is None for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON takes them."""
        return {
            **self.facts,
            "metric": self.metric,
            "greater_is_better": self.greater_is_better,
            "bodies": [
                {"body": row.name, **_numbers(row.scored), "random": _numbers(row.random) or None, "fault": row.fault}
                for row in self.rows
            ],
            "warning": WARNING,
        }


@dataclass(frozen=True)
class _Asked:
    """What every body is asked: the rows, what to read off their vectors, and how that is counted."""

    splits: Splits
    targets: Targets
    metric: Metric


@dataclass(frozen=True)
class Screener:
    """How bodies are screened.

    Args:
        how: which states become vectors.
        cache: folder of the vectors, None to keep none.
        random: also score each architecture as its initialiser draws it, under the run's stream `body`.
        tell: hears (body, texts done, of how many).
    """

    how: Extraction = field(default_factory=Extraction)
    cache: Path | None = None
    random: bool = True
    tell: Tell | None = None

    def __call__(self, configs: Mapping[str, Config]) -> Ranking:
        """Rank the bodies of configurations that differ in their body alone.

        Args:
            configs: what a person calls a body -> the configuration with it; one or more.

        Raises:
            ConfigError, DataError: a task that is not served; its data is wrong, or too small.
        """
        config = next(iter(configs.values()))
        plugs = build_plugs(config)
        _require_served(plugs.task.problem)
        if config.hardware.threads:
            torch.set_num_threads(config.hardware.threads)
        splits = plugs.task.load(data_request(config), Seeds(config.seed))
        targets, kept = targets_of(splits.labels, splits.train["label"])
        splits = dataclasses.replace(splits, train=splits.train.select(kept))
        asked = _Asked(splits, targets, plugs.metrics[0])
        rows, metric = [self._row(name, each, asked) for name, each in configs.items()], asked.metric
        sign = -1 if metric.greater_is_better else 1
        rows.sort(key=lambda row: (row.scored is None, sign * row.scored.probe if row.scored else 0.0))
        return Ranking(metric.name, metric.greater_is_better, rows, self._facts(config, asked))

    def _row(self, name: str, config: Config, asked: _Asked) -> Row:
        plugs = build_plugs(config)
        try:
            scored = self._scored(name, config, plugs, asked)
        except HeadswapError as error:
            return Row(name, fault=str(error))
        if not self.random or plugs.body.init == "random":
            return Row(name, scored)
        body: Any = plugs.body
        try:
            drawn = dataclasses.replace(plugs, body=dataclasses.replace(body, init="random"))
            return Row(name, scored, self._scored(f"{name}, at random", config, drawn, asked))
        except HeadswapError as error:
            return Row(name, scored, fault=f"drawn at random: {error}")

    def _scored(self, name: str, config: Config, plugs: Plugs, asked: _Asked) -> Scored:
        start = time.perf_counter()
        found, tokens, cached = self._vectors(name, config, plugs, asked.splits)
        between = time.perf_counter()
        spreads = [h_score(found, classes) for classes in asked.targets.classes]
        folds, evidence = probe(found, asked.targets, asked.metric), log_me(found, asked.targets.columns)
        seconds = {"vectors": between - start, "scores": time.perf_counter() - between}
        spread = float(np.mean(spreads)) if spreads else None
        return Scored(found.shape[1], tokens, folds, spread, evidence, seconds, cached)

    def _vectors(self, name: str, config: Config, plugs: Plugs, splits: Splits) -> tuple[np.ndarray, int, bool]:
        """Return the vectors, the tokens that texts were cut to, and whether the disk had the vectors."""
        body, task, made = plugs.body, plugs.task, []
        files, tokenizer = body.locate(), body.tokenizer()
        body.check_texts(tokenizer, sample_texts(splits, task.inputs))
        with _told(name):
            tokens = min(config.data.max_length, longest_input(tokenizer, blank_body(files), None))
        encoded = encode_rows(splits.train[:], task, tokenizer, tokens)
        if len(encoded) != len(splits.train):
            raise DataError(
                f"task: rows are cut into several features; found {len(encoded)}; screening needs one a row"
            )

        def make() -> np.ndarray:
            made.append(name)
            special = SpecialTokens.of(tokenizer, pad_token_id(tokenizer))
            model, _ = join(body, plugs.head, splits.labels, Seeds(config.seed), task.auto_class, special)
            return self._computed(name, model, encoded, config)

        about = _identity(body, files, config.seed, encoded) | {
            "tokenizer": [tokenizer_hash(tokenizer), tokens],
            "extraction": [self.how.pooling, self.how.layer, "float32"],
        }
        return vectors(self.cache, about, make), tokens, not made

    def _computed(self, name: str, model: Any, encoded: Encoded, config: Config) -> np.ndarray:
        """Return the vectors of a model's body; of an encoder with a decoder, the encoder's."""
        told = self.tell
        tell = None if told is None else (lambda done: told(name, done, len(encoded)))
        with _told(name):
            body = model.base_model
            body = body.get_encoder() if model.config.is_encoder_decoder else body
            body = body.eval().to(_device(config.hardware.device))
            found = extract(body, encoded, self.how, config.train.eval_batch_size, tell)
        if not np.isfinite(found).all():
            raise WeightsError(f"{name}: its vectors are not finite; found NaN or infinity; use another body")
        return found

    def _facts(self, config: Config, asked: _Asked) -> dict[str, Any]:
        splits, targets = asked.splits, asked.targets
        used = targets.labels.names
        return {
            "task": config.choices.get("task", ""),
            "problem": targets.labels.problem,
            "fingerprint": splits.fingerprint,
            "rows": len(targets.values),
            "labels": list(used),
            "labels_left_out": [name for name in splits.labels.names if name not in used],
            "folds": FOLDS,
            "pooling": self.how.pooling,
            "layer": self.how.layer,
            "seed": config.seed,
        }


def _require_served(problem: str) -> None:
    if problem not in SERVED:
        served = f"screening serves {', '.join(SERVED)}: compare bodies for this task with short runs"
        raise ConfigError(f"task: cannot be screened; found the problem {problem}; {served}")


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Name the body where the library's code for it fails: the others go on."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError, ImportError) as fault:
        raise WeightsError(
            f"{name}: gives no vectors; found {one_line(fault)}; screen it on another device, or leave it out"
        ) from fault


def _device(asked: str) -> str:
    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return found if asked == "auto" else asked


def _identity(body: Any, files: BodyFiles, seed: int, encoded: Encoded) -> dict[str, Any]:
    """Return what vectors hang on besides tokenizer and pooling; JSON.

    The seed is part of it: whatever of a body the checkpoint lacks is drawn under it.
    """
    from transformers import __version__

    texts = hashlib.sha256()
    for name in ("input_ids", "token_type_ids"):
        for part in encoded.columns.get(name, ()):
            texts.update(np.ascontiguousarray(part).tobytes())
    fields = {
        name: value
        for name, value in dataclasses.asdict(body).items()
        if name.removeprefix("tokenizer_") not in _PLACES
    }
    return {
        "body": repr(sorted(fields.items())),
        "weights": [file_sha256(file) for file in files.weights],
        "architecture": [file_sha256(file) for file in (files.folder / "config.json", *files.code)],
        "seed": seed,
        "texts": texts.hexdigest(),
        "versions": [torch.__version__, __version__],
    }


def _numbers(scored: Scored | None) -> dict[str, Any]:
    if scored is None:
        return {}
    return {
        "probe": {"mean": scored.probe, "sd": scored.spread, "folds": scored.folds},
        "h_score": scored.h_score,
        "log_me": scored.log_me,
        "width": scored.width,
        "max_length": scored.tokens,
        "seconds": {name: round(value, 3) for name, value in scored.seconds.items()},
        "cached": scored.cached,
    }
