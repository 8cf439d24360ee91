"""Recurrent encoder-decoders beside loops over single tokens that are written from the papers' equations."""

import itertools

import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

from headswap.recurrent import RecurrentForConditionalGeneration, RecurrentSeq2SeqConfig, RecurrentSeq2SeqModel

KINDS = {
    "lstm-dot": {"cell": "lstm", "attention": "dot"},
    "gru-additive": {"cell": "gru", "attention": "additive"},
    "tanh-none": {"cell": "tanh", "attention": "none"},
    "lstm-additive-norm": {"cell": "lstm", "attention": "additive", "layer_norm": True, "residual": True},
    "lstm-none-one-way": {"cell": "lstm", "attention": "none", "bidirectional": False},
}
SOURCES = [[1, 5, 9, 4, 2], [1, 7, 2], [1, 3, 3, 8, 6, 10, 2]]
TARGETS = [[4, 5, 2], [6, 2], [7, 3, 9, 10, 2]]
PAD, START, END = 0, 1, 2


def model_of(kind, **settings):
    sizes = {"vocab_size": 11, "embedding_size": 6, "hidden_size": 8, "num_hidden_layers": 2, "dropout": 0.0}
    special = {"pad_token_id": PAD, "eos_token_id": END, "decoder_start_token_id": START}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = RecurrentSeq2SeqConfig(**{**sizes, **special, **KINDS[kind], **settings})
        model = RecurrentForConditionalGeneration(config).eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight) * 0.4)
    return model


def filled(rows, value=PAD, left=False):
    width = max(map(len, rows))
    return torch.tensor(
        [[value] * (width - len(row)) * left + row + [value] * (width - len(row)) * (not left) for row in rows]
    )


def batch(sources=SOURCES, targets=TARGETS, left=False):
    masks = filled([[1] * len(row) for row in sources], 0, left)
    return {"input_ids": filled(sources, PAD, left), "attention_mask": masks, "labels": filled(targets, -100)}


# One cell, one token: Hochreiter and Schmidhuber with forget gates, Cho et al. as torch writes it, Elman.
def cell_step(rnn, kind, vector, state):
    from_input = rnn.weight_ih_l0 @ vector + rnn.bias_ih_l0
    from_state = rnn.weight_hh_l0 @ state[0] + rnn.bias_hh_l0
    if kind == "tanh":
        return [torch.tanh(from_input + from_state)]
    if kind == "gru":
        (ri, zi, ni), (rs, zs, ns) = from_input.chunk(3), from_state.chunk(3)
        keep = torch.sigmoid(zi + zs)
        return [(1 - keep) * torch.tanh(ni + torch.sigmoid(ri + rs) * ns) + keep * state[0]]
    i, f, g, o = (from_input + from_state).chunk(4)
    memory = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return [torch.sigmoid(o) * torch.tanh(memory), memory]


def run(rnn, kind, vectors, state=None):
    width = rnn.weight_hh_l0.shape[1]
    state = state or [torch.zeros(width, dtype=vectors[0].dtype)] * (2 if kind == "lstm" else 1)
    outputs = []
    for vector in vectors:
        state = cell_step(rnn, kind, vector, state)
        outputs.append(state[0])
    return outputs, state


def finished(layer, vectors, outputs):
    if layer.residual:
        outputs = [output + vector for output, vector in zip(outputs, vectors, strict=True)]
    return outputs if layer.norm is None else [layer.norm(output) for output in outputs]


def by_hand(model, source, target):
    """Return the logits of one pair's target, token by token."""
    kind, encoder, decoder = model.config.cell, model.model.encoder, model.model.decoder
    table = encoder.embeddings.word_embeddings.weight
    vectors, states = [table[token] for token in source], []
    if encoder.embeddings.norm is not None:
        vectors = [encoder.embeddings.norm(vector) for vector in vectors]
    for layer in encoder.layers:
        outputs, last = run(layer.rnn, kind, vectors)
        if layer.reverse is not None:
            back, first = run(layer.reverse, kind, vectors[::-1])
            outputs = [torch.cat(both) for both in zip(outputs, back[::-1], strict=True)]
            last = [torch.cat(both) for both in zip(last, first, strict=True)]
        states.append(last)
        vectors = finished(layer, vectors, outputs)
    memory, logits = vectors, []
    for token in [START, *target[:-1]]:
        vector = table[token] if decoder.norm is None else decoder.norm(table[token])
        for place, layer in enumerate(decoder.layers):
            outputs, states[place] = run(layer.rnn, kind, [vector], states[place])
            (vector,) = finished(layer, [vector], outputs)
        if model.config.attention != "none":
            scores = torch.stack([score(model, vector, each) for each in memory])
            vector = torch.cat([(functional.softmax(scores, 0)[:, None] * torch.stack(memory)).sum(0), vector])
        logits.append(table @ torch.tanh(decoder.mix.weight @ vector + decoder.mix.bias))
    return torch.stack(logits)


def score(model, query, key):
    if model.config.attention == "dot":
        return (query * key).sum()
    own = model.model.decoder.attention
    return (own.score.weight[0] * torch.tanh(own.query.weight @ query + own.query.bias + own.key.weight @ key)).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_logits_loss_and_gradients_are_those_of_a_loop_over_tokens(kind):
    model = model_of(kind).double()
    found = model(**batch())
    rows = [by_hand(model, source, target) for source, target in zip(SOURCES, TARGETS, strict=True)]
    for logits, row, target in zip(found.logits, rows, TARGETS, strict=True):
        torch.testing.assert_close(logits[: len(target)], row, atol=1e-6, rtol=0)
    loss = functional.cross_entropy(torch.cat(rows), torch.tensor(list(itertools.chain(*TARGETS))))
    torch.testing.assert_close(found.loss, loss, atol=1e-6, rtol=0)
    weights = dict(model.named_parameters())
    mine, theirs = (torch.autograd.grad(each, list(weights.values())) for each in (found.loss, loss))
    for name, one, other in zip(weights, mine, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0, msg=name)
        assert one.abs().max() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_comes_to_the_same_within_a_millionth(kind):
    model = model_of(kind)
    found = model(**batch()).logits
    for logits, source, target in zip(found, SOURCES, TARGETS, strict=True):
        expected = by_hand(model, source, target)
        assert (logits[: len(target)] - expected).abs().max() < 2e-6 * expected.abs().max()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_decoding_with_kept_states_gives_the_logits_of_teacher_forcing(kind):
    model, given = model_of(kind), batch()
    whole = model(**given).logits
    tokens = model.prepare_decoder_input_ids_from_labels(given.pop("labels"))
    read, state = model.get_encoder()(**given), None
    for step in range(tokens.shape[1]):
        found = model(
            encoder_outputs=read, attention_mask=given["attention_mask"], past_key_values=state,
            decoder_input_ids=tokens[:, step : step + 1],
        )  # fmt: skip
        state = found.past_key_values
        torch.testing.assert_close(found.logits[:, 0], whole[:, step], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_neither_padding_nor_its_side_nor_the_order_of_rows_changes_a_result(kind):
    model = model_of(kind)
    whole, left = model(**batch()).logits, model(**batch(left=True)).logits
    torch.testing.assert_close(left, whole, atol=1e-6, rtol=1e-6)
    turned = model(**batch(SOURCES[::-1], TARGETS[::-1])).logits
    torch.testing.assert_close(turned.flip(0), whole, atol=1e-6, rtol=1e-6)
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        alone = model(**batch([source], [target])).logits[0]
        torch.testing.assert_close(whole[row, : len(target)], alone, atol=1e-6, rtol=1e-6)
    written = [model.generate(**sources(left=side), max_new_tokens=8).tolist() for side in (False, True)]
    assert written[0] == written[1]
    read = model.get_encoder()(**sources())
    assert read.last_hidden_state[sources()["attention_mask"] == 0].abs().sum() == 0


def sources(left=False):
    return {name: each for name, each in batch(left=left).items() if name != "labels"}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_greedy_generation_is_a_loop_over_the_likeliest_tokens(kind):
    model = model_of(kind)
    expected = []
    for source in SOURCES:
        row = []
        while len(row) < 9 and row[-1:] != [END]:
            row.append(int(by_hand(model, source, [*row, END])[-1].argmax()))
        expected.append([START, *row])
    found = model.generate(**sources(), max_new_tokens=9, do_sample=False)
    assert [row[: len(own)] for row, own in zip(found.tolist(), expected, strict=True)] == expected
    assert model.generate(**sources(), max_new_tokens=9, use_cache=False).tolist() == found.tolist()
    assert len({tuple(row) for row in expected}) > 1 or kind != "lstm-dot"


@torch.no_grad()
def test_each_token_costs_one_step_of_the_decoder():
    model, seen = model_of("lstm-dot"), []
    model.model.decoder.layers[0].rnn.register_forward_hook(lambda rnn, given, out: seen.append(given[0].shape[1]))
    model.generation_config.eos_token_id = None
    model.generate(**sources(), max_new_tokens=12)
    assert seen == [1] * 12
    seen.clear()
    model.generate(**sources(), max_new_tokens=12, num_beams=3)
    assert seen == [1] * 12


@pytest.mark.parametrize("kind", ["lstm-dot", "gru-additive", "tanh-none"])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
@torch.no_grad()
def test_wide_beams_find_the_best_of_all_targets(kind, penalty):
    """With as many beams as there are beginnings nothing is lost, so that brute force must agree."""
    model, steps = model_of(kind, vocab_size=5), 3
    source = [1, 3, 4, 3, 2]
    ended = {(*row[: row.index(END)], END) if END in row else row for row in itertools.product(range(5), repeat=steps)}
    scored = {}
    for row in ended:
        logs = by_hand(model, source, list(row)).log_softmax(-1)
        scored[row] = float(sum(each[token] for each, token in zip(logs, row, strict=True))) / len(row) ** penalty
    best = sorted(scored, key=scored.get, reverse=True)[:3]
    found = model.generate(
        torch.tensor([source]), num_beams=30, num_return_sequences=3, max_new_tokens=steps, do_sample=False,
        length_penalty=penalty, early_stopping="never", output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    rows = [tuple(row[1 : 1 + len(own)]) for row, own in zip(found.sequences.tolist(), best, strict=True)]
    assert rows == best
    expected = torch.tensor([scored[row] for row in best])
    torch.testing.assert_close(found.sequences_scores, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_batch_of_beams_is_each_row_with_its_own(kind="lstm-dot"):
    model = model_of(kind)
    settings = {"num_beams": 4, "max_new_tokens": 8, "do_sample": False}
    together = model.generate(**sources(), **settings).tolist()
    for row, source in zip(together, SOURCES, strict=True):
        alone = model.generate(torch.tensor([source]), **settings)[0].tolist()
        assert row[: len(alone)] == alone


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_a_saved_model_is_the_same_to_the_bit(tmp_path, tied):
    model = model_of("lstm-additive-norm", tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    assert type(again) is RecurrentForConditionalGeneration
    assert torch.equal(again(**batch()).logits, model(**batch()).logits)
    assert (again.lm_head.weight is again.get_input_embeddings().weight) == tied
    settings = {"num_beams": 2, "max_new_tokens": 6}
    assert torch.equal(again.generate(**sources(), **settings), model.generate(**sources(), **settings))
    body = AutoModel.from_pretrained(tmp_path)
    assert type(body) is RecurrentSeq2SeqModel
    assert torch.equal(body.decoder.mix.weight, model.model.decoder.mix.weight)
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == again.config.to_dict()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"attention": "luong"}, "attention='luong': choose dot, additive, none"),
        ({"cell": "elman"}, "cell='elman': choose lstm, gru, tanh"),
        ({"hidden_size": 7}, "two directions share it: give an even number"),
    ],
)
def test_settings_that_make_no_model_are_refused(settings, said):
    with pytest.raises(Exception, match=said):
        RecurrentSeq2SeqConfig(**settings)


def test_what_a_decoder_cannot_begin_with_is_told():
    model = model_of("lstm-dot")
    read = model.get_encoder()(**sources())
    read.state = None
    with pytest.raises(ValueError, match="encoder_outputs: hold no state to begin with"):
        model(encoder_outputs=read, decoder_input_ids=torch.tensor([[1]] * 3))
    model.config.decoder_start_token_id = None
    with pytest.raises(ValueError, match="decoder_start_token_id: None; a target begins with nothing"):
        model(**batch())
