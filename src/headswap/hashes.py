"""sha256 of files, remembered while a file does not change. Floor 0."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Return a file's sha256, remembered in this process by path, size and time of change."""
    facts = path.stat()
    return _hash_file(str(path), facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=256)
def _hash_file(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
