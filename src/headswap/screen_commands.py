"""The verb `screen`: bodies side by side, before any is fine-tuned. Floor 6; nothing heavy before it is needed.

`body=[a,b,c]` is no choice that Hydra knows: the word is taken out, and each body gets a configuration of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headswap.commandline import Parser
from headswap.errors import ConfigError, nearest

if TYPE_CHECKING:
    from rich.table import Table

    from headswap.screen import Ranking, Row, Scored
    from headswap.spine import Config

_CALL = "write body=[minilm,organisation/name,FOLDER], quoted where it holds spaces"


def screen(words: Sequence[str]) -> int:
    """Rank bodies for a task by their frozen vectors."""
    parser = Parser(prog="headswap screen", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--config-dir", "-cd", action="append", default=[])
    parser.add_argument("--pooling", default="mean")
    parser.add_argument("--layer", type=int, default=-1)
    parser.add_argument("--no-random", action="store_true")
    parser.add_argument("--no-cache", action="store_true")
    parser.add_argument("--output", type=Path)
    flags = parser.parse_intermixed_args(list(words))
    configs = composed_bodies(flags.overrides, flags.config_dir)
    root = next(iter(configs.values())).output.root
    from headswap.features import Extraction
    from headswap.records import write_json
    from headswap.screen import Screener
    from headswap.tables import check_output

    how = Extraction(flags.pooling, flags.layer)
    if flags.output:
        check_output(flags.output, Path(), (".json",))
    cache = None if flags.no_cache else Path(root) / ".cache" / "features"
    with _counted() as tell:
        found = Screener(how, cache, not flags.no_random, tell)(configs)
    print_ranking(found)
    if flags.output:
        write_json(flags.output, found.to_dict())
        print(flags.output)
    return 1 if found.failed else 0


def composed_bodies(words: Sequence[str], config_dirs: Sequence[str]) -> dict[str, Config]:
    """Return a configuration for each body of `body=[...]`, by what the body was called.

    Args:
        words: overrides, one of them `body=[...]`; an entry is an option of the group, or what `body.source` takes.

    Raises:
        ConfigError: no list of different bodies, or a configuration that cannot be.
    """
    from headswap import config as configuration

    lists = [word for word in words if word.startswith("body=")]
    if len(lists) != 1:
        raise ConfigError(f"headswap screen: needs the bodies to rank, in one list; found {len(lists)}; {_CALL}")
    rest = [word for word in words if word not in lists]
    names = body_names(lists[0].removeprefix("body="))
    return {name: configuration.compose([*_choice(name, config_dirs), *rest], config_dirs) for name in names}


def body_names(text: str) -> list[str]:
    """Return the entries of `[a, b, c]`; one body may stand without brackets."""
    import yaml

    try:
        found = yaml.safe_load(text) if text.startswith("[") else [text.strip()]
    except yaml.YAMLError:
        found = None
    if not isinstance(found, list) or not found or not all(isinstance(each, str) and each for each in found):
        raise ConfigError(f"body: not a list of bodies; found {text!r}; {_CALL}")
    if twice := sorted({name for name in found if found.count(name) > 1}):
        raise ConfigError(f"body: a body stands twice; found {', '.join(twice)}; name each body once")
    return found


def _choice(name: str, config_dirs: Sequence[str]) -> list[str]:
    """Return the overrides that choose a body: an option where no folder has its name, or a source."""
    from headswap.composition import options

    known = options("body", config_dirs)
    if "/" not in name and not Path(name).exists():
        if name in known:
            return [f"body={name}"]
        if ":" not in name and (near := nearest(name, known)):  # a bare word may also be a hub id, such as gpt2
            raise ConfigError(f"body: no such option; found {name}{near}; options: {', '.join(known)}")
    quoted = name.replace("\\", "\\\\").replace("'", "\\'")
    return ["body=transformer", f"body.source='{quoted}'"]


def print_ranking(found: Ranking) -> None:
    """Print the bodies, the best probe first, why others failed, what the numbers are, and what they are not."""
    from rich.console import Console

    from headswap.screen import WARNING

    console = Console()
    faults = [row.fault if row.fault.startswith(row.name) else f"{row.name}: {row.fault}" for row in found.rows]
    said = [fault for row, fault in zip(found.rows, faults, strict=True) if row.fault]
    if not found.failed:
        console.print(_table(found))
        said += [*_about(found), WARNING]
    for line in said:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _about(found: Ranking) -> Iterator[str]:
    facts, best = found.facts, "greatest" if found.greater_is_better else "least"
    yield (
        f"{facts['rows']:,} training rows of {facts['task'] or 'the task'}, {facts['pooling']} pooling, "
        f"layer {facts['layer']}; sorted by the probe's {found.metric}, the {best} first: mean ± SD of "
        f"{facts['folds']} folds, the same for all bodies"
    )
    if facts["labels_left_out"]:
        left = ", ".join(facts["labels_left_out"])
        yield f"labels with too few rows for {facts['folds']} folds are left out: {left}"


def _table(found: Ranking) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("body")
    for name in (f"probe\n{found.metric}", "the same\nat random", "H-score", "LogME", "width", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.rows:
        table.add_row(Text(row.name, overflow="fold"), *_cells(row))
    return table


def _cells(row: Row) -> list[str]:
    scored, drawn = row.scored, row.random
    if scored is None:
        return ["failed", "", "", "", "", ""]
    spread = "" if scored.h_score is None else f"{scored.h_score:.3f}"
    seconds = sum(sum(each.seconds.values()) for each in (scored, drawn) if each)
    vectors = f"{scored.log_me:.4f}", str(scored.width), f"{seconds:.1f}"
    return [_probe(scored), _probe(drawn) if drawn else "", spread, *vectors]


def _probe(scored: Scored) -> str:
    return f"{scored.probe:.3f} ± {scored.spread:.3f}"


@contextmanager
def _counted() -> Iterator[Callable[[str, int, int], None] | None]:
    """Show what is computed on the error stream while somebody watches."""
    if not sys.stderr.isatty():
        yield None
        return

    def tell(name: str, done: int, count: int) -> Any:
        print(f"\r\033[K{name}: {done:,} of {count:,} texts", end="", file=sys.stderr, flush=True)

    try:
        yield tell
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
