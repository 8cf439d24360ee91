"""Names that a file gives for other files: they must lie in its folder. Floor 0.

A manifest (the index of shards, a checkpoint's list, a study's list of runs) may come from elsewhere; what it names is
opened, hashed or deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from headswap.errors import HeadswapError, RunError

# huggingface_hub writes it into the store that the repositories of a cache share.
_SHARED_BLOBS = ".huggingface-shared-blobs"


def confined(folder: Path, name: object, manifest: Path | str, error: type[HeadswapError] = RunError) -> Path:
    """Return `folder / name`, which need not exist but would lie in `folder`.

    Args:
        folder: a symlink itself is followed; one inside it must not lead out, except from a snapshot of the hub's
            cache into that cache's blobs.
        name: what the manifest gives: a relative path with `/`.
        manifest: the file that names it, for the message.
        error: what is raised.

    Raises:
        HeadswapError: the name is empty, absolute, no text, has `..`, a backslash or a NUL, or leads out by a symlink.
    """
    fault = _fault(name)
    if not fault:
        path = folder / str(name)
        if any(path.resolve().is_relative_to(room) for room in _rooms(folder.resolve())):
            return path
        fault = f"a symlink to {path.resolve()}"
    raise error(
        f"{manifest}: names a file outside its folder; found {name!r} ({fault}); such a file is not read: put it into "
        f"{folder} and name it, if you trust it"
    )


def _fault(name: object) -> str:
    """Return what is wrong with a name as it is written, or an empty string."""
    if not isinstance(name, str):
        return "not a text"
    if not name.strip() or PurePosixPath(name) == PurePosixPath("."):
        return "empty"
    if "\\" in name or "\0" in name:
        return "a backslash or a NUL"
    if name.startswith(("/", "~")) or name[1:2] == ":":
        return "not relative"
    return "`..`" if ".." in PurePosixPath(name).parts else ""


def _rooms(folder: Path) -> Iterator[Path]:
    """Yield where the content of a folder may lie."""
    yield folder
    repository = folder.parents[1] if len(folder.parents) > 2 else folder
    if folder.parent.name == "snapshots" and "--" in repository.name:  # models--owner--name/snapshots/<commit>
        yield repository / "blobs"
        if (repository.parent / "blobs" / _SHARED_BLOBS).is_file():
            yield repository.parent / "blobs"
