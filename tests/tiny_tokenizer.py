"""A word tokenizer made offline, for tests of data: one word, one token."""

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

TEXT = ("a", "b", "c", "d", "e", "f", "g", "h", "good", "bad", "plain", "fine", "poor")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *TEXT)


def tiny_tokenizer(**changes) -> PreTrainedTokenizerFast:
    """Return a tokenizer that writes [CLS] a [SEP] and [CLS] a [SEP] b [SEP]; ids are places in WORDS."""
    core = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", **changes}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=core, model_input_names=inputs, **names)
