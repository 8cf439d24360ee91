"""Bodies side by side on tiny bodies: the rows, the vectors, the ranking, what the verb says."""

import json
import random
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from headswap.cli import main
from headswap.config import build_plugs, compose
from headswap.embed import Embedder
from headswap.errors import ConfigError
from headswap.run_data import data_request
from headswap.screen_commands import body_names, composed_bodies
from headswap.seeds import Seeds
from headswap.transferability import h_score, log_me
from tiny_families import two_labels
from tiny_runs import reviews
from tiny_tables import written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("minilm", ["minilm"]),
        ("[minilm]", ["minilm"]),
        ("[minilm, org/name]", ["minilm", "org/name"]),
        ("[package:module/path,./a folder]", ["package:module/path", "./a folder"]),
        ("['./a, b', \"it's\"]", ["./a, b", "it's"]),
    ],
)
def test_a_list_of_bodies_is_read(text, expected):
    assert body_names(text) == expected


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], r"needs the bodies to rank, in one list; found 0; write body=\[minilm"),
        (["body=[minilm]", "body=other"], r"in one list; found 2"),
        (["body=[]"], r"body: not a list of bodies; found '\[\]'"),
        (["body=[minilm"], r"body: not a list of bodies"),
        (["body=[a/b, minilm, a/b]"], r"body: a body stands twice; found a/b"),
        (["body=[minilmm]"], r"no such option; found minilmm \(did you mean minilm\?\); options: .*minilm"),
        (["body=[transformer]"], r"body.source: needs a value"),
        (["body=[minilm]", "data.train_row=5"], r"data.train_row: no such key \(did you mean data.train_rows\?\)"),
    ],
)
def test_wrong_lists_of_bodies_are_told(words, told):
    with pytest.raises(ConfigError, match=told):
        composed_bodies(words, [])


def test_each_body_gets_a_configuration_of_its_own(tmp_path, tiny_body, monkeypatch):
    odd = tmp_path / "it's a, b=c"
    shutil.copytree(tiny_body, odd)
    quoted = str(odd).replace("'", "''")  # YAML's way of a quote in quotes
    found = composed_bodies(["task=tweets", f"body=[minilm, '{quoted}', gpt2]", "seed=3"], [])
    assert list(found) == ["minilm", str(odd), "gpt2"]
    assert [each.body["source"] for each in found.values()][1:] == [str(odd), "gpt2"]
    assert found["minilm"].body == compose(["body=minilm"]).body
    assert {each.seed for each in found.values()} == {3}
    assert build_plugs(found[str(odd)]).body.locate().folder == odd
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_body, tmp_path / "minilm")  # a folder of that name comes first, as for embed
    assert composed_bodies(["body=[minilm]"], [])["minilm"].body["source"] == "minilm"


def words_of(table: str, root: Path, *bodies: Path | str) -> list[str]:
    return [
        "screen", "task=text", f"task.source={table}", "task.text=[text]", "task.label=label",
        "task.validation_share=0.2", "task.test_share=0.2", f"body=[{', '.join(map(str, bodies))}]",
        "data.max_length=32", "hardware=cpu", f"output.root={root}", "--output", str(root / "found.json"),
    ]  # fmt: skip


def screened(words: list[str], code: int = 0) -> dict:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == code
    path = Path(words[words.index("--output") + 1])
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    return reviews(tmp_path_factory.mktemp("screen") / "reviews.csv", 100)


def training_rows(words: list[str]):
    config = compose([word for word in words[1:] if "=" in word and not word.startswith("body=")])
    return build_plugs(config).task.load(data_request(config), Seeds(config.seed)).train


def test_bodies_are_ranked_by_their_vectors_of_the_training_rows(tmp_path, capsys, table, tiny_body, variant):
    spoilt = variant(tiny_body, lambda tensors: {name: tensor * 0 for name, tensor in tensors.items()})
    words = words_of(table, tmp_path, spoilt, tiny_body)
    found = screened(words)
    rows = training_rows(words)
    vectors, labels = Embedder(tiny_body, max_length=32)(rows["text"]), np.array(rows["label"])
    first, second = found["bodies"]
    assert (first["body"], second["body"]) == (str(tiny_body), str(spoilt))
    assert (found["rows"], found["metric"], found["labels"]) == (len(rows), "accuracy", ["neg", "pos"])
    assert first["h_score"] == pytest.approx(h_score(vectors, labels), rel=1e-3)
    assert first["log_me"] == pytest.approx(log_me(vectors, labels[:, None] == [0, 1]), abs=1e-4)
    assert first["probe"]["mean"] == pytest.approx(np.mean(first["probe"]["folds"]))
    assert first["probe"]["sd"] == pytest.approx(np.std(first["probe"]["folds"], ddof=1))
    assert (len(first["probe"]["folds"]), first["width"], first["max_length"]) == (5, 32, 32)
    assert first["random"]["log_me"] != first["log_me"]
    assert second["h_score"] == pytest.approx(0, abs=1e-9)
    said = " ".join(capsys.readouterr().out.split())
    assert f"{len(rows)} training rows of text" in said
    assert "it cannot say whether transfer beats training from scratch: headswap compare does." in said


def test_a_second_screening_reads_the_cache_and_other_vectors_do_not(tmp_path, monkeypatch, table, tiny_body):
    words = words_of(table, tmp_path, tiny_body)
    first = screened(words)["bodies"][0]

    def refuse(*_):
        raise ValueError("computed again")

    monkeypatch.setattr("headswap.screen.extract", refuse)
    second = screened(words)["bodies"][0]
    assert (first["cached"], second["cached"], second["random"]["cached"]) == (False, True, True)
    assert all(second[name] == first[name] for name in ("probe", "h_score", "log_me"))
    for other in (["--pooling", "max"], ["--layer", "1"], ["data.max_length=8"], ["seed=1"], ["--no-cache"]):
        changed = [word for word in words if word.split("=")[0] not in {each.split("=")[0] for each in other}]
        assert "computed again" in screened([*changed, *other], code=1)["bodies"][0]["fault"]


def test_the_random_twin_is_the_body_that_a_random_run_starts_from(tmp_path, table, tiny_body):
    words = words_of(table, tmp_path, tiny_body)
    twin = screened(words)["bodies"][0]["random"]
    alone = screened([*words, "body.init=random"])["bodies"][0]
    assert alone["random"] is None
    assert all(alone[name] == twin[name] for name in ("probe", "h_score", "log_me"))
    assert screened([*words, "--no-random"])["bodies"][0]["random"] is None


def test_a_body_that_does_not_load_is_a_row_with_its_reason(tmp_path, capsys, table, tiny_body):
    found = screened(words_of(table, tmp_path, tmp_path / "nowhere", tiny_body))
    good, failed = found["bodies"]
    assert (good["body"], failed["body"]) == (str(tiny_body), str(tmp_path / "nowhere"))
    assert "no such folder; found nothing at" in failed["fault"]
    assert "nowhere: no such folder" in capsys.readouterr().out
    screened(words_of(table, tmp_path, tmp_path / "nowhere"), code=1)


@pytest.mark.parametrize("name", ["BART", "T5", "GPT-2"])
def test_decoders_and_encoders_with_a_decoder_are_read_as_embed_reads_them(tmp_path, table, name):
    folder = two_labels(name, tmp_path / name)
    words = words_of(table, tmp_path, folder)
    found = screened([*words, "--no-random"])["bodies"][0]
    rows = training_rows(words)
    vectors = Embedder(folder, max_length=found["max_length"])(rows["text"])
    assert found["log_me"] == pytest.approx(log_me(vectors, np.array(rows["label"])[:, None] == [0, 1]), abs=1e-4)


def test_numbers_and_several_labels_are_screened_by_their_own_metric(tmp_path, tiny_body):
    dice = random.Random(0)
    texts = [f"{dice.choice(['good', 'bad'])} film {number}" for number in range(60)]
    numbers = written(tmp_path / "n.csv", [(text, 3.0 if "good" in text else 1.0) for text in texts])
    words = [word for word in words_of(numbers, tmp_path, tiny_body) if not word.startswith("task")]
    task = ["task=regression", f"task.source={numbers}", "task.text=[text]", "task.label=[label]"]
    found = screened([*words, *task, "metric=[rmse]", "--no-random"])
    assert (found["metric"], found["greater_is_better"], found["bodies"][0]["h_score"]) == ("rmse", False, None)
    assert found["bodies"][0]["probe"]["mean"] < 0.5
    lists = written(tmp_path / "m.csv", [(text, f"film,{text.split()[0]}") for text in texts])
    task = ["task=multi_label", f"task.source={lists}", "task.text=[text]", "task.label=[label]"]
    found = screened([*words, *task, "--no-random"])
    assert (found["labels"], found["labels_left_out"]) == (["bad", "good"], ["film"])
    assert found["bodies"][0]["probe"]["mean"] > 0.8 and found["bodies"][0]["h_score"] > 0.5


def test_the_commands_of_the_page_compose():
    page = (Path(__file__).parents[1] / "docs" / "screening.md").read_text(encoding="utf-8")
    shown = [shlex.split(line) for line in page.splitlines() if line.startswith("headswap screen ")]
    assert shown
    for _, _, *words in shown:
        assert composed_bodies([word for word in words if "=" in word], [])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["task=squad"],
            "task: cannot be screened; found the problem question_answering; screening serves single_label",
        ),
        (["task=tweetz"], "task: no such option; found tweetz (did you mean tweets?)"),
        (["--pooling", "meen"], "pooling: no such way; found 'meen'"),
        (["--output", "found.csv"], "--output: unknown kind of file; found 'found.csv'; end its name in one of .json"),
    ],
)
def test_what_cannot_be_screened_is_told(capsys, words, told):
    with pytest.raises(SystemExit) as end:
        main(["screen", "body=[minilm]", *words])
    assert end.value.code == 2
    assert told in capsys.readouterr().err
