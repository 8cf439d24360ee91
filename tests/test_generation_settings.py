"""What a swapped model writes with: the checkpoint's settings, and special tokens that agree with the tokenizer."""

import json

import pytest
import torch
import transformers

from headswap.contracts import Labels
from headswap.errors import ConfigError, WeightsError
from headswap.heads.if_present import IfPresent
from headswap.model import save
from headswap.taskconfig import SpecialTokens
from swapping import swap
from tiny_bodies import SETTINGS, NoTokenizer, saved

TOKENS = SpecialTokens(1, 0, 2, 40)
INPUT = torch.tensor([[0, 5, 6, 7, 8, 2], [0, 15, 16, 2, 1, 1]])


def swapped(folder, task="AutoModelForSeq2SeqLM", tokens=TOKENS, **settings):
    return swap(folder, labels=Labels((), "sequence_to_sequence"), task=task, tokens=tokens, **settings)


@pytest.mark.parametrize("kind", ["t5", "bart", "marian"])
@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_generation_goes_on_with_the_checkpoints_settings(kind, file, tmp_path):
    folder = saved(kind, tmp_path / "body", transformers.AutoModelForSeq2SeqLM)
    settings = {"num_beams": 3, "length_penalty": 0.7, "forced_eos_token_id": 2}
    if file == "config.json":  # as checkpoints of transformers 4 have it
        (folder / "generation_config.json").unlink()
        settings = json.loads((folder / file).read_text()) | settings
    (folder / file).write_text(json.dumps(settings))
    model, _ = swapped(folder, head=IfPresent())
    save(model, NoTokenizer(), tmp_path / "run", "")
    plain = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run")
    for each in (model, plain):
        found, expected = each.generation_config, SETTINGS[kind]
        assert (found.num_beams, found.length_penalty, found.forced_eos_token_id) == (3, 0.7, 2)
        assert found.decoder_start_token_id == each.config.decoder_start_token_id == expected["decoder_start_token_id"]
        assert (found.eos_token_id, found.pad_token_id) == (expected["eos_token_id"], 1)
    left, right = (each.eval().generate(INPUT, max_new_tokens=4) for each in (model, plain))
    assert torch.equal(left, right) and bool((left[:, 0] == SETTINGS[kind]["decoder_start_token_id"]).all())


def test_published_generation_settings_without_effect_are_saved_and_wrong_ones_told(tmp_path):
    folder = saved("llama", tmp_path / "body", transformers.AutoModelForCausalLM)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({"temperature": 0.6, "do_sample": False}))  # as the first Llama 2 was published
    model, _ = swapped(folder, task="AutoModelForCausalLM")
    save(model, NoTokenizer(), tmp_path / "run", "")
    assert json.loads((tmp_path / "run" / path.name).read_text())["pad_token_id"] == 1
    path.write_text(json.dumps({"num_return_sequences": 2}))
    with pytest.raises(WeightsError, match=r"its generation settings are wrong; found ValueError: Greedy methods"):
        swapped(folder, task="AutoModelForCausalLM")


@pytest.mark.parametrize(("start", "pad", "expected"), [(0, 1, 0), (None, 1, 1)])
def test_a_decoder_that_names_no_start_begins_with_the_tokenizers(start, pad, expected, tmp_path, variant):
    folder = variant(saved("t5", tmp_path / "body"), decoder_start_token_id=None)
    tokens = SpecialTokens(pad, start, 2, 40)
    model, _ = swapped(folder, tokens=tokens)
    assert model.config.decoder_start_token_id == model.generation_config.decoder_start_token_id == expected
    assert model.generate(INPUT, max_new_tokens=2)[0, 0] == expected
    with pytest.raises(ConfigError, match="nothing to start a target with"):
        folder = variant(folder, pad_token_id=None)
        swapped(folder, tokens=SpecialTokens(vocabulary_size=40))
