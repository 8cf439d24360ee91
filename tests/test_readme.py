"""What README and the options' comments tell a reader to type works, and their links lead somewhere."""

import ast
import io
import re
import shlex
import tomllib
from argparse import Namespace
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from finished_runs import make_run
from headswap import cli, commandline
from headswap import config as configuration
from headswap.commands import report_flags
from headswap.errors import ConfigError
from headswap.measure_commands import gradients_flags, measured_configs, speed_flags
from headswap.predict import Score
from headswap.results import Labelled
from headswap.search_space import swept
from headswap.stages import Chain
from headswap.study.plan import Arm, audit
from headswap.study.tuning import sweeps as tuned_sweeps
from headswap.sweep.execute import plan as sweep_plan

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND_PAGES = [
    "README.md",
    *(
        f"docs/{name}.md"
        for name in (
            "comparing",
            "data",
            "length",
            "results",
            "strategies",
            "sweeps",
            "tasks",
            "translation",
            "using_models",
        )
    ),
]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def section(name: str) -> str:
    return README.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]


def commands() -> list[tuple[str, str]]:
    """Return (where, command line) of every command that a reader is shown."""
    found = []
    for page in COMMAND_PAGES:
        text = "\n".join(blocks((ROOT / page).read_text(encoding="utf-8"), "bash"))
        lines = re.sub(r"\\\n\s*", "", text).splitlines()
        found += [(page, line) for line in lines if line.startswith("headswap ")]
    for path in sorted(configuration.conf_dir().rglob("*.yaml")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                break
            if line.startswith("# headswap "):
                found += [(path.name, command) for command in re.split(r"\s{3,}(?=headswap )", line.removeprefix("# "))]
    return list({" ".join(shlex.split(command, comments=True)): (page, command) for page, command in found}.values())


@pytest.fixture
def run(tmp_path, tiny_classifier) -> Path:
    """A finished run's folder, as far as predicting reads it."""
    return make_run(tmp_path / "run", tiny_classifier, "task.text=[text]")


def texts_of(block: str) -> list[str]:
    """Return the list of texts that a block of code holds."""
    lists = [ast.literal_eval(node) for node in ast.walk(ast.parse(block)) if isinstance(node, ast.List)]
    return next(each for each in lists if each and all(isinstance(text, str) for text in each))


def test_the_easy_the_manual_and_our_own_way_to_predict_run_and_agree(run):
    easy, manual, ours = blocks(section("Predict"), "python")
    texts = texts_of(easy)
    assert texts == texts_of(manual) == texts_of(ours)
    space: dict = {"RUN": str(run)}
    printed = []
    for block in (easy, manual, ours):
        with redirect_stdout(io.StringIO()) as out:
            exec(block, space)
        printed.append(out.getvalue())
    names = [space["model"].config.id2label[row.argmax().item()] for row in space["probabilities"]]
    expected = space["probabilities"].max(dim=-1).values.tolist()
    told = ast.literal_eval(printed[0].strip())
    assert [each["label"] for each in told] == names
    assert [each["score"] for each in told] == pytest.approx(expected, abs=1e-5)
    assert [max(ast.literal_eval(line).values()) for line in printed[1].splitlines()] == pytest.approx(
        expected, abs=1e-4
    )
    lines = [line.split(" ", 1) for line in printed[2].splitlines()]
    assert [label for label, _ in lines] == names
    assert [max(ast.literal_eval(scores).values()) for _, scores in lines] == pytest.approx(expected, abs=1e-5)


def test_there_are_commands_to_check():
    assert len(commands()) > 25
    verbs = {shlex.split(command, comments=True)[1] for _, command in commands()}
    assert verbs >= {"train", "compare", "predict", "evaluate", "embed", "export", "report", "doctor"}


@pytest.mark.parametrize(("page", "command"), commands())
def test_a_command_that_is_shown_parses_and_composes(page, command, monkeypatch):
    verb, *words = shlex.split(command, comments=True)[1:]
    assert verb in cli.VERBS
    monkeypatch.setattr("headswap.trackers.wandb.require", lambda *_: None)  # not among the extras of `dev`
    if verb in ("predict", "evaluate"):
        check_asking(verb, words, monkeypatch)
    elif verb in ("embed", "export"):
        check_using(verb, words, monkeypatch)
    elif verb == "report":
        flags = report_flags(words)
        assert flags.folders and (len(flags.folders) > 1 or flags.out is None)
    elif verb in ("speed", "gradients"):
        flags = (speed_flags if verb == "speed" else gradients_flags)(words)
        given = [word for word in flags.overrides if "=" in word]
        assert measured_configs(given, flags) if given else flags.overrides
    elif verb == "top":
        assert len(words) == 1
    elif verb == "sweep":
        check_sweep(words)
    elif verb == "tokenizer":
        assert words[-4] == "--size" and int(words[-3]) >= 261 and words[-2] == "--output"
        configuration.compose(words[:-4])
    else:
        check_overrides(verb, words)


def check_overrides(verb: str, words: list[str]) -> None:
    """Compose the overrides, every value of a sweep in its turn; files that they name are not looked at."""
    flags = commandline.parse(verb, words)
    if verb in ("list", "doctor") or flags.config_dir:  # a reader's own folder: its page has a test below
        return
    if flags.multirun and commandline.SWEEPER in commandline.with_sweeper(verb, flags.overrides):
        check_search([word for word in flags.overrides if not word.startswith("hydra")])
        return
    ranges = [word for word in flags.overrides if word.startswith("study.tuning.spaces.")]  # text for us, as a sweep's
    given = [word for word in flags.overrides if word != "..." and word not in ranges]
    parsed = OverridesParser.create().parse_overrides(given)
    plain = [*ranges, *(override.input_line or "" for override in parsed if not override.is_sweep_override())]
    sweeps = [override for override in parsed if override.is_sweep_override()]
    assert bool(sweeps) == flags.multirun
    for value in [value for override in sweeps for value in override_values(override)] or [None]:
        said = [*plain, *([value] if value else [])]
        config = configuration.compose(said)
        tuned_sweeps(config, Namespace(overrides=said, config_dir=[]))
        for stage in config.stages:
            Chain(config, Namespace(overrides=said, config_dir=[])).composed(stage, stage.overrides, "some/where")


def check_search(words: list[str]) -> None:
    """Compose what `train -m` searches, and its first trial."""
    fixed, space = swept(words)
    given = [*fixed, *(f"sweep.space.{key}={text}" for key, text in space.items())]
    assert space and sweep_plan(configuration.compose(given), given, []).search(forgotten=True).total > 1


def check_sweep(words: list[str]) -> None:
    """Compose the sweep and its first trial; a folder to go on with is not looked at."""
    if "--resume" in words:
        assert words[0] == "--resume" and all("=" in word for word in words[2:])
        return
    flags = commandline.parse("sweep", [word for word in words if word != "..."])
    if "..." in words:  # the space is the reader's
        configuration.compose(flags.overrides)
        return
    assert sweep_plan(configuration.compose(flags.overrides), flags.overrides, []).search(forgotten=True).total > 1


def override_values(override: Override) -> list[str]:
    return [f"{override.key_or_group}={value}" for value in override.sweep_string_iterator()]


def check_asking(verb: str, words: list[str], monkeypatch) -> None:
    """Let the command parse its flags and call what it would call, of a run that takes what the command gives."""
    called, fields = [], [word.split("=")[0] for flag, word in pairwise(words) if flag == "--field"]

    class Fake:
        task = SimpleNamespace(inputs=fields or ("question", "context"), question="question", context="context")

        def __init__(self, run: Path, batch_size: int, trust_remote_code: bool, **changes: int) -> None:
            called.append(run)

        def __call__(self, inputs: list) -> list[Labelled]:
            return [Labelled("good", 1.0, {"good": 1.0}) for _ in inputs]

    if "--text" in words:
        Fake.task.inputs = ("text",)

    def count(predictor: Fake, source: Path, output: Path, columns: list[str], tell) -> int:
        assert output.suffix in (".csv", ".tsv", ".jsonl", ".parquet")
        return 1

    monkeypatch.setattr("headswap.predict.Predictor", Fake)
    monkeypatch.setattr("headswap.predict.predict_file", count)
    monkeypatch.setattr("headswap.predict.evaluate", lambda predictor, source: [Score("accuracy", 1.0, 2)])
    assert cli.dispatch([verb, *words]) == 0
    assert called == [Path(words[0])]


def check_using(verb: str, words: list[str], monkeypatch) -> None:
    """Likewise of the verbs that take a body, or a run's folder, elsewhere."""
    called = []
    monkeypatch.setattr("headswap.embed.embed_file", lambda embedder, *_: called.append(embedder.body) or 1)
    made = SimpleNamespace(folder=Path("onnx"), opset=18, difference=0.0, compared=4)
    monkeypatch.setattr("headswap.export.to_onnx", lambda run, *_: called.append(str(run)) or made)
    monkeypatch.setattr("headswap.export.push", lambda run, name, private: called.append(str(run)) or name)
    assert cli.dispatch([verb, *words]) == 0
    assert called == [words[0]]


def test_the_mistake_that_readme_shows_is_answered_as_shown(capsys):
    shown = [block for block in blocks(README, "text") if block.startswith("$ headswap ")]
    assert shown
    for block in shown:
        command, *answer = block.splitlines()
        with pytest.raises(SystemExit) as caught:
            cli.main(shlex.split(command)[2:])
        assert caught.value.code == 2
        assert capsys.readouterr().err.splitlines() == answer


def test_readme_shows_the_two_set_up_commands_and_makefile_has_every_target_that_is_named():
    lines = [line for block in blocks(README, "bash") for line in block.splitlines()]
    shown = [line.split()[1] for line in lines if line.startswith("make ")]
    assert {"demo", "test"} <= set(shown)
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", pages, re.MULTILINE))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named - targets == set()


def test_the_extras_that_readme_installs_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"(?:\.|headswap)\[([\w,]+)\]", README)
    assert named
    assert {extra for names in named for extra in names.split(",")} - extras.keys() == set()


def test_the_arm_that_the_page_on_comparing_adds_can_be_planned(tmp_path):
    page = (ROOT / "docs" / "comparing.md").read_text(encoding="utf-8").split("\n## Adding an arm\n")[1]
    (option,) = blocks(page, "yaml")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "with_probe.yaml").write_text(option, encoding="utf-8")
    shown = [line for block in blocks(page, "bash") for line in block.splitlines() if "--config-dir" in line]
    assert len(shown) == 2
    for command in shown:
        flags = commandline.parse("compare", shlex.split(command, comments=True)[2:])
        config = configuration.compose(flags.overrides, [tmp_path])
        arms = {arm: Arm(config, arm, 100, 0, None).final() for arm in config.study.arms}
        assert sorted(arms) == ["finetune", "probe", "scratch"]
        assert arms["probe"].strategy == {"_target_": "headswap.strategies.probe.Probe"}
        audit(arms, config.study.treatment, config.study.control, config.study.may_differ)
        with pytest.raises(ConfigError, match="differ in keys it does not name"):
            audit(arms, "probe", config.study.control, ["body.init"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_exist(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    inside = [link.partition("#") for link in links if not re.match(r"[a-z]+:", link)]
    assert [path for path, _, _ in inside if not (page.parent / path).exists()] == []
    to_headings = [(page.parent / path if path else page, heading) for path, _, heading in inside if heading]
    assert [heading for target, heading in to_headings if heading not in anchors(target)] == []


def anchors(page: Path) -> set[str]:
    """Return the headings as links name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
