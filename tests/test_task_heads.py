"""The head swap for every task and family that transformers serves; the file and plain transformers are the reference."""

import json

import pytest
import torch
import transformers
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, MarianMTModel

from headswap.architecture import body_modules, split
from headswap.contracts import Labels
from headswap.errors import WeightsError
from headswap.heads.by_label import ByLabel
from headswap.heads.if_present import IfPresent
from headswap.model import role_names, save
from headswap.taskconfig import SpecialTokens
from swapping import TASK, entry, stored, swap
from tiny_bodies import SETTINGS, NoTokenizer, saved

TOKENS = SpecialTokens(1, 0, 2, 40)
PROBLEMS = {
    "AutoModelForTokenClassification": "token_classification",
    "AutoModelForQuestionAnswering": "question_answering",
    "AutoModelForMultipleChoice": "multiple_choice",
    "AutoModelForSeq2SeqLM": "sequence_to_sequence",
    "AutoModelForMaskedLM": "masked_language_modeling",
    "AutoModelForCausalLM": "causal_language_modeling",
}
TAGS = ("O", "B-person", "I-person")
INPUT = torch.tensor([[0, 5, 6, 7, 8, 2], [0, 15, 16, 2, 1, 1]])


def served(kind, task):
    auto = getattr(transformers, task)
    half = task.endswith("CausalLM") and CONFIG_MAPPING[kind]().is_encoder_decoder
    return CONFIG_MAPPING[kind] in auto._model_mapping and not half and (kind, task[12:]) != ("xlnet", "CausalLM")


PAIRS = [(kind, task) for kind in SETTINGS for task in PROBLEMS if served(kind, task)]


def labels_of(task):
    return Labels(TAGS if "TokenClassification" in task else (), PROBLEMS[task])


def swapped(folder, task, **settings):
    return swap(folder, labels=labels_of(task), task=task, tokens=TOKENS, **settings)


def outputs(model, task):
    for each in model.parameters():  # tensors read from a file lie anywhere, and sums may differ in the last bit
        each.data = each.data.clone()
    batch = {"input_ids": INPUT, "attention_mask": (INPUT != 1).long()}
    if "MultipleChoice" in task:
        batch = {name: value[None] for name, value in batch.items()}
    if "Seq2Seq" in task:
        batch["decoder_input_ids"] = INPUT[:, :3]
    with torch.no_grad():
        found = model.eval()(**batch)
    return [found.start_logits, found.end_logits] if "QuestionAnswering" in task else [found.logits]


@pytest.fixture(scope="module")
def bodies(tmp_path_factory):
    """A function that gives the folder of a family's body, or of its language model, made once."""
    made = {}

    def give(kind, task=None):
        if (kind, task) not in made:
            auto = getattr(transformers, task or "AutoModel")
            made[kind, task] = saved(kind, tmp_path_factory.mktemp(kind) / "body", auto)
        return made[kind, task]

    return give


@pytest.mark.parametrize(("kind", "task"), PAIRS)
def test_a_body_gets_the_head_of_any_task(kind, task, bodies, tmp_path):
    folder = bodies(kind)
    model, ledger = swapped(folder, task, seed=3)
    file = stored(folder)
    inside = getattr(model, model.base_model_prefix, model).state_dict()
    left = {name.split(".")[0] for name in file if name not in inside}
    assert left <= {"pooler", *(["decoder"] if kind == "t5" else [])}
    assert all(torch.equal(inside[name], value) for name, value in file.items() if name in inside)
    body, head = split(model)
    known = {id(value) for name, value in model.state_dict(keep_vars=True).items() if name.split(".", 1)[-1] in file}
    known |= {id(value) for name, value in model.state_dict(keep_vars=True).items() if name in file}
    assert {id(each) for each in body.values()} <= known and not {id(each) for each in head.values()} & known
    assert ledger.coverage == 1.0
    assert {each.fate for each in ledger.entries if each.part == "body"} <= {"kept", "dropped"}

    twin, _ = swapped(folder, task, seed=3, init="random")
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in head.items())
    assert {each.name for each in ledger.entries if each.part == "head" and each.fate == "new"} == head.keys()
    assert {role.split(".")[0] for role in role_names(model).values()} == {"body", *(["head"] if head else [])}

    save(model, NoTokenizer(), tmp_path / "saved", "")
    plain, told = getattr(transformers, task).from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not told["unexpected_keys"] and all("embed_positions" in name for name in told["missing_keys"])
    for each in plain.parameters():
        each.data = (
            each.data.clone()
        )  # read from a file they lie anywhere, and sums over them may differ in the last bit
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())
    for left_output, right_output in zip(outputs(model, task), outputs(plain, task), strict=True):
        assert torch.equal(left_output, right_output)


@pytest.mark.parametrize(("kind", "task"), PAIRS)
def test_no_label_of_the_checkpoint_survives(kind, task, bodies):
    model, _ = swapped(bodies(kind), task)
    config, found = model.config, outputs(model, task)
    assert config.problem_type is None
    if "TokenClassification" in task:
        assert (config.id2label, config.label2id) == (dict(enumerate(TAGS)), {tag: row for row, tag in enumerate(TAGS)})
        assert found[0].shape == (*INPUT.shape, 3)
    else:
        assert config.num_labels == 2 and not any("old" in name for name in config.id2label.values())
        shapes = {"QuestionAnswering": INPUT.shape, "MultipleChoice": (1, 2)}
        assert all(each.shape == shapes.get(task[12:], (*each.shape[:2], 40)) for each in found)


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification", "regression"])
def test_classifiers_say_their_problem(problem, bodies):
    model, _ = swap(bodies("bert"), labels=Labels(("a", "b"), problem))
    assert (model.config.problem_type, model.config.id2label) == (problem, {0: "a", 1: "b"})


@pytest.mark.parametrize(("kind", "task"), [pair for pair in PAIRS if pair[1].endswith("LM")])
def test_a_pretrained_language_model_goes_on_as_it_is(kind, task, bodies):
    folder = bodies(kind, task)
    model, ledger = swapped(folder, task, head=IfPresent())
    plain = getattr(transformers, task).from_pretrained(folder)
    loaded = plain.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())
    assert ledger.coverage == 1.0
    new = {each.note for each in ledger.entries if each.fate == "new"}
    assert new <= ({"computed by the architecture"} if kind == "marian" else set())
    if not getattr(model.config, "is_decoder", False):  # plain transformers would leave an encoder's sight as it was
        assert torch.equal(outputs(model, task)[0], outputs(plain, task)[0])
    random, drawn = swapped(folder, task, head=IfPresent(), init="random")
    fresh, _ = swapped(folder, task, init="random")
    assert all(torch.equal(value, random.state_dict()[name]) for name, value in fresh.state_dict().items())
    assert {each.fate for each in drawn.entries} == {"new"}


@pytest.mark.parametrize("kind", ["bert", "t5", "gpt2", "bart", "modernbert"])
def test_tied_output_embeddings_are_the_bodys(kind, bodies):
    task = next(task for task in PROBLEMS if task.endswith("LM") and served(kind, task))
    model, ledger = swapped(bodies(kind), task)
    body, _ = split(model)
    names = [name for name, each in body.items() if each is model.get_output_embeddings().weight]
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight and len(names) == 1
    assert (entry(ledger, names[0]).part, entry(ledger, names[0]).fate) == ("body", "kept")


@pytest.mark.parametrize(("kind", "task"), [("t5", "AutoModelForSeq2SeqLM"), ("roberta", "AutoModelForMaskedLM")])
def test_untied_output_embeddings_are_the_heads(kind, task, tmp_path):
    folder = saved(kind, tmp_path / "body", getattr(transformers, task), tie_word_embeddings=False)
    if kind == "t5":  # as T5 1.1 and FLAN are published; the config of transformers 5 cannot say it
        file = stored(folder)
        save_file(file | {"lm_head.weight": file["shared.weight"] * 2}, folder / "model.safetensors", {"format": "pt"})
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    kept, _ = swapped(folder, task, head=IfPresent())
    fresh, ledger = swapped(folder, task, seed=4)
    twin, _ = swapped(folder, task, seed=4, init="random")
    name = next(name for name, each in split(kept)[1].items() if each is kept.get_output_embeddings().weight)
    assert (entry(ledger, name).part, entry(ledger, name).fate) == ("head", "new")
    assert torch.equal(kept.state_dict()[name], stored(folder)[name])
    assert torch.equal(fresh.state_dict()[name], twin.state_dict()[name])
    assert not torch.equal(fresh.state_dict()[name], kept.state_dict()[name])
    plain = getattr(transformers, task).from_pretrained(folder)
    assert torch.equal(outputs(kept, task)[0], outputs(plain, task)[0])
    save(kept, NoTokenizer(), tmp_path / "run", "")
    again, _ = swapped(tmp_path / "run", task, head=IfPresent())
    plain = getattr(transformers, task).from_pretrained(tmp_path / "run")
    for model in (again, plain):
        assert torch.equal(outputs(model, task)[0], outputs(kept, task)[0])
    longer = SpecialTokens(1, 0, 2, 43)
    model, _ = swap(folder, labels=labels_of(task), task=task, tokens=longer, resize_embeddings=True)
    assert outputs(model, task)[0].shape[-1] == 43 and split(model)[1][name].shape[0] == 43


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_an_encoder_that_models_language_causally_sees_no_later_word(kind, bodies, tmp_path):
    model, ledger = swapped(bodies(kind), "AutoModelForCausalLM")
    assert model.config.is_decoder and ledger.notes == ("is_decoder=true: each token sees those before it",)
    assert ("task", "", "", "", ledger.notes[0]) in ledger.table()
    base = model.eval()(INPUT[:1]).logits
    for place in range(1, INPUT.shape[1]):
        other = INPUT[:1].clone()
        other[0, place] = 30
        changed = model(other).logits
        assert torch.allclose(base[:, :place], changed[:, :place], atol=1e-6)
        assert not torch.allclose(base[:, place], changed[:, place], atol=1e-6)
    save(model, NoTokenizer(), tmp_path / "run", "")
    classifier, ledger = swap(tmp_path / "run")  # its first token would see itself alone
    assert not classifier.config.is_decoder and ledger.notes == ("is_decoder=false: tokens see both sides",)
    kept, _ = swap(tmp_path / "run", config_overrides={"is_decoder": True})
    assert kept.config.is_decoder


def test_what_cannot_model_language_causally_is_refused(bodies):
    with pytest.raises(WeightsError, match=r"XLNetLMHeadModel sees the words that a causal language model predicts"):
        swapped(bodies("xlnet"), "AutoModelForCausalLM")
    for kind in ("t5", "bart", "marian"):
        with pytest.raises(WeightsError, match=rf"half of an encoder-decoder is no causal.*model_type '{kind}'"):
            swapped(bodies(kind), "AutoModelForCausalLM")


@pytest.mark.parametrize(
    ("kind", "first"),
    [("bert", "MaskedLM"), ("roberta", "MaskedLM"), ("albert", "MaskedLM"), ("modernbert", "MaskedLM"),
     ("gpt2", "CausalLM"), ("llama", "CausalLM"), ("llama", "QuestionAnswering"), ("t5", "Seq2SeqLM")],
)  # fmt: skip
@pytest.mark.parametrize("then", [TASK, "AutoModelForTokenClassification", "AutoModelForQuestionAnswering"])
def test_the_body_of_one_task_is_the_next_ones(kind, first, then, bodies, tmp_path):
    one, _ = swapped(bodies(kind), f"AutoModelFor{first}")
    save(one, NoTokenizer(), tmp_path / "run", "")
    labels = Labels(TAGS) if then == TASK else labels_of(then)
    two, ledger = swap(tmp_path / "run", labels=labels, task=then, tokens=TOKENS)
    assert ledger.coverage == 1.0
    new = {each.note for each in ledger.entries if each.part == "body" and each.fate == "new"}
    assert new <= {"no pooler in the checkpoint"}
    before, after = ({role: name for name, role in role_names(model).items()} for model in (one, two))
    shared = [role for role in after if role.startswith("body.") and ".pooler." not in role]
    assert shared and all(torch.equal(one.state_dict()[before[role]], two.state_dict()[after[role]]) for role in shared)


def test_a_body_that_uses_less_of_the_checkpoint_says_what_it_leaves(bodies):
    _, ledger = swapped(bodies("t5"), "AutoModelForTokenClassification")
    dropped = [each for each in ledger.entries if each.fate == "dropped"]
    assert dropped and {each.name.split(".")[0] for each in dropped} == {"decoder"}
    assert {(each.part, each.note) for each in dropped} == {("body", "the architecture has no decoder for this task")}


def test_the_body_is_whole_where_the_architecture_keeps_its_halves_apart(bodies):
    model, _ = swapped(bodies("t5"), "AutoModelForSeq2SeqLM")
    assert body_modules(model) == [model.shared, model.encoder, model.decoder]
    assert "body.encoder.block.0.layer.0.SelfAttention.q.weight" in role_names(model).values()
    model, _ = swapped(bodies("bart"), "AutoModelForSeq2SeqLM")
    assert body_modules(model) == [model.model]


def test_the_learned_bias_of_the_words_comes_along_and_formulas_are_computed(bodies):
    folder = bodies("marian", "AutoModelForSeq2SeqLM")
    model, ledger = swapped(folder, "AutoModelForSeq2SeqLM")
    bias = stored(folder)["final_logits_bias"]
    assert bias.abs().max() > 0.01 and torch.equal(model.final_logits_bias, bias)
    assert (entry(ledger, "final_logits_bias").part, entry(ledger, "final_logits_bias").fate) == ("buffer", "kept")
    name = "model.encoder.embed_positions.weight"
    assert name not in stored(folder) and entry(ledger, name).note == "computed by the architecture"
    plain = MarianMTModel.from_pretrained(folder).state_dict()
    random, _ = swapped(folder, "AutoModelForSeq2SeqLM", init="random")
    assert torch.equal(model.state_dict()[name], plain[name]) and torch.equal(random.state_dict()[name], plain[name])


def test_tags_that_share_a_name_keep_their_rows(bodies, tmp_path):
    task = "AutoModelForTokenClassification"
    one, _ = swapped(bodies("bert"), task)
    save(one, NoTokenizer(), tmp_path / "run", "")
    labels = Labels(("B-place", "I-person", "O"), "token_classification")
    two, ledger = swap(tmp_path / "run", labels=labels, task=task, head=ByLabel())
    fresh, _ = swap(tmp_path / "run", labels=labels, task=task)
    expected = torch.stack([fresh.classifier.weight[0], one.classifier.weight[2], one.classifier.weight[0]])
    assert torch.equal(two.classifier.weight, expected)
    assert (ledger.copied_labels, ledger.new_labels, ledger.retired_labels) == (
        ("I-person", "O"), ("B-place",), ("B-person",),
    )  # fmt: skip
