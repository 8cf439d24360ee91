"""model.py: the head swap. Expected values come from the safetensors files and from transformers itself."""

import copy
import json

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from headswap.bodies.transformer import TransformerBody
from headswap.contracts import Labels
from headswap.errors import ConfigError, WeightsError
from headswap.ledger import Ledger, tensor_sha256
from headswap.model import describe, role_names, save
from swapping import TASK, THREE, entry, mlm, stored, swap


def test_the_body_is_the_file_bit_for_bit_and_the_head_is_new(tiny_body):
    model, ledger = swap(tiny_body)
    file = stored(tiny_body)
    body = model.base_model.state_dict()
    assert body.keys() == file.keys()
    assert all(torch.equal(body[name], file[name]) for name in file)
    assert ledger.coverage == 1.0
    assert {(each.part, each.fate) for each in ledger.entries} == {("body", "kept"), ("head", "new")}
    assert {each.sha256 for each in ledger.entries} == {tensor_sha256(each) for each in model.state_dict().values()}
    assert all(each.dtype_in_file == "F32" for each in ledger.entries if each.part == "body")


def test_the_model_is_ready_to_train_with_labels_and_problem_set_together(tiny_body):
    model, _ = swap(tiny_body, pad_token_id=0)
    assert model.training and all(each.requires_grad and each.dtype == torch.float32 for each in model.parameters())
    assert model.config.id2label == dict(enumerate(THREE.names))
    assert model.config.label2id == {"negative": 0, "neutral": 1, "positive": 2}
    assert (model.config.num_labels, model.config.problem_type) == (3, "single_label_classification")
    assert model(torch.tensor([[2, 6, 7, 3]]), labels=torch.tensor([1])).loss.requires_grad


def test_regression_has_one_output(tiny_body, tiny_classifier):
    for folder in (tiny_body, tiny_classifier):
        model, _ = swap(folder, labels=Labels(("stars",), "regression"))
        assert model(torch.tensor([[2, 6, 3]])).logits.shape == (1, 1)
        assert model.config.problem_type == "regression" and model.config.id2label == {0: "stars"}


@pytest.mark.parametrize("count", [2, 4])
def test_another_label_count_replaces_the_head_and_lists_the_old_one_as_dropped(tiny_classifier, count):
    model, ledger = swap(tiny_classifier, labels=Labels(tuple("abcd"[:count])))
    assert model(torch.tensor([[2, 6, 3]])).logits.shape == (1, count)
    dropped = [each for each in ledger.entries if each.fate == "dropped"]
    assert [(each.name, each.part, each.shape) for each in dropped] == [
        ("classifier.weight", "head", (3, 32)),
        ("classifier.bias", "head", (3,)),
    ]


def test_the_random_twin_has_the_same_head_and_another_body(tiny_body):
    pretrained, _ = swap(tiny_body, seed=5)
    random, ledger = swap(tiny_body, seed=5, init="random")
    twice, _ = swap(tiny_body, seed=5, init="random")
    other, _ = swap(tiny_body, seed=6, init="random")
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(pretrained.classifier.weight, random.classifier.weight)
    assert not torch.equal(random.classifier.weight, other.classifier.weight)
    assert not torch.equal(pretrained.bert.state_dict()[name], random.bert.state_dict()[name])
    assert not torch.equal(other.bert.state_dict()[name], random.bert.state_dict()[name])
    assert all(torch.equal(left, right) for left, right in zip(random.parameters(), twice.parameters(), strict=True))
    assert ledger.coverage == 0.0 and {each.fate for each in ledger.entries} == {"new"}
    assert random.classifier.weight.std().item() == pytest.approx(0.02, rel=0.3)


def test_a_random_body_needs_no_weights(tiny_body, variant):
    folder = variant(tiny_body)
    (folder / "model.safetensors").unlink()
    with_file, _ = swap(tiny_body, init="random")
    without, _ = swap(folder, init="random")
    assert all(
        torch.equal(left, right) for left, right in zip(with_file.parameters(), without.parameters(), strict=True)
    )


@pytest.mark.parametrize("init", ["pretrained", "random"])
def test_the_global_dice_stay_where_they_were(tiny_body, init):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, _ = swap(tiny_body, init=init)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    second, _ = swap(tiny_body, init=init)
    assert all(torch.equal(left, right) for left, right in zip(first.parameters(), second.parameters(), strict=True))


def test_a_half_precision_checkpoint_trains_in_float32_and_says_so(tiny_body, variant):
    folder = variant(tiny_body, lambda file: {name: value.half() for name, value in file.items()}, dtype="float16")
    model, ledger = swap(folder)
    file = stored(folder)
    assert all(torch.equal(value, file[name].float()) for name, value in model.base_model.state_dict().items())
    kept = entry(ledger, "bert.encoder.layer.0.output.dense.weight")
    assert (kept.dtype_in_file, kept.note) == ("F16", "F16 as float32")
    assert model.config.dtype == torch.float32


def test_old_names_of_norms_and_computed_buffers_are_understood(tiny_body, variant):
    def age(file):
        renamed = {}
        for name, value in file.items():
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            renamed[f"bert.{old}"] = value
        return renamed | {"bert.embeddings.position_ids": torch.arange(64)[None]}

    model, ledger = swap(variant(tiny_body, age))
    assert all(torch.equal(value, stored(tiny_body)[name]) for name, value in model.base_model.state_dict().items())
    assert entry(ledger, "bert.embeddings.LayerNorm.weight").source == "bert.embeddings.LayerNorm.gamma"
    assert (entry(ledger, "bert.embeddings.position_ids").part, ledger.coverage) == ("buffer", 1.0)


def test_the_pooler_that_a_language_model_lacks_starts_new_by_design(tiny_body, tmp_path):
    folder = mlm(tmp_path / "mlm", tiny_body)
    model, ledger = swap(folder, seed=4)
    random, _ = swap(folder, init="random", seed=4)
    assert torch.equal(model.bert.pooler.dense.weight, random.bert.pooler.dense.weight)
    name = "encoder.layer.1.output.dense.bias"
    assert torch.equal(model.bert.state_dict()[name], stored(folder)[f"bert.{name}"])
    new = entry(ledger, "bert.pooler.dense.bias")
    assert (new.part, new.fate, new.note, new.by_design) == ("body", "new", "no pooler in the checkpoint", True)
    assert ledger.coverage == 1.0  # of what such a checkpoint can have
    assert any("no pooler in the checkpoint" in row[4] for row in ledger.table())
    assert {each.name.split(".")[0] for each in ledger.entries if each.fate == "dropped"} == {"cls"}


def test_half_a_pooler_is_a_damaged_checkpoint(tiny_body, variant):
    def halve(file):
        return {name: value for name, value in file.items() if name != "pooler.dense.bias"}

    folder = variant(tiny_body, halve)
    with pytest.raises(
        WeightsError, match=r"1 body tensors are missing.*bert\.pooler\.dense\.bias.*allow_new=\[pooler\]"
    ):
        swap(folder)
    model, ledger = swap(folder, allow_new=["pooler"])
    assert 0.99 < ledger.coverage < 1.0 and not entry(ledger, "bert.pooler.dense.bias").by_design
    assert torch.equal(model.bert.pooler.dense.weight, stored(folder)["pooler.dense.weight"])
    with pytest.raises(WeightsError, match=r"too little of the body.*body\.require_coverage=0\.9999"):
        swap(folder, allow_new=[".*"], require_coverage=0.9999)


def test_overrides_reach_the_architecture(tiny_body):
    model, ledger = swap(tiny_body, config_overrides={"hidden_dropout_prob": 0.3})
    assert model.bert.embeddings.dropout.p == 0.3
    shorter, ledger = swap(tiny_body, config_overrides={"num_hidden_layers": 1}, allow_unexpected=[r"layer\.1\."])
    assert len(shorter.bert.encoder.layer) == 1
    assert entry(ledger, "encoder.layer.1.output.dense.bias").note == "allowed by body.allow_unexpected"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"hiden_dropout_prob": 0.3}, r"hiden_dropout_prob: BertConfig has no such.*did you mean hidden_dropout_prob"),
        ({"num_labels": 3}, r"config_overrides\.num_labels: not the body's to set"),
        ({"hidden_size": 30}, r"config_overrides: BertForSeq.* cannot be built.*multiple of the number"),
    ],
)
def test_a_wrong_override_is_refused(tiny_body, overrides, told):
    with pytest.raises((ConfigError, WeightsError), match=told):
        swap(tiny_body, config_overrides=overrides)


def test_the_ledger_survives_json_and_fits_a_short_table(tiny_body, tmp_path):
    _, ledger = swap(mlm(tmp_path / "mlm", tiny_body))
    assert Ledger.from_dict(json.loads(json.dumps(ledger.to_dict()))) == ledger
    summary, table = ledger.summary(), ledger.table()
    assert summary["counts"]["body"]["new"] == {"tensors": 2, "elements": 32 * 32 + 32}
    assert summary["elements"]["head"] == 3 * 32 + 3
    assert len(table) <= 12 and all(len(row) == 5 for row in table)
    assert ("head", "new", "2", "99", "classifier.weight, classifier.bias") in table


def test_roles_name_every_weight_once(tiny_body):
    model, _ = swap(tiny_body)
    roles = role_names(model)
    assert list(roles) == [name for name, _ in model.named_parameters()]
    assert roles["bert.encoder.layer.0.output.dense.weight"] == "body.encoder.layer.0.output.dense.weight"
    assert roles["classifier.bias"] == "head.classifier.bias"


def test_a_description_counts_parameters_without_reading_weights(tiny_body, variant):
    folder = variant(tiny_body)
    (folder / "model.safetensors").write_bytes(b"not read")
    model, _ = swap(tiny_body)
    told = describe(TransformerBody(str(folder)), THREE, TASK)
    assert told["body"] == sum(each.numel() for each in model.bert.parameters())
    assert (told["architecture"], told["head"]) == ("BertForSequenceClassification", 99)


def test_a_saved_model_loads_in_plain_transformers_with_equal_logits(tiny_body, tmp_path):
    body = TransformerBody(str(tiny_body))
    model, _ = swap(tiny_body)
    tokenizer, folder = body.tokenizer(), tmp_path / "run" / "model"
    for _ in range(2):  # the second one replaces the first
        save(model, tokenizer, folder, "# card\n")
    assert sorted(path.name for path in folder.parent.iterdir()) == ["model"]
    assert (folder / "README.md").read_text() == "# card\n"
    plain = AutoModelForSequenceClassification.from_pretrained(folder)
    batch = tokenizer(["a good film", "so dull"], return_tensors="pt", padding=True)
    with torch.no_grad():
        assert torch.equal(plain(**batch).logits, model.eval()(**batch).logits)
    assert plain.config.id2label[2] == "positive"


def test_a_model_that_would_be_saved_wrongly_is_not_saved(tiny_body, tmp_path, monkeypatch):
    model, _ = swap(tiny_body)
    tokenizer = TransformerBody(str(tiny_body)).tokenizer()
    wrong, _ = swap(tiny_body, seed=1)
    monkeypatch.setattr(model, "save_pretrained", wrong.save_pretrained)
    with pytest.raises(WeightsError, match=r"the saved model is not the trained one; .*classifier\.weight"):
        save(model, tokenizer, tmp_path / "model", "")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(WeightsError, match=r"only float32 weights are saved; found \['torch.bfloat16'\]"):
        save(copy.deepcopy(wrong).bfloat16(), tokenizer, tmp_path / "model", "")


def test_the_features_of_the_body_are_those_of_the_plain_body(tiny_body):
    model, _ = swap(tiny_body)
    batch = torch.tensor([[2, 6, 7, 3]])
    plain = AutoModel.from_pretrained(tiny_body).eval()
    with torch.no_grad():
        left, right = model.base_model.eval()(batch).last_hidden_state, plain(batch).last_hidden_state
    assert torch.equal(left, right)
