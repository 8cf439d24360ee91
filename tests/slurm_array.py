"""Slurm in little for job arrays: sbatch runs the file's tasks here, side by side, and again those that are requeued."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SBATCH = """\
import os, re, subprocess, sys
from pathlib import Path
text = Path(sys.argv[-1]).read_text()
place = Path(os.environ["CLUSTER"])
(place / "options.txt").write_text(text)
tasks = range(int(re.search(r"--array=0-([0-9]+)", text).group(1)) + 1)
script = place / "job.sh"
script.write_text(text)
print("Submitted batch job 1", flush=True)
for task in tasks:
    runner = 'while bash "$0"; rm "$CLUSTER/again_$SLURM_ARRAY_TASK_ID" 2>/dev/null; do :; done'
    mine = {"SLURM_JOB_ID": str(task + 1), "SLURM_ARRAY_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": str(task)}
    mine |= {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "here"}
    quiet = subprocess.DEVNULL
    subprocess.Popen(["bash", "-c", runner, str(script)], env=os.environ | mine, stdout=quiet, stderr=quiet,
                     start_new_session=True)
"""
SRUN = """\
import os, sys
words = sys.argv[1:]
first = next(place for place, word in enumerate(words) if word.endswith("python") or "/python" in word)
with open(os.path.join(os.environ["CLUSTER"], "pids.txt"), "a") as file:
    file.write(f"{os.getpid()}\\n")
with open(os.path.join(os.environ["CLUSTER"], f"log_{os.environ['SLURM_ARRAY_TASK_ID']}.txt"), "a") as log:
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
os.execv(words[first], words[first:])
"""
SCONTROL = """\
import os, sys
place = os.environ["CLUSTER"]
assert sys.argv[1] == "requeue"
with open(os.path.join(place, "requeued.txt"), "a") as file:
    file.write(sys.argv[2] + "\\n")
open(os.path.join(place, "again_" + sys.argv[2].split("_")[1]), "w").close()
"""
SACCT = "print('JobID|State|NodeList')"


class Cluster:
    """The cluster; `environment` is what a process that submits to it is started with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name, text in {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL, "sacct": SACCT}.items():
            (folder / name).write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
            (folder / name).chmod(stat.S_IRWXU)
        self.environment = os.environ | {"CLUSTER": str(folder), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}

    @property
    def options(self) -> set[str]:
        return set((self.folder / "options.txt").read_text(encoding="utf-8").splitlines())

    @property
    def requeued(self) -> list[str]:
        return sorted((self.folder / "requeued.txt").read_text(encoding="utf-8").split())

    def preempt_once(self, ready: Callable[[], bool], seconds: float = 90) -> None:
        """Signal all processes of all tasks once they are `ready`: SIGTERM and then SIGUSR2, as Slurm preempts."""
        until = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < until, [path.read_text() for path in self.folder.glob("log_*.txt")]
            time.sleep(0.05)
        tasks = [int(line) for line in (self.folder / "pids.txt").read_text(encoding="utf-8").split()]
        processes = [pid for task in tasks for pid in family(task)]
        for number in (signal.SIGTERM, signal.SIGUSR2):
            for pid in processes:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue


def family(parent: int) -> list[int]:
    """Return the ids of a process and of all that it started."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found = [parent]
    for pid in found:
        found += [child for child, above in pairs if above == pid]
    return found
