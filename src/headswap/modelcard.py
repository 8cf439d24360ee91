"""The README.md of a saved model: data, scores, where its weights came from, limits, how to use it. Floor 3.

    Facts -> card() -> Markdown with the hub's front matter

It goes where the model goes: neither secrets nor paths of the machine stand in it, see `plain`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from headswap import config as configuration
from headswap.answers import Scores
from headswap.config import Plugs
from headswap.contracts import SPLITS, Splits
from headswap.ledger import Ledger
from headswap.placeholders import conceal, looks_secret
from headswap.sources import is_hub_id
from headswap.spine import Config

PIPELINES = {
    "single_label_classification": "text-classification",
    "multi_label_classification": "text-classification",
    "regression": "text-classification",
    "token_classification": "token-classification",
    "masked_language_modeling": "fill-mask",
    "causal_language_modeling": "text-generation",
}
"""The pipelines that transformers 5 has for the problems; for the others it has none."""
_HUB_TASKS = {**PIPELINES, "question_answering": "question-answering", "multiple_choice": "multiple-choice"}
_HUB_METRICS = {"macro_f1": "f1", "micro_f1": "f1", "entity_f1": "f1", "matthews": "matthews_correlation"}
_LEFT_OUT = ("name", "run", "plugins", "hardware", "output", "study", "stages")
_PATH = re.compile(r"~[\w.-]*/|/[^/]|\.\.?/|file:|[A-Za-z]:[\\/]|\\\\")
_TOKEN = re.compile(r"\bhf_\w{16,}|(?<=://)[^/\s@]+:[^/\s@]+(?=@)")


@dataclass(frozen=True)
class Facts:
    """What a finished run knows of its model.

    Args:
        encoding: `Batches.notes`: split -> `truncated_share` and more.
        scores: of validation and test.
        lineage: the runs that the body went through, in words; empty for none.
    """

    config: Config
    plugs: Plugs
    splits: Splits
    encoding: Mapping[str, Any]
    ledger: Ledger
    scores: Mapping[str, Scores]
    lineage: str = ""

    @property
    def problem(self) -> str:
        return self.splits.labels.problem

    @property
    def task(self) -> str:
        return self.config.choices.get("task", "task")

    @property
    def body(self) -> str:
        return self.config.choices.get("body", "body")

    @property
    def rows(self) -> dict[str, int]:
        return {split: len(self.splits.of(split)) for split in SPLITS}

    @property
    def hub_task(self) -> str:
        """The hub's name for the problem; a sequence to sequence is told by how it is measured."""
        measured = self.scores["test"].values
        if self.problem == "sequence_to_sequence":
            return "summarization" if any(name.startswith("rouge") for name in measured) else "translation"
        return _HUB_TASKS[self.problem]


def card(facts: Facts) -> str:
    """Return the model card of a finished run, in Markdown."""
    parts = [f"# {_cell(facts.task)} on {_cell(facts.body)}", _introduction(facts)]
    parts += ["## Scores", _scores(facts), "## Data", _data(facts)]
    parts += ["## Where the weights came from", _weights(facts), "## Limits", _limits(facts), "## Use", _use(facts)]
    parts += ["## Configuration", _configuration(facts)]
    front = yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True)
    text = f"---\n{front}---\n\n" + "\n\n".join(parts) + "\n"
    return conceal(text, configuration.to_dict(facts.config))


def plain(value: Any, key: str = "") -> Any:
    """Return a value as the world may see it: of a local path its last name, of a secret three stars."""
    if isinstance(value, Mapping):
        return {name: plain(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, key) for inner in value]
    if not isinstance(value, str):
        return value
    if key and looks_secret(key):
        return "***"
    if _PATH.match(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1] or "a folder"
    return _TOKEN.sub("***", value)


def _front_matter(facts: Facts) -> dict[str, Any]:
    found: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": facts.hub_task, "tags": ["headswap"]}
    source = str(facts.config.body.get("source", ""))
    if facts.ledger.init == "pretrained" and is_hub_id(source):
        found["base_model"] = source
    data = _data_source(facts)
    if is_hub_id(data):
        found["datasets"] = [data]
    measured = {name: value for name, value in facts.scores["test"].values.items() if math.isfinite(value)}
    found["metrics"] = list(dict.fromkeys(_HUB_METRICS.get(name, name) for name in measured))
    metrics = [
        {"type": _HUB_METRICS.get(name, name), "value": round(float(value), 6), "name": f"test {name}"}
        for name, value in measured.items()
    ]
    dataset = {"type": data if is_hub_id(data) else facts.task, "name": plain(facts.task), "split": "test"}
    result = {"task": {"type": facts.hub_task}, "dataset": dataset, "metrics": metrics}
    return found | {"model-index": [{"name": f"{facts.task}-{facts.body}", "results": [result]}]}


def _introduction(facts: Facts) -> str:
    from headswap import __version__

    starts = {"pretrained": "pretrained", "random": "randomly initialised"}
    start = starts.get(facts.ledger.init, f"partly pretrained ({facts.ledger.init})")
    return (
        f"{facts.ledger.architecture} for {facts.problem.replace('_', ' ')}: a {start} body with a head for this task, "
        f"trained by headswap {__version__} with the strategy `{facts.config.choices.get('strategy', '')}` and seed "
        f"{facts.config.seed}."
    )


def _scores(facts: Facts) -> str:
    validation, test = facts.scores["validation"], facts.scores["test"]
    sizes = (f"validation, n = {len(validation.ids):,}", f"test, n = {len(test.ids):,}")
    lines = [("metric", *sizes, "standard error of test")]
    for name, value in test.values.items():
        each = test.examples.get(name)
        error = "" if each is None or len(each) < 2 else f"{float(each.std(ddof=1)) / math.sqrt(len(each)):.4f}"
        lines.append((name, f"{validation.values[name]:.4f}", f"{value:.4f}", error))
    lines.append(("loss", f"{validation.loss:.4f}", f"{test.loss:.4f}", ""))
    return f"{_table(lines)}\n\n{_how_scored(facts)}"


def _how_scored(facts: Facts) -> str:
    best = "The weights were chosen by their validation score, so that one is optimistic."
    said = [best if facts.config.train.keep == "best" else "The weights are those of the last step."]
    said.append("The test rows were scored once.")
    if facts.problem in ("single_label_classification", "multiple_choice") and len(facts.scores["test"].ids):
        counts = Counter(facts.scores["test"].answers.references.tolist())
        share = max(counts.values()) / sum(counts.values())
        said.append(f"Always giving the most frequent answer is right in {share:.4f} of the test rows.")
    if facts.scores["test"].calibration:
        said.append("What validation settled for later answers, such as thresholds, stands in the run's result.json.")
    return " ".join(said)


def _data_source(facts: Facts) -> str:
    task = facts.config.task
    return ", ".join(str(plain(task[name])) for name in ("source", *SPLITS) if task.get(name)) or "not named"


def _data(facts: Facts) -> str:
    notes, rows = facts.splits.notes, ", ".join(f"{count:,} {split}" for split, count in facts.rows.items())
    lines = [("task", facts.task), ("source", _data_source(facts)), ("rows", rows)]
    if cut := notes.get("splits_cut_from_train"):
        lines.append(("cut from the training data", ", ".join(cut)))
    lines.append(("fingerprint of the rows", f"`{facts.splits.fingerprint}`"))
    if facts.splits.labels.count:
        lines.append(("labels", ", ".join(facts.splits.labels.names)))
    counts = notes.get("class_counts") or {}
    told = _table([("", ""), *lines])
    if set(counts) != set(SPLITS) or not all(isinstance(each, Mapping) for each in counts.values()):
        return told
    names = facts.splits.labels.names
    table = [("label", *SPLITS), *((name, *(f"{counts[split].get(name, 0):,}" for split in SPLITS)) for name in names)]
    return f"{told}\n\n{_table(table)}"


def _weights(facts: Facts) -> str:
    node, origin = facts.config.body, facts.ledger.origin
    origin = origin.partition(" (from ")[0]  # a mirror is a place on this machine
    lines = [("body", plain(origin)), ("start", facts.ledger.init)]
    lines += [(name, f"`{node[name]}`") for name in ("revision", "sha256") if node.get(name)]
    if not node.get("sha256"):
        lines += [("content", f"`{value}`") for value in facts.plugs.body.identity().values()]
    if facts.lineage:
        lines.append(("trained before", plain(facts.lineage)))
    lines.append(("of the body's elements, from the file", f"{facts.ledger.coverage:.2%}"))
    ledger = [("part", "fate", "tensors", "elements"), *(line[:4] for line in facts.ledger.table())]
    return f"{_table([('', ''), *lines])}\n\n{_table(ledger)}"


def _limits(facts: Facts) -> str:
    rows, longest = facts.rows, facts.config.data.max_length
    said = [
        f"One training with one seed, on {rows['train']:,} rows; another seed gives other scores.",
        f"The test has {rows['test']:,} rows"
        + (", cut from the same source as the training rows" if _same_source(facts) else "")
        + "; nothing was measured on texts of another kind, time or language.",
        "No check for bias against groups of people was made.",
    ]
    cut = {split: facts.encoding.get(split, {}).get("truncated_share", 0.0) for split in SPLITS}
    shares = ", ".join(f"{share:.1%} of {split}" for split, share in cut.items())
    said.append(f"Inputs are cut at {longest} tokens: {shares}.")
    counts = facts.splits.notes.get("class_counts", {}).get("train", {})
    rare = [name for name, count in counts.items() if isinstance(count, int) and count < 10]
    if rare:
        said.append(f"Fewer than 10 training rows: {', '.join(map(_cell, rare))}.")
    return "\n".join(f"- {line}" for line in said)


def _same_source(facts: Facts) -> bool:
    return "test" in facts.splits.notes.get("splits_cut_from_train", ())


def _use(facts: Facts) -> str:
    inputs = facts.plugs.task.inputs
    example = '["your text"]' if len(inputs) == 1 else "[{" + ", ".join(f'"{name}": "..."' for name in inputs) + "}]"
    own = f'import headswap\n\npredict = headswap.load("THIS_FOLDER")\nprint(predict({example}))'
    lines = "headswap predict THIS_FOLDER --input FILE.csv --output ANSWERS.csv"
    found = [_fenced("bash", lines), _fenced("python", own)]
    if snippet := _pipeline(facts, inputs):
        found.insert(0, _fenced("python", snippet))
    else:
        found.insert(0, "transformers 5 has no pipeline for this problem; headswap answers it:")
    return "\n\n".join(found)


def _pipeline(facts: Facts, inputs: Sequence[str]) -> str:
    """Return how transformers' own pipeline is asked, empty where it has none."""
    name = PIPELINES.get(facts.problem)
    if name is None:
        return ""
    options, given = "", '"your text"'
    if name == "text-classification":
        options = f", truncation=True, max_length={facts.config.data.max_length}"
        options += ", top_k=None" if facts.problem == "multi_label_classification" else ""
        given = '{"text": "your text", "text_pair": "its pair"}' if len(inputs) == 2 else given
    if name == "token-classification":
        options = ', aggregation_strategy="first"'
    if name == "fill-mask":
        given = 'f"your text with one {answer.tokenizer.mask_token} in it"'
    call = f'answer = pipeline("{name}", model="THIS_FOLDER"{options})'
    return f"from transformers import pipeline\n\n{call}\nprint(answer({given}))"


def _configuration(facts: Facts) -> str:
    tree = configuration.to_dict(facts.config)
    kept = plain({key: value for key, value in tree.items() if key not in _LEFT_OUT})
    text = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
    return f"<details><summary>Everything that decides the result</summary>\n\n{_fenced('yaml', text)}\n\n</details>"


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def _table(lines: Sequence[Sequence[Any]]) -> str:
    def row(cells: Sequence[Any]) -> Iterator[str]:
        yield from (_cell(cell) for cell in cells)

    head, *rest = (f"| {' | '.join(row(line))} |" for line in lines)
    return "\n".join([head, "|" + "---|" * len(lines[0]), *rest])


def _cell(value: Any) -> str:
    """Return a value as one table cell: a label may hold a bar or a line's end."""
    return " ".join(str(value).replace("|", "\\|").split())
