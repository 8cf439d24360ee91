"""The `headswap` command: verbs, flags, Hydra overrides; what is printed and the exit code. Floor 6.

Nothing here imports torch or transformers: they load in the children that train, or when a verb needs them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headswap import __version__
from headswap.errors import ConfigError, HeadswapError, nearest, of_status

HELP = f"""\
headswap {__version__}: load a pretrained body, swap in a new head, fine-tune, and learn what the weights bought.

usage: headswap VERB [OVERRIDES] [FLAGS]

verbs
  train [OVERRIDES]     fine-tune one run, or a sweep with -m
  compare [OVERRIDES]   train pretrained and random-init twins over paired seeds: verdict and report.html
  resume RUN            go on with an unfinished run from its last saved state, to the bit
  rerun RUN [--verify]  repeat a finished run from its folder; say the first value that differs
  verify-resume [OVERRIDES]  train straight and in two halves, compare to the bit
  predict RUN           label texts with a finished run: --text "..." or --input FILE --output FILE
  report FOLDER         make a study's report again from its finished runs
  plan [OVERRIDES]      what would run: rows, labels, steps, parameters, folders; trains nothing
  list [GROUP]          every option of every group, with what it is for
  show [OVERRIDES]      the composed configuration
  doctor                versions, devices, the precision that auto picks, missing extras

flags of train, compare, plan, show (as in Hydra)
  -m, --multirun            sweep: headswap train -m seed=1,2,3
  --cfg job|hydra|all       print the configuration and stop; --resolve, --package PACKAGE
  --info [WHAT]             print Hydra's view: all, config, defaults, defaults-tree, plugins, searchpath
  --config-dir DIR          a folder with options of your own (task/mine.yaml ...); may be given again

other flags
  -h, --help    --version    --shell-completion install=bash (also zsh and fish; eval its output)

examples
  headswap train task=tweets body=minilm train.learning_rate=3e-5 seed=7
  headswap compare task=tweets body=minilm study.sizes=[100,400,1600] study.seeds=10
  headswap train task=text task.source=reviews.csv task.text=[review] task.label=stars

Exit codes: 0 done, 1 the run failed, 2 the input is wrong, 75 stopped by a signal with its state saved: the same
command goes on.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = dispatch(words)
    except HeadswapError as error:
        print(f"headswap: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("headswap: stopped; finished runs are kept and are not trained again", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader of our output left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def dispatch(words: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if words[0] == "--version":
        print(f"headswap {__version__}")
        return 0
    if words[0] in ("-sc", "--shell-completion"):
        from headswap.hydra_app import complete

        complete(words[1] if len(words) > 1 else "install=bash", list(VERBS))
        return 0
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        raise ConfigError(f"{verb}: no such verb{nearest(verb, VERBS)}; verbs: {', '.join(VERBS)}")
    if any(word in ("-h", "--help") for word in rest):
        print(HELP, end="")
        return 0
    return VERBS[verb](rest) or 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ConfigError(f"{self.prog}: {message}; see headswap --help")


def parse(verb: str, words: Sequence[str]) -> argparse.Namespace:
    """Parse the flags that go with overrides."""
    parser = _Parser(prog=f"headswap {verb}", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    parser.add_argument(
        "--info",
        "-i",
        nargs="?",
        const="all",
        choices=("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    )
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--package", "-p")
    parser.add_argument("--config-dir", "-cd", action="append", default=[])
    return parser.parse_intermixed_args(list(words))


def composed(verb: str, words: Sequence[str], act: Callable[[Any], int | None]) -> int:
    """Compose the overrides and give the configuration to `act`, or answer --cfg, --info and -m."""
    from headswap import config as configuration

    flags = parse(verb, words)
    if flags.cfg or flags.info:
        from headswap import hydra_app

        show = hydra_app.show_config if flags.cfg else hydra_app.show_info
        show(flags.cfg or flags.info, flags)
        return 0
    if flags.multirun:
        from headswap.hydra_app import multirun

        codes: list[int] = []

        def job(tree: dict[str, Any], overrides: list[str]) -> None:
            config = configuration.checked(configuration.from_dict(tree))
            codes.append(act((config, argparse.Namespace(**vars(flags) | {"overrides": overrides}))) or 0)

        multirun(flags.overrides, flags.config_dir, job)
        return max(codes, default=0)
    return act((configuration.compose(flags.overrides, flags.config_dir), flags)) or 0


def train(words: Sequence[str]) -> int:
    """Train one configuration, its stages one after another."""

    def act(given: Any) -> int:
        from headswap.launch import job_of, run_jobs
        from headswap.progress import Watch
        from headswap.stages import stage_configs

        folder = None
        for stage, config in stage_configs(*given):
            job = job_of(config, stage)
            with Watch(1) as watch:
                watch.console.print(f"{stage}: {job.folder.path}", markup=False, highlight=False, soft_wrap=True)
                outcome = run_jobs([job], 1, watch)[0]
            _finished(outcome)
            folder = job.folder.path
        print(folder)
        return 0

    return composed("train", words, act)


def resume(words: Sequence[str]) -> int:
    """Go on with an unfinished run by its folder."""
    from headswap.launch import run_jobs
    from headswap.progress import Watch
    from headswap.verify import job_in

    folder = _only(words, "resume", "run folder")
    job = job_in(folder)
    with Watch(1) as watch:
        outcome = run_jobs([job], 1, watch)[0]
    _finished(outcome)
    print(folder)
    return 0


def verify_resume(words: Sequence[str]) -> int:
    """Train straight, train with a stop in the middle, and compare the two to the bit."""

    def act(given: Any) -> int:
        from headswap import verify
        from headswap.progress import Watch

        with Watch(2) as watch:
            said = verify.verify_resume(given[0], watch)
        return _compared(said)

    return composed("verify-resume", words, act)


def rerun(words: Sequence[str]) -> int:
    """Repeat a finished run from its folder; with --verify, say the first value that differs."""
    from headswap import verify
    from headswap.progress import Watch

    parser = _Parser(prog="headswap rerun", add_help=False, allow_abbrev=False)
    parser.add_argument("run", type=Path)
    parser.add_argument("--verify", action="store_true")
    flags = parser.parse_intermixed_args(list(words))
    with Watch(1) as watch:
        job = verify.rerun(flags.run, watch)
    if flags.verify:
        return _compared(verify.compare_runs(flags.run, job.folder.path))
    _print_scores(job.folder.result(), False)
    print(job.folder.path)
    return 0


def _compared(said: Any) -> int:
    print("\n".join(said.lines))
    return 0 if said.same else 1


def _only(words: Sequence[str], verb: str, what: str) -> Path:
    if len(words) != 1:
        raise ConfigError(f"headswap {verb}: needs one {what}; found {len(words)}; see headswap --help")
    return Path(words[0])


def _finished(outcome: Any) -> None:
    if not outcome.finished:
        raise of_status(outcome.status, outcome.code, outcome.error)
    _print_scores(outcome.job.folder.result(), outcome.reused)


def compare(words: Sequence[str]) -> int:
    """Train the study's runs and write its verdict and report."""

    def act(given: Any) -> int:
        from headswap.progress import Watch
        from headswap.study import execute
        from headswap.study.plan import plan, study_folder

        config = given[0]
        cells = plan(config)
        with Watch(len(cells)) as watch:
            watch.console.print(f"study: {len(cells)} runs in {study_folder(config)}", soft_wrap=True, highlight=False)
            found = execute.execute(config, cells, watch)
        execute.show(found, watch.console)
        print(found.folder)
        return 0

    return composed("compare", words, act)


def report(words: Sequence[str]) -> int:
    """Make a study's report again from its folder."""
    from rich.console import Console

    from headswap.study import execute

    found = execute.remake(_only(words, "report", "study folder"))
    execute.show(found, Console())
    print(found.folder)
    return 0


def plan(words: Sequence[str]) -> int:
    """Say what would run, without training."""

    def act(given: Any) -> None:
        from headswap import overview

        config, flags = given
        overview.print_plan(config, flags)

    return composed("plan", words, act)


def show(words: Sequence[str]) -> int:
    """Print the composed configuration."""
    import yaml

    from headswap import config as configuration

    flags = parse("show", words)
    if flags.cfg or flags.info:
        return composed("show", words, lambda _: 0)
    tree = configuration.to_dict(configuration.compose(flags.overrides, flags.config_dir))
    tree.pop("choices")
    print(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), end="")
    return 0


def list_options(words: Sequence[str]) -> int:
    """Print every option of a group, or of all, with its comment line."""
    from headswap.overview import print_options

    flags = parse("list", words)
    if len(flags.overrides) > 1:
        raise ConfigError(f"headswap list: takes one group; found {' '.join(flags.overrides)}; see headswap --help")
    print_options(flags.overrides[0] if flags.overrides else None, flags.config_dir)
    return 0


def predict(words: Sequence[str]) -> int:
    """Label texts with a finished run."""
    parser = _Parser(prog="headswap predict", add_help=False, allow_abbrev=False)
    parser.add_argument("run")
    parser.add_argument("--text", action="append", default=[])
    parser.add_argument("--input", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--column", action="append", default=[])
    parser.add_argument("--batch-size", type=int, default=64)
    flags = parser.parse_intermixed_args(list(words))
    if bool(flags.text) == bool(flags.input):
        raise ConfigError("headswap predict: needs --text or --input, one of them; see headswap --help")
    if flags.input and not flags.output:
        raise ConfigError("headswap predict: --input needs --output; name a csv, jsonl or parquet file")
    from headswap.predict import Predictor, predict_file

    predictor = Predictor(Path(flags.run), flags.batch_size)
    if flags.input:
        count = predict_file(predictor, flags.input, flags.output, flags.column)
        print(f"{count} rows labelled", file=sys.stderr)
        print(flags.output)
        return 0
    for text, answer in zip(flags.text, predictor(flags.text), strict=True):
        scores = "  ".join(f"{label} {score:.4f}" for label, score in answer["scores"].items())
        print(f"{answer['label']}\t{scores}\t{text}")
    return 0


def doctor(words: Sequence[str]) -> int:
    """Say what this machine has."""
    from headswap.overview import print_doctor

    parse("doctor", words)
    return print_doctor()


def _print_scores(result: dict[str, Any], reused: bool) -> None:
    scores = "  ".join(f"{name} {value:.4f}" for name, value in result["scores"]["test"].items())
    seconds = result["seconds"]["total"]
    print(
        f"test ({result['rows']['test']} rows): {scores}  [{'reused' if reused else f'{seconds:.1f} s'}, "
        f"best step {result['best_step']} of {result['steps']}, {result['precision']} on {result['device']}]"
    )


VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train,
    "compare": compare,
    "resume": resume,
    "rerun": rerun,
    "verify-resume": verify_resume,
    "predict": predict,
    "list": list_options,
    "show": show,
    "plan": plan,
    "report": report,
    "doctor": doctor,
}

if __name__ == "__main__":
    main()
