"""Short ways to swap a head and to look at what came of it."""

from safetensors.torch import load_file
from transformers import AutoConfig, BertForMaskedLM

from headswap.bodies.transformer import TransformerBody
from headswap.contracts import Labels
from headswap.heads.fresh import Fresh
from headswap.model import join
from headswap.seeds import Seeds
from headswap.taskconfig import SpecialTokens

TASK = "AutoModelForSequenceClassification"
THREE = Labels(("negative", "neutral", "positive"))


def swap(
    folder, *, labels=THREE, seed=0, head=None, task=TASK, tokens=None, pad_token_id=None, vocabulary_size=None, **body
):
    tokens = tokens or SpecialTokens(pad_token_id, vocabulary_size=vocabulary_size)
    return join(TransformerBody(str(folder), **body), head or Fresh(), labels, Seeds(seed), task, tokens)


def stored(folder):
    return load_file(folder / "model.safetensors")


def entry(ledger, name):
    return next(each for each in ledger.entries if each.name == name)


def mlm(folder, tiny_body, **settings):
    model = BertForMaskedLM(AutoConfig.from_pretrained(tiny_body, **settings))
    model.save_pretrained(folder)
    return folder
