"""Recurrent encoders against torch.nn itself on one text at a time, and the papers' formulas for their start."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from headswap.architecture import role_names
from headswap.errors import ConfigError
from headswap.flops import Watch
from headswap.layers import layer_groups
from headswap.recurrent import (
    RecurrentConfig,
    RecurrentForCausalLM,
    RecurrentForMultipleChoice,
    RecurrentForSequenceClassification,
    RecurrentForTokenClassification,
    RecurrentModel,
)
from headswap.recurrent.cells import RecurrentLayer, _in_pieces, _packed, _unjoined, initialise

MODULES = {"lstm": nn.LSTM, "gru": nn.GRU, "tanh": nn.RNN}
GATES = {"lstm": 4, "gru": 3, "tanh": 1}
SMALL = {"vocab_size": 40, "embedding_size": 6, "hidden_size": 8, "dropout": 0.0}
CELLS = pytest.mark.parametrize("cell", MODULES)
SIDES = pytest.mark.parametrize("bidirectional", [True, False], ids=["both ways", "one way"])
LENGTHS = (7, 4, 1, 5)


def built(kind=RecurrentModel, seed=0, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(RecurrentConfig(**{**SMALL, **settings})).eval()


def texts(seed=1):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return [torch.randint(1, 40, (length,)) for length in LENGTHS]


def padded(rows, side="right", width=9):
    """Return input_ids and attention_mask, with other ids than 0 under padding."""
    ids, mask = torch.full((len(rows), width), 39), torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        first = {"right": 0, "left": width - len(row), "both": (width - len(row)) // 2}[side]
        ids[number, first : first + len(row)] = row
        mask[number, first : first + len(row)] = 1
    return ids, mask


def own_layer(cell, layer, inputs, bidirectional):
    """Return torch's own module of one layer with the weights of `layer`."""
    own = MODULES[cell](inputs, 8 // (1 + bidirectional), bidirectional=bidirectional)
    state = dict(layer.rnn.state_dict())
    if bidirectional:
        state |= {f"{name}_reverse": value for name, value in layer.reverse.state_dict().items()}
    own.load_state_dict(state)
    return own


@CELLS
@SIDES
def test_outputs_and_gradients_are_those_of_torch_on_each_text_alone(cell, bidirectional):
    model = built(cell=cell, bidirectional=bidirectional)
    rows, (ids, mask) = texts(), padded(texts())
    weights = torch.randn(9, 8, generator=torch.Generator().manual_seed(5))
    found = model(ids, mask).last_hidden_state
    (found * weights).sum().backward()
    table = model.embeddings.word_embeddings.weight.detach().clone().requires_grad_()
    own = [own_layer(cell, layer, 8 if place else 6, bidirectional) for place, layer in enumerate(model.layers)]
    for number, row in enumerate(rows):
        states = own[1](own[0](table[row])[0])[0]
        assert torch.allclose(states, found[number, : len(row)], atol=1e-6, rtol=0)
        (states * weights[: len(row)]).sum().backward()
    assert torch.allclose(table.grad, model.embeddings.word_embeddings.weight.grad, atol=1e-6, rtol=1e-6)
    for layer, reference in zip(model.layers, own, strict=True):
        told = dict(layer.rnn.named_parameters())
        if bidirectional:
            told |= {f"{name}_reverse": weight for name, weight in layer.reverse.named_parameters()}
        for name, weight in reference.named_parameters():
            assert torch.allclose(weight.grad, told[name].grad, atol=1e-6, rtol=1e-5), name


@CELLS
@SIDES
@pytest.mark.parametrize("side", ["right", "left", "both"])
def test_padding_never_changes_a_state_and_has_none_itself(cell, bidirectional, side):
    model = built(cell=cell, bidirectional=bidirectional, layer_norm=True, residual=True, type_vocab_size=2)
    ids, mask = padded(texts(), side)
    found = model(ids, mask, torch.zeros_like(ids)).last_hidden_state
    assert not found[mask == 0].any()
    for number, row in enumerate(texts()):
        alone = model(row[None]).last_hidden_state[0]
        assert torch.allclose(found[number][mask[number] == 1], alone, atol=1e-6, rtol=0)


@CELLS
def test_the_order_of_a_batch_changes_nothing(cell):
    model, (ids, mask) = built(cell=cell), padded(texts())
    order = torch.tensor([2, 0, 3, 1])
    found = model(ids, mask).last_hidden_state
    assert torch.allclose(model(ids[order], mask[order]).last_hidden_state, found[order], atol=1e-6, rtol=0)


@SIDES
@pytest.mark.parametrize("pooling", ["mean", "max", "last"])
def test_a_text_is_pooled_over_its_own_tokens(pooling, bidirectional):
    model = built(RecurrentForSequenceClassification, pooling=pooling, bidirectional=bidirectional)
    seen = []
    model.classifier.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model(*padded(texts(), "both"))
    for number, row in enumerate(texts()):
        states = model.recurrent(row[None]).last_hidden_state[0]
        halves = [states[-1, :4], states[0, 4:]] if bidirectional else [states[-1]]
        expected = {"mean": states.mean(0), "max": states.amax(0), "last": torch.cat(halves)}[pooling]
        assert torch.allclose(seen[0][number], expected, atol=1e-6, rtol=0)


@SIDES
@CELLS
def test_the_state_after_a_row_is_that_after_its_last_token(cell, bidirectional):
    layer = built(cell=cell, bidirectional=bidirectional).layers[0]
    inputs, lengths = torch.randn(4, 9, 6), torch.tensor(LENGTHS)
    outputs, state = layer(inputs, lengths, final=True)
    assert torch.allclose(outputs[0, :7], layer(inputs, lengths)[0][0, :7], atol=1e-6)
    for number, length in enumerate(LENGTHS):
        own = own_layer(cell, layer, 6, bidirectional)
        last = own(inputs[number, :length])[1]
        parts = last if cell == "lstm" else (last,)
        expected = torch.stack([part.flatten() for part in parts])  # directions one after another
        assert torch.allclose(state[number], expected, atol=1e-6)


@CELLS
def test_a_causal_model_writes_the_same_with_its_states_as_without(cell):
    model = built(RecurrentForCausalLM, cell=cell, bidirectional=False, eos_token_id=None, embedding_std=1.0)
    rows = [text[:4] for text in texts()[:2]]
    ids, mask = padded(rows, "left", 5)
    settings = {"do_sample": False, "max_new_tokens": 6, "pad_token_id": 0}
    found = model.generate(ids, attention_mask=mask, **settings)[:, 5:]
    for row, written in zip(rows, found, strict=True):
        text = row.tolist()
        for token in written.tolist():
            assert token == int(model(torch.tensor([text])).logits[0, -1].argmax())
            text.append(token)
    beams = model.generate(ids, attention_mask=mask, num_beams=3, **settings)
    again = model.generate(ids, attention_mask=mask, num_beams=3, use_cache=False, **settings)
    assert torch.equal(beams, again)


def test_what_reads_both_ways_neither_predicts_the_next_word_nor_goes_on_from_a_state():
    with pytest.raises(ConfigError, match=r"body\.settings\.bidirectional: a causal language model must not see"):
        built(RecurrentForCausalLM)
    model = built()
    with pytest.raises(ValueError, match="cannot go on from it"):
        model(torch.tensor([[1]]), state=model(torch.tensor([[1]]), use_cache=True).state)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cell": "lsmt"}, "cell='lsmt': choose lstm, gru, tanh"),
        ({"pooling": "first"}, "pooling='first': choose mean, max, last"),
        ({"cell": "gru", "initialisation": "forget_bias"}, "sets a gate that cell=gru lacks: lstm"),
        ({"initialisation": "chrono"}, "chrono needs the length"),
        ({"chrono_length": 50}, "chrono needs the length, and nothing else reads it"),
        ({"initialisation": "chrono", "chrono_length": 2}, "must be 3 or more"),
        ({"hidden_size": 7}, "hidden_size=7: two directions share it"),
        ({"num_hidden_layers": 0}, "must be 1 or more"),
    ],
)
def test_settings_that_make_no_model_are_refused(settings, said):
    with pytest.raises(Exception, match=r"validat") as caught:
        RecurrentConfig(**{**SMALL, **settings})
    assert said in str(caught.value) or said in str(caught.value.__cause__)


def drawn(cell, how, chrono_length=None, width=3000):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rnn = MODULES[cell](2, width)
        initialise(rnn, how, chrono_length)
    total = (rnn.bias_ih_l0 + rnn.bias_hh_l0).detach().chunk(GATES[cell])
    return rnn, [part.numpy().astype(np.float64) for part in total]


def test_forget_gates_begin_at_one_and_the_rest_as_torch_has_it():
    rnn, (enter, forget, new, leave) = drawn("lstm", "forget_bias")
    assert (forget == 1).all()
    bound = 1 / math.sqrt(3000)
    triangle = stats.triang(0.5, -2 * bound, 4 * bound)  # the sum of two uniform numbers
    assert min(stats.kstest(each, triangle.cdf).pvalue for each in (enter, new, leave)) > 1e-3
    assert stats.kstest(rnn.weight_ih_l0.detach().flatten().numpy(), stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3


def test_chrono_gates_keep_between_one_and_the_longest_distance():
    """1804.11188, eq. 16: exp(b_forget) is uniform between 1 and T - 1, and the input gate shuts as it opens."""
    _, (enter, forget, *_) = drawn("lstm", "chrono", 100)
    assert stats.kstest(np.exp(forget), stats.uniform(1, 98).cdf).pvalue > 1e-3
    assert (enter == -forget).all()
    _, (reset, kept, _) = drawn("gru", "chrono", 100)
    assert stats.kstest(np.exp(kept), stats.uniform(1, 98).cdf).pvalue > 1e-3
    assert abs(reset).max() < 2 / math.sqrt(3000)


@CELLS
def test_orthogonal_cells_keep_the_length_of_a_state(cell):
    rnn, biases = drawn(cell, "orthogonal", width=24)
    for gate in rnn.weight_hh_l0.detach().chunk(GATES[cell]):
        assert torch.allclose(gate @ gate.T, torch.eye(24), atol=1e-5)
    bound = math.sqrt(6 / (2 + 24))  # Glorot and Bengio 2010, of one gate's matrix
    assert 0.9 * bound < float(rnn.weight_ih_l0.detach().abs().max()) <= bound
    assert not any(each.any() for each in biases)


def test_embeddings_and_heads_begin_as_wide_as_their_settings_say():
    model = built(
        RecurrentForSequenceClassification, vocab_size=2000, embedding_std=0.5, initializer_range=0.03, num_labels=900
    )
    assert float(model.recurrent.embeddings.word_embeddings.weight.detach().std()) == pytest.approx(0.5, rel=0.03)
    assert float(model.classifier.weight.detach().std()) == pytest.approx(0.03, rel=0.05)


def test_torch_itself_draws_the_default():
    with torch.random.fork_rng():
        torch.manual_seed(4)
        own = nn.GRU(5, 7)
        torch.manual_seed(4)
        same = nn.GRU(5, 7)
        torch.manual_seed(4)
        initialise(same, "default")
    assert all(torch.equal(*pair) for pair in zip(own.parameters(), same.parameters(), strict=True))


def test_depth_is_told_by_name():
    groups = layer_groups(list(role_names(built(RecurrentForTokenClassification, layer_norm=True)).values()))
    assert list(groups) == ["embeddings", "layer 0", "layer 1", "head"]
    assert "body.layers.1.rnn.weight_ih_l0" in groups["layer 1"]
    assert {"body.layers.0.reverse.bias_hh_l0", "body.layers.0.norm.bias"} <= set(groups["layer 0"])
    assert groups["embeddings"] == [
        f"body.embeddings.{name}" for name in ("word_embeddings.weight", "norm.weight", "norm.bias")
    ]


def test_a_language_model_writes_with_the_embeddings_it_reads_with(tmp_path):
    model = built(AutoModelForMaskedLM.from_config, bidirectional=True)
    assert model.words.decoder.weight is model.recurrent.embeddings.word_embeddings.weight
    model.save_pretrained(tmp_path)
    again = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    assert again.words.decoder.weight is again.recurrent.embeddings.word_embeddings.weight
    assert torch.equal(again(*padded(texts())).logits, model(*padded(texts())).logits)
    assert isinstance(AutoModel.from_pretrained(tmp_path), RecurrentModel)
    assert AutoConfig.from_pretrained(tmp_path).cell == "lstm"


def test_a_models_own_loss_is_cross_entropy():
    ids, mask = padded(texts())
    found = built(RecurrentForSequenceClassification, num_labels=3)(ids, mask, labels=torch.tensor([0, 1, 2, 0]))
    assert torch.allclose(found.loss, nn.functional.cross_entropy(found.logits, torch.tensor([0, 1, 2, 0])))
    chosen = built(RecurrentForMultipleChoice)(ids.view(2, 2, 9), mask.view(2, 2, 9), labels=torch.tensor([1, 0]))
    assert torch.allclose(chosen.loss, nn.functional.cross_entropy(chosen.logits, torch.tensor([1, 0])))


@CELLS
def test_the_flops_of_cells_are_counted_where_torchs_counter_misses_them(cell):
    layer = RecurrentLayer(cell, 6, 8, bidirectional=True)
    inputs = torch.randn(4, 9, 6, requires_grad=True)
    with Watch() as watch:
        layer(inputs)[0].sum().backward()
    products = GATES[cell] * 4 * (6 + 4)  # of a token in one direction: gates x width x (what it reads + its state)
    expected = 3 * 2 * (4 * 9) * 2 * products  # forward, and back to inputs and weights
    first = 2 * 2 * 4 * GATES[cell] * 4 * 4  # no gradient goes on to the states that a row begins with
    assert watch.untold == "" and expected - first <= watch.flops <= expected
    if cell == "lstm":
        assert watch.flops == expected
        with FlopCounterMode(display=False) as counter:
            layer(inputs)[0].sum().backward()
        assert counter.get_total_flops() == 0


@CELLS
@pytest.mark.parametrize("begun", [False, True], ids=["from zero", "from a state"])
def test_pieces_from_one_end_to_the_next_give_what_a_packed_sequence_gives(cell, begun):
    torch.manual_seed(3)
    rnn, lengths = MODULES[cell](5, 4, batch_first=True), torch.tensor([3, 8, 1, 8, 3, 6])
    parts = 2 if cell == "lstm" else 1
    past = torch.randn(6, parts, 4) if begun else None
    found = []
    for run in (_in_pieces, _packed):
        states = torch.randn(6, 9, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
        rnn.zero_grad()
        outputs, last = run(rnn, states, lengths, None if past is None else _unjoined(rnn, past))
        (outputs.square().sum() + last.square().sum()).backward()
        found.append([outputs, last, states.grad, *(weight.grad.clone() for weight in rnn.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
