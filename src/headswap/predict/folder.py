"""Find the model in a run's folder, or in a plain checkpoint's, and load it whole. Predict chain: folder -> predictor.

torch and transformers load only once the folder has been found usable: a wrong path is told at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headswap import config as configuration
from headswap.bodyfiles import check_code, one_line, weight_files
from headswap.durable import check_sealed
from headswap.errors import ConfigError, RunError, WeightsError, nearest
from headswap.records import RunFolder, read_json
from headswap.spine import Config
from headswap.tokenizer_check import complete

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MOST_TOKENS = 1_000_000  # a tokenizer without a limit of its own says 1e30, which the Rust ones cannot take
_STUDY_FILES = ("runs.json", "comparison.json")


def locate(folder: Path) -> tuple[Path, Config | None]:
    """Return the checkpoint's folder and the configuration of the run it belongs to, if it belongs to one."""
    folder = folder.expanduser()
    if not folder.is_dir():
        beside = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
        found = "a file" if folder.exists() else f"nothing there{nearest(folder.name, beside)}"
        raise ConfigError(f"{folder}: no such folder; found {found}; name the folder that headswap train printed")
    for name in _STUDY_FILES:
        if (folder / name).is_file():
            remedy = f"name one of its runs{_run_of_study(folder)}"
            raise ConfigError(f"{folder}: a study's folder, not a run's; found {name}; {remedy}")
    if folder.name == "model" and RunFolder(folder.resolve().parent).finished:
        folder = folder.parent
    if (folder / "config.json").is_file():
        return folder, None
    if not (folder / "config.yaml").is_file():
        raise ConfigError(
            f"{folder}: neither a run nor a checkpoint; found no config.yaml and no config.json; name the folder that "
            "headswap train printed, or one that save_pretrained wrote"
        )
    return _model_of_run(folder)


def _model_of_run(folder: Path) -> tuple[Path, Config]:
    if not RunFolder(folder).finished:
        remedy = "give the same headswap train command again"
        raise RunError(f"{folder}: this run has not finished; found no result.json; {remedy}")
    config = configuration.load(folder / "config.yaml")
    if config.baseline is not None:
        raise RunError(
            f"{folder}: a baseline's run has no model; found baseline={config.choices.get('baseline', '')}, whose "
            "answers are in its predictions.parquet; name a run that trained a body"
        )
    if not (folder / "model" / "config.json").is_file():
        found = "no model/config.json" if config.output.keep_model else "output.keep_model=false"
        remedy = "run it again with output.keep_model=true output.reuse=false"
        raise RunError(f"{folder}: this run has no saved model; found {found}; {remedy}")
    return folder / "model", config


def _run_of_study(folder: Path) -> str:
    """Return `, such as FOLDER` for a run of the study whose model is there."""
    records = read_json(folder / "runs.json") if (folder / "runs.json").is_file() else []
    runs = [Path(os.path.normpath(folder / one["folder"])) for one in records]
    return next((f", such as {run}" for run in runs if (run / "model").is_dir()), "")


def check(folder: Path, trust_remote_code: bool) -> None:
    """Refuse a checkpoint that is damaged, whose code would run untrusted, or whose index names shards elsewhere."""
    check_sealed(folder)
    # The run's own configuration is not asked: a folder that came from elsewhere cannot vouch for itself.
    check_code(folder, trust_remote_code, "--trust-remote-code, in Python load(..., trust_remote_code=True)")
    weight_files(folder)


def load(folder: Path, auto_class: str, trust_remote_code: bool = False) -> tuple[Any, PreTrainedModel]:
    """Load tokenizer and model in float32 onto the GPU if there is one; every weight must be in the file.

    Args:
        auto_class: the transformers class of the task, such as AutoModelForSequenceClassification.
    """
    import torch
    import transformers
    from safetensors import SafetensorError

    import headswap.recurrent  # noqa: F401 (the Auto classes know them from then on)
    from headswap.architecture import quiet
    from headswap.encoded import pad_token_id

    guard = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    faults = (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError)
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **guard)
            complete(folder, tokenizer)
            model, told = getattr(transformers, auto_class).from_pretrained(
                str(folder), dtype=torch.float32, use_safetensors=True, output_loading_info=True, **guard
            )
    except faults as fault:
        remedy = "name a run's folder, or a transformers checkpoint in safetensors with its tokenizer"
        said = f"{folder}: no {auto_class} loads from it; found {one_line(fault)}; {remedy}"
        raise WeightsError(said) from fault
    if told["missing_keys"]:
        lacking = ", ".join(sorted(told["missing_keys"])[:3])
        remedy = "name a fine-tuned model: headswap train makes one from a body"
        raise WeightsError(f"{folder}: weights of the model are missing; found no {lacking}; {remedy}")
    if model.config.pad_token_id is None:  # decoders find the last real token by it
        model.config.pad_token_id = pad_token_id(tokenizer)
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return tokenizer, model.to(device).eval()


def max_length(tokenizer: Any, model: PreTrainedModel, config: Config | None) -> int:
    """Return the tokens a text is cut to: the run's data.max_length, or what the checkpoint says it can take."""
    if config is not None:
        limits = [config.data.max_length]
    else:
        limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
    known = [limit for limit in (*limits, *_position_rows(model)) if isinstance(limit, int) and limit > 0]
    return min(*known, MOST_TOKENS)


def _position_rows(model: PreTrainedModel) -> Iterator[int]:
    """Yield how many tokens the tables of absolute positions serve; RoBERTa's and BART's leave rows unused."""
    from torch.nn import Embedding

    for name, module in model.named_modules():
        if isinstance(module, Embedding) and name.endswith(("position_embeddings", "embed_positions", "wpe")):
            before = 0 if module.padding_idx is None else module.padding_idx + 1
            yield module.num_embeddings - before - int(getattr(module, "offset", 0))
