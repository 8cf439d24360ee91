"""Read a checkpoint's safetensors under the names of a model, and prove what was read or written. Floor 2.

Names are mapped by transformers' own rules (transformers/core_model_loading.py): prefixes, legacy names, renamings.
Where an architecture fuses or splits tensors (mixtures of experts), transformers itself converts them, and the result
is proved to hold the same values in another arrangement.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError, safe_open

from headswap.architecture import body_modules, body_prefixes, quiet
from headswap.bodyfiles import one_line
from headswap.errors import WeightsError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FLOATS = ("F32", "F16", "BF16", "F64")
# Buffers that old checkpoints hold and that are computed today; the rotary and position rules are transformers' own.
OLD_BUFFERS = (r"(^|\.)position_ids$", r"rotary_emb\.inv_freq$", r"(^|\.)token_type_ids$", r"(^|\.)masked_bias$")


@dataclass(frozen=True)
class Stored:
    """One tensor as it lies in its file."""

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str


@dataclass
class Checkpoint:
    """The tensors of some safetensors files, open for reading."""

    stored: dict[str, Stored]
    _open: dict[Path, Any] = field(repr=False)

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor as it lies in the file."""
        try:
            return self._open[self.stored[name].file].get_tensor(name)
        except SafetensorError as fault:
            raise _unreadable(self.stored[name].file, fault) from fault


@contextmanager
def open_checkpoint(files: Sequence[Path]) -> Iterator[Checkpoint]:
    """Open safetensors files; their data is read only when asked for.

    Raises:
        WeightsError: a file is truncated or corrupt, or two files hold a tensor of the same name.
    """
    stored: dict[str, Stored] = {}
    with ExitStack() as stack:
        opened = {}
        for file in files:
            try:
                opened[file] = stack.enter_context(safe_open(str(file), framework="pt"))
                names = list(opened[file].keys())
                slices = [(name, opened[file].get_slice(name)) for name in names]
            except (SafetensorError, OSError) as fault:
                raise _unreadable(file, fault) from fault
            for name, part in slices:
                if name in stored:
                    raise WeightsError(
                        f"{file}: two shards hold the same tensor; found {name} in {stored[name].file.name} too; "
                        "remove the stale shard and mend the index"
                    )
                stored[name] = Stored(name, file, tuple(part.get_shape()), str(part.get_dtype()))
        yield Checkpoint(stored, opened)


def _unreadable(file: Path, fault: BaseException) -> WeightsError:
    size = file.stat().st_size if file.is_file() else 0
    return WeightsError(
        f"{file}: truncated or not safetensors; found {size:,} bytes, {one_line(fault)}; copy or download it again "
        "(a file of about 130 bytes is a git-lfs pointer)"
    )


@dataclass(frozen=True)
class NameMap:
    """Where each tensor of a checkpoint goes.

    Args:
        one_to_one: the model's name -> the checkpoint's.
        converted: checkpoint names that transformers fuses or splits on the way into the model.
        left: checkpoint names without a place -> the name that the model's rules make of them.
        added: the model's names that no checkpoint of this kind has -> what they are.
    """

    one_to_one: dict[str, str]
    converted: tuple[str, ...]
    left: dict[str, str]
    added: Mapping[str, str] = field(default_factory=dict)


def map_names(model: PreTrainedModel, checkpoint: Checkpoint) -> NameMap:
    """Map the checkpoint's names to the model's by transformers' rules.

    Raises:
        WeightsError: two tensors of the checkpoint claim one place in the model.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    transforms = get_model_conversion_mapping(model)
    renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
    converters = [each for each in transforms if isinstance(each, WeightConverter)]
    state, prefix, others = model.state_dict(), model.base_model_prefix, _sister_prefixes(model)
    one_to_one: dict[str, str] = {}
    converted, left = [], {}
    for name in sorted(checkpoint.stored):
        target, pattern = rename_source_key(name, renamings, converters, prefix, state)
        if target not in state and name in state:  # as transformers does: a renaming too many
            target, pattern = name, None
        if target not in state:
            bodies = [f"{prefix}.{target.removeprefix(f'{each}.')}" for each in others if target.startswith(f"{each}.")]
            target = next((each for each in bodies if each in state), target)
        if target not in state:
            left[name] = target
        elif pattern is not None:
            converted.append(name)
        elif target in one_to_one:
            raise WeightsError(
                f"{checkpoint.stored[name].file}: two tensors claim one place; found {one_to_one[target]} and {name} "
                f"for {target}; remove one of them from the checkpoint"
            )
        else:
            one_to_one[target] = name
    return NameMap(one_to_one, tuple(converted), left)


def _sister_prefixes(model: PreTrainedModel) -> set[str]:
    """Return what sister classes call the same body.

    LlamaForQuestionAnswering says `transformer` where all others say `model`: plain transformers finds nothing of a
    language model's body for it, and draws all at random.
    """
    from transformers import AutoModel, AutoModelForQuestionAnswering

    mappings: list[Any] = [AutoModel._model_mapping, AutoModelForQuestionAnswering._model_mapping]
    kinds = [mapping[type(model.config)] for mapping in mappings if type(model.config) in mapping]
    names = {each.base_model_prefix for kind in kinds for each in (kind if isinstance(kind, tuple) else (kind,))}
    return names - {model.base_model_prefix, ""}


def belongs_to_body(model: PreTrainedModel, name: str, target: str) -> bool:
    """Say whether a checkpoint name without a place reads as the body's rather than as another task's head."""
    from transformers import PreTrainedModel

    bases = [each for each in body_modules(model) if isinstance(each, PreTrainedModel)]
    inner = {child.split(".")[0] for base in bases for child in base.state_dict()}
    prefixes = (*body_prefixes(model), *(f"{each.base_model_prefix}." for each in (model, *bases)))
    return any(each.startswith(prefixes) or each.split(".")[0] in inner for each in (name, target))


def ignored_by_design(model: PreTrainedModel, name: str, target: str) -> str:
    """Return why a tensor without a place is harmless, or an empty string."""
    buffers = {buffer for buffer, _ in model.named_buffers()}
    prefixes = tuple(body_prefixes(model))
    if {name, target, *(prefix + name for prefix in prefixes)} & buffers or _matches(OLD_BUFFERS, name):
        return "a buffer that the model computes"
    first = target.removeprefix(f"{model.base_model_prefix}.").split(".")[0]
    bodies = body_modules(model)
    if first == "pooler" and any(getattr(each, "pooler", model) is None for each in bodies):
        return "the architecture has no pooler for this task"
    if first == "decoder" and len(bodies) == 1 and hasattr(bodies[0], "encoder") and not hasattr(bodies[0], "decoder"):
        return "the architecture has no decoder for this task"
    ignored = _matches(model._keys_to_ignore_on_load_unexpected or (), target)
    return "the architecture ignores it" if ignored else ""


def has_own_output(model: Any, checkpoint: Checkpoint, names: NameMap) -> bool:
    """Say whether the file's output embeddings are not those that the architecture's config insists on (T5)."""
    forced = getattr(type(model.config)(tie_word_embeddings=False), "tie_word_embeddings", False)
    output = model.get_output_embeddings() if forced else None
    if output is None:
        return False
    own = next(f"{name}.weight" for name, module in model.named_modules() if module is output)
    others = [name for name in aliases(model)[own] if name != own and name in names.one_to_one]
    if own not in names.one_to_one or not others:
        return False
    return not same_bits(*(checkpoint.read(names.one_to_one[name]) for name in (own, others[0])))


def aliases(model: PreTrainedModel) -> dict[str, list[str]]:
    """Return the state names of each tensor that has several (tied weights), by every one of them."""
    groups: dict[int, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        groups.setdefault(id(tensor), []).append(name)
    return {name: names for names in groups.values() for name in names}


def _matches(patterns: Any, name: str) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def convert(model: PreTrainedModel, folder: Path, checkpoint: Checkpoint, names: NameMap) -> dict[str, torch.Tensor]:
    """Let transformers load an architecture whose tensors it fuses or splits; return those by model name.

    It needs the memory of a second model while it runs.

    Raises:
        WeightsError: transformers reports a fault, or the results do not hold exactly the file's values.
    """
    with quiet():
        loaded, told = cast(Any, type(model)).from_pretrained(
            str(folder), config=copy.deepcopy(model.config), dtype=torch.float32, output_loading_info=True,
            ignore_mismatched_sizes=True, use_safetensors=True, local_files_only=True,
        )  # fmt: skip
    mismatched = {str(row[0]) for row in told["mismatched_keys"]}
    if told["error_msgs"] or mismatched & {name for name in loaded.state_dict() if name not in names.one_to_one}:
        found = list(told["error_msgs"]) or sorted(mismatched)
        raise WeightsError(f"{folder}: transformers could not convert the weights; found {found[:3]}; use another body")
    absent = set(told["missing_keys"]) | set(names.one_to_one)
    tied = aliases(loaded)
    results = {
        name: tensor for name, tensor in loaded.state_dict().items() if not absent & set(tied[name])
    }  # fmt: skip
    before = [_fingerprint(checkpoint.read(name)) for name in names.converted]
    after = [_fingerprint(results[name]) for name in dict.fromkeys(tied[name][0] for name in results)]
    if [sum(column) for column in zip(*before, strict=True)] != [sum(column) for column in zip(*after, strict=True)]:
        raise WeightsError(
            f"{folder}: transformers' conversion changed the weights; found {len(before)} tensors in the file and "
            f"{len(after)} in the model with other values; use another transformers version or another body"
        )
    return results


def _fingerprint(tensor: torch.Tensor) -> tuple[int, int]:
    """Return element count and the sum of the float32 bit patterns: the same for any rearrangement of the values."""
    bits = tensor.detach().to(torch.float32).contiguous().view(torch.int32)
    return bits.numel(), int(bits.sum(dtype=torch.int64))


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Compare as float32 (whole numbers as they are), bit for bit: -0.0 is not 0.0, and a NaN equals itself."""
    if left.shape != right.shape:
        return False
    if left.is_floating_point() and right.is_floating_point():
        left, right = left.detach().to(torch.float32).contiguous(), right.detach().to(torch.float32).contiguous()
        return torch.equal(left.view(torch.int32), right.view(torch.int32))
    return torch.equal(left, right)


def is_finite(tensor: torch.Tensor) -> bool:
    """Say whether no value is NaN or infinite, in one pass and without a copy."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    low, high = torch.aminmax(tensor.detach())
    return bool(low.isfinite()) and bool(high.isfinite())


def prove_saved(model: PreTrainedModel, folder: Path) -> None:
    """Check that the safetensors in `folder` hold every tensor of the model, bit for bit.

    Raises:
        WeightsError: one is missing or differs.
    """
    with open_checkpoint(sorted(folder.glob("*.safetensors"))) as checkpoint:
        names, tied = map_names(model, checkpoint), aliases(model)
        state = model.state_dict()
        wrong = [
            name
            for name, source in names.one_to_one.items()
            if not same_bits(state[name].cpu(), checkpoint.read(source))
        ]
        unsaved = set(model._keys_to_ignore_on_save or ())
        rest = [name for name in state if name not in unsaved and not set(tied[name]) & set(names.one_to_one)]
        rest = list(dict.fromkeys(tied[name][0] for name in rest))
        before = [sum(column) for column in zip(*(_fingerprint(state[name].cpu()) for name in rest), strict=True)]
        after = [sum(each) for each in zip(*(_fingerprint(checkpoint.read(n)) for n in names.converted), strict=True)]
        if wrong or before != after:
            found = (wrong or rest)[:3]
            raise WeightsError(
                f"{folder}: the saved model is not the trained one; found other values in {found}; report it"
            )


def names_by_prefix(names: Mapping[str, Any] | Sequence[str]) -> str:
    """Return how many names begin with which first part, for a message."""
    counts: dict[str, int] = {}
    for name in names:
        first = name.split(".")[0]
        counts[first] = counts.get(first, 0) + 1
    shown = sorted(counts.items(), key=lambda item: -item[1])[:4]
    return ", ".join(f"{first}.* ({count})" for first, count in shown) or "no tensors"
