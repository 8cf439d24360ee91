"""tokenizer_check.py: a tokenizer that reads otherwise than its file, knows no text, or lacks what the body needs."""

import json

import pytest
from tokenizers import Tokenizer
from transformers import (
    AlbertConfig,
    AutoTokenizer,
    BertConfig,
    DebertaConfig,
    DebertaTokenizer,
    FunnelConfig,
    FunnelTokenizer,
    GPT2Config,
    MarianConfig,
    MPNetConfig,
    RobertaConfig,
    XLNetConfig,
    XLNetTokenizer,
)

from headswap.bodies.transformer import TransformerBody
from headswap.errors import WeightsError
from tiny_families import FAMILIES, byte_pairs, unigrams, wordpieces

RUSSIAN = "хороший фильм"


def saved(folder, config, tokenizer):
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return TransformerBody(str(folder))


def rewritten(folder, change):
    """Change the file that the tokenizer is compared with."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_texts_are_compared_with_the_file_and_the_first_other_token_is_told(tiny_body):
    body = TransformerBody(str(tiny_body))
    tokenizer = body.tokenizer()
    text = "the film was a very good one and the plot was fine, it was GOOD"
    own = Tokenizer.from_file(str(tiny_body / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    body.check_texts(tokenizer, [text] * 3)
    tokenizer.backend_tokenizer.normalizer = None  # upper case becomes [UNK]
    found = rf"found ids \[1\] from token {len(own) - 1} of .*GOOD' where the file gives \[{own[-1]}\]"
    with pytest.raises(WeightsError, match=rf"tokenizer\.json: .* {found}; use another .*body\.check_tokenizer=false"):
        body.check_texts(tokenizer, ["the plot", text])
    TransformerBody(str(tiny_body), check_tokenizer=False).check_texts(tokenizer, [text])


def test_two_hundred_texts_are_looked_at_evenly_drawn(tiny_body):
    class Counted(list):
        def __getitem__(self, place):
            looked.append(place)
            return super().__getitem__(place)

    looked: list[int] = []
    body = TransformerBody(str(tiny_body))
    body.check_texts(body.tokenizer(), Counted(["the film"] * 1000))
    assert looked == list(range(0, 1000, 5))
    body.check_texts(body.tokenizer(), [])


def test_a_class_that_puts_other_special_tokens_between_two_texts_is_refused_for_pairs_alone(tmp_path):
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    body = saved(tmp_path, DebertaConfig(), DebertaTokenizer(**byte_pairs(special)))

    def as_released(content):  # one separator, as in the checkpoints; transformers 5.23 writes two
        pair = content["post_processor"]["pair"]
        separators = [place for place, piece in enumerate(pair) if piece.get("SpecialToken", {}).get("id") == "[SEP]"]
        assert len(separators) == 3
        del pair[separators[0]]

    rewritten(tmp_path, as_released)
    tokenizer = body.tokenizer()
    body.check_texts(tokenizer, ["the film"])
    with pytest.raises(WeightsError, match=r"found ids .* of \('the film', 'was bad'\) where the file gives"):
        body.check_texts(tokenizer, [("the film", "was bad")])


def test_segment_ids_are_compared_too(tmp_path):
    body = saved(tmp_path, BertConfig(), FAMILIES["BERT"].tokenizer())
    body.check_texts(body.tokenizer(), [("the film", "was bad")])

    def one_segment(content):
        for piece in content["post_processor"]["pair"]:
            next(iter(piece.values()))["type_id"] = 0

    rewritten(tmp_path, one_segment)
    told = r"found segment ids \[1, 1, 1\] from token 4 of .* where the file gives \[0, 0, 0\]"
    with pytest.raises(WeightsError, match=told):
        body.check_texts(body.tokenizer(), [("the film", "was bad")])


def test_a_tokenizer_to_which_most_tokens_are_unknown_is_refused(tiny_body):
    body = TransformerBody(str(tiny_body))
    tokenizer = body.tokenizer()
    texts = ["the film", RUSSIAN, RUSSIAN]  # a word is one token here: 2 known, 4 unknown
    told = (
        r"does not know these texts; found 67% unknown tokens in 3 training texts, such as 'хороший фильм'; use a body"
    )
    with pytest.raises(WeightsError, match=told + r".*task\.encoding, or set body\.check_tokenizer=false"):
        body.check_texts(tokenizer, texts)
    with pytest.raises(WeightsError, match=r"found 75% unknown tokens in 4 training texts"):
        body.check_texts(tokenizer, [("the film", RUSSIAN), (RUSSIAN, RUSSIAN)])
    body.check_texts(tokenizer, ["the film", RUSSIAN])
    TransformerBody(str(tiny_body), check_tokenizer=False).check_texts(tokenizer, texts)


def test_a_tokenizer_of_bytes_knows_every_text(tmp_path):
    body = saved(tmp_path, GPT2Config(), FAMILIES["GPT-2"].tokenizer())
    body.check_texts(body.tokenizer(), [RUSSIAN, "\u4e2d\u6587"])


XLNET = ("<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>")
FUNNEL = ("<pad>", "<unk>", "<cls>", "<sep>", "<mask>", "<s>", "</s>")
SEGMENTS = {
    "BERT": (BertConfig(), FAMILIES["BERT"].tokenizer, [0, 0, 0, 0, 1, 1, 1]),
    "ALBERT": (AlbertConfig(), FAMILIES["ALBERT"].tokenizer, [0] * 4 + [1] * 7),
    "XLNet": (XLNetConfig(), lambda: XLNetTokenizer(vocab=unigrams(XLNET, "<unk>")), [0] * 3 + [1] * 7 + [2]),
    "Funnel": (FunnelConfig(), lambda: FunnelTokenizer(vocab=dict(wordpieces(FUNNEL))), [2, 0, 0, 0, 1, 1, 1]),
    # The RoBERTa form writes zeros: what bodies of that form were trained with, whatever their table holds.
    "RoBERTa": (RobertaConfig(type_vocab_size=2), FAMILIES["RoBERTa"].tokenizer, None),
    "MPNet": (MPNetConfig(), FAMILIES["MPNet"].tokenizer, None),
    # Its forward takes them, as words: never give it any.
    "GPT-2": (GPT2Config(), FAMILIES["GPT-2"].tokenizer, None),
}


@pytest.mark.parametrize("name", SEGMENTS)
def test_segment_ids_of_pairs_are_made_where_the_body_has_segments_and_go_with_the_saved_tokenizer(name, tmp_path):
    config, make, expected = SEGMENTS[name]
    tokenizer = saved(tmp_path / "body", config, make()).tokenizer()
    tokenizer.save_pretrained(tmp_path / "saved")
    for each in (tokenizer, AutoTokenizer.from_pretrained(tmp_path / "saved")):
        assert each("the film", "was bad").get("token_type_ids") == expected
        padded = each(["the film", "was"], ["was bad", "the"], padding=True)
        assert ("token_type_ids" in padded) == (expected is not None)


def test_a_tokenizer_of_no_family_gets_the_segments_of_its_body(tiny_body):
    assert "token_type_ids" not in AutoTokenizer.from_pretrained(tiny_body).model_input_names
    tokenizer = TransformerBody(str(tiny_body)).tokenizer()
    assert tokenizer("the film", "was bad")["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]


def test_a_multilingual_bert_whose_tokenizer_tells_no_texts_apart_stays_so(tmp_path):
    tokenizer = FAMILIES["ModernBERT"].tokenizer()  # its pair template has one segment
    assert "token_type_ids" not in saved(tmp_path, BertConfig(), tokenizer).tokenizer().model_input_names


def test_a_decoder_without_a_pad_token_pads_with_its_end_token(tmp_path):
    tokenizer = saved(tmp_path / "gpt2", GPT2Config(), FAMILIES["GPT-2"].tokenizer()).tokenizer()
    assert tokenizer.pad_token == tokenizer.eos_token == "<|endoftext|>"
    own = FAMILIES["GPT-2"].tokenizer()
    own.add_special_tokens({"pad_token": "<pad>"})
    assert saved(tmp_path / "padded", GPT2Config(), own).tokenizer().pad_token == "<pad>"


@pytest.mark.parametrize(
    ("config", "absent"),
    [(BertConfig(), "vocab.txt"), (GPT2Config(), "vocab.json and merges.txt")],
    ids=["bert", "gpt2"],
)
def test_a_body_without_a_tokenizer_is_refused_where_transformers_makes_an_empty_one(config, absent, tmp_path):
    config.save_pretrained(tmp_path)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) <= 5  # special tokens alone
    with pytest.raises(
        WeightsError, match=rf"no tokenizer lies with the body; found neither tokenizer\.json nor {absent};"
    ):
        TransformerBody(str(tmp_path)).tokenizer()


def test_a_vocabulary_with_its_merges_is_a_tokenizer_and_without_them_none(tmp_path):
    GPT2Config().save_pretrained(tmp_path)
    cut = byte_pairs(("<|endoftext|>",))
    (tmp_path / "vocab.json").write_text(json.dumps(cut["vocab"]))
    (tmp_path / "merges.txt").write_text("".join(f"{first} {second}\n" for first, second in cut["merges"]))
    expected = FAMILIES["GPT-2"].tokenizer()("a good film")["input_ids"]
    assert TransformerBody(str(tmp_path)).tokenizer()("a good film")["input_ids"] == expected
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(WeightsError, match=r"does not load; .*`merges`"):
        TransformerBody(str(tmp_path)).tokenizer()


def test_a_tokenizer_whose_reader_is_not_installed_is_told_with_what_to_install(tmp_path, monkeypatch):
    MarianConfig().save_pretrained(tmp_path)
    (tmp_path / "source.spm").write_bytes(b"")

    def absent(*_, **__):
        raise ImportError("MarianTokenizer requires the SentencePiece library")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", absent)
    with pytest.raises(WeightsError, match=r"does not load; found ImportError: .*; pip install sentencepiece protobuf"):
        TransformerBody(str(tmp_path)).tokenizer()
    (tmp_path / "source.spm").unlink()
    with pytest.raises(WeightsError, match=r"put the tokenizer's files \(tokenizer\.json"):
        TransformerBody(str(tmp_path)).tokenizer()
