"""The verbs that use a model without training one: embed and export. Floor 6; nothing heavy before a verb needs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from headswap.commandline import Parser
from headswap.errors import ConfigError


def embed(words: Sequence[str]) -> int:
    """Write a file's texts as vectors of a body."""
    parser = Parser(prog="headswap embed", add_help=False, allow_abbrev=False)
    parser.add_argument("body")
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--column", action="append", default=[])
    parser.add_argument("--pooling", default="mean")
    parser.add_argument("--layer", type=int, default=-1)
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--normalise", action="store_true")
    parser.add_argument("--cache", type=Path, default=Path("outputs/.cache/features"))
    parser.add_argument("--no-cache", action="store_true")
    parser.add_argument("--revision")
    parser.add_argument("--trust-remote-code", action="store_true")
    flags = parser.parse_intermixed_args(list(words))
    from headswap.embed import Embedder, embed_file

    embedder = Embedder(
        flags.body, flags.pooling, flags.layer, flags.max_length, flags.batch_size, flags.normalise,
        None if flags.no_cache else flags.cache, flags.revision, flags.trust_remote_code,
    )  # fmt: skip
    with _counted() as tell:
        count = embed_file(embedder, flags.input, flags.output, flags.column, tell)
    print(f"{count} rows embedded", file=sys.stderr)
    print(flags.output)
    return 0


def export(words: Sequence[str]) -> int:
    """Write a run's model as ONNX, or put it on the hub."""
    parser = Parser(prog="headswap export", add_help=False, allow_abbrev=False)
    parser.add_argument("run", type=Path)
    parser.add_argument("--to", choices=("onnx",))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--opset", type=int)
    parser.add_argument("--push")
    parser.add_argument("--private", action="store_true")
    flags = parser.parse_intermixed_args(list(words))
    if bool(flags.to) == bool(flags.push):
        raise ConfigError("headswap export: needs --to onnx or --push OWNER/NAME, one of them; see headswap --help")
    if flags.push:
        from headswap.export import push

        print(push(flags.run, flags.push, flags.private))
        return 0
    from headswap.export import to_onnx

    made = to_onnx(flags.run, flags.output, flags.opset)
    print(
        f"opset {made.opset}; differs from torch by at most {made.difference:.1e} of the largest output, in "
        f"{made.compared} batches",
        file=sys.stderr,
    )
    print(made.folder)
    return 0


@contextmanager
def _counted() -> Iterator[Callable[[int], None] | None]:
    """Show a count on the error stream while somebody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        yield lambda done: print(f"\r{done:,} texts", end="", file=sys.stderr, flush=True)
    finally:
        print(file=sys.stderr)
