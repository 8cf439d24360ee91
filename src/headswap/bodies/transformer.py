"""Any transformers checkpoint as a body: a hub id, a folder, an earlier run, or a folder inside a Python package.

Floor 1. It only finds files and refuses the ones that cannot be trusted; model.py reads them.
"""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headswap import bodyfiles, tokenizer_check
from headswap.bodyfiles import INDEX, WEIGHTS, one_line, weight_files
from headswap.contracts import BodyFiles
from headswap.durable import check_sealed
from headswap.errors import ConfigError, WeightsError, nearest
from headswap.hashes import file_sha256
from headswap.layers import above, layers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INITS = ("pretrained", "random", "mean_var", "embeddings_only", "keep_layers")
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class TransformerBody:
    """A transformers checkpoint in safetensors, or its architecture alone.

    Args:
        source: hub id, local folder, finished run folder, or `package:<module>/<path>`.
        init: `pretrained`; `random`: the architecture's own initialiser under the seed's `body` stream; `mean_var`:
            normal draws with each pretrained tensor's mean and variance (1902.07208); `embeddings_only`: pretrained
            embeddings under random layers; `keep_layers`: those and the lowest layers (1902.07208 calls it weight
            transfusion). What is not pretrained is what it is under `random`.
        keep_layers: how many layers `init=keep_layers` keeps, counted from below.
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
            wrongly without an error), and refuse one to which most of the run's texts are unknown.
        trust_remote_code: run the Python code that lies in the checkpoint (`auto_map`), with all your rights. A hub id
            then needs a commit as `revision`: code that can be changed from afar is trusted by nobody.
    """

    source: str
    init: str = "pretrained"
    keep_layers: int | None = None
    revision: str | None = None
    sha256: str | None = None
    mirrors: list[str] = field(default_factory=list)
    require_coverage: float = 1.0
    allow_new: list[str] = field(default_factory=list)
    allow_unexpected: list[str] = field(default_factory=list)
    resize_embeddings: bool = False
    config_overrides: dict[str, Any] = field(default_factory=dict)
    check_tokenizer: bool = True
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if self.init not in INITS:
            choices = f"choose {', '.join(INITS)}{nearest(self.init, INITS)}"
            raise ConfigError(f"body.init: no such start; found {self.init!r}; {choices}")
        if (self.init == "keep_layers") != (self.keep_layers is not None):
            raise ConfigError(
                f"body.keep_layers: belongs to body.init=keep_layers, which needs it; found {self.keep_layers} with "
                f"body.init={self.init}; set both, or neither"
            )
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ConfigError(
                f"body.sha256: not a sha256; found {self.sha256!r}; give 64 lower-case hexadecimal digits"
            )
        if self.mirrors and self.sha256 is None:
            raise ConfigError(
                f"body.mirrors: nothing proves that they hold the source's bytes; found {self.mirrors} without a pin; "
                "give body.sha256, or body.mirrors=[]"
            )
        if self.mirrors and self.trust_remote_code:
            raise ConfigError(
                f"body.trust_remote_code: nothing proves that a mirror has the source's code; found {self.mirrors}; "
                "give body.mirrors=[]"
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
                    raise ConfigError(
                        f"body.{key}: not a regex; found {pattern!r} ({fault}); mend or remove it"
                    ) from None

    def identity(self) -> dict[str, str]:
        """Name the content: the pin, the local files' sha256 (code that runs among them), or the hub revision."""
        if self.sha256 is not None and not self.trust_remote_code:
            return {"sha256": self.sha256}
        folder = self._local(self.source)
        if folder is None:
            return {self.source: self.revision or "unpinned"}
        code = sorted(folder.glob("*.py")) if self.trust_remote_code else []
        files = [folder / "config.json", *weight_files(folder), *code]
        lines = "\n".join(f"{path.name}:{file_sha256(path)}" for path in files if path.is_file())
        return {self.source: hashlib.sha256(lines.encode()).hexdigest()}

    def starts_new(self, names: Sequence[str]) -> Collection[str]:
        """Return which of these weights of the body begin with the values of the random twin, as `init` says."""
        if self.init not in ("embeddings_only", "keep_layers"):
            return []
        count, kept = len(layers(names)), self.keep_layers or 0
        if not 0 <= kept <= count:
            raise ConfigError(
                f"body.keep_layers: the body has no such number of layers; found {kept} of {count}; set 0 to {count}"
            )
        return above(names, kept)

    def locate(self, weights: bool = True) -> BodyFiles:
        """Return the files, downloading a hub id if needed; without `weights`, the config and tokenizer files alone."""
        folder, origin = self._find(weights)
        if weights:
            check_sealed(folder)
        bodyfiles.check_config(folder, self.trust_remote_code)
        code = bodyfiles.code_files(folder) if self.trust_remote_code else ()
        if code:
            _say(_notice(origin, code))
        files = weight_files(folder) if weights else ()
        if weights and not files and self.init != "random":
            raise WeightsError(bodyfiles.no_weights(folder))
        if files and self.sha256 is not None:
            bodyfiles.check_pin(folder, files, self.sha256)
        return BodyFiles(folder, files, origin, code)

    def notices(self) -> list[str]:
        """Return the sentence that says whose code runs, if any does."""
        files = self.locate(weights=False) if self.trust_remote_code else None
        return [_notice(files.origin, files.code)] if files and files.code else []

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer that lies with the body: checked against tokenizer.json, with all that the body needs."""
        from transformers import AutoTokenizer

        folder = self.locate(weights=False).folder
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(folder), trust_remote_code=self.trust_remote_code, local_files_only=True
            )
        except (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError) as fault:
            raise WeightsError(
                f"{folder}: the tokenizer does not load; found {one_line(fault)}; {tokenizer_check.remedy(folder)}"
            ) from fault
        if self.check_tokenizer:
            tokenizer_check.check_files(folder, tokenizer)
            tokenizer_check.check_probes(folder, tokenizer)
        tokenizer_check.complete(folder, tokenizer)
        return tokenizer

    def check_texts(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str] | Sequence[tuple[str, str]]) -> None:
        """Refuse a tokenizer that cuts texts of the run otherwise than its file says, or knows few of their tokens."""
        if self.check_tokenizer:
            tokenizer_check.check_texts(self.locate(weights=False).folder, tokenizer, texts)

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

    @staticmethod
    def _local(place: str) -> Path | None:
        return bodyfiles.local_folder(place)

    def _download(self, weights: bool) -> Path:
        if self.trust_remote_code and not COMMIT.fullmatch(self.revision or ""):
            raise ConfigError(
                f"body.revision: code that may run must be one that was read; found {self.revision or 'no revision'}; "
                "give the 40 hexadecimal digits of a commit, or body.trust_remote_code=false"
            )
        wanted = ["*.py"] if self.trust_remote_code else []
        wanted += [WEIGHTS, INDEX, "model-*.safetensors"] if weights else []
        return bodyfiles.downloaded(self.source, self.revision, wanted)


def _notice(origin: str, code: tuple[Path, ...]) -> str:
    names = ", ".join(path.name for path in code)
    return f"body.trust_remote_code=true: Python code of {origin} runs here with all your rights: {names}"


@functools.cache  # once a process: a body is located several times in a run
def _say(notice: str) -> None:
    print(f"headswap: WARNING: {notice}", file=sys.stderr, flush=True)
