"""The head swap family by family: a classifier of two labels becomes one of three, and plain transformers reads it."""

import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, MarianMTModel, pipeline

import tiny_families
from headswap.bodies.transformer import TransformerBody
from headswap.contracts import Labels
from headswap.errors import WeightsError
from headswap.heads.fresh import Fresh
from headswap.model import join, save
from headswap.records import RunFolder
from headswap.seeds import Seeds
from headswap.taskconfig import SpecialTokens
from swapping import TASK, THREE, stored
from tiny_families import FAMILIES, two_labels
from tiny_runs import ran, tiny
from tiny_tables import written

# What transformers names as more than the body, by family; all else must be the file's, bit for bit.
HEADS = {
    "BERT": ("classifier.",),
    "RoBERTa": ("classifier.",),
    "DistilBERT": ("pre_classifier.", "classifier."),
    "ALBERT": ("classifier.",),
    "DeBERTa-v2": ("pooler.", "classifier."),
    "ELECTRA": ("classifier.",),
    "MPNet": ("classifier.",),
    "ModernBERT": ("head.", "classifier."),
    "GPT-2": ("score.",),
    "Llama": ("score.",),
    "T5": ("classification_head.",),
    "BART": ("classification_head.",),
}
TEXTS = ["the film was good", "a dull movie", "is it fine?", "not so bad, but long and poor"]
PAIRS = list(zip(TEXTS, TEXTS[1:] + TEXTS[:1], strict=True))


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory):
    """A function that gives a family's classifier of two labels, made once."""
    made = {}

    def give(name):
        if name not in made:
            made[name] = two_labels(name, tmp_path_factory.mktemp("families") / "two")
        return made[name]

    return give


def swapped(folder, labels=THREE, task=TASK, **keys):
    body = TransformerBody(str(folder), **keys)
    tokenizer = body.tokenizer()
    model, ledger = join(body, Fresh(), labels, Seeds(0), task, SpecialTokens.of(tokenizer))
    return model.eval(), ledger, tokenizer


def logits(model, tokenizer, *columns):
    with torch.no_grad():
        return model(**tokenizer(*columns, padding=True, return_tensors="pt")).logits


@pytest.mark.parametrize("name", HEADS)
def test_two_labels_become_three_on_the_files_own_body(name, classifiers, tmp_path):
    folder = classifiers(name)
    model, ledger, tokenizer = swapped(folder)
    file, state = stored(folder), model.state_dict()
    body = {each: tensor for each, tensor in file.items() if not each.startswith(HEADS[name])}
    assert body and all(torch.equal(state[each], tensor) for each, tensor in body.items())
    parameters = dict(model.named_parameters())
    heads = {each for each in parameters if each.startswith(HEADS[name])}
    assert heads and set(parameters) - heads <= set(body)
    assert not any(torch.equal(parameters[each], file[each]) for each in heads)
    fates = {fate: {each.name for each in ledger.entries if each.fate == fate} for fate in ("new", "dropped")}
    assert fates == {"new": heads, "dropped": {each for each in file if each.startswith(HEADS[name])}}
    assert ledger.coverage == 1.0

    save(model, tokenizer, tmp_path / "three", "")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "three").eval()
    reader = AutoTokenizer.from_pretrained(tmp_path / "three")
    assert again.config.id2label == {0: "negative", 1: "neutral", 2: "positive"}
    for columns in ([TEXTS], [list(column) for column in zip(*PAIRS, strict=True)]):
        expected = logits(model, tokenizer, *columns)
        assert expected.shape == (4, 3) and torch.equal(expected, logits(again, reader, *columns))


@pytest.mark.parametrize("name", ["GPT-2", "Llama"])
def test_a_decoder_without_a_pad_token_is_saved_with_one_that_a_plain_pipeline_pads_with(name, classifiers, tmp_path):
    assert AutoTokenizer.from_pretrained(classifiers(name)).pad_token is None
    model, _, tokenizer = swapped(classifiers(name))
    save(model, tokenizer, tmp_path / "saved", "")
    judge = pipeline("text-classification", model=str(tmp_path / "saved"), top_k=None)
    assert judge.tokenizer.pad_token_id == judge.model.config.pad_token_id == tokenizer.eos_token_id
    texts = ["film", "the plot was fine and the film was a good one, loved it"]
    together, alone = judge(texts, batch_size=2), [judge([text])[0] for text in texts]
    for one, other in zip(together, alone, strict=True):
        assert {each["label"]: each["score"] for each in one} == pytest.approx(
            {each["label"]: each["score"] for each in other}, abs=1e-6
        )


def test_a_plain_pipeline_tells_alberts_two_texts_apart_as_the_run_did(classifiers, tmp_path):
    assert "token_type_ids" not in AutoTokenizer.from_pretrained(classifiers("ALBERT")).model_input_names
    model, _, tokenizer = swapped(classifiers("ALBERT"))
    save(model, tokenizer, tmp_path / "saved", "")
    judge = pipeline("text-classification", model=str(tmp_path / "saved"), top_k=None, function_to_apply="none")
    for first, second in PAIRS:
        ids = tokenizer.backend_tokenizer.encode(first, second)
        assert set(ids.type_ids) == {0, 1}
        with torch.no_grad():
            given = {"input_ids": torch.tensor([ids.ids]), "attention_mask": torch.tensor([ids.attention_mask])}
            own = model(**given, token_type_ids=torch.tensor([ids.type_ids])).logits[0]
            blind = model(**given).logits[0]
        found = {each["label"]: each["score"] for each in judge({"text": first, "text_pair": second})}
        found = [found[label] for label in THREE.names]
        assert found == pytest.approx(own.tolist(), abs=1e-6)
        assert (own - blind).abs().max() > 1e-4


def test_marian_has_no_classifier_and_translates_with_the_files_own_weights(tmp_path):
    tokenizer = FAMILIES["Marian"].tokenizer()
    plain = MarianMTModel(tiny_families.config_of("Marian", tokenizer))
    folder = tiny_families.saved(plain, tokenizer, tmp_path / "marian")
    with pytest.raises(WeightsError, match=r"AutoModelForSequenceClassification does not serve .* model_type 'marian'"):
        swapped(folder)
    model, _, tokenizer = swapped(
        folder, Labels((), "sequence_to_sequence"), "AutoModelForSeq2SeqLM", allow_new=["embed_positions"]
    )  # its positions are sines, which no file holds
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in stored(folder).items())
    save(model, tokenizer, tmp_path / "saved", "")
    again = MarianMTModel.from_pretrained(tmp_path / "saved").eval()
    given = tokenizer(TEXTS, padding=True, return_tensors="pt")
    given["decoder_input_ids"] = torch.tensor([[2, 5, 6]] * len(TEXTS))
    with torch.no_grad():
        found = [each(**given).logits for each in (plain.eval(), model, again)]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def choices(path, pair):
    """Write 45 rows of three labels; return the overrides that read them."""
    labels = {"good": "yes", "bad": "no", "fine": "maybe"}
    rows = [
        (f"{number}", f"the film {'was ' * (number % 5)}{word}", f"plot {number}" + " and acting" * (number % 3), label)
        for number, (word, label) in enumerate([*labels.items()] * 15)
    ]
    table = written(path, rows, ("name", "first", "second", "label"))
    columns = "[first,second]" if pair else "[first]"
    return table, [f"task={'pair' if pair else 'text'}", "task.id=name", f"task.text={columns}"]


@pytest.mark.parametrize("pair", [False, True], ids=["texts", "pairs"])
@pytest.mark.parametrize("name", ["GPT-2", "Llama", "T5", "ModernBERT", "ALBERT"])
def test_a_run_scores_what_plain_transformers_makes_of_its_model(name, pair, classifiers, tmp_path):
    table, task = choices(tmp_path / "rows.csv", pair)
    settings = ["data.drop_duplicates=false", "data.max_length=64", "train.max_steps=2"]
    config = tiny(table, classifiers(name), tmp_path, *task, *settings)
    folder = RunFolder(tmp_path / "run")
    ended = ran(folder.path, config)
    assert ended["kind"] == "finished", ended
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    texts = {row["name"]: row for row in csv.DictReader(Path(table).read_text().splitlines())}
    scored = [row for row in pq.read_table(folder / "predictions.parquet").to_pylist() if row["split"] == "test"]
    assert len(scored) == 9
    for row in scored:
        columns = [[texts[row["id"]][column]] for column in (("first", "second") if pair else ("first",))]
        assert row["logits"] == pytest.approx(logits(model, tokenizer, *columns)[0].tolist(), abs=1e-5)
