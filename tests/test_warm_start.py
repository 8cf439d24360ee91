"""An encoder-decoder from one encoder; transformers' own from_encoder_decoder_pretrained is the reference."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, EncoderDecoderModel

from headswap.architecture import body_modules, split
from headswap.bodies.transformer import TransformerBody
from headswap.contracts import Labels
from headswap.durable import MANIFEST
from headswap.errors import ConfigError, WeightsError
from headswap.heads.if_present import IfPresent
from headswap.model import describe, role_names, save
from headswap.taskconfig import SpecialTokens
from swapping import entry, stored, swap
from tiny_bodies import NoTokenizer, saved

TASK = "AutoModelForSeq2SeqLM"
NO_NAMES = Labels((), "sequence_to_sequence")
TOKENS = SpecialTokens(pad=1, start=0, end=2, vocabulary_size=40)
KINDS = ["bert", "roberta", "electra"]
INPUT = torch.tensor([[0, 5, 6, 7, 8, 2], [0, 15, 16, 2, 1, 1]])


@pytest.fixture(scope="module")
def bodies(tmp_path_factory):
    """A function that gives the folder of a body, or of its masked language model, made once."""
    made = {}

    def give(kind, language=False):
        if (kind, language) not in made:
            auto = {"auto": AutoModelForMaskedLM} if language else {}
            made[kind, language] = saved(kind, tmp_path_factory.mktemp(kind) / "body", **auto)
        return made[kind, language]

    return give


def warm(folder, tokens=TOKENS, **settings):
    return swap(folder, labels=NO_NAMES, task=TASK, tokens=tokens, **settings)


def logits(model, source=INPUT, target=INPUT):
    for each in model.parameters():  # tensors read from a file lie anywhere, and sums may differ in the last bit
        each.data = each.data.clone()
    with torch.no_grad():
        return model.eval()(source, attention_mask=(source != 1).long(), decoder_input_ids=target).logits


def is_cross(name):
    return ".crossattention." in name


@pytest.mark.parametrize("kind", KINDS)
def test_both_halves_start_as_the_encoder_and_read_each_other_anew(kind, bodies):
    folder = bodies(kind)
    model, ledger = warm(folder, seed=5)
    file = stored(folder)
    decoder = model.decoder.base_model.state_dict()
    assert model.encoder.state_dict().keys() == file.keys()
    assert all(torch.equal(model.encoder.state_dict()[name], value) for name, value in file.items())
    assert {name for name in file if name not in decoder} <= {"pooler.dense.weight", "pooler.dense.bias"}
    assert all(torch.equal(decoder[name], value) for name, value in file.items() if name in decoder)
    new = [each for each in ledger.entries if each.part == "body" and each.fate == "new"]
    assert {each.name for each in new} == {name for name in model.state_dict() if is_cross(name)}
    assert {(each.note, each.by_design) for each in new} == {("cross-attention", True)}
    assert ledger.coverage == 1.0 and ledger.architecture == "EncoderDecoderModel"
    assert ledger.notes == ("encoder and decoder both start as the checkpoint's encoder",)

    twin, drawn = warm(folder, seed=5, init="random")
    _, head = split(model)
    assert head and all(torch.equal(value, twin.state_dict()[name]) for name, value in head.items())
    assert all(torch.equal(model.state_dict()[each.name], twin.state_dict()[each.name]) for each in new)
    assert {each.fate for each in drawn.entries} == {"new"} and drawn.coverage == 0.0
    assert drawn.notes == ("encoder and decoder both start at random",)
    another, _ = warm(folder, seed=6)
    assert not torch.equal(another.state_dict()[new[0].name], model.state_dict()[new[0].name])


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_model_that_transformers_starts(kind, bodies):
    folder = bodies(kind, language=True)
    model, ledger = warm(folder, head=IfPresent())
    plain = EncoderDecoderModel.from_encoder_decoder_pretrained(str(folder), str(folder))
    new = {each.name for each in ledger.entries if each.fate == "new"}
    assert all(is_cross(name) or "pooler" in name for name in new)
    mine, theirs = model.state_dict(), plain.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine if name not in new)
    plain.load_state_dict({name: mine[name] for name in new}, strict=False)
    assert torch.equal(logits(model), logits(plain))


@pytest.mark.parametrize("kind", KINDS)
def test_a_warm_start_is_saved_loaded_and_writes(kind, bodies, tmp_path):
    model, _ = warm(bodies(kind))
    save(model, NoTokenizer(), tmp_path / "run", "")
    plain, told = EncoderDecoderModel.from_pretrained(tmp_path / "run", output_loading_info=True)
    assert not any(told.values())
    assert torch.equal(logits(model), logits(plain))
    for each in (model, plain):
        config, found = each.config, each.generation_config
        assert (config.pad_token_id, config.decoder_start_token_id, config.eos_token_id) == (1, 0, 2)
        assert (found.pad_token_id, found.decoder_start_token_id, found.eos_token_id) == (1, 0, 2)
        assert (config.vocab_size, config.decoder.is_decoder, config.encoder.is_decoder) == (40, True, False)
        assert not any("old" in name for name in config.id2label.values()) and config.problem_type is None
    written = plain.generate(INPUT, attention_mask=(INPUT != 1).long(), max_new_tokens=4, num_beams=2)
    assert written.shape[0] == 2 and bool((written[:, 0] == 0).all())

    again, ledger = warm(tmp_path / "run", tokens=SpecialTokens(1, 7, 8, 40), head=IfPresent())
    assert {each.fate for each in ledger.entries} == {"kept"} and ledger.notes == ()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert again.config.decoder_start_token_id == 0  # it was trained with it
    _, ledger = warm(tmp_path / "run", init="random")
    assert {each.fate for each in ledger.entries} == {"new"}


def test_the_decoder_sees_its_past_and_the_whole_source(bodies):
    model, _ = warm(bodies("bert"))
    base = logits(model)
    later, other = INPUT.clone(), INPUT.clone()
    later[:, 3], other[:, 1] = 30, 31
    assert torch.allclose(base[:, :3], logits(model, target=later)[:, :3], atol=1e-6)
    assert not torch.allclose(base[:, 3:], logits(model, target=later)[:, 3:], atol=1e-6)
    assert not torch.allclose(base[:, 0], logits(model, source=other)[:, 0], atol=1e-6)


def test_roles_and_parts_tell_encoder_decoder_and_head_apart(bodies):
    model, ledger = warm(bodies("bert", language=True))
    roles = role_names(model)
    assert roles["encoder.encoder.layer.0.output.dense.weight"] == "body.encoder.encoder.layer.0.output.dense.weight"
    name = "decoder.bert.encoder.layer.0.crossattention.self.query.weight"
    assert roles[name] == "body.decoder.encoder.layer.0.crossattention.self.query.weight"
    assert roles["decoder.cls.predictions.bias"] == "head.decoder.cls.predictions.bias"
    assert len(set(roles.values())) == len(roles) == len(list(model.parameters()))
    assert body_modules(model) == [model.encoder, model.decoder.bert]
    assert model.get_output_embeddings().weight is model.decoder.get_input_embeddings().weight
    assert entry(ledger, "decoder.bert.embeddings.word_embeddings.weight").part == "body"
    # the old head is left, as one with the same name twice would not be
    dropped = [each.name for each in ledger.entries if each.fate == "dropped"]
    assert len(dropped) == len(set(dropped)) and {name.split(".")[0] for name in dropped} == {"cls"}
    told = describe(TransformerBody(str(bodies("bert"))), NO_NAMES, TASK)
    counts = [sum(each.numel() for each in group.values()) for group in split(model)]
    assert (told["architecture"], [told["body"], told["head"]]) == ("EncoderDecoderModel", counts)


def test_longer_tokenizers_and_settings_reach_both_halves(bodies):
    folder = bodies("bert")
    longer = SpecialTokens(1, 0, 2, 43)
    with pytest.raises(WeightsError, match=r"found 43 tokens and 40 rows"):
        warm(folder, tokens=longer)
    settings = {"config_overrides": {"hidden_dropout_prob": 0.3}, "resize_embeddings": True}
    model, ledger = warm(folder, tokens=longer, **settings)
    twin, _ = warm(folder, tokens=longer, init="random", **settings)
    for half in (model.encoder, model.decoder.bert):
        rows = half.embeddings.word_embeddings.weight
        assert rows.shape[0] == 43 and half.embeddings.dropout.p == 0.3
        assert torch.equal(rows[:40], stored(folder)["embeddings.word_embeddings.weight"])
    for name in ("encoder.embeddings.word_embeddings.weight", "decoder.bert.embeddings.word_embeddings.weight"):
        assert entry(ledger, name).fate == "resized"
        assert torch.equal(model.state_dict()[name][40:], twin.state_dict()[name][40:])
    assert logits(model).shape[-1] == model.config.vocab_size == model.config.decoder.vocab_size == 43


@pytest.mark.parametrize("kind", ["distilbert", "albert", "gpt2", "llama", "xlnet"])
def test_an_architecture_that_cannot_read_another_is_refused(kind, bodies):
    with pytest.raises(WeightsError, match=rf"cannot be the decoder of an encoder-decoder either; .*'{kind}'.*BERT"):
        warm(bodies(kind))


def test_a_tokenizer_without_a_first_token_is_refused(bodies, variant):
    folder = variant(bodies("bert"), pad_token_id=None)
    with pytest.raises(ConfigError, match="found a tokenizer without class, begin and pad token"):
        warm(folder, tokens=SpecialTokens(vocabulary_size=40))


def test_faults_of_the_checkpoint_are_told_as_ever(bodies, tmp_path, variant):
    def spoil(file):
        rest = {name: value for name, value in file.items() if name != "encoder.layer.0.output.dense.bias"}
        return rest | {"encoder.layer.1.output.dense.bias": torch.zeros(16)}

    with pytest.raises(WeightsError, match=r"2 body tensors are missing.*; also 1 body tensors .* have no place"):
        warm(variant(bodies("bert"), spoil))
    model, _ = warm(bodies("bert"))
    save(model, NoTokenizer(), tmp_path / "run", "")
    file = load_file(tmp_path / "run" / "model.safetensors")
    rest = {name: value for name, value in file.items() if not is_cross(name)}
    save_file(rest, tmp_path / "run" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "run" / MANIFEST).unlink()
    with pytest.raises(WeightsError, match=r"10 body tensors are missing.*crossattention"):
        warm(tmp_path / "run")


def test_special_tokens_are_read_from_the_tokenizer(tiny_body):
    tokenizer = TransformerBody(str(tiny_body)).tokenizer()
    assert SpecialTokens.of(tokenizer) == SpecialTokens(0, 2, 3, len(tokenizer))
    tokenizer.cls_token = tokenizer.sep_token = None
    tokenizer.bos_token, tokenizer.eos_token = "the", "a"
    assert SpecialTokens.of(tokenizer, pad=9) == SpecialTokens(9, 5, 6, len(tokenizer))
