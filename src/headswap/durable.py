"""Files that are whole or absent, whatever is killed, full or broken: fsync, rename, manifests. Floor 0.

    write_file -> one file, hashed while it is written        replace_file -> the same, under its final name at once
    published  -> a folder that takes its name with its manifest in it, or leaves nothing behind
    verify     -> every file of such a folder has the size and sha256 that its manifest says

All writes of a run's state go through `_write`, `_sync` and `_rename`: tests make the nth of them fail.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headswap.confinement import confined
from headswap.errors import DamagedError, RunError

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass
class Draft:
    """A folder in the making. Files written by `write` are hashed on the way; others when it is published."""

    path: Path
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self, name: str, chunks: Iterable[Any]) -> None:
        self.files[name] = write_file(self.path / name, chunks)

    def write_json(self, name: str, content: Any) -> None:
        self.write(name, [json.dumps(content, indent=1, allow_nan=False).encode()])


def write_file(path: Path, chunks: Iterable[Any]) -> dict[str, Any]:
    """Write bytes and fsync them; return size and sha256 as a manifest holds them."""
    digest, size = hashlib.sha256(), 0
    with open(path, "wb") as file:
        for chunk in chunks:
            _write(file, chunk)
            digest.update(chunk)
            size += len(chunk)
        file.flush()
        _sync(file.fileno())
    return {"size": size, "sha256": digest.hexdigest()}


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises RunError naming it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(temporary, [content])
        _rename(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> RunError:
    """Return the error for a file or folder that the system refuses to write."""
    return RunError(f"{path}: cannot be written; {error.strerror or error}; free space or change output.root")


@contextlib.contextmanager
def published(folder: Path) -> Iterator[Draft]:
    """Give a draft; when the block ends well it is sealed with a manifest, fsynced, and renamed to `folder`.

    A folder of that name is replaced. Raises OSError when the disk refuses; then `folder` is as it was.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    draft = Draft(temporary)
    try:
        yield draft
        for path in sorted(temporary.rglob("*")):
            name = path.relative_to(temporary).as_posix()
            if path.is_file() and name not in draft.files:
                draft.files[name] = _sealed(path)
        write_file(temporary / MANIFEST, [_canonical(draft.files)])
        _sync_folder(temporary)
        if folder.exists():
            shutil.rmtree(folder)
        _rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def verify(folder: Path) -> dict[str, Any]:
    """Check every file of a published folder against its manifest; return the manifest's files.

    Raises:
        DamagedError: naming the file, what its manifest expects and what was found.
    """
    files = read_manifest(folder)
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise DamagedError(f"{path}: missing; found no such file, expected {expected['size']:,} bytes; {_REMEDY}")
        with open(path, "rb") as file:
            size, digest = path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
        if (size, digest) != (expected["size"], expected["sha256"]):
            raise DamagedError(
                f"{path}: cut off or changed; found {size:,} bytes with sha256 {digest}, expected "
                f"{expected['size']:,} bytes with sha256 {expected['sha256']}; {_REMEDY}"
            )
    return files


def check_sealed(folder: Path) -> None:
    """Verify a folder if `published` wrote it; one from elsewhere has no such manifest and is not checked.

    Raises:
        DamagedError: as `verify`, and where the manifest is empty.
    """
    path = folder / MANIFEST
    content = path.read_bytes() if path.is_file() else b"{}"
    if not content or b'"sha256"' in content:
        verify(folder)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return name -> size and sha256 of a published folder. Raises DamagedError; a name may not leave the folder."""
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
        files = json.loads(content)["files"]
        whole = content == _canonical(files)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path}: not a whole manifest; found {type(error).__name__}: {error}; {_REMEDY}") from error
    if not whole:
        raise DamagedError(f"{path}: changed since it was written; found other bytes than its own hash; {_REMEDY}")
    for name in files:
        confined(folder, name, path, DamagedError)
    return files


_REMEDY = "copy it again, or train again"


def _canonical(files: dict[str, Any]) -> bytes:
    """Return the only bytes a manifest of these files can have, its own hash among them."""
    body = json.dumps(files, sort_keys=True)
    own = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps({"format": FORMAT, "sha256": own, "files": files}, sort_keys=True, indent=1).encode() + b"\n"


def _sealed(path: Path) -> dict[str, Any]:
    with open(path, "rb+") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        _sync(file.fileno())
    return {"size": path.stat().st_size, "sha256": digest}


def _write(file: Any, chunk: Any) -> None:
    file.write(chunk)


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _rename(source: Path, target: Path) -> None:
    os.replace(source, target)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)
