"""Checkpoints that a stranger wrote: nothing of them runs unless the user says so. Names in them: test_confinement.py.

Every fixture leaves a marker file when its code runs, and is shown to do so where nothing guards.
"""

import io
import json
import pickle
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch

from headswap.bodies.transformer import TransformerBody
from headswap.contracts import Labels
from headswap.errors import ConfigError, WeightsError
from headswap.model import describe, save
from headswap.predict.predictor import Predictor
from own_code import AUTO_MAP, bag_of_words, modules_apart
from swapping import TASK, swap

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "the-code-ran"


@pytest.fixture
def bag(tiny_body, tmp_path, marker, monkeypatch):
    modules_apart(tmp_path / "modules", monkeypatch)
    return bag_of_words(tmp_path / "bag", tiny_body, marker)


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


# Pickles


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.safetensors", "training_args.bin"])
def test_a_pickle_is_refused_unopened(name, tiny_body, variant, marker):
    folder = variant(tiny_body, architectures=["BertForSequenceClassification"])
    (folder / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": Bomb(marker)}, folder / name)
    torch.load(io.BytesIO((folder / name).read_bytes()), weights_only=False)
    assert marker.exists()  # so it is dangerous
    marker.unlink()
    with pytest.raises(WeightsError, match=r"convert it once|truncated or not safetensors|no model\.safetensors"):
        swap(folder)
    with pytest.raises(WeightsError):
        Predictor(folder)
    if name != "model.safetensors":
        swap(folder, init="random")
    assert not marker.exists()


def test_a_pickle_beside_safetensors_is_left_alone(tiny_body, variant, marker):
    folder = variant(tiny_body)
    for name in ("pytorch_model.bin", "optimizer.pt", "training_args.bin", "vocab.pkl"):
        (folder / name).write_bytes(pickle.dumps(Bomb(marker)))
    swap(folder)
    TransformerBody(str(folder)).tokenizer()
    assert not marker.exists()
    pickle.loads((folder / "vocab.pkl").read_bytes())
    assert marker.exists()


# Code in a checkpoint


def test_the_code_of_a_checkpoint_does_not_run_unasked(bag, marker):
    body = TransformerBody(str(bag))
    for use in (body.locate, body.tokenizer, lambda: swap(bag), lambda: describe(body, Labels(("a", "b")), TASK)):
        with pytest.raises(
            WeightsError, match=r"its code lies in the checkpoint .*; body\.trust_remote_code=true runs"
        ):
            use()
    with pytest.raises(WeightsError, match=r"load\(\.\.\., trust_remote_code=True\) runs it"):
        Predictor(bag)
    assert body.notices() == [] and not marker.exists()


def test_code_for_an_architecture_that_transformers_has_is_passed_over(tiny_body, bag, variant, marker):
    own = {**AUTO_MAP, "AutoTokenizer": ["modeling_bag.BagModel", None]}
    folder = variant(tiny_body, auto_map=own)
    for name in ("configuration_bag.py", "modeling_bag.py"):
        shutil.copy(bag / name, folder / name)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"auto_map": own, "tokenizer_class": "Bert"}))
    model, _ = swap(folder)
    TransformerBody(str(folder)).tokenizer()
    assert type(model).__module__.startswith("transformers.models.bert") and not marker.exists()


def test_the_code_of_a_tokenizer_does_not_run_unasked(tiny_body, bag, variant, marker):
    folder = variant(tiny_body, model_type="vit")  # an architecture without a tokenizer of its own
    shutil.copy(bag / "configuration_bag.py", folder / "tokenization_bag.py")
    table = {"tokenizer_class": "BagTokenizer", "auto_map": {"AutoTokenizer": ["tokenization_bag.BagTokenizer", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(table))
    with pytest.raises(WeightsError, match=r"the tokenizer does not load; .*custom code"):
        TransformerBody(str(folder)).tokenizer()
    assert not marker.exists()
    with pytest.raises(
        WeightsError, match=r"the tokenizer does not load; .*BagTokenizer"
    ):  # the file has no such class
        TransformerBody(str(folder), trust_remote_code=True).tokenizer()
    assert marker.exists()


def test_trusted_code_is_swapped_saved_and_used_and_said_loudly(bag, marker, tmp_path, capfd):
    body = TransformerBody(str(bag), trust_remote_code=True)
    model, ledger = swap(bag, trust_remote_code=True, pad_token_id=0)
    said = f"Python code of {bag} runs here with all your rights: configuration_bag.py, modeling_bag.py"
    assert marker.exists() and body.notices() == [f"body.trust_remote_code=true: {said}"]
    assert capfd.readouterr().err.count(said) == 1
    assert ledger.coverage == 1.0 and ledger.architecture == "BagForSequenceClassification"
    assert {(each.part, each.fate) for each in ledger.entries} == {("body", "kept"), ("head", "new")}
    tokenizer = body.tokenizer()
    tokens = tokenizer(["good film", "dull"], return_tensors="pt", padding=True)
    model(input_ids=tokens["input_ids"], labels=torch.tensor([2, 0])).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())

    save(model, tokenizer, tmp_path / "saved", "card")
    assert (tmp_path / "saved" / "modeling_bag.py").read_text() == (bag / "modeling_bag.py").read_text()
    with pytest.raises(WeightsError, match="its code lies in the checkpoint"):
        Predictor(tmp_path / "saved")
    answer = Predictor(tmp_path / "saved", trust_remote_code=True)(["good film"])[0]
    with torch.no_grad():
        tokens = tokenizer(["good film"], return_tensors="pt")
        expected = model.eval()(tokens["input_ids"], tokens["attention_mask"]).logits.softmax(-1)[0].tolist()
    assert list(answer.scores.values()) == pytest.approx(expected, abs=1e-6)
    again, kept = swap(tmp_path / "saved", trust_remote_code=True)
    assert kept.coverage == 1.0 and torch.equal(again.bag.words.weight, model.bag.words.weight)


def test_trusted_code_has_a_random_twin_and_is_counted(bag):
    _, ledger = swap(bag, trust_remote_code=True, init="random")
    counts = describe(TransformerBody(str(bag), trust_remote_code=True), Labels(("a", "b")), TASK)
    assert ledger.coverage == 0.0 and (counts["body"], counts["head"]) == (128 * 8 + 8 * 8 + 8, 2 * 8 + 2)


@pytest.mark.parametrize(
    "name", ["other/code--modeling_bag.Bag", "EVIL.Bag", "../bag/modeling_bag.Bag", ".modeling_bag.Bag", "Bag", 7]
)
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_trusted_code_lies_in_the_checkpoints_folder(name, file, bag, marker, tmp_path):
    (tmp_path / "evil.py").write_text((bag / "configuration_bag.py").read_text())
    name = str(tmp_path / "evil.Bag") if name == "EVIL.Bag" else name
    settings = json.loads((bag / file).read_text())
    settings["auto_map"] = (
        {"AutoTokenizer": [name, None]} if file.startswith("tok") else {**AUTO_MAP, "AutoConfig": name}
    )
    (bag / file).write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match=rf"{file}: auto_map names code outside the checkpoint's folder; found "):
        TransformerBody(str(bag), trust_remote_code=True).locate()
    assert not marker.exists()


def test_trusted_code_may_not_be_a_link_out_of_the_folder(bag, tmp_path, marker):
    (bag / "modeling_bag.py").rename(tmp_path / "elsewhere.py")
    (bag / "modeling_bag.py").symlink_to(tmp_path / "elsewhere.py")
    with pytest.raises(WeightsError, match=r"names a file outside its folder; found 'modeling_bag\.py' \(a symlink"):
        TransformerBody(str(bag), trust_remote_code=True).locate()
    assert not marker.exists()


def test_code_that_runs_belongs_to_the_bodys_identity(bag):
    trusted, other = TransformerBody(str(bag), trust_remote_code=True), TransformerBody(str(bag))
    known = trusted.identity()
    assert known != other.identity()
    (bag / "modeling_bag.py").write_text((bag / "modeling_bag.py").read_text() + "\n# changed\n")
    assert trusted.identity() != known and other.identity() == TransformerBody(str(bag)).identity()


def test_code_from_the_hub_is_pinned_to_a_commit_and_has_no_mirrors(bag, monkeypatch):
    calls = []

    def download(repository, **settings):
        calls.append(settings)
        return str(bag)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    for revision in (None, "main", "v1.0", "0123456"):
        with pytest.raises(ConfigError, match=r"body\.revision: code that may run must be one that was read"):
            TransformerBody("some/body", revision=revision, trust_remote_code=True).locate()
    assert calls == []
    TransformerBody("some/body", revision=COMMIT, trust_remote_code=True).locate()
    assert calls[0]["revision"] == COMMIT and "*.py" in calls[0]["allow_patterns"]
    with pytest.raises(WeightsError):
        TransformerBody("some/body", revision=COMMIT).locate()
    assert "*.py" not in calls[1]["allow_patterns"]
    with pytest.raises(ConfigError, match=r"body\.trust_remote_code: nothing proves that a mirror"):
        TransformerBody("some/body", mirrors=["x"], sha256="0" * 64, trust_remote_code=True)


def test_an_attention_that_is_code_on_the_hub_is_left_out(tiny_body, variant):
    model, _ = swap(variant(tiny_body, attn_implementation="evil/kernels"))
    assert "evil" not in str(model.config._attn_implementation)
    model, _ = swap(variant(tiny_body, _attn_implementation="eager"))
    assert model.config._attn_implementation == "eager"


def test_no_module_of_headswap_unpickles_or_evaluates():
    source = Path(__file__).parents[1] / "src" / "headswap"
    words = (
        "import pickle",
        "_pickle(",
        "torch.load(",
        "marshal",
        "import joblib",
        "from joblib",
        "joblib.load(",
        " eval(",
        " exec(",
        "unsafe_load",
        "yaml.load(",
    )
    found = [f"{path.name}: {word}" for path in source.rglob("*.py") for word in words if word in path.read_text()]
    assert found == []
