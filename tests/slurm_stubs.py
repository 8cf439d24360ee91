"""A SLURM of three short scripts: srun starts two tasks here, scontrol and the worker write down what they were told."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$STUBS/srun.txt"
while [[ $1 == --* ]]; do shift; done
pids=()
for rank in 0 1; do
  SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NTASKS=2 "$@" &
  pids+=($!)
done
highest=0
for pid in "${pids[@]}"; do
  wait "$pid" || { code=$?; ((code > highest)) && highest=$code; }
done
exit "$highest"
"""
SCONTROL = """#!/usr/bin/env bash
if [[ $1 == show ]]; then printf 'node-a\\nnode-b\\n'; else printf '%s\\n' "$*" >> "$STUBS/scontrol.txt"; fi
"""
WORKER = """#!{python}
import json, os, signal, sys, time
names = "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT FSDP_VERSION OMP_NUM_THREADS".split()
told = {{name: os.environ.get(name) for name in names}} | {{"words": sys.argv[1:], "place": os.getcwd(), "pid": os.getpid()}}
told["deaf_at_first"] = signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
path = os.path.join(os.environ["STUBS"], f"rank{{os.environ['RANK']}}.json")
for heard in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(heard, lambda number, frame: sys.exit(75))
with open(path + ".tmp", "w") as file:
    json.dump(told, file)
os.rename(path + ".tmp", path)
if os.environ["ENDS"] == "waits":
    time.sleep(60)
sys.exit(int(os.environ["ENDS"]))
"""


@dataclass(frozen=True)
class Slurm:
    """A folder with the stubs. `python` stands for the interpreter that the job names."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "a python's copy"

    def start(self, script: Path, ends: str) -> subprocess.Popen[str]:
        """Start a job script; its processes end with the code `ends`, or wait for a signal."""
        env = os.environ | {
            "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}", "STUBS": str(self.folder), "ENDS": ends,
            "SLURM_JOB_ID": "4321", "SLURM_JOB_NODELIST": "node-[a-b]",
        }  # fmt: skip
        return subprocess.Popen(
            ["bash", str(script)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def told(self, seconds: float = 20) -> list[dict]:
        """Return what the two processes wrote down, as soon as both listen."""
        paths = [self.folder / f"rank{rank}.json" for rank in (0, 1)]
        end = time.monotonic() + seconds
        while not all(path.exists() for path in paths):
            assert time.monotonic() < end, "the processes did not start"
            time.sleep(0.02)
        return [json.loads(path.read_text()) for path in paths]

    def signal_processes(self, number: signal.Signals) -> None:
        """Signal the processes, as Slurm does: not through srun."""
        for told in self.told():
            os.kill(told["pid"], number)

    @property
    def requeued(self) -> str:
        path = self.folder / "scontrol.txt"
        return path.read_text() if path.exists() else ""


def slurm(folder: Path) -> Slurm:
    """Make the stubs in a new folder."""
    folder.mkdir()
    made = Slurm(folder)
    worker = WORKER.format(python=sys.executable)
    for path, text in ((folder / "srun", SRUN), (folder / "scontrol", SCONTROL), (made.python, worker)):
        path.write_text(text)
        path.chmod(0o755)
    return made
