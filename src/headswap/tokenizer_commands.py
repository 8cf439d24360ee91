"""The verb `tokenizer`: learn one from a task's training rows. Floor 6; nothing heavy before it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headswap.commandline import Parser


def tokenizer(words: Sequence[str]) -> int:
    """Learn a byte-level BPE from the training rows of a task."""
    parser = Parser(prog="headswap tokenizer", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--config-dir", "-cd", action="append", default=[])
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    flags = parser.parse_intermixed_args(list(words))
    from headswap import config as configuration

    config = configuration.compose(flags.overrides, flags.config_dir)
    from headswap.byte_pairs import learn, refuse_taken, write

    refuse_taken(flags.output)
    made, learned = learn(config, flags.size)
    write(flags.output, made, learned)
    fewer = f" of {learned.asked:,} asked for" if learned.tokens < learned.asked else ""
    print(
        f"{learned.tokens:,} tokens{fewer}, learned from {learned.rows:,} training rows: {', '.join(learned.columns)}, "
        f"{learned.characters:,} characters"
    )
    print(flags.output)
    return 0
