"""heads/: what a new head takes over from the checkpoint's."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from headswap.bodies.transformer import TransformerBody
from headswap.contracts import HeadTensor, Labels
from headswap.errors import WeightsError
from headswap.heads.by_label import ByLabel
from headswap.heads.fresh import Fresh
from headswap.heads.if_present import IfPresent
from headswap.heads.keep import Keep
from headswap.model import join
from headswap.seeds import Seeds

TASK = "AutoModelForSequenceClassification"
NAMES = ("negative", "neutral", "positive")


def swap(folder, head, names, init="pretrained", problem="single_label_classification", task=TASK):
    return join(TransformerBody(str(folder), init=init), head, Labels(tuple(names), problem), Seeds(3), task)


def test_keep_copies_the_whole_head(tiny_classifier):
    model, ledger = swap(tiny_classifier, Keep(), NAMES)
    file = load_file(tiny_classifier / "model.safetensors")
    assert all(torch.equal(value, file[name]) for name, value in model.state_dict().items())
    assert {(each.part, each.fate) for each in ledger.entries} == {("body", "kept"), ("head", "kept")}
    assert (ledger.copied_labels, ledger.new_labels, ledger.retired_labels) == (NAMES, (), ())


def test_keep_refuses_other_labels_and_another_order(tiny_classifier, tiny_body):
    told = (
        r"labels are not the task's; found \['negative', 'neutral', 'positive'\] there and \['neutral'.*head=by_label"
    )
    with pytest.raises(WeightsError, match=told):
        swap(tiny_classifier, Keep(), ("neutral", "negative", "positive"))
    with pytest.raises(
        WeightsError, match=r"lacks the head of Bert.*no classifier\.weight, classifier\.bias; use head=fresh"
    ):
        swap(tiny_body, Keep(), NAMES)


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (("negative", "positive"), ((0, 0), (2, 1))),
        (("Positive", "mixed", "NEUTRAL", "negative"), ((0, 3), (1, 2), (2, 0))),
        (("a", "b", "positive"), ((2, 2),)),
        (("positive", "neutral", "negative"), ((0, 2), (1, 1), (2, 0))),
    ],
)
def test_by_label_copies_the_rows_of_shared_names_and_draws_the_others(tiny_classifier, names, pairs):
    model, ledger = swap(tiny_classifier, ByLabel(), names)
    fresh, _ = swap(tiny_classifier, Fresh(), names)
    file = load_file(tiny_classifier / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        expected = fresh.state_dict()[name].clone()
        for old, new in pairs:
            expected[new] = file[name][old]
        assert torch.equal(model.state_dict()[name], expected)
    heads = [each for each in ledger.entries if each.part == "head"]
    assert [(each.name, each.fate, each.rows, each.source) for each in heads] == [
        ("classifier.weight", "rows copied", pairs, "classifier.weight"),
        ("classifier.bias", "rows copied", pairs, "classifier.bias"),
    ]
    assert set(ledger.copied_labels) == {names[new] for _, new in pairs}
    assert set(ledger.new_labels) == set(names) - set(ledger.copied_labels)
    assert set(ledger.retired_labels) == set(NAMES) - {NAMES[old] for old, _ in pairs}
    assert any(row[0] == "labels" and "copied: " in row[4] for row in ledger.table())


def test_by_label_gives_the_random_twin_the_same_head(tiny_classifier):
    pretrained, _ = swap(tiny_classifier, ByLabel(), ("positive", "new"))
    random, ledger = swap(tiny_classifier, ByLabel(), ("positive", "new"), init="random")
    assert torch.equal(pretrained.classifier.weight, random.classifier.weight)
    assert ledger.coverage == 0.0 and ledger.copied_labels == ("positive",)


def test_by_label_takes_renamed_labels(tiny_classifier, variant):
    anonymous = variant(tiny_classifier, id2label={"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, label2id=None)
    head = ByLabel(rename={"LABEL_2": "good"})
    model, ledger = swap(anonymous, head, ("bad", "good"))
    file = load_file(tiny_classifier / "model.safetensors")
    assert torch.equal(model.classifier.weight[1], file["classifier.weight"][2])
    assert (ledger.copied_labels, ledger.retired_labels) == (("good",), ("LABEL_0", "LABEL_1"))


@pytest.mark.parametrize(
    ("head", "names", "told"),
    [
        (
            ByLabel(),
            ("x", "y"),
            r"no label in common; found \['negative', .*\] in the checkpoint and \['x', 'y'\] in the",
        ),
        (
            ByLabel({"negativ": "x"}),
            ("x", "y"),
            r"head\.rename: the checkpoint has no label 'negativ'.*did you mean neg",
        ),
        (ByLabel({"negative": "z"}), ("x", "y"), r"head\.rename: the task has no label 'z'"),
        (ByLabel({"neutral": "negative"}), ("negative", "y"), "two labels of the checkpoint claim one of the task"),
    ],
)
def test_by_label_refuses_what_it_cannot_decide(tiny_classifier, head, names, told):
    with pytest.raises(WeightsError, match=told):
        swap(tiny_classifier, head, names)


def test_by_label_refuses_labels_without_names_and_bodies_without_a_head(tiny_classifier, tiny_body, variant):
    anonymous = variant(tiny_classifier, id2label=None, label2id=None)
    with pytest.raises(WeightsError, match=r"does not name its labels; found no names .*head\.rename=\{LABEL_0: a\}"):
        swap(anonymous, ByLabel(), ("a", "b"))
    with_names = variant(tiny_body, id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1})
    with pytest.raises(WeightsError, match="the checkpoint lacks the output layer of BertForSequenceClassification"):
        swap(with_names, ByLabel(), ("a", "b"))


def test_by_label_carries_one_regression_to_another(tiny_classifier, tmp_path):
    config = AutoConfig.from_pretrained(tiny_classifier, id2label={0: "stars"}, label2id={"stars": 0})
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    model, _ = swap(tmp_path, ByLabel(), ("stars",), problem="regression")
    assert torch.equal(model.classifier.weight, load_file(tmp_path / "model.safetensors")["classifier.weight"])


def test_a_hidden_size_that_equals_the_label_count_is_not_taken_for_the_labels(tmp_path):
    names = [f"class{number}" for number in range(8)]
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: row for row, name in enumerate(names)}}
    sizes = {
        "vocab_size": 50,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    RobertaForSequenceClassification(RobertaConfig(**sizes, **labels)).save_pretrained(tmp_path)
    model, ledger = swap(tmp_path, ByLabel(), list(reversed(names)))
    file = load_file(tmp_path / "model.safetensors")
    assert torch.equal(model.classifier.dense.weight, file["classifier.dense.weight"])
    assert torch.equal(model.classifier.out_proj.weight, file["classifier.out_proj.weight"].flip(0))
    fates = {each.name: each.fate for each in ledger.entries if each.part == "head"}
    assert fates["classifier.dense.weight"] == "kept" and fates["classifier.out_proj.weight"] == "rows copied"


def test_if_present_keeps_what_is_there_and_draws_the_rest(tiny_classifier, tiny_body):
    kept, ledger = swap(tiny_classifier, IfPresent(), NAMES)
    file = load_file(tiny_classifier / "model.safetensors")
    assert torch.equal(kept.classifier.weight, file["classifier.weight"]) and ledger.copied_labels == NAMES
    for folder, names, init in ((tiny_body, ("a", "b"), "pretrained"), (tiny_classifier, NAMES, "random")):
        drawn, ledger = swap(folder, IfPresent(), names, init)
        fresh, _ = swap(folder, Fresh(), names, init)
        assert torch.equal(drawn.classifier.weight, fresh.classifier.weight)
        assert {each.fate for each in ledger.entries if each.part == "head"} == {"new"}


def test_if_present_keeps_the_layers_before_the_labels(tmp_path):
    sizes = {"vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    RobertaForSequenceClassification(RobertaConfig(**sizes, intermediate_size=8, num_labels=4)).save_pretrained(
        tmp_path
    )
    whole = load_file(tmp_path / "model.safetensors")
    save_file({name: each for name, each in whole.items() if "out_proj" not in name}, tmp_path / "model.safetensors")
    model, ledger = swap(tmp_path, IfPresent(), ("a", "b"))
    assert torch.equal(model.classifier.dense.weight, whole["classifier.dense.weight"])
    fates = {each.name: each.fate for each in ledger.entries if each.part == "head"}
    assert fates["classifier.dense.bias"] == "kept" and fates["classifier.out_proj.bias"] == "new"


def test_if_present_refuses_another_shape_and_other_labels(tiny_classifier):
    with pytest.raises(WeightsError, match=r"has another shape; found classifier\.weight \[3, 32\] for \[2, 32\]"):
        swap(tiny_classifier, IfPresent(), ("negative", "positive"))
    told = r"head=if_present: the checkpoint's labels are not the task's; found .* head=by_label"
    with pytest.raises(WeightsError, match=told):
        swap(tiny_classifier, IfPresent(), tuple(reversed(NAMES)))


def test_outputs_that_are_no_labels_are_kept_whole_or_not_at_all(tiny_body, variant, tmp_path):
    task = "AutoModelForQuestionAnswering"
    BertForQuestionAnswering(AutoConfig.from_pretrained(tiny_body)).save_pretrained(tmp_path / "spans")
    stale = {"id2label": {"0": "x", "1": "y"}, "label2id": {"x": 0, "y": 1}}
    folder = variant(tmp_path / "spans", **stale)
    labels = {"problem": "question_answering", "task": task}
    model, ledger = swap(folder, Keep(), (), **labels)
    assert torch.equal(model.qa_outputs.weight, load_file(folder / "model.safetensors")["qa_outputs.weight"])
    assert (ledger.labels, ledger.copied_labels, ledger.retired_labels) == ((), (), ())
    with pytest.raises(WeightsError, match="the outputs of this task are no labels; found question_answering; use"):
        swap(folder, ByLabel(), (), **labels)


def test_by_label_serves_labels_that_do_not_exclude_one_another(tiny_classifier):
    model, _ = swap(tiny_classifier, ByLabel(), ("new", "positive"), problem="multi_label_classification")
    file = load_file(tiny_classifier / "model.safetensors")
    assert torch.equal(model.classifier.weight[1], file["classifier.weight"][2])
    assert model.config.problem_type == "multi_label_classification"


class Liar:
    """Changes the head and does not tell."""

    def place(self, model, head, source, labels):
        head["classifier.bias"].fill_(1.0)
        return [HeadTensor("classifier.weight", "new")]


def test_a_head_that_does_other_than_it_tells_is_refused(tiny_body):
    with pytest.raises(WeightsError, match=r"Liar did not do what it told; found other values in classifier\.bias"):
        swap(tiny_body, Liar(), ("a", "b"))
