"""A run's model as model.onnx, proved against torch before it takes its name. Export chain: graph -> onnx (this).

load -> torch's answers to some batches -> torch.onnx -> onnxruntime's answers to the same -> refuse or publish
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headswap.bodyfiles import one_line
from headswap.durable import cannot_write, published
from headswap.errors import ConfigError, RunError
from headswap.export.graph import Form, batches, form_of, input_names
from headswap.hashes import file_sha256
from headswap.predict.folder import load, locate, max_length

if TYPE_CHECKING:
    import numpy as np
    import torch

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
LIMIT = 1e-4
MODEL, ABOUT = "model.onnx", "onnx.json"
_LONGEST = 4096  # tokens of a batch to compare, where a body takes any number
_ONE_FILE = 1_500_000_000  # bytes; one protobuf file holds less than 2 GiB, so more weights go beside it

Batch = Mapping[str, "torch.Tensor"]


@dataclass(frozen=True)
class Exported:
    """What was written. `difference`: of all outputs of `compared` batches, as a share of the largest output."""

    folder: Path
    opset: int
    difference: float
    compared: int


def to_onnx(run: Path, output: Path | None = None, opset: int | None = None) -> Exported:
    """Write a run's model, or a plain checkpoint's, as ONNX with its tokenizer, config.json and onnx.json.

    Args:
        output: the folder; None is `onnx` in the run's. An earlier export there is replaced, nothing else is.
        opset: of ONNX; None is torch's own choice.

    Raises:
        ConfigError: a package is not installed, the folder is no run, or its kind of model is not exported.
        RunError: torch cannot trace it, or onnxruntime's outputs are not torch's.
    """
    _require_packages()
    source, config = locate(run)
    target = output if output is not None else (source.parent if config is not None else source) / "onnx"
    _check_target(target)
    name, form = form_of(source)
    tokenizer, model = load(source, name)
    model = model.cpu()
    length = min(max_length(tokenizer, model, config), _LONGEST)
    proofs = list(batches(tokenizer, model, form, length))
    expected = [_by_torch(model, batch, form) for batch in proofs]
    try:
        with published(target) as draft:
            _trace(model, proofs[0], form, draft.path / MODEL, opset)
            difference = _difference(draft.path / MODEL, proofs, expected, form)
            made = Exported(target, _opset(draft.path / MODEL), difference, len(proofs))
            if opset is not None and made.opset != opset:
                raise ConfigError(f"--opset: cannot be had; found {made.opset} for {opset}; leave it out")
            if not difference <= LIMIT:
                raise RunError(
                    f"{target}: onnxruntime does not compute what torch does; found outputs that differ by "
                    f"{difference:.1e} of the largest, {LIMIT:.0e} at most is let through; try another --opset"
                )
            tokenizer.save_pretrained(str(draft.path))
            model.config.save_pretrained(str(draft.path))
            draft.write_json(ABOUT, _about(made, model, form, length) | {"weights": _weights(source)})
    except OSError as error:
        raise cannot_write(target, error) from error
    return made


def _require_packages() -> None:
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        raise ConfigError(
            f"--to onnx: needs packages that are not installed; found no {', '.join(absent)}; "
            'pip install "headswap[export]"'
        )


def _check_target(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier export: it is replaced whole."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output: not a folder; found a file at {folder}; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / ABOUT).is_file():
        raise ConfigError(f"--output: holds other files; found no {ABOUT} in {folder}; name a new or an empty folder")


def _by_torch(model: Any, batch: Batch, form: Form) -> list[np.ndarray]:
    import torch

    with torch.inference_mode():
        found = model(**batch, return_dict=True)
    return [getattr(found, name).numpy() for name in form.outputs]


def _trace(model: Any, batch: Batch, form: Form, path: Path, opset: int | None) -> None:
    import torch

    class Outputs(torch.nn.Module):
        """The model with its outputs in a plain tuple, by position."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> tuple:
            given = {"input_ids": input_ids, "attention_mask": attention_mask}
            if token_type_ids is not None:
                given["token_type_ids"] = token_type_ids
            found = self.model(**given, return_dict=True)
            return tuple(getattr(found, name) for name in form.outputs)

    axes = ("batch", "choice", "token") if form.choices else ("batch", "token")
    size = sum(each.numel() * each.element_size() for each in model.parameters())
    try:
        with _silence():
            torch.onnx.export(
                Outputs().eval(), (), str(path), kwargs=dict(batch), input_names=list(batch),
                output_names=list(form.outputs), dynamic_shapes={name: dict(enumerate(axes)) for name in batch},
                opset_version=opset, dynamo=True, verbose=False, external_data=size > _ONE_FILE,
            )  # fmt: skip
    except Exception as fault:  # each architecture can break the tracer in its own way
        raise RunError(
            f"{path.name}: torch.onnx cannot write this model; found {type(model).__name__}, {one_line(fault)}; "
            "try another --opset, or another torch"
        ) from fault


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's remarks about its own insides from the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _difference(path: Path, proofs: Sequence[Batch], expected: Sequence[list[np.ndarray]], form: Form) -> float:
    """Return the largest difference of any output, as a share of the largest output of its batch; padding is no output.

    NaN where onnxruntime gives one.
    """
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found = []
    for batch, wanted in zip(proofs, expected, strict=True):
        given = {name: tensor.numpy() for name, tensor in batch.items()}
        real: Any = given["attention_mask"].astype(bool) if form.per_token else slice(None)
        answers: list[Any] = list(session.run(list(form.outputs), given))
        for mine, own in zip(answers, wanted, strict=True):
            if mine.shape != own.shape:
                return float("nan")
            found.append(np.abs(mine[real] - own[real]).max() / max(np.abs(own[real]).max(), 1e-12))
    return float(np.max(found))


def _opset(path: Path) -> int:
    import onnx

    return next(each.version for each in onnx.load(str(path), load_external_data=False).opset_import if not each.domain)


def _weights(source: Path) -> dict[str, str]:
    return {file.name: file_sha256(file) for file in sorted(source.glob("*.safetensors"))}


def _about(made: Exported, model: Any, form: Form, max_length: int) -> dict[str, Any]:
    from importlib import metadata

    labels = model.config.id2label if form.outputs == ("logits",) and not form.choices else {}
    return {
        "opset": made.opset,
        "architecture": type(model).__name__,
        "problem_type": model.config.problem_type,
        "inputs": list(input_names(model)),
        "axes": ["batch", "choice", "token"] if form.choices else ["batch", "token"],
        "outputs": list(form.outputs),
        "labels": [labels[row] for row in sorted(labels)],
        "max_length": max_length,
        "compared": made.compared,
        "largest_difference": made.difference,
        "versions": {name: metadata.version(name) for name in ("torch", "transformers", *PACKAGES)},
    }
