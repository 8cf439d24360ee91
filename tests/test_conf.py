"""Every shipped YAML says what it is, and builds."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from headswap.config import GROUPS, compose, conf_dir
from headswap.overview import describe

FILES = sorted(path.relative_to(conf_dir()).as_posix() for path in conf_dir().glob("*/*.yaml"))
LONG = ["task.source=a.csv", "task.label=label", "task.filler=b.csv"]
FILLED = {  # what an option asks of the user
    "metric/evaluate": ["metric.evaluate.path=f1"],
    "body/from_run": ["run=somewhere"],
    "body/transformer": ["body.source=bert-base-uncased"],
    **{f"body/seq2seq_{kind}": ["body.tokenizer_source=x"] for kind in ("transformer", "lstm", "gru")},
    "study/seq2seq": ["body=seq2seq_lstm", "body.tokenizer_source=x"],
    "experiment/translation_rnn": ["task.source=a.jsonl", "body.tokenizer_source=x"],
    "experiment/summarization_rnn": ["task.source=a.jsonl", "body.tokenizer_source=x"],
    "hardware/deepspeed": ["train.save_every.seconds=null"],
    "study/length": ["task=recall"],
    "study/initialisations": ["task=recall", "body=causal"],
    "body/long_transformer": ["body.tokenizer_source=x"],
    "task/long_documents": LONG,
    "study/long_documents": ["body=long_transformer", "body.tokenizer_source=x"],
    "experiment/long_documents": [*LONG, "body.tokenizer_source=x"],
    "task/causal_language_modeling": ["task.source=a.csv", "task.text=[text]"],
    "task/masked_language_modeling": ["task.source=a.csv", "task.text=[text]"],
    "task/regression": ["task.source=a.csv", "task.text=[text]", "task.label=[score]"],
    "task/text": ["task.source=a.csv", "task.text=[text]", "task.label=label"],
    "task/multi_label": ["task.source=a.jsonl", "task.text=[text]", "task.label=[labels]"],
    "task/pair": ["task.source=a.csv", "task.text=[a,b]", "task.label=label"],
    "task/token_classification": ["task.source=a.jsonl", "task.tokens=tokens", "task.label=tags"],
    "task/multiple_choice": ["task.source=a.jsonl", "task.context=[a]", "task.choices=[b]", "task.label=label"],
    "task/question_answering": ["task.source=a.jsonl"],
    "task/translation": ["task.source=a.jsonl", "task.text=[en]", "task.target=de"],
    "task/summarization": ["task.source=a.jsonl", "task.text=[document]", "task.target=summary"],
}


def test_every_group_is_known():
    assert {path.name for path in conf_dir().iterdir() if path.is_dir()} == set(GROUPS)


@pytest.mark.parametrize("file", FILES)
def test_an_option_says_what_it_is_and_how_to_use_it(file):
    lines = [line for line in Path(conf_dir() / file).read_text().splitlines() if not re.match(r"#\s*@package", line)]
    assert lines[0].startswith("# ")
    assert len(describe(conf_dir() / file)) > 15
    assert any(re.match(r"# headswap \w+", line) for line in lines[1:4]), lines[:4]


@pytest.mark.parametrize("file", FILES)
def test_an_option_builds(file):
    group, option = file.removesuffix(".yaml").split("/")
    choice = f"metric=[{option}]" if group == "metric" else f"{group}={option}"
    if group == "tracker" and option != "none" and find_spec(option) is None:
        pytest.skip(f"{option} is not installed")
    config = compose([choice, *FILLED.get(f"{group}/{option}", [])])
    assert group == "metric" or config.choices[group] == option
