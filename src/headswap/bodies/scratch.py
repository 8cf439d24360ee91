"""A body without weights: an architecture from settings, with the tokenizer of another place. Floor 1.

It always starts at random. What a checkpoint would tell in config.json is made here, once, in the user's cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from headswap import bodyfiles, tokenizer_check
from headswap.bodyfiles import FIXED_KEYS, one_line
from headswap.contracts import BodyFiles
from headswap.durable import replace_file
from headswap.errors import ConfigError, WeightsError, nearest
from headswap.hashes import file_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

_TOKENIZER_FILES = re.compile(r"(tokenizer|special_tokens|added_tokens|vocab|merges).*|.*\.(model|spm|tiktoken|jinja)")
_KEYS = ("body.tokenizer_source", "body.tokenizer_revision")


@dataclass(frozen=True)
class ScratchBody:
    """An architecture of transformers, or of headswap.recurrent, drawn at random.

    Args:
        architecture: the model type, such as recurrent or bert: `model_type` of a config.json.
        settings: of the architecture, by the names of its config class. Those that hang on the tokenizer need not be
            named: vocab_size, pad_token_id and what texts start and end with.
        tokenizer_source: whose tokenizer cuts the texts: hub id, folder, finished run folder, or
            `package:<module>/<path>`.
        tokenizer_revision: commit or tag of a hub id; a moving branch makes runs unrepeatable.
        tokenizer_sha256: of tokenizer.json.
        tokenizer_mirrors: other places of the same bytes, the first one present wins; they need `tokenizer_sha256`.
        check_tokenizer: as for a body with weights.
        init: random; no other start has weights to begin with.
    """

    architecture: str
    tokenizer_source: str
    settings: dict[str, Any] = field(default_factory=dict)
    tokenizer_revision: str | None = None
    tokenizer_sha256: str | None = None
    tokenizer_mirrors: list[str] = field(default_factory=list)
    check_tokenizer: bool = True
    init: str = "random"

    require_coverage: ClassVar[float] = 1.0
    allow_new: ClassVar[Sequence[str]] = ()
    allow_unexpected: ClassVar[Sequence[str]] = ()
    resize_embeddings: ClassVar[bool] = False
    config_overrides: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        if self.init != "random":
            raise ConfigError(
                f"body.init: a body from settings has no weights to start from; found {self.init!r}; set random, or "
                "use a checkpoint (body=transformer)"
            )
        if self.tokenizer_sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.tokenizer_sha256):
            raise ConfigError(
                f"body.tokenizer_sha256: not a sha256; found {self.tokenizer_sha256!r}; give 64 lower-case hexadecimal "
                "digits"
            )
        if self.tokenizer_mirrors and self.tokenizer_sha256 is None:
            raise ConfigError(
                f"body.tokenizer_mirrors: nothing proves that they hold the source's bytes; found "
                f"{self.tokenizer_mirrors} without a pin; give body.tokenizer_sha256, or body.tokenizer_mirrors=[]"
            )
        for name in self.settings:
            if name in FIXED_KEYS:
                found = f"found {self.settings[name]!r}; the task and the head set it: remove it"
                raise ConfigError(f"body.settings.{name}: not the body's to set; {found}")

    @property
    def source(self) -> str:
        """What a person would call it; a ledger's origin."""
        return f"{self.architecture} from settings"

    def identity(self) -> dict[str, str]:
        """Name the tokenizer's content; the architecture and its settings stand in the configuration itself."""
        if self.tokenizer_sha256 is not None:
            return {"tokenizer": self.tokenizer_sha256}
        folder = bodyfiles.local_folder(self.tokenizer_source, _KEYS[0])
        return {"tokenizer": (self.tokenizer_revision or "unpinned") if folder is None else _content(folder)}

    def starts_new(self, names: Sequence[str]) -> Collection[str]:
        """Return nothing: the whole body starts at random as it is."""
        return []

    def locate(self, weights: bool = True) -> BodyFiles:
        """Return a folder with a config.json of these settings, made when it is first asked for."""
        place = self._place()
        made = json.dumps([self.architecture, self.settings, _content(place)], sort_keys=True)
        folder = _cache() / hashlib.sha256(made.encode()).hexdigest()[:32]
        if not (folder / "config.json").is_file():
            content = json.dumps(self._config(place), indent=1, sort_keys=True)
            replace_file(folder / "config.json", content.encode())
        return BodyFiles(folder, (), self.source)

    def notices(self) -> list[str]:
        """Return nothing: no code of others runs."""
        return []

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer of its place: checked against tokenizer.json, with all that the body needs."""
        place = self._place()
        tokenizer = _loaded(place)
        if self.check_tokenizer:
            tokenizer_check.check_files(place, tokenizer)
            tokenizer_check.check_probes(place, tokenizer)
        tokenizer_check.complete(self.locate().folder, tokenizer)
        return tokenizer

    def check_texts(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str] | Sequence[tuple[str, str]]) -> None:
        """Refuse a tokenizer that cuts texts of the run otherwise than its file says, or knows few of their tokens."""
        if self.check_tokenizer:
            tokenizer_check.check_texts(self._place(), tokenizer, texts)

    def _place(self) -> Path:
        """Return the folder of the tokenizer, proved where it is pinned."""
        place = next(filter(None, map(_present, self.tokenizer_mirrors)), None)
        place = place or bodyfiles.local_folder(self.tokenizer_source, _KEYS[0])
        place = place or bodyfiles.downloaded(self.tokenizer_source, self.tokenizer_revision, keys=_KEYS)
        if self.tokenizer_sha256 is not None:
            file = place / "tokenizer.json"
            found = file_sha256(file) if file.is_file() else "no such file"
            if found != self.tokenizer_sha256:
                raise WeightsError(
                    f"{file}: not the pinned tokenizer; found sha256 {found}, expected {self.tokenizer_sha256}; get "
                    "the right file, or set body.tokenizer_sha256 to what was found if you trust it"
                )
        return place

    def _config(self, place: Path) -> dict[str, Any]:
        """Return what config.json holds: the settings, checked, and what the tokenizer says."""
        kind = _config_class(self.architecture)
        blank: Any = kind()
        known = {name for name in blank.to_dict() if not name.startswith("_")} | set(blank.attribute_map)
        for name, value in self.settings.items():
            if name not in known:
                remedy = f"remove it{nearest(name, known)}"
                raise ConfigError(
                    f"body.settings.{name}: {kind.__name__} has no such setting; found {value!r}; {remedy}"
                )
        told = {name: value for name, value in _told(_loaded(place), blank).items() if name in known}
        settings = {**told, **self.settings}
        try:
            kind(**settings)
        except Exception as fault:  # each architecture validates with its own
            found = one_line(fault.__cause__ or fault)
            raise ConfigError(f"body.settings: the architecture refuses them; found {found}; correct them") from fault
        return {"model_type": self.architecture, **settings}


def _config_class(architecture: str) -> type[PreTrainedConfig]:
    from transformers import CONFIG_MAPPING

    import headswap.recurrent  # noqa: F401 (it adds its own to the mapping)

    known = list(CONFIG_MAPPING.keys())
    if architecture not in known:
        remedy = f"use a model type that transformers knows{nearest(architecture, known)}"
        raise ConfigError(f"body.architecture: no such architecture; found {architecture!r}; {remedy}")
    return CONFIG_MAPPING[architecture]


def _told(tokenizer: Any, blank: Any) -> dict[str, Any]:
    """Return what a config must know of the tokenizer, by its usual names there."""
    start = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
    end = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
    first = {"decoder_start_token_id": pad if start is None else start} if blank.is_encoder_decoder else {}
    return {"vocab_size": len(tokenizer), "pad_token_id": pad, "bos_token_id": start, "eos_token_id": end, **first}


def _loaded(place: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(place), local_files_only=True)
    except (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError) as fault:
        raise WeightsError(
            f"{place}: the tokenizer does not load; found {one_line(fault)}; {tokenizer_check.remedy(place)}"
        ) from fault


def _present(mirror: str) -> Path | None:
    try:
        return bodyfiles.local_folder(mirror)
    except WeightsError:
        return None  # a mirror may be absent; the pin guards against a wrong one


def _content(folder: Path) -> str:
    """Return the sha256 over the tokenizer's files."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and _TOKENIZER_FILES.fullmatch(path.name))
    lines = "\n".join(f"{path.name}:{file_sha256(path)}" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "headswap" / "bodies"
