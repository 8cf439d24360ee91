"""The command as a person uses it: quick answers, one clear line for a mistake, the right exit code."""

import re
import subprocess
import sys

import pytest

import headswap
from headswap.cli import main

HEAVY = ("torch", "transformers", "datasets", "accelerate", "evaluate", "pandas", "sklearn")


def said(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(words)
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["list"],
        ["show", "train.epochs=1"],
        ["train", "train.epoch=1"],
        ["train", "body.init=scratch"],
        ["compare", "study.arms.finetune.train.epochs=-1"],
        ["train", "--cfg", "job"],
    ],
)
def test_quick_answers_import_nothing_heavy(words):
    script = (
        "import sys; from headswap.cli import main\n"
        f"try: main({words!r})\n"
        "except SystemExit as stop: pass\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_version_and_help_name_every_verb(capsys):
    assert said(capsys, "--version") == (0, f"headswap {headswap.__version__}\n", "")
    code, out, _ = said(capsys, "--help")
    assert code == 0
    for verb in (
        "train",
        "compare",
        "predict",
        "evaluate",
        "embed",
        "export",
        "prepare",
        "list",
        "show",
        "plan",
        "report",
        "doctor",
    ):
        assert f"\n  {verb} " in out


def test_a_mistake_is_one_line_and_exit_code_two(capsys):
    assert said(capsys, "trian")[::2] == (
        2, "headswap: trian: no such verb (did you mean train?); verbs: train, compare, sweep, top, predict, evaluate, embed, screen, tokenizer, speed, gradients, export, resume, rerun, verify-resume, prepare, list, show, plan, report, doctor\n",
    )  # fmt: skip
    code, out, err = said(capsys, "train", "train.epoch=1")
    assert (code, out) == (2, "")
    assert err.startswith("headswap: train.epoch: no such key (did you mean train.epochs")
    assert err.count("\n") == 1


def test_an_unknown_flag_is_a_mistake(capsys):
    code, _, err = said(capsys, "train", "--epochs", "3")
    assert code == 2
    assert "unrecognized arguments: --epochs" in err


def test_list_shows_every_option_with_its_comment(capsys):
    code, out, _ = said(capsys, "list")
    assert code == 0
    assert re.search(r"^  probe +Only the head moves", out, re.MULTILINE)
    code, out, _ = said(capsys, "list", "strategy")
    assert out.splitlines()[0] == "strategy"
    code, _, err = said(capsys, "list", "strateg")
    assert (code, "did you mean strategy" in err) == (2, True)


def test_list_shows_options_of_a_config_dir(capsys, tmp_path):
    (tmp_path / "strategy").mkdir()
    (tmp_path / "strategy" / "mine.yaml").write_text("# My own way\n_target_: x\n")
    listed = said(capsys, "list", "strategy", "--config-dir", str(tmp_path))[1]
    assert re.search(r"^  mine +My own way$", listed, re.MULTILINE)


def test_show_prints_the_composed_configuration(capsys):
    import yaml

    code, out, _ = said(capsys, "show", "train.learning_rate=3e-5", "strategy=probe")
    tree = yaml.safe_load(out)
    assert code == 0
    assert tree["train"]["learning_rate"] == 3e-5
    assert tree["strategy"]["_target_"].endswith("Probe")


def test_hydra_flags_behave_as_hydra_users_expect(capsys):
    code, out, _ = said(capsys, "train", "--cfg", "job", "--package", "train", "train.epochs=9")
    assert code == 0
    assert "epochs: 9" in out
    code, out, _ = said(capsys, "train", "--info", "searchpath")
    assert code == 0
    assert "Config search path" in out
    code, out, _ = said(capsys, "train", "--info", "defaults")
    assert "task/tweets" in out


def test_shell_completion_offers_verbs_then_overrides(capsys, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "headswap tr")
    assert said(capsys, "-sc", "query=bash")[1] == "train\n"
    monkeypatch.setenv("COMP_LINE", "headswap train strategy=")
    assert {"strategy=full", "strategy=probe"} <= set(said(capsys, "-sc", "query=bash")[1].split())
    assert "hydra_bash_completion" in said(capsys, "-sc", "install=bash")[1]


def test_completion_survives_the_argparse_of_python_3_14(monkeypatch):
    import argparse

    from headswap.hydra_app import with_string_help

    def strict(self, action):  # what 3.14 does with every help text
        if action.help and "%" not in action.help:
            pass

    monkeypatch.setattr(argparse.ArgumentParser, "_check_help", strict, raising=False)
    with_string_help()

    class Lazy:
        def __repr__(self):
            return "lazy"

    argparse.ArgumentParser._check_help(argparse.ArgumentParser(), argparse.Action([], "x", help=Lazy()))


def test_predict_and_report_say_what_they_need(capsys):
    assert "needs --text, --field, --question with --context, or --input" in said(capsys, "predict", "somewhere")[2]
    assert "needs one study folder" in said(capsys, "report")[2]


def test_doctor_says_versions_devices_and_precision(capsys):
    code, out, _ = said(capsys, "doctor")
    assert code == 0
    assert "auto takes" in out
    assert "extra demo" in out
