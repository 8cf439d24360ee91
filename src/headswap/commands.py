"""What each verb of the `headswap` command does. Floor 6; imports nothing heavy before a verb needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headswap import sweep_commands
from headswap.commandline import Parser, composed, parse
from headswap.errors import ConfigError, RunError, of_status
from headswap.measure_commands import gradients, speed
from headswap.model_commands import embed, export
from headswap.predict_commands import evaluate, predict
from headswap.screen_commands import screen
from headswap.tokenizer_commands import tokenizer


def train(words: Sequence[str]) -> int:
    """Train one configuration, its stages one after another."""

    def act(given: Any) -> int:
        from headswap.launch import job_of, run_jobs
        from headswap.progress import Watch
        from headswap.stages import stage_configs

        if given[0].sweep.trial is not None:
            return sweep_commands.trial(given[0])
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

        with Watch(3) as watch:
            said = verify.verify_resume(given[0], watch)
        return _compared(said)

    return composed("verify-resume", words, act)


def rerun(words: Sequence[str]) -> int:
    """Repeat a finished run from its folder; with --verify, say the first value that differs."""
    from headswap import verify
    from headswap.progress import Watch

    parser = Parser(prog="headswap rerun", add_help=False, allow_abbrev=False)
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


def prepare(words: Sequence[str]) -> int:
    """Make a run ready for another launcher; the last line is the command that starts it."""

    def act(given: Any) -> None:
        from headswap.prepare import prepare as made_ready

        ready = made_ready(given[0])
        for line in (*ready.files, *ready.hints, ready.command or ready.folder):
            print(line)

    return composed("prepare", words, act)


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
    """Train the study's runs and write its verdict and report; with --dry-run say what would run."""

    def act(given: Any) -> int:
        from headswap.progress import Watch
        from headswap.study import execute
        from headswap.study.plan import check_sizes, judged, plan, study_folder
        from headswap.study.workers import chosen_workers

        config, flags = given
        if flags.dry_run:
            return _planned(given)
        if flags.time:
            raise ConfigError("headswap compare --time: goes with --dry-run; found it alone; use headswap plan --time")
        tuning = _tuned(config, flags)
        cells = plan(config, flags, tuning.chosen(config.study.sizes) if tuning else None)
        check_sizes(cells)
        folder, count = study_folder(judged(config, flags)), sum(cell.count for cell in cells)
        print(f"study: {count} runs in {folder}", flush=True)
        workers = chosen_workers(config, cells, flags, folder)
        with Watch(count) as watch:
            found = execute.execute(judged(config, flags), cells, watch, workers)
        execute.show(found, watch.console)
        print(found.folder)
        return 0

    return composed("compare", words, act)


def _tuned(config: Any, flags: Any) -> Any:
    """Tune the arms of a study that asks for it; return what was found, None where nothing is tuned."""
    from headswap.progress import Watch
    from headswap.study import tuning

    sweeps = tuning.sweeps(config, flags)
    left = sum(each.count - each.ended for each in sweeps)
    with Watch(left, split="validation") as watch:
        if left:
            watch.console.print(f"tuning: {tuning.shares(sweeps)}", soft_wrap=True, highlight=False)
        return tuning.tune(config, sweeps, watch)


def report(words: Sequence[str]) -> int:
    """Make a study's or a sweep's report again from its folder; join several studies on one page."""
    from rich.console import Console

    from headswap.study import execute

    flags = report_flags(words)
    if len(flags.folders) > 1 or flags.out:
        return _joined(flags.folders, flags.out)
    folder = _only([str(each) for each in flags.folders], "report", "study folder or sweep folder, or several studies'")
    if (folder / "joined.json").is_file():
        return _joined([], folder)
    if any((folder / name).is_file() for name in ("sweep.json", "command.json")):
        return sweep_commands.report(folder)
    if not (folder / execute.RUNS).is_file():
        raise RunError(
            f"{folder}: neither a study's folder nor a sweep's; found no {execute.RUNS} and no sweep.json; name the "
            "folder that headswap compare or headswap sweep printed"
        )
    found = execute.remake(folder)
    execute.show(found, Console())
    print(found.folder)
    return 0


def report_flags(words: Sequence[str]) -> Any:
    """Return the folders, and where their joined page goes."""
    parser = Parser(prog="headswap report", add_help=False, allow_abbrev=False)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--out", type=Path)
    return parser.parse_intermixed_args(list(words))


def _joined(folders: Sequence[Path], out: Path | None) -> int:
    from rich.console import Console

    from headswap.study.joined.page import publish, show
    from headswap.study.joined.reading import joined_folders

    if not folders and out is not None and (out / "joined.json").is_file():  # the same ones again
        folders = joined_folders(out)
    joined, folder = publish(folders, out)
    show(joined, folder, Console())
    print(folder)
    return 0


def plan(words: Sequence[str]) -> int:
    """Say what would run, without training; with --time how long, by 20 steps of each arm."""
    return composed("plan", words, _planned)


def _planned(given: Any) -> int:
    from headswap import overview

    config, flags = given
    overview.print_plan(config, flags, flags.time)
    return 0


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


def doctor(words: Sequence[str]) -> int:
    """Say what this machine has."""
    from headswap.overview import print_doctor

    parse("doctor", words)
    return print_doctor()


def _print_scores(result: dict[str, Any], reused: bool) -> None:
    scores = "  ".join(f"{name} {value:.4f}" for name, value in result["scores"]["test"].items())
    seconds = result["seconds"]["total"]
    how = (
        f"best step {result['best_step']} of {result['steps']}, {result['precision']}" if result["steps"] else "fitted"
    )
    print(
        f"test ({result['rows']['test']} rows): {scores}  [{'reused' if reused else f'{seconds:.1f} s'}, "
        f"{how} on {result['device']}{_size(result.get('parameters', {}))}]"
    )


def _size(parameters: dict[str, int]) -> str:
    """Return the size of a trained model, nothing for a baseline."""
    if not {"body", "embeddings"} <= parameters.keys():
        return ""
    whole = parameters["body"] + parameters["head"]
    return f", {whole:,} parameters, without embeddings {whole - parameters['embeddings']:,}"


VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train,
    "compare": compare,
    "sweep": sweep_commands.sweep,
    "top": sweep_commands.top,
    "predict": predict,
    "evaluate": evaluate,
    "embed": embed,
    "screen": screen,
    "tokenizer": tokenizer,
    "speed": speed,
    "gradients": gradients,
    "export": export,
    "resume": resume,
    "rerun": rerun,
    "verify-resume": verify_resume,
    "prepare": prepare,
    "list": list_options,
    "show": show,
    "plan": plan,
    "report": report,
    "doctor": doctor,
}
