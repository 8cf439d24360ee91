"""The task that a plain transformers checkpoint was trained for, read off its config. Predict chain: beside folder.

A run's folder knows its task; a folder that save_pretrained wrote names only its architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headswap import config as configuration
from headswap.answers import Labels
from headswap.bodyconfig import label_names
from headswap.bodyfiles import read_json
from headswap.contracts import Task
from headswap.errors import ConfigError

_SEQUENCE = "ForSequenceClassification"
_TASKS = {
    "ForTokenClassification": ("token_classification.TokenClassification", {"tokens": "tokens", "label": "tags"}),
    "ForMultipleChoice": (
        "multiple_choice.MultipleChoice",
        {"context": ["context"], "choices": ["choices"], "label": "label"},
    ),
    "ForQuestionAnswering": ("question_answering.QuestionAnswering", {}),
    "ForMaskedLM": ("language_modeling.MaskedLanguageModeling", {"text": ["text"]}),
    "LMHeadModel": ("language_modeling.CausalLanguageModeling", {"text": ["text"]}),
    "ForCausalLM": ("language_modeling.CausalLanguageModeling", {"text": ["text"]}),
    "ForConditionalGeneration": ("sequence_to_sequence.SequenceToSequence", {"text": ["text"], "target": "target"}),
    "EncoderDecoderModel": ("sequence_to_sequence.SequenceToSequence", {"text": ["text"], "target": "target"}),
    "MarianMTModel": ("sequence_to_sequence.SequenceToSequence", {"text": ["text"], "target": "target"}),
}


def plain_task(folder: Path) -> Task:
    """Return a task that reads the inputs of the checkpoint's architecture; one text, where they may be a pair."""
    about = read_json(folder / "config.json")
    architecture = str((about.get("architectures") or [""])[0])
    if architecture.endswith(_SEQUENCE):
        target, fields = _sequence(about)
    else:
        ending = next((name for name in _TASKS if architecture.endswith(name)), None)
        if ending is None:
            known = ", ".join([_SEQUENCE, *_TASKS])
            raise ConfigError(
                f"{folder / 'config.json'}: says no task that can be predicted; found architecture "
                f"{architecture or 'none'!r}; name a run's folder, or a fine-tuned checkpoint ({known})"
            )
        target, fields = _TASKS[ending]
    node = {"_target_": f"headswap.tasks.{target}", "source": "nothing.csv", **fields}
    return configuration.build(node, "task", Task)


def _sequence(about: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    names = _names(about)
    texts = {"text": ["text"]}
    problem = about.get("problem_type")
    if problem == "multi_label_classification":
        return "multi_label.MultiLabel", {**texts, "label": ["labels"]}
    if problem == "regression" or len(names) == 1:
        return "regression.Regression", {**texts, "label": list(names)}
    return "text_classification.TextClassification", texts


def _names(about: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the label names of a config.json; one that names none means transformers' own two."""
    return label_names(about) or ("LABEL_0", "LABEL_1")


def labels_of(folder: Path, task: Task) -> Labels:
    """Return what the outputs of the model in `folder` mean."""
    named = "Classification" in task.auto_class and task.problem != "multiple_choice"
    return Labels(_names(read_json(folder / "config.json")) if named else (), task.problem)
