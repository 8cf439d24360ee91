"""From a body's config.json to the config and the class of a run's model. Floor 2, the first step of join().

The task's labels and the pad token go in here, all of them together; architecture.py builds what comes out.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headswap.bodyfiles import FIXED_KEYS, LABEL_KEYS, one_line
from headswap.contracts import Body, BodyFiles, Labels
from headswap.errors import ConfigError, WeightsError, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

SEQUENCE_PROBLEMS = ("single_label_classification", "multi_label_classification", "regression")


def make_config(
    body: Body, files: BodyFiles, labels: Labels, pad_token_id: int | None = None
) -> tuple[PreTrainedConfig, tuple[str, ...]]:
    """Read the body's config.json; apply its overrides and the task's labels, all of them together.

    Returns:
        The config, and the label names that the checkpoint itself has (empty when it names none).
    """
    from transformers import AutoConfig, PreTrainedConfig

    import headswap.recurrent  # noqa: F401 (AutoConfig knows them from then on)

    path = files.folder / "config.json"
    try:
        raw, _ = PreTrainedConfig.get_config_dict(str(files.folder), local_files_only=True)
        original = AutoConfig.from_pretrained(
            str(files.folder), trust_remote_code=bool(files.code), local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as fault:
        raise WeightsError(f"{path}: transformers cannot read it; found {one_line(fault)}; use another body") from fault
    source_labels = label_names(raw)
    raw = _without_kernels({key: value for key, value in raw.items() if key not in (*LABEL_KEYS, "_num_labels")})
    changes = _checked_overrides(original, body.config_overrides)
    if pad_token_id is not None:
        changes["pad_token_id"] = pad_token_id
    try:
        config = type(original).from_dict(_merged(raw, changes))
    except Exception as fault:  # each architecture validates with its own
        key = "body.config_overrides" if body.config_overrides else str(path)
        raise ConfigError(f"{key}: the architecture refuses it; found {one_line(fault)}; correct it") from fault
    for key, value in body.config_overrides.items():
        if not isinstance(value, Mapping) and getattr(config, key) != value:
            raise ConfigError(
                f"body.config_overrides.{key}: the architecture keeps {getattr(config, key)!r}; remove it"
            )
    _set_labels(config, labels, pad_token_id)
    return config, source_labels


def _without_kernels(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out an attention that is code on the hub (organisation/name): only train.attention may name one."""
    return {
        key: _without_kernels(value) if isinstance(value, Mapping) else value
        for key, value in raw.items()
        if key not in ("attn_implementation", "_attn_implementation") or "/" not in str(value)
    }


def label_names(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the label names of a config.json in the order of the outputs, empty where it has none."""
    table = raw.get("id2label") or {}
    return tuple(str(table[key]) for key in sorted(table, key=int))


def _checked_overrides(config: PreTrainedConfig, overrides: Mapping[str, Any], key: str = "body.config_overrides"):
    """Return the overrides under the config class's own names. Raises ConfigError for an unknown or a fixed one."""
    aliases = dict(getattr(config, "attribute_map", {}))
    known = {name for name in config.to_dict() if not name.startswith("_")} | set(aliases)
    changes: dict[str, Any] = {}
    for name, value in overrides.items():
        if name in FIXED_KEYS:
            raise ConfigError(f"{key}.{name}: not the body's to set; found {value!r}; the task and join() set it")
        if name not in known:
            remedy = f"remove it{nearest(name, known)}"
            raise ConfigError(f"{key}.{name}: {type(config).__name__} has no such setting; found {value!r}; {remedy}")
        inner: Any = getattr(config, name, None)
        if isinstance(value, Mapping) and hasattr(inner, "to_dict"):
            value = _checked_overrides(inner, value, f"{key}.{name}")  # noqa: PLW2901
        changes[aliases.get(name, name)] = value
    return changes


def _merged(raw: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(dict(raw))
    for name, value in changes.items():
        inner = merged.get(name)
        merged[name] = _merged(inner, value) if isinstance(value, Mapping) and isinstance(inner, Mapping) else value
    return merged


def _set_labels(config: PreTrainedConfig, labels: Labels, pad_token_id: int | None) -> None:
    """Set names, count and problem together: transformers lets a stale id2label win over num_labels in silence.

    Where outputs are no labels, transformers' own default goes in: two, a question answering head's start and end.
    """
    text = config.get_text_config()
    for part in [config] if text is config else [config, text]:
        if labels.names:
            part.id2label = dict(enumerate(labels.names))
            part.label2id = {name: number for number, name in enumerate(labels.names)}
        else:
            part.id2label = None
            part.num_labels = 2
        part.problem_type = labels.problem if labels.problem in SEQUENCE_PROBLEMS else None
        if pad_token_id is not None:
            part.pad_token_id = pad_token_id


def model_class(config: PreTrainedConfig, auto_class: str, files: BodyFiles) -> type[PreTrainedModel]:
    """Return the class that `auto_class` (such as AutoModelForSequenceClassification) builds for this config.

    It is the checkpoint's own where that is trusted and has one, as transformers' trust_remote_code does it.
    """
    import transformers

    auto = getattr(transformers, auto_class, None)
    if auto is None or not hasattr(auto, "_model_mapping"):
        choices = [name for name in dir(transformers) if name.startswith("AutoModelFor")]
        raise ConfigError(
            f"task.auto_class: no such transformers class; found {auto_class!r}; use{nearest(auto_class, choices)}"
        )
    own = dict(getattr(config, "auto_map", None) or {}) if files.code else {}
    if auto_class in own:
        return _own_class(own[auto_class], auto_class, files)
    if type(config) not in auto._model_mapping:
        served = f" whose code serves {', '.join(own)}" if own else ""
        raise WeightsError(
            f"body.source: {auto_class} does not serve this architecture; found model_type {config.model_type!r}"
            f"{served}; use another body"
        )
    found = auto._model_mapping[type(config)]
    return found[0] if isinstance(found, tuple | list) else found


def _own_class(name: str, auto_class: str, files: BodyFiles) -> type[PreTrainedModel]:
    """Import a class from the trusted checkpoint's code; what is saved of it later takes the code along."""
    from transformers import PreTrainedModel
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    try:
        found = get_class_from_dynamic_module(name, str(files.folder), local_files_only=True)
    except (OSError, ValueError, ImportError, AttributeError, SyntaxError) as fault:
        raise WeightsError(
            f"{files.folder}: its code cannot be imported; found {one_line(fault)} for {name}; mend it, or use another "
            "body"
        ) from fault
    if not issubclass(found, PreTrainedModel):
        raise WeightsError(
            f"{files.folder}: auto_map must name a transformers model; found {name}, which is no PreTrainedModel; use "
            "another body"
        )
    found.register_for_auto_class(auto_class)
    return found
