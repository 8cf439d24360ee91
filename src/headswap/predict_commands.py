"""The verbs that ask a finished run: predict and evaluate. Floor 6; nothing heavy before a verb needs it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headswap.commandline import Parser
from headswap.errors import ConfigError

_WAYS = "--text, --field, --question with --context, or --input"


def predict(words: Sequence[str]) -> int:
    """Predict with a finished run: values from the command line, or a file's rows."""
    flags = _predict_flags(words)
    ways = [bool(flags.text), bool(flags.field), flags.question is not None or flags.context is not None, flags.input]
    if sum(map(bool, ways)) != 1:
        raise ConfigError(f"headswap predict: needs {_WAYS}, one of them; see headswap --help")
    if flags.input and not flags.output:
        raise ConfigError("headswap predict: --input needs --output; name a csv, tsv, jsonl or parquet file")
    if not flags.input and (flags.output or flags.column):
        found = "--output" if flags.output else "--column"
        raise ConfigError(f"headswap predict: {found} goes with --input; found none; name a file, or leave {found} out")
    from headswap.predict import Predictor, predict_file

    settings = {"num_beams": flags.beams, "max_new_tokens": flags.max_new_tokens}
    changes = {name: value for name, value in settings.items() if value is not None}
    predictor = Predictor(Path(flags.run), flags.batch_size, flags.trust_remote_code, **changes)
    if flags.input:
        with _counted("rows") as tell:
            count = predict_file(predictor, flags.input, flags.output, flags.column, tell)
        print(f"{count} rows predicted", file=sys.stderr)
        print(flags.output)
        return 0
    inputs = _inputs(flags, predictor.task)
    for given, result in zip(inputs, predictor(inputs), strict=True):
        print(f"{result}\t{given}" if isinstance(given, str) else result)
    return 0


def evaluate(words: Sequence[str]) -> int:
    """Score a finished run on new labelled rows."""
    parser = Parser(prog="headswap evaluate", add_help=False, allow_abbrev=False)
    parser.add_argument("run")
    parser.add_argument("--data", required=True)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--trust-remote-code", action="store_true")
    flags = parser.parse_intermixed_args(list(words))
    from headswap.predict import Predictor
    from headswap.predict import evaluate as scored

    found = scored(Predictor(Path(flags.run), flags.batch_size, flags.trust_remote_code), flags.data)
    if flags.json:
        print(json.dumps({"rows": found[0].rows, **{each.name: each.value for each in found}}))
        return 0
    print(f"{found[0].rows} rows")
    for each in found:
        print(each)
    return 0


def _predict_flags(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="headswap predict", add_help=False, allow_abbrev=False)
    parser.add_argument("run")
    parser.add_argument("--text", action="append", default=[])
    parser.add_argument("--field", action="append", default=[])
    parser.add_argument("--question")
    parser.add_argument("--context")
    parser.add_argument("--input", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--column", action="append", default=[])
    parser.add_argument("--beams", type=int)
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--trust-remote-code", action="store_true")
    return parser.parse_intermixed_args(list(words))


def _inputs(flags: argparse.Namespace, task: Any) -> list[Any]:
    """Return the inputs that the command line gives: texts, or one example by its columns."""
    columns = ", ".join(task.inputs)
    if flags.text:
        if len(task.inputs) > 1:
            fields = " ".join(f"--field {name}=..." for name in task.inputs)
            raise ConfigError(
                f"--text: this model takes {len(task.inputs)} values ({columns}); found one; give {fields}"
            )
        return list(flags.text)
    if flags.field:
        fields = [_field(text, task.inputs) for text in flags.field]
        names = [name for name, _ in fields]
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ConfigError(
                f"--field: one example at a time; found {twice[0]} more than once; use --input for several"
            )
        return [dict(fields)]
    if not (hasattr(task, "question") and hasattr(task, "context") and flags.question and flags.context):
        raise ConfigError(
            f"--question: goes with --context and a question answering run; found a model that takes {columns}; give "
            f"both, or {_WAYS}"
        )
    return [{task.question: flags.question, task.context: flags.context}]


def _field(text: str, names: Sequence[str]) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or name not in names:
        raise ConfigError(f"--field: not a column of this model; found {text!r}; give {'=..., '.join(names)}=...")
    try:
        made = json.loads(value) if value.startswith("[") else value
    except ValueError:
        made = value
    return name, made


@contextmanager
def _counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a count on the error stream while somebody watches."""
    watched = sys.stderr.isatty()

    def tell(done: int, of: int) -> None:
        if watched:
            print(f"\r{done:,} of {of:,} {what}", end="", file=sys.stderr, flush=True)

    try:
        yield tell
    finally:
        if watched:
            print(file=sys.stderr)
