"""A space is written in Hydra's grammar; each kind of sweep is one dimension, and every mistake is named."""

import pytest

from headswap.errors import ConfigError
from headswap.search_space import Choice, Span, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("choice(full,lp_ft)", Choice(("full", "lp_ft"))),
        ("full,lp_ft,full", Choice(("full", "lp_ft"))),
        ("choice(1e-5,true,[a,b])", Choice(("1e-05", "True", "[a,b]"))),
        ("null,2", Choice(("null", "2"))),
        ("range(1,8)", Span(1, 7, 1, whole=True)),
        ("range(0,10,4)", Span(0, 8, 4, whole=True)),
        ("range(0.25,1,0.25)", Span(0.25, 0.75, 0.25)),
        ("interval(0,0.1)", Span(0, 0.1)),
        ("tag(log,interval(1e-5,1e-3))", Span(1e-5, 1e-3, log=True)),
        ("int(interval(1,64))", Span(1, 64, whole=True)),
        ("tag(log, int(interval(1,64)))", Span(1, 64, log=True, whole=True)),
    ],
)
def test_each_of_hydras_sweeps_is_a_dimension(text, expected):
    assert parse({"train": {"x": text}}) == {"train.x": expected}


def test_keys_are_nested_or_dotted_and_keep_their_order():
    space = {"strategy": "full,probe", "train": {"epochs": "range(1,3)"}, "strategy.factor": "interval(0.5,1)"}
    assert list(parse(space)) == ["strategy", "train.epochs", "strategy.factor"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3", "nothing to choose from; found '3'"),
        ("interval(1,", "not in Hydra's grammar; found 'interval\\(1,'"),
        ("interval(2,1)", "an interval rises; found 'interval\\(2,1\\)'"),
        ("tag(log,interval(0,1))", "a log scale begins above 0"),
        ("tag(cosine,interval(0,1))", "unknown tags; found cosine"),
        ("range(5,5)", "an empty range; found 'range\\(5,5\\)'"),
        ("tag(log,range(1,5))", "steps are even on one scale"),
        ("tag(log,choice(1,5))", "a choice has no scale"),
    ],
)
def test_what_cannot_be_searched_names_its_key(text, said):
    with pytest.raises(ConfigError, match=rf"^sweep\.space\.train\.x: {said}"):
        parse({"train.x": text})


def test_the_numbers_of_a_range_are_those_that_hydra_sweeps_over():
    assert parse({"x": "range(0.1,0.9,step=0.2)"})["x"].words() == ["0.1", "0.3", "0.5", "0.7"]
    assert parse({"x": "range(3,12,3)"})["x"].words() == ["3", "6", "9"]
