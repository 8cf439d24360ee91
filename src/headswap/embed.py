"""A pretrained body, or a run's, as it is: texts in, vectors out, from Python or file to file. Floor 5.

    Embedder(body)(texts) -> float32 [texts, width]        embed_file(embedder, input, output) -> parquet

features.py has the pooling and the cache. torch and transformers load when the first text is embedded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headswap import __version__
from headswap import config as configuration
from headswap.bodies.transformer import TransformerBody
from headswap.contracts import Body, BodyFiles, Task
from headswap.errors import ConfigError, DataError
from headswap.hashes import file_sha256
from headswap.predict.folder import max_length as longest_input
from headswap.sources import Reading
from headswap.spine import Config
from headswap.tables import check_output, one_file, read_whole, texts, write_parquet
from headswap.text_task import encode_texts

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

VECTOR = "vector"
_UNLIMITED = 1 << 20  # tokens; where positions are relative, tokenizers name a number that their own library refuses


@dataclass(frozen=True)
class Embedder:
    """Turn texts, or pairs of texts, into vectors.

    Args:
        body: hub id, folder, `package:<module>/<path>`, a finished run's folder, the name of an option of the group
            `body` (such as minilm), or a body plug.
        pooling: mean, cls, last or max; `layer`: -1 for the last; see features.Extraction.
        max_length: tokens a text is cut to; None takes the run's data.max_length, or all that the body can take.
        batch_size: texts of a forward pass; changes no vector by more than rounding.
        normalise: scale every vector to length 1, so that a dot product is the cosine.
        cache: folder that keeps vectors from call to call; None keeps none.
        revision: commit or tag of a hub id.
        trust_remote_code: run the Python code that lies in the checkpoint.
    """

    body: str | Path | Body
    pooling: str = "mean"
    layer: int = -1
    max_length: int | None = None
    batch_size: int = 64
    normalise: bool = False
    cache: Path | None = None
    revision: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}: must be 1 or more; found {value}; give a whole number above 0")

    def __call__(self, texts: Sequence[str | tuple[str, str]], tell: Any = None) -> np.ndarray:
        """Return float32 [texts, width] in the texts' order.

        Args:
            tell: is called with the number of texts that are done.

        Raises:
            ConfigError, DataError, WeightsError: a wrong option, something that is no text, a body that does not load.
        """
        import numpy as np

        from headswap.features import Extraction, extract, vectors

        how, columns = Extraction(self.pooling, self.layer), _columns(texts)

        def make() -> np.ndarray:
            return extract(self._model, self._encoded(columns), how, self.batch_size, tell)

        found = vectors(self.cache, self._identity(columns), make)
        if self.normalise:
            return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.float32(1e-12))
        return found

    @property
    def facts(self) -> dict[str, Any]:
        """What the vectors hang on, as the output file records it."""
        return {
            "body": self.files.origin,
            "weights_sha256": self._weights,
            "pooling": self.pooling,
            "layer": self.layer,
            "max_length": self.tokens,
            "normalised": self.normalise,
            "headswap": __version__,
        }

    @cached_property
    def config(self) -> Config | None:
        """The configuration of the run that the body is of, if it is of one."""
        if not isinstance(self.body, str | Path):
            return None
        folder = Path(self.body).expanduser()
        path = folder / "config.yaml"
        return configuration.load(path) if path.is_file() and (folder / "result.json").is_file() else None

    @cached_property
    def files(self) -> BodyFiles:
        return self._plug.locate()

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._plug.tokenizer()

    @cached_property
    def tokens(self) -> int:
        """The tokens that a text is cut to."""
        from headswap.bodyload import blank_body

        if self.max_length is None and self.config is not None:
            return self.config.data.max_length
        longest = min(_UNLIMITED, longest_input(self.tokenizer, blank_body(self.files), None))
        if self.max_length is not None and self.max_length > longest:
            raise ConfigError(
                f"max_length: more than this body can take; found {self.max_length}; give {longest} or less"
            )
        return self.max_length or longest

    @cached_property
    def _plug(self) -> Body:
        return _plug(self.body, self.revision, self.trust_remote_code)

    @cached_property
    def _weights(self) -> str:
        """The sha256 of the weights as `body.sha256` pins them."""
        found = [file_sha256(file) for file in self.files.weights]
        return found[0] if len(found) == 1 else hashlib.sha256("\n".join(found).encode()).hexdigest()

    @cached_property
    def _model(self) -> PreTrainedModel:
        import torch

        from headswap.bodyload import load_body

        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return load_body(self.files).to(device)

    def _encoded(self, columns: list[list[str]]) -> Any:
        from headswap.encoded import encode_rows

        rows = {"id": [str(row) for row in range(len(columns[0]))], **dict(zip(_Texts.NAMES, columns, strict=False))}
        task: Any = _Texts(len(columns))
        return encode_rows(rows, task, self.tokenizer, self.tokens)

    def _identity(self, columns: list[list[str]]) -> dict[str, Any]:
        """Return what the vectors hang on before they are normalised."""
        from headswap.encoded import tokenizer_hash

        files = [self.files.folder / "config.json", *self.files.code]
        return {
            "weights": self._weights,
            "architecture": [file_sha256(file) for file in files],
            "tokenizer": [tokenizer_hash(self.tokenizer), self.tokens],
            "texts": hashlib.sha256(json.dumps(columns).encode()).hexdigest(),
            "extraction": [self.pooling, self.layer, "float32"],
        }


def embed_file(embedder: Embedder, source: Path, output: Path, columns: Sequence[str] = (), tell: Any = None) -> int:
    """Embed the rows of a csv, tsv, jsonl or parquet file into a parquet file.

    Args:
        output: all columns of the input, in its order, and `vector`, a list of float32; the schema's metadata holds
            `headswap`, the facts as JSON. An older file of that name is replaced whole or not at all.
        columns: the text column, or two that are embedded as a pair; None takes the run's, or `text`.

    Returns:
        The number of rows.
    """
    import pyarrow as pa

    path = one_file(source)
    check_output(output, path, (".parquet",))
    names = tuple(columns) or _inputs(embedder.config)
    table = read_whole(path, names, _reading(embedder.config))
    if not names:
        found = ", ".join(map(repr, table.columns))
        if "text" not in table.columns:
            raise ConfigError(f"--column: needed where no column is named text; found the columns {found}; name one")
        names = ("text",)
    if len(names) > 2:
        raise ConfigError(f"--column: one text column, or two of a pair; found {len(names)}; embed them one by one")
    if VECTOR in table.columns:
        raise DataError(f"{path}: a column has the name of the new one; found {VECTOR!r}; rename or remove it")
    given = [texts(table, name) for name in names]
    found = embedder(given[0] if len(given) == 1 else list(zip(*given, strict=True)), tell)
    offsets = pa.array(range(0, found.size + 1, found.shape[1]), pa.int32())
    arrays = {VECTOR: pa.ListArray.from_arrays(offsets, pa.array(found.reshape(-1)))}
    write_parquet(output, path, table, arrays, {"headswap": json.dumps(embedder.facts)})
    return len(found)


@dataclass(frozen=True)
class _Texts:
    """What encode_rows asks of a task."""

    width: int
    NAMES = ("text", "pair")

    def encode(self, rows: Mapping[str, list], tokenizer: Any, max_length: int) -> dict[str, list]:
        return encode_texts([rows[name] for name in self.NAMES[: self.width]], tokenizer, max_length)


def _columns(given: Sequence[str | tuple[str, str]]) -> list[list[str]]:
    """Return one list a text column."""
    if isinstance(given, str):
        raise DataError(f"texts: one text alone; found {given[:50]!r}; give a list of texts")
    rows = [(each,) if isinstance(each, str) else tuple(each) for each in given]
    if not rows:
        raise DataError("texts: nothing to embed; found an empty list; give one text or more")
    width = len(rows[0])
    for place, row in enumerate(rows):
        if len(row) != width or width > 2 or not all(isinstance(part, str) for part in row):
            raise DataError(
                f"texts[{place}]: not a text; found {str(row)[:60]}; give every row one str, or every row a pair"
            )
    return [[str(row[column]) for row in rows] for column in range(width)]


def _inputs(config: Config | None) -> tuple[str, ...]:
    """Return the text columns of a run's task, none where they are more than a pair."""
    if config is None:
        return ()
    inputs = tuple(configuration.build(config.task, "task", Task, config.plugins).inputs)
    return inputs if len(inputs) <= 2 else ()


def _reading(config: Config | None) -> Reading:
    """Return how a run's own files are read."""
    task = config.task if config is not None else {}
    return Reading((), task.get("encoding", "utf-8"), task.get("delimiter"), task.get("quotes", True))


def _plug(body: str | Path | Body, revision: str | None, trusted: bool) -> Any:
    """Return the body that a word names: an option of the group `body` where no folder has that name."""
    if not isinstance(body, str | Path):
        return body
    name = str(body)
    option = configuration.conf_dir() / "body" / f"{name}.yaml"
    if "/" not in name and not Path(name).exists() and option.is_file() and revision is None:
        import yaml

        return configuration.build(yaml.safe_load(option.read_text(encoding="utf-8")), "body", Body)
    return TransformerBody(name, revision=revision, trust_remote_code=trusted)
