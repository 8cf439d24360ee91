"""`headswap tokenizer`: byte-level BPE from training rows alone, in a folder that transformers reads."""

import json

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from headswap import tokenizer_check
from headswap.cli import main
from headswap.tasks.sequence_to_sequence import SequenceToSequence

PAIRS = [
    {"en": f"A man number {number} sees the Ärger of naïve cafés.", "de": f"Ein Mann {number} sieht das Größte, bei Müller."}
    for number in range(40)
]  # fmt: skip


def table(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def words_of(folder, validation=PAIRS[30:35], test=PAIRS[35:], train=PAIRS[:30]):
    folder.mkdir(exist_ok=True)
    parts = {"train": train, "validation": validation, "test": test}
    places = [f"task.{split}={table(folder / f'{split}.jsonl', rows)}" for split, rows in parts.items()]
    return ["tokenizer", "task=translation", *places, "task.text=[en]", "task.target=de"]


def told(words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    assert told([*words_of(folder), "--size", "400", "--output", folder / "made"]) == 0
    return folder / "made"


def test_the_folder_loads_and_every_text_comes_back_as_it_was(learned):
    tokenizer = AutoTokenizer.from_pretrained(learned)
    texts = [*tokenizer_check.PROBES.splitlines(), *tokenizer_check.SPACES, *(row["de"] for row in PAIRS)]
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.cls_token_id == 1 and ids[-1] == tokenizer.eos_token_id == 2
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer("a", "b")["input_ids"][-1] == tokenizer.sep_token_id
    assert set(tokenizer("a")) == {"input_ids", "attention_mask"}
    tokenizer_check.check_files(learned, tokenizer)
    tokenizer_check.check_probes(learned, tokenizer)


def test_source_and_target_texts_are_both_learned(learned):
    vocabulary = Tokenizer.from_file(str(learned / "tokenizer.json")).get_vocab()
    assert len(vocabulary) == json.loads((learned / "learned.json").read_text())["tokens"] <= 400
    assert "Ġsees" in vocabulary and "Ġsieht" in vocabulary


def test_words_of_validation_and_test_are_not_learned(learned, tmp_path):
    others = [{"en": f"zyxwv zyxwv {number}", "de": f"qqjj qqjj {number}"} for number in range(20)]
    words = words_of(tmp_path, validation=others[:10], test=others[10:])
    assert told([*words, "--size", 400, "--output", tmp_path / "made"]) == 0
    for name in ("tokenizer.json", "learned.json"):
        assert (tmp_path / "made" / name).read_bytes() == (learned / name).read_bytes()


def test_a_target_begins_without_the_start_and_ends_with_the_end(learned):
    tokenizer = AutoTokenizer.from_pretrained(learned)
    task = SequenceToSequence(source="x.jsonl", text=["en"], target="de")
    found = task.encode({"en": ["A man"], "de": ["Ein Mann"]}, tokenizer, 32)
    bare = tokenizer("Ein Mann", add_special_tokens=False)["input_ids"]
    assert found["labels"] == [[*bare, tokenizer.eos_token_id]] and "target_start" not in found
    assert found["target_altered"] == [0]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--size", 260], "--size: too few tokens; found 260; give 261"),
        (["--size", "many"], "invalid int value: 'many'"),
        ([], "the following arguments are required: --size"),
    ],
)
def test_a_wrong_size_is_refused(tmp_path, capsys, flags, said):
    assert told([*words_of(tmp_path), *flags, "--output", tmp_path / "made"]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "made").exists()


def test_a_folder_that_is_there_is_never_written_over(tmp_path, capsys):
    assert told([*words_of(tmp_path), "--size", 300, "--output", tmp_path]) == 2
    assert f"--output: must be new; found {tmp_path}; name another folder" in capsys.readouterr().err
