"""A run made ready for another launcher: the files in its folder and the command to type."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from headswap.config import load
from headswap.errors import ConfigError, RunError
from headswap.launch import folder_of
from headswap.prepare import prepare
from headswap.records import RunFolder, write_json
from headswap.spine import Stage
from tiny_runs import reviews, tiny, words_of

HEAVY = ("torch", "transformers", "datasets", "accelerate", "evaluate", "pandas", "sklearn")


@pytest.fixture
def words(tmp_path, tiny_body) -> list[str]:
    """The overrides of a small run that name no hardware."""
    given = words_of(reviews(tmp_path / "reviews.csv"), tiny_body, tmp_path / "an output")
    return [word for word in given if not word.startswith("hardware")]


@pytest.fixture
def configured(words):
    from headswap.config import compose

    return lambda *more: compose([*words, *more])


def test_accelerate_is_given_its_file_and_the_worker_the_folder(configured):
    config = configured("hardware=fsdp2")
    ready = prepare(config)
    assert ready.folder == folder_of(config).path.absolute()
    assert [path.name for path in ready.files] == ["config.yaml", "accelerate.yaml"]
    assert load(ready.folder / "config.yaml") == config
    assert yaml.safe_load((ready.folder / "accelerate.yaml").read_text())["distributed_type"] == "FSDP"
    folder = f"'{ready.folder}'"  # its name has a space
    file = f"'{ready.folder}/accelerate.yaml'"
    assert ready.command == f"accelerate launch --config_file {file} -m headswap.worker {folder}"
    assert ready.hints == ()


def test_several_machines_are_told_apart_by_two_variables(configured):
    ready = prepare(configured("hardware=fsdp2", "hardware.num_machines=2"))
    assert '--machine_rank "$MACHINE_RANK" --main_process_ip "$MAIN_ADDRESS" -m headswap.worker' in ready.command
    assert "with MACHINE_RANK=0, 1 and MAIN_ADDRESS=the address of machine 0" in ready.hints[0]


def test_slurm_is_given_a_job(configured):
    ready = prepare(configured("hardware=slurm"))
    assert ready.command == f"sbatch '{ready.folder}/job.sh'"
    assert f"-m headswap.worker '{ready.folder}' || code=$?" in (ready.folder / "job.sh").read_text()


def test_another_launcher_takes_the_place_of_the_first(configured):
    prepare(configured("hardware=fsdp2"))
    ready = prepare(configured("hardware=slurm"))
    assert (ready.folder / "job.sh").exists()
    assert not (ready.folder / "accelerate.yaml").exists()


def test_a_finished_run_says_so(configured):
    folder = folder_of(configured("hardware=slurm"))
    folder.path.mkdir(parents=True)
    write_json(folder / "result.json", {"status": "finished"})
    ready = prepare(configured("hardware=slurm"))
    assert (ready.command, ready.files) == ("", ())
    assert ready.hints == ("finished before, nothing to start; output.reuse=false trains it again",)
    again = prepare(configured("hardware=slurm", "output.reuse=false"))
    assert again.command
    assert not RunFolder(again.folder).finished


def test_a_run_that_trains_is_left_alone(configured):
    with folder_of(configured("hardware=slurm")).locked(), pytest.raises(RunError, match="another process trains here"):
        prepare(configured("hardware=slurm"))


def test_what_headswap_starts_itself_and_chains_are_refused(tmp_path, tiny_body, configured):
    plain = tiny(reviews(tmp_path / "more.csv"), tiny_body, tmp_path)
    with pytest.raises(
        ConfigError, match=r"^hardware\.launcher: nothing to prepare, .*; found headswap; type headswap"
    ):
        prepare(plain)
    chain = configured("hardware=slurm")
    chain.stages = [Stage("first"), Stage("second")]
    with pytest.raises(ConfigError, match=r"^stages: headswap prepare makes one run; found 2 stages; prepare each"):
        prepare(chain)


def test_the_verb_prints_the_files_and_at_last_the_command_without_loading_torch(words):
    script = (
        "import sys; from headswap.cli import main\n"
        f"try: main(['prepare', *{words!r}, 'hardware=slurm'])\n"
        "except SystemExit as stop: print(stop.code)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    config, job, command, code, heavy = done.stdout.splitlines()
    assert (Path(config).name, Path(job).name) == ("config.yaml", "job.sh")
    assert (command, code, heavy) == (f"sbatch '{job}'", "0", "[]")
