"""The verbs `speed` and `gradients`: bodies measured side by side, without training them. Floor 6.

Which bodies: `body=[a,b]`, or else the arms of the chosen study; gradients also takes folders of finished runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headswap.commandline import Parser
from headswap.errors import ConfigError

if TYPE_CHECKING:
    from headswap.measures.page import Report
    from headswap.spine import Config

OPERATIONS = ("train", "inference", "decode")
SHORTEST = 32
"""Below it the two windows that a fall of the gradient is measured between would overlap."""


def speed(words: Sequence[str]) -> int:
    """Measure training steps, forward passes and decoding of bodies against length."""
    flags = speed_flags(words)
    configs = measured_configs(flags.overrides, flags)
    first = next(iter(configs.values()))
    from headswap.measures import bodies, page
    from headswap.measures import speed as measures
    from headswap.measures.speed_report import report_of

    page.check_out(flags.out)
    threads = _threads(first)
    names = bodies.devices(first.hardware.device)
    asked = measures.Asked(
        flags.lengths, flags.operations, flags.tokens, flags.repeats, first.train.precision, first.seed
    )
    for name in names:
        bodies.precision(asked.precision, name)
    measured = bodies.subjects(configs)
    with _told() as tell:
        cells = [cell for name in names for cell in measures.measure(measured, asked, name, tell)]
    models = {each.name: each.drawn(asked.seed) for each in measured}
    sizes = {name: (type(model).__name__, *bodies.sizes(model)) for name, model in models.items()}
    about = {"devices": {name: bodies.device_name(name) for name in names}, "threads": threads}
    return _publish(report_of(cells, asked, sizes, about), first, flags.out)


def gradients(words: Sequence[str]) -> int:
    """Measure how far the gradient of a body's last state reaches back."""
    flags = gradients_flags(words)
    folders = [word for word in flags.overrides if "=" not in word]
    rest = [word for word in flags.overrides if word not in folders]
    named = any(word.startswith("body=") for word in rest)
    configs = measured_configs(rest, flags) if named or not folders else {}
    configs |= run_configs(folders, rest, flags.config_dir)
    first = next(iter(configs.values()))
    from headswap.measures import bodies, page
    from headswap.measures.gradient_report import report_of
    from headswap.measures.gradients import reaches

    page.check_out(flags.out)
    threads, device = _threads(first), "cpu" if first.hardware.device == "auto" else first.hardware.device
    bodies.devices(device)
    measured = bodies.subjects(configs)
    for each in measured:
        if each.positions is not None and each.positions < flags.length:
            raise ConfigError(
                f"--length: longer than {each.name} has positions; found {flags.length} for {each.positions}; give "
                f"--length {each.positions} or less, or leave the body out"
            )
    seeds = range(first.seed, first.seed + flags.seeds)
    with _told() as tell:
        made = reaches(measured, flags.length, seeds, flags.directions, device, tell)
    about = {"device": device, "device_name": bodies.device_name(device), "threads": threads}
    return _publish(report_of(made, flags.length, about), first, flags.out)


def speed_flags(words: Sequence[str]) -> argparse.Namespace:
    """Return what `headswap speed` is asked for."""
    parser = _parser("speed")
    parser.add_argument("--lengths", type=_numbers, default=(64, 128, 256, 512, 1024, 2048))
    parser.add_argument("--operations", type=_words, default=OPERATIONS)
    parser.add_argument("--tokens", type=_positive, default=4096)
    parser.add_argument("--repeats", type=_positive, default=5)
    flags = parser.parse_intermixed_args(list(words))
    if strange := [each for each in flags.operations if each not in OPERATIONS]:
        known = ", ".join(OPERATIONS)
        raise ConfigError(f"--operations: no such operation; found {', '.join(strange)}; choose {known}")
    return flags


def gradients_flags(words: Sequence[str]) -> argparse.Namespace:
    """Return what `headswap gradients` is asked for."""
    parser = _parser("gradients")
    parser.add_argument("--length", type=_positive, default=512)
    parser.add_argument("--seeds", type=_positive, default=5)
    parser.add_argument("--directions", type=_positive, default=16)
    flags = parser.parse_intermixed_args(list(words))
    if flags.length < SHORTEST:
        raise ConfigError(f"--length: too short to see a fall; found {flags.length}; give {SHORTEST} tokens or more")
    return flags


def measured_configs(words: Sequence[str], flags: argparse.Namespace) -> dict[str, Config]:
    """Return a configuration for each body of `body=[...]`, or for each arm of the study where none is listed."""
    from headswap import config as configuration
    from headswap.overlays import overlay
    from headswap.screen_commands import composed_bodies

    if any(word.startswith("body=[") for word in words):
        return composed_bodies(words, flags.config_dir)
    made = configuration.compose(list(words), flags.config_dir)
    if any(word.startswith("body=") for word in words):
        return {made.choices.get("body", "body"): made}
    bodies = {arm: changes["body"] for arm, changes in made.study.arms.items() if (changes or {}).get("body")}
    if strange := [arm for arm in flags.arms if arm not in bodies]:
        raise ConfigError(
            f"--arms: no such body among the study's arms; found {', '.join(strange)}; arms: {', '.join(bodies)}"
        )
    bodies = {arm: bodies[arm] for arm in flags.arms or bodies}
    if not bodies:
        raise ConfigError("study.arms: no arm has a body of its own; found nothing to measure; name body=[A,B]")
    return {arm: overlay(made, {"body": body}, f"study.arms.{arm}") for arm, body in bodies.items()}


def run_configs(folders: Sequence[str], words: Sequence[str], config_dirs: Sequence[str]) -> dict[str, Config]:
    """Return two configurations a run: its body as it was drawn, and as it was trained."""
    from headswap import config as configuration

    made = {}
    rest = [word for word in words if not word.startswith(("body=", "run="))]
    for folder in folders:
        if not (Path(folder) / "result.json").is_file():
            raise ConfigError(
                f"{folder}: neither an override nor a finished run's folder; found no result.json in it; write "
                "key=value, or name a folder that headswap train printed"
            )
        quoted = folder.replace("\\", "\\\\").replace("'", "\\'")
        config = configuration.compose(["body=from_run", f"run='{quoted}'", *rest], config_dirs)
        name = Path(folder).name
        made[name] = replace(config, body={**config.body, "init": "random"})
        made[f"{name}, trained"] = replace(config, body={**config.body, "init": "pretrained"})
    return made


def _publish(report: Report, config: Config, out: Path | None) -> int:
    from headswap.measures.page import publish

    folder = publish(report, Path(config.output.root), out)
    _print(report)
    print(folder / f"{report.name}.html")
    print(folder)
    return 0


def _print(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for table in report.shown:
        shown = Table(title=Text(table.caption), title_justify="left")
        for place, column in enumerate(table.columns):
            shown.add_column(Text(column), justify="left" if place < table.words else "right")
        for row in table.rows:
            shown.add_row(*map(Text, row))
        console.print(shown)
    for sentence in (report.over, *report.statements, *report.cautions):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _threads(config: Config) -> int:
    """Set the number of threads that was asked for; return how many there are."""
    import torch

    if config.hardware.threads:
        torch.set_num_threads(config.hardware.threads)
    return torch.get_num_threads()


def _parser(verb: str) -> Parser:
    parser = Parser(prog=f"headswap {verb}", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--config-dir", "-cd", action="append", default=[])
    parser.add_argument("--arms", type=_words, default=())
    parser.add_argument("--out", type=Path)
    return parser


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, text.split(","))))


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a number of 1 or more; found {text}")
    return int(text)


def _numbers(text: str) -> tuple[int, ...]:
    found = sorted({_positive(each) for each in text.split(",")})
    if found[0] < 2:
        raise argparse.ArgumentTypeError(f"a text has 2 tokens or more; found {found[0]}")
    return tuple(found)


@contextmanager
def _told() -> Iterator[Callable[[str], None]]:
    """Show what is measured on the error stream while somebody watches."""
    watched = sys.stderr.isatty()

    def tell(what: str) -> Any:
        if watched:
            print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)

    try:
        yield tell
    finally:
        if watched:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
