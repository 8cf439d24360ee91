"""Record batches on disk, mapped into memory: whole, checked by their sha256, or not there at all. Floor 2."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

_DIGEST_BYTES = 32


def cached(path: Path, make: Callable[[], pa.RecordBatch]) -> pa.RecordBatch:
    """Return the cached rows; make and write them where the file is absent or damaged."""
    found = _read(path)
    if found is not None:
        return found
    batch = make()
    _write(path, batch)
    return batch


def _read(path: Path) -> pa.RecordBatch | None:
    """Map the file into memory; None where it is absent or its content does not match its sha256 at the end."""
    if not path.exists() or path.stat().st_size <= _DIGEST_BYTES:
        return None
    content = pa.memory_map(str(path)).read_buffer()
    body, written = content.slice(0, content.size - _DIGEST_BYTES), content.slice(content.size - _DIGEST_BYTES)
    if hashlib.sha256(body).digest() != written.to_pybytes():
        return None
    return pa.ipc.open_file(pa.BufferReader(body)).get_batch(0)


def _write(path: Path, batch: pa.RecordBatch) -> None:
    """Write under a name of its own, then rename: two processes that write the same rows do not disturb each other."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content = sink.getvalue()
    temporary = path.with_name(f"{path.stem}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.write(hashlib.sha256(content).digest())
        os.replace(temporary, path)
    except OSError:  # a full or read-only disk costs the cache, not the run
        with contextlib.suppress(OSError):
            temporary.unlink()
