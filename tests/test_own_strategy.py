"""docs/extending.md: a strategy in a package and a conf folder of one's own trains, and is under 20 lines."""

import re
import sys

import pytest

from headswap.config import build_plugs, compose
from headswap.errors import ConfigError
from headswap.records import read_json
from test_readme import ROOT, blocks
from tiny_runs import ran, reviews, words_of

PAGE, BASELINE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8").split("\n# A baseline of your own\n")


def lay(page, folder):
    """Write the page's two files where it says they stand."""
    (code,), (option,) = blocks(page, "python"), blocks(page, "yaml")
    for text in (code, option):
        place = folder / re.match(r"# (\S+)\n", text)[1]
        place.parent.mkdir(parents=True)
        place.write_text(text)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Lay the page's strategy into a package and a conf folder; return the latter."""
    lay(PAGE, tmp_path)
    (tmp_path / "my_package" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    forget()
    yield tmp_path / "my_conf"
    forget()


def forget():
    """Other pages have a package of the same name."""
    for name in [name for name in sys.modules if name.split(".")[0] == "my_package"]:
        del sys.modules[name]


def test_the_pages_strategy_is_short_and_trains(own, tiny_body, tmp_path):
    (code,) = blocks(PAGE, "python")
    assert len([line for line in code.splitlines() if line.strip()]) < 20
    words = words_of(reviews(tmp_path / "reviews.csv"), tiny_body, tmp_path / "outputs")
    config = compose([*words, "strategy=top_down", "strategy.layers=1", "plugins=[my_package]"], [own])
    names = ["body.embeddings.w", "body.layer.0.w", "body.layer.1.w", "head.w"]
    first, second = build_plugs(config).strategy.phases(names)
    assert [bool(re.search(first.rules[0].pattern, name)) for name in names] == [False, False, True, True]
    assert (first.share, second.share, second.rules[0].factor) == (0.5, 0.5, 1.0)
    assert ran(tmp_path / "run", config)["kind"] == "finished"
    assert read_json(tmp_path / "run" / "result.json")["steps"] == 4


def test_a_package_that_was_not_named_is_refused(own, tiny_body, tmp_path):
    words = words_of(reviews(tmp_path / "reviews.csv"), tiny_body, tmp_path / "outputs")
    with pytest.raises(ConfigError, match="my_package"):
        compose([*words, "strategy=top_down"], [own])


def test_a_misspelt_key_is_told(own, tiny_body, tmp_path):
    words = words_of(reviews(tmp_path / "reviews.csv"), tiny_body, tmp_path / "outputs")
    with pytest.raises(ConfigError, match=r"strategy.layer: .*layers"):
        compose([*words, "strategy=top_down", "+strategy.layer=1", "plugins=[my_package]"], [own])


def test_the_pages_baseline_is_fitted_and_scored(tiny_body, tmp_path, monkeypatch):
    lay(BASELINE, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = words_of(reviews(tmp_path / "reviews.csv"), tiny_body, tmp_path / "outputs")
    config = compose([*words, "baseline=lengths", "plugins=[my_cheap]"], [tmp_path / "cheap_conf"])
    assert config.baseline["power"] == 0.5
    assert ran(tmp_path / "run", config)["kind"] == "finished"
    result = read_json(tmp_path / "run" / "result.json")
    assert result["parameters"] == {"trainable": 2} and result["scores"]["test"]["accuracy"] > 0
