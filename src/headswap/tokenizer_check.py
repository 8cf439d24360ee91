"""A body's tokenizer, beside its own files: does it cut text as they say, and has it all that the body needs? Floor 0.

transformers 5 rebuilds a tokenizer from its class, which has changed what came out without an error: other ids, other
special tokens in pairs, no segment ids. bodies/transformer.py asks here; nothing heavy is imported before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headswap.bodyfiles import read_json
from headswap.errors import WeightsError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

    Texts = Sequence[str] | Sequence[tuple[str, str]]

OTHER_FORMS = (".model", ".spm", ".tiktoken")
SAMPLE = 200
UNKNOWN_LIMIT = 0.5
# Relative segments: these bodies have no table of segments whose size config.json could tell.
SEGMENTED = ("xlnet", "funnel")
# Some forty texts that tell tokenizers apart: case, accents, scripts, digits, spaces, punctuation.
PROBES = """Hello world
hello
HELLO
don't it's we're
naïve café Ünïcödé
İstanbul straße ß
北京是中国的首都
東京
こんにちは
한국어
Привет, мир
العربية
مَرْحَبًا
עברית
हिन्दी
ไทย
3.14159
1,000,000
2024-01-31
1st 2nd
x = y + 2;
a_b-c
foo.bar()
e.g. C++
#tag @user
https://example.org/a?b=c
me@example.org
🙂 👩‍👩‍👧
$5 50%
&amp; <b>
...
"quoted" 'single' (round) [square] {curly}
pneumonoultramicroscopicsilicovolcanoconiosis"""
SPACES = ("", " ", " leading", "trailing ", "two  spaces", "a\nb", "a\tb", "\u00a0nbsp", "zero\u200bwidth", "e\u0301")


def complete(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give the tokenizer what its class lacks and the body needs, so that it is saved with it.

    Segment ids, where the body has segments and the tokenizer's file tells two texts apart: a file that does not (the
    RoBERTa form; multilingual BERTs with such a tokenizer) is what the body was trained with, and stays. And a token to
    pad with: decoders that have none get the end token, as `encoded.pad_token_id` says.
    """
    names = tokenizer.model_input_names
    if "token_type_ids" not in names and _has_segments(read_json(folder / "config.json")) and _parts_pairs(tokenizer):
        _remember(tokenizer, [names[0], "token_type_ids", *names[1:]])
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token


def _remember(tokenizer: PreTrainedTokenizerBase, names: list[str]) -> None:
    tokenizer.model_input_names = names
    tokenizer.init_kwargs["model_input_names"] = names  # what save_pretrained writes


def _has_segments(config: Mapping[str, Any]) -> bool:
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    if kind not in list(CONFIG_MAPPING.keys()):
        return False  # the checkpoint's own code: its tokenizer says what it takes
    count = config.get("type_vocab_size", getattr(CONFIG_MAPPING[kind](), "type_vocab_size", 0))
    return kind in SEGMENTED or (isinstance(count, int) and count > 1)


def _parts_pairs(tokenizer: PreTrainedTokenizerBase) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return 1 in backend.encode("a", "b").type_ids
    make = getattr(tokenizer, "create_token_type_ids_from_sequences", None)
    return make is not None and 1 in make([0], [0])


def check_files(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a folder without the tokenizer's vocabulary: transformers 5 makes one of special tokens alone, silently.

    Raises:
        WeightsError: no tokenizer.json, and no vocabulary or merges.
    """
    names = tokenizer.vocab_files_names
    if (folder / "tokenizer.json").is_file() or any(path.suffix in OTHER_FORMS for path in folder.iterdir()):
        return
    absent = [
        names[key] for key in ("vocab_file", "merges_file") if key in names and not (folder / names[key]).is_file()
    ]
    if absent and type(tokenizer).__module__.startswith("transformers."):
        raise WeightsError(
            f"{folder}: no tokenizer lies with the body; found neither tokenizer.json nor {' and '.join(absent)}; copy "
            "the tokenizer's files beside config.json, or save them there with tokenizer.save_pretrained"
        )


def remedy(folder: Path) -> str:
    """Return what helps where a tokenizer does not load."""
    if (folder / "tokenizer.json").is_file() or not any(path.suffix in OTHER_FORMS for path in folder.iterdir()):
        return "put the tokenizer's files (tokenizer.json, tokenizer_config.json) beside config.json"
    return "pip install sentencepiece protobuf, which read its files, or put tokenizer.json beside config.json"


def check_probes(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Compare the ids of some forty texts with those that tokenizer.json itself gives.

    Raises:
        WeightsError: they differ.
    """
    raw = _raw(folder)
    if raw is not None:
        _compare(folder, tokenizer, raw, [*PROBES.splitlines(), *SPACES])


def check_texts(folder: Path, tokenizer: PreTrainedTokenizerBase, texts: Texts) -> None:
    """Compare some of the texts, or pairs of texts, that a run learns from; and refuse a tokenizer that knows few.

    Args:
        texts: up to 200 of them are looked at, evenly drawn.

    Raises:
        WeightsError: ids or segment ids differ from tokenizer.json's, or more than half of the tokens are unknown.
    """
    drawn: Any = [texts[place] for place in range(0, len(texts), max(1, -(-len(texts) // SAMPLE)))]
    raw = _raw(folder)
    if raw is not None and drawn:
        _compare(folder, tokenizer, raw, drawn)
    _refuse_unknown(folder, tokenizer, [part for text in drawn for part in ([text] if isinstance(text, str) else text)])


def _raw(folder: Path) -> Tokenizer | None:
    """Return the tokenizer of tokenizer.json as its own library reads it."""
    from tokenizers import Tokenizer

    if not (folder / "tokenizer.json").is_file():
        return None
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    raw.no_truncation()
    raw.no_padding()
    return raw


def _compare(folder: Path, tokenizer: PreTrainedTokenizerBase, raw: Tokenizer, texts: Texts) -> None:
    settings = folder / "tokenizer_config.json"
    keys = read_json(settings).keys() if settings.is_file() else ()
    pairs = not isinstance(texts[0], str)
    columns: Any = [list(column) for column in zip(*texts, strict=True)] if pairs else [texts]
    # add_bos_token and add_eos_token rightly change what transformers puts around a text.
    for special in (False, True) if not {"add_bos_token", "add_eos_token"} & set(keys) else (False,):
        options: dict[str, Any] = {"truncation": False, "padding": False, "verbose": False}
        found = tokenizer(*columns, add_special_tokens=special, **options)
        told = raw.encode_batch(list(texts), add_special_tokens=special)
        _same(folder, "ids", texts, found["input_ids"], [each.ids for each in told])
        if pairs and special and "token_type_ids" in found:
            _same(folder, "segment ids", texts, found["token_type_ids"], [each.type_ids for each in told])


def _same(folder: Path, what: str, texts: Texts, found: Any, told: list[list[int]]) -> None:
    for text, mine, own in zip(texts, map(list, found), told, strict=True):
        if mine != own:
            first = next(_differences(mine, own))
            raise WeightsError(
                f"{folder / 'tokenizer.json'}: transformers tokenises otherwise than the file says; found {what} "
                f"{mine[first : first + 8]} from token {first} of {_short(text)} where the file gives "
                f"{own[first : first + 8]}; use another transformers version, or body.check_tokenizer=false"
            )


def _differences(mine: list[int], own: list[int]) -> Iterator[int]:
    yield from (place for place, (one, other) in enumerate(zip(mine, own, strict=False)) if one != other)
    yield min(len(mine), len(own))


def _refuse_unknown(folder: Path, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> None:
    unknown = tokenizer.unk_token_id
    if not texts or unknown is None or unknown in (tokenizer.eos_token_id, tokenizer.pad_token_id):
        return  # no text is unknown to it: GPT-2 names its end so
    options: dict[str, Any] = {"truncation": False, "padding": False, "verbose": False}
    rows = [list(ids) for ids in tokenizer(texts, add_special_tokens=False, **options)["input_ids"]]
    tokens, strangers = sum(map(len, rows)), sum(ids.count(unknown) for ids in rows)
    if strangers > UNKNOWN_LIMIT * tokens:
        example = next(text for text, ids in zip(texts, rows, strict=True) if ids.count(unknown) > len(ids) / 2)
        raise WeightsError(
            f"{folder}: the body's tokenizer does not know these texts; found {strangers / tokens:.0%} unknown tokens "
            f"in {len(texts)} training texts, such as {_short(example)}; use a body of their language and script, "
            "correct task.encoding, or set body.check_tokenizer=false"
        )


def _short(text: Any) -> str:
    said = repr(text)
    return said if len(said) <= 120 else f"{said[:117]}..."
