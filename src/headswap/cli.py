"""The `headswap` command: verbs, flags, Hydra overrides; what is printed and the exit code. Floor 6.

Nothing here imports torch or transformers: they load in the children that train, or when a verb needs them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from headswap import __version__
from headswap.commands import VERBS
from headswap.errors import ConfigError, HeadswapError, nearest

HELP = f"""\
headswap {__version__}: load a pretrained body, swap in a new head, fine-tune, and learn what the weights bought.

usage: headswap VERB [OVERRIDES] [FLAGS]

verbs
  train [OVERRIDES]          fine-tune one run, or a sweep with -m; an unfinished one goes on where it was saved
  compare [OVERRIDES]        train pretrained and random-init twins over paired seeds: verdict and report.html;
                             --dry-run is headswap plan
  sweep [OVERRIDES]          search settings: sweep=tpe sweep.trials=40 sweep.space.KEY='interval(1e-5,1e-3)';
                             --dry-run shows the first trials, --resume FOLDER goes on with a sweep
  top FOLDER [--count N]     a sweep's best trials, and which settings mattered; also while it runs
  predict RUN                ask a finished run: --text "...", --question "..." --context "...", --field COLUMN=...,
                             or --input FILE --output FILE; --beams N and --max-new-tokens N for what it writes;
                             --trust-remote-code runs the Python code of its folder
  evaluate RUN --data FILE   score a finished run on new labelled rows
  embed BODY                 texts as vectors, of a body or a run: --input FILE --output FILE.parquet
                             [--column TEXT] [--pooling mean|cls|last|max] [--layer N] [--normalise] [--max-length N]
  screen body=[A,B] [OVERRIDES]
                             rank bodies for a task by a probe on their frozen vectors, H-score and LogME; no training
                             [--pooling mean|cls|last|max] [--layer N] [--no-random] [--no-cache] [--output FILE.json]
  tokenizer [OVERRIDES] --size N --output FOLDER
                             learn a byte-level BPE of N tokens from a task's training rows, for bodies without weights
  speed body=[A,B]           tokens/s and memory of training steps, forward passes and decoding against length, on
                             each device [--lengths 64,512] [--operations train,inference,decode] [--tokens 4096]
                             [--repeats 5] [--out FOLDER]; without body=[...] the arms of the study
  gradients body=[A,B]       how far the gradient of the last state reaches back, in float64 [--length 512] [--seeds 5]
                             [--directions 16] [--out FOLDER]; gradients RUN: before and after its training
  export RUN                 --to onnx [--output DIR], proved against torch; or --push OWNER/NAME [--private]
  resume RUN                 go on with an unfinished run by its folder, to the bit
  rerun RUN [--verify]       repeat a finished run from its folder; say the first value that differs
  verify-resume [OVERRIDES]  train straight and in two halves, and compare the two to the bit
  prepare [OVERRIDES]        make a run ready for accelerate launch or SLURM; the last line is the command to type
  report FOLDER [...]        make a study's or a sweep's report again, without training; of several studies, one page
                             that joins them: report STUDY STUDY ... [--out FOLDER]
  plan [OVERRIDES]           what would run: rows, labels, steps, parameters, folders, which difference the study would
                             detect; --time: how long it takes, by 20 steps of each arm
  list [GROUP]               every option of every group, with what it is for
  show [OVERRIDES]           the composed configuration
  doctor                     versions, devices, the precision that auto picks, missing extras

flags of train, compare, sweep, verify-resume, prepare, plan, show (as in Hydra)
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

Exit codes: 0 done, 1 the run failed, 2 the input is wrong, 75 stopped by a signal and saved: the same command goes on.
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


if __name__ == "__main__":
    main()
