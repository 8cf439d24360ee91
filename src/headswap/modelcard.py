"""The README.md of a saved model: what it is, where its weights came from, how it scored, how to use it. Floor 3."""

from __future__ import annotations

from collections.abc import Mapping

from headswap.contracts import Scores
from headswap.ledger import Ledger
from headswap.spine import Config

_TEXT = """\
---
library_name: transformers
pipeline_tag: text-classification
tags: [headswap]
---

# {task} on {body}

A {init} body with a new head, trained by headswap {version} with strategy `{strategy}`, seed {seed}.

| | |
|---|---|
| labels | {labels} |
| rows | {rows} |
{scores}

## Where the weights came from

| part | fate | tensors | elements |
|---|---|---|---|
{ledger}

## Use

```python
from transformers import pipeline

classify = pipeline("text-classification", model="PATH_TO_THIS_FOLDER")
print(classify("your text"))
```
"""


def card(config: Config, ledger: Ledger, scores: Scores, rows: Mapping[str, int]) -> str:
    """Return the model card of a finished run, in Markdown."""
    from headswap import __version__

    table = [f"| {' | '.join(str(cell) for cell in line[:4])} |" for line in ledger.table()]
    return _TEXT.format(
        task=config.choices.get("task", "task"),
        body=config.choices.get("body", "body"),
        init=config.body.get("init", "pretrained"),
        strategy=config.choices.get("strategy", ""),
        version=__version__,
        seed=config.seed,
        labels=", ".join(ledger.labels),
        rows=", ".join(f"{count} {split}" for split, count in rows.items()),
        scores="\n".join(f"| test {name} | {value:.4f} |" for name, value in scores.values.items()),
        ledger="\n".join(table),
    )
