"""ONNX files against plain transformers on batches that the export never saw; the hub is played by a stand-in."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import make_tokenizer, tiny_config
from finished_runs import CUT, PAIRS, TEXTS, make_run
from headswap.cli import main
from headswap.errors import ConfigError, HeadswapError, RunError
from headswap.export import onnx as to
from headswap.export import push, to_onnx

onnxruntime = pytest.importorskip("onnxruntime")


def checkpoint(folder: Path, name: str, **settings) -> Path:
    """Write a one-layer model of a transformers class, with its tokenizer."""
    import transformers

    if name.startswith("GPT2"):
        config = transformers.GPT2Config(
            vocab_size=len(make_tokenizer()), n_embd=32, n_layer=1, n_head=4, n_positions=64, pad_token_id=0, **settings
        )
    else:
        config = tiny_config(**settings)
        config.num_hidden_layers = 1
    with torch.random.fork_rng():
        torch.manual_seed(7)
        getattr(transformers, name)(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def differences(onnx: Path, source: Path, name: str, batches: list[dict[str, torch.Tensor]]) -> list[float]:
    """Return the largest difference to transformers of every output of every batch, real tokens alone."""
    import transformers

    model = getattr(transformers, name).from_pretrained(source).eval()
    session = onnxruntime.InferenceSession(str(onnx / "model.onnx"), providers=["CPUExecutionProvider"])
    outputs = [each.name for each in session.get_outputs()]
    found = []
    for batch in batches:
        with torch.no_grad():
            wanted = model(**batch)
        names = {each.name for each in session.get_inputs()}
        given = {key: value.numpy() for key, value in batch.items() if key in names}
        for key, mine in zip(outputs, session.run(outputs, given), strict=True):
            own = wanted[key].numpy()
            assert mine.shape == own.shape
            real = batch["attention_mask"].numpy().astype(bool) if own.shape[:2] == batch["input_ids"].shape else ...
            found.append(float(np.abs(mine[real] - own[real]).max()))
    return found


def padded(*texts, side: str = "right") -> dict[str, torch.Tensor]:
    tokenizer = make_tokenizer()
    tokenizer.padding_side = side
    columns = list(zip(*texts, strict=True)) if isinstance(texts[0], tuple) else [texts]
    found = tokenizer(*map(list, columns), padding=True, truncation=True, max_length=64, return_tensors="pt")
    segments = tokenizer(*map(list, columns), padding=True, truncation=True, max_length=64, return_token_type_ids=True)
    return {**found, "token_type_ids": torch.tensor(segments["token_type_ids"])}


BATCHES = [padded(*TEXTS), padded("so"), padded(*TEXTS[1:3], "good " * 100), padded(*PAIRS)]


def exported(words: list[str]) -> int:
    with pytest.raises(SystemExit) as end:
        main(["export", *words])
    return end.value.code


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_classifier) -> Path:
    """The export of a run, by the command."""
    run = make_run(tmp_path_factory.mktemp("exported") / "run", tiny_classifier)
    assert exported([str(run), "--to", "onnx", "--opset", "17"]) == 0
    return run / "onnx"


def test_a_run_is_exported_and_equals_transformers_on_other_batches(made, tiny_classifier):
    assert max(differences(made, tiny_classifier, "BertForSequenceClassification", BATCHES)) < 1e-6
    about = json.loads((made / "onnx.json").read_text())
    assert about["labels"] == ["negative", "neutral", "positive"] and about["max_length"] == CUT
    assert about["inputs"] == ["input_ids", "attention_mask", "token_type_ids"]
    assert 0 < about["largest_difference"] < 1e-5 and about["compared"] == 4


def test_what_was_exported_is_a_whole_folder(made):
    import onnx
    from transformers import AutoConfig, AutoTokenizer

    assert AutoConfig.from_pretrained(made).id2label[2] == "positive"
    assert AutoTokenizer.from_pretrained(made)(TEXTS)["input_ids"] == make_tokenizer()(TEXTS)["input_ids"]
    graph = onnx.load(str(made / "model.onnx"))
    assert [each.version for each in graph.opset_import if not each.domain] == [17]
    sizes = [each.dim_param for each in graph.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ["batch", "token"]


@pytest.mark.parametrize(
    ("name", "batches", "settings"),
    [
        ("BertForQuestionAnswering", BATCHES, {}),
        (
            "BertForMultipleChoice",
            [{name: each.view(rows, -1, each.shape[1]) for name, each in padded(*TEXTS).items()} for rows in (1, 2, 3)],
            {},
        ),
        (
            "GPT2ForSequenceClassification",
            [{name: each for name, each in batch.items() if name != "token_type_ids"} for batch in BATCHES[:3]],
            {"num_labels": 3},
        ),
    ],
)
def test_other_heads_are_exported_too(tmp_path, name, batches, settings):
    folder = checkpoint(tmp_path / "made", name, **settings)
    assert to_onnx(folder).folder == folder / "onnx"
    assert max(differences(folder / "onnx", folder, name, batches)) < 1e-6


def test_an_export_that_computes_something_else_is_refused_and_leaves_nothing(
    tmp_path, monkeypatch, made, variant, tiny_classifier
):
    changed = variant(
        tiny_classifier, lambda tensors: {n: t + 0.01 * (n == "classifier.bias") for n, t in tensors.items()}
    )

    def other(_, __, path, **___):
        shutil.copy(made / "model.onnx", path)

    monkeypatch.setattr(torch.onnx, "export", other)
    with pytest.raises(RunError, match=r"onnxruntime does not compute what torch does; found outputs that differ by"):
        to_onnx(changed, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [changed]


def test_an_opset_that_cannot_be_had_is_told(tmp_path, monkeypatch, made, tiny_classifier):
    monkeypatch.setattr(torch.onnx, "export", lambda _, __, path, **___: shutil.copy(made / "model.onnx", path))
    with pytest.raises(ConfigError, match=r"--opset: cannot be had; found 17 for 14; leave it out"):
        to_onnx(tiny_classifier, tmp_path / "out", 14)


def test_a_model_that_cannot_be_traced_is_told(tmp_path, monkeypatch, tiny_classifier):
    def broken(*_, **__):
        raise RuntimeError("data-dependent control flow")

    monkeypatch.setattr(torch.onnx, "export", broken)
    with pytest.raises(
        RunError, match=r"torch.onnx cannot write this model; found BertForSequenceClassification, .*flow"
    ):
        to_onnx(tiny_classifier, tmp_path / "out")


def test_what_generates_text_is_refused(tmp_path):
    folder = checkpoint(tmp_path / "made", "GPT2LMHeadModel")
    with pytest.raises(ConfigError, match=r"this kind of model is not exported; found GPT2LMHeadModel"):
        to_onnx(folder)


def test_absent_packages_name_the_extra(monkeypatch, tiny_classifier):
    monkeypatch.setattr(to, "PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(ConfigError, match=r'found no no_such_package; pip install "headswap\[export\]"'):
        to_onnx(tiny_classifier)


def test_a_folder_with_other_files_is_left_alone(tmp_path, tiny_classifier):
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(ConfigError, match=r"--output: holds other files; found no onnx.json"):
        to_onnx(tiny_classifier, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years"


@pytest.mark.parametrize("words", [[], ["--to", "onnx", "--push", "me/model"]])
def test_one_of_two_ways_is_asked_for(capsys, tmp_path, words):
    assert exported([str(tmp_path), *words]) == 2
    assert "needs --to onnx or --push OWNER/NAME, one of them" in capsys.readouterr().err


class Hub:
    """What push asks of HfApi; it remembers what it was given."""

    calls: list = []  # noqa: RUF012
    public = False
    fault: Exception | None = None

    def create_repo(self, name, private, exist_ok):
        self.calls.append(("create", name, private, exist_ok))
        if self.fault:
            raise self.fault
        return f"https://hub.example/{name}"

    def repo_info(self, name):
        return type("Info", (), {"private": not self.public})

    def upload_folder(self, repo_id, folder_path, commit_message):
        self.calls.append(("upload", repo_id, sorted(each.name for each in Path(folder_path).iterdir())))


@pytest.fixture
def hub(monkeypatch) -> type[Hub]:
    import huggingface_hub

    stand_in = type("StandIn", (Hub,), {"calls": []})
    monkeypatch.setattr(huggingface_hub, "HfApi", stand_in)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_thetoken")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return stand_in


@pytest.fixture
def run(tmp_path, tiny_classifier) -> Path:
    return make_run(tmp_path / "run", tiny_classifier)


def test_push_uploads_the_model_folder(capsys, hub, run):
    (run / "model" / "README.md").write_text("a card")
    assert exported([str(run), "--push", "me/model", "--private"]) == 0
    files = sorted(each.name for each in (run / "model").iterdir())
    assert hub.calls == [("create", "me/model", True, True), ("upload", "me/model", files)]
    assert "README.md" in files and "config.yaml" not in files
    assert capsys.readouterr().out == "https://hub.example/me/model\n"


def test_a_public_repository_does_not_take_what_is_private(hub, run):
    hub.public = True
    with pytest.raises(ConfigError, match=r"--private: the repository exists and is public; found me/model"):
        push(run, "me/model", private=True)
    assert [call[0] for call in hub.calls] == ["create"]


def test_a_refusal_is_told_without_the_token(capsys, hub, run):
    hub.fault = ConnectionError("403 Forbidden for hf_thetoken\nat the hub")
    assert exported([str(run), "--push", "me/model"]) == 1
    told = capsys.readouterr().err
    assert "--push: the hub did not take it; found ConnectionError: 403 Forbidden for *** at the hub; check" in told
    assert "hf_thetoken" not in told and told.count("\n") == 1


def test_offline_or_without_a_login_nothing_is_tried(monkeypatch, hub, run):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(
        ConfigError, match=r"--push: nobody is logged in to the hub; found no token; run: hf auth login"
    ):
        push(run, "me/model")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"--push: the hub is switched off; found HF_HUB_OFFLINE=1"):
        push(run, "me/model")
    assert hub.calls == []


@pytest.mark.parametrize("name", ["model", "me/", "me/model/more", "../x/y", "me/mo del"])
def test_only_owner_and_name_are_a_hub_id(hub, run, name):
    with pytest.raises(ConfigError, match="--push: not a hub id"):
        push(run, name)


def test_a_damaged_or_a_plain_folder_is_not_pushed(hub, run, tiny_classifier):
    with pytest.raises(ConfigError, match="not a run's folder; found a plain checkpoint"):
        push(tiny_classifier, "me/model")
    (run / "model" / "manifest.json").write_text("")
    with pytest.raises(HeadswapError, match="not a whole manifest"):
        push(run, "me/model")
    assert hub.calls == []
