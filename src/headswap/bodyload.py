"""Load a checkpoint's body alone, as transformers reads it: no head, nothing new, in float32. Floor 2.

model.py joins a body with a head tensor by tensor for training; here a body is used as it is.
"""

from __future__ import annotations

from typing import Any

from headswap.bodyfiles import one_line
from headswap.contracts import BodyFiles
from headswap.errors import WeightsError


def load_body(files: BodyFiles) -> Any:
    """Load the body in float32 on the CPU, in evaluation mode; of an encoder with a decoder, the encoder.

    Raises:
        WeightsError: it does not load, or a weight is not in the files (the pooler's, which no state needs, may be).
    """
    import torch
    from safetensors import SafetensorError

    from headswap.architecture import quiet

    faults = (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError)
    try:
        kind, _ = _kind(files)
        with quiet():
            model, told = kind.from_pretrained(
                str(files.folder), dtype=torch.float32, use_safetensors=True, output_loading_info=True,
                local_files_only=True, trust_remote_code=bool(files.code),
            )  # fmt: skip
    except faults as fault:
        raise WeightsError(
            f"{files.folder}: no body loads from it; found {one_line(fault)}; name a transformers checkpoint in "
            "safetensors, or a run's folder"
        ) from fault
    body = _encoder(model)
    inside = {id(tensor) for tensor in body.state_dict(keep_vars=True).values()}
    state = model.state_dict(keep_vars=True)
    lacking = [name for name in sorted(told["missing_keys"]) if id(state[name]) in inside and "pooler." not in name]
    if lacking:
        raise WeightsError(
            f"{files.folder}: weights of the body are missing; found no {', '.join(lacking[:3])}; "
            "name a whole checkpoint"
        )
    return body.eval()


def blank_body(files: BodyFiles) -> Any:
    """Return the architecture without weights, on the meta device: how many positions it has, for one."""
    import torch

    from headswap.architecture import quiet

    kind, config = _kind(files)
    with quiet(), torch.device("meta"):
        if kind.__name__ == "EncoderDecoderModel":
            return _encoder(kind(config))
        return _encoder(kind.from_config(config, trust_remote_code=bool(files.code)))


def _kind(files: BodyFiles) -> tuple[Any, Any]:
    """Return the class that loads a checkpoint without its head, and its config."""
    from transformers import AutoConfig, AutoModel, EncoderDecoderModel

    import headswap.recurrent  # noqa: F401 (the Auto classes know them from then on)

    config = AutoConfig.from_pretrained(str(files.folder), local_files_only=True, trust_remote_code=bool(files.code))
    return (EncoderDecoderModel if config.model_type == "encoder-decoder" else AutoModel), config


def _encoder(model: Any) -> Any:
    """Return what is asked for states: of an encoder with a decoder, the encoder."""
    return model.get_encoder() if model.config.is_encoder_decoder else model
