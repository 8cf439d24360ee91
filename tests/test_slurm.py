"""The job for SLURM, run with stubs of its commands: what each process is told, signals, the way back into the queue."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headswap.config import compose
from headswap.engines import job_script, sbatch_options
from headswap.errors import ConfigError
from slurm_stubs import Slurm, slurm


@pytest.fixture
def stubs(tmp_path) -> Slurm:
    return slurm(tmp_path / "stubs")


@pytest.fixture
def job(tmp_path, stubs, monkeypatch) -> Path:
    """A job of two processes, in a folder whose name a shell must not read."""
    monkeypatch.setattr(sys, "executable", str(stubs.python))
    folder = tmp_path / "it's $HOME; a 100% run"
    folder.mkdir()
    words = ["hardware=slurm", "hardware.engine=fsdp2", "hardware.num_processes=2", "hardware.threads=3"]
    script = folder / "job.sh"
    script.write_text(job_script(compose(words), folder, tmp_path))
    return script


def test_a_job_tells_each_process_its_place(job, stubs, tmp_path):
    running = stubs.start(job, ends="0")
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out, err) == (0, "", "")
    first, second = stubs.told()
    assert [told["RANK"] for told in (first, second)] == ["0", "1"]
    assert [told["LOCAL_RANK"] for told in (first, second)] == ["0", "1"]
    for told in (first, second):
        assert (told["WORLD_SIZE"], told["LOCAL_WORLD_SIZE"]) == ("2", "2")
        assert (told["MASTER_ADDR"], told["MASTER_PORT"]) == ("node-a", "24321")
        assert (told["FSDP_VERSION"], told["OMP_NUM_THREADS"]) == ("2", "3")
        assert told["words"] == ["-m", "headswap.worker", str(job.parent)]
        assert told["place"] == str(tmp_path)
    srun = (stubs.folder / "srun.txt").read_text().split("\n")
    assert srun[:3] == ["--kill-on-bad-exit=0", "--wait=600", "--cpus-per-task=3"]
    assert stubs.requeued == ""


def test_usr1_reaches_the_processes_and_a_saved_job_goes_back_into_the_queue(job, stubs):
    running = stubs.start(job, ends="waits")
    assert all(told["deaf_at_first"] for told in stubs.told())
    stubs.signal_processes(signal.SIGUSR1)
    running.communicate(timeout=30)
    assert (running.returncode, stubs.requeued) == (75, "requeue 4321\n")


def test_a_cancelled_job_saves_but_stays_out_of_the_queue(job, stubs):
    running = stubs.start(job, ends="waits")
    stubs.told()
    running.send_signal(signal.SIGTERM)  # Slurm signals the shell as well, when it ends the job
    stubs.signal_processes(signal.SIGTERM)
    running.communicate(timeout=30)
    assert (running.returncode, stubs.requeued) == (75, "")


def test_a_job_that_saves_no_state_does_not_start_anew_for_ever(stubs, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(stubs.python))
    words = ["hardware=slurm", "hardware.engine=deepspeed", "hardware.num_processes=2", "train.save_every.seconds=null"]
    script = tmp_path / "job.sh"
    script.write_text(job_script(compose(words), tmp_path, tmp_path))
    running = stubs.start(script, ends="75")
    running.communicate(timeout=30)
    assert (running.returncode, stubs.requeued) == (75, "")
    assert "#SBATCH --no-requeue" in script.read_text().splitlines()


@pytest.mark.parametrize("code", [1, 2])
def test_a_failed_job_stays_out_of_the_queue(job, stubs, code):
    running = stubs.start(job, ends=str(code))
    running.communicate(timeout=30)
    assert (running.returncode, stubs.requeued) == (code, "")


def test_the_script_is_sound_shell(job):
    subprocess.run(["bash", "-n", str(job)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(job)], check=True)


def test_options_of_sbatch_come_from_the_hardware_and_from_the_user(tmp_path):
    words = ["hardware=slurm", "hardware.num_machines=2", "hardware.num_processes=16", "name=mine"]
    words += [
        "hardware.sbatch.partition=gpu",
        "+hardware.sbatch.gpus-per-node=null",
        "+hardware.sbatch.gres=gpu:a100:8",
    ]
    words += ["+hardware.sbatch.exclusive=true", "+hardware.sbatch.comment='two words'"]
    config = compose(words)
    options = sbatch_options(config, tmp_path)
    assert options == {
        "job-name": "mine", "nodes": 2, "ntasks-per-node": 8, "cpus-per-task": 8, "signal": "USR1@120", "requeue": True,
        "open-mode": "append", "output": f"{tmp_path}/slurm-%j.txt", "partition": "gpu", "time": "24:00:00",
        "gres": "gpu:a100:8", "exclusive": True, "comment": "two words",
    }  # fmt: skip
    lines = job_script(config, tmp_path, tmp_path).splitlines()
    assert {"#SBATCH --comment='two words'", "#SBATCH --exclusive", "#SBATCH --time=24:00:00"} <= set(lines)


def test_a_job_on_cpus_asks_for_no_gpu(tmp_path):
    options = sbatch_options(compose(["hardware=slurm", "hardware.device=cpu", "hardware.threads=null"]), tmp_path)
    assert not {"gpus-per-node", "cpus-per-task"} & options.keys()
    assert sbatch_options(compose(["hardware=slurm"]), tmp_path)["gpus-per-node"] == 8


def test_a_percent_sign_in_the_folder_is_no_pattern_of_slurms(tmp_path):
    assert sbatch_options(compose(["hardware=slurm"]), Path("/a%j"))["output"] == "/a%%j/slurm-%j.txt"


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("nodes", 4, "hardware.sbatch.nodes: is set by headswap; found 4; set hardware.num_machines"),
        (
            "gpus-per-task",
            1,
            "hardware.sbatch.gpus-per-task: is set by headswap; found 1; set hardware.sbatch.gpus-per",
        ),
        (
            "signal",
            "B:USR1@60",
            "hardware.sbatch.signal: must reach the processes, which listen to USR1 and TERM; found",
        ),
        ("comment", "a\nrm -rf /", "hardware.sbatch.comment: must be one line of text or a number; found"),
        ("gres", ["gpu", "b"], "hardware.sbatch.gres: must be one line of text or a number; found"),
        ("Time=1\n", "x", "no long name of an sbatch option; found 'Time=1"),
    ],
)
def test_an_option_that_cannot_be_is_refused(tmp_path, option, value, said):
    config = compose(["hardware=slurm"])
    config.hardware.sbatch[option] = value
    with pytest.raises(ConfigError) as caught:
        job_script(config, tmp_path, tmp_path)
    assert said in str(caught.value)
