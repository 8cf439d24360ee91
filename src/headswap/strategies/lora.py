"""Low-rank adapters through PEFT: the body stays as it was, and small matrices beside its linear layers learn.

LoRA (arXiv 2106.09685): a frozen layer W answers W x + (alpha / rank) B A x; A is drawn, B starts at 0, so training
starts at the pretrained model. After training B A is added to W, and what is left is a plain model of the same shape.
"""

from __future__ import annotations

import copy
import importlib.util
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from headswap.durable import cannot_write, published
from headswap.errors import ConfigError, nearest
from headswap.phases import Phase, Rule

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

ADAPTERS = {"lora": "lora_", "loha": "hada_", "lokr": "lokr_"}
"""Which adapters PEFT can add to a layer's own weight afterwards -> what the names of their weights begin with."""
ALL_LINEAR = "all-linear"
_NAME = "default"  # PEFT's own for the one adapter of a model: `query.lora_A.default.weight`


@dataclass(frozen=True)
class Lora:
    """Train the head in full and adapters of the body's linear layers; all else is frozen.

    Args:
        adapter: `lora`; `loha` (Hadamard products, arXiv 2108.06098) or `lokr` (Kronecker products, 2309.14859).
        rank: of the matrices; the paper finds little beyond 8.
        alpha: the adapters' answer is scaled by alpha / rank; 16 is in the authors' scripts for RoBERTa.
        dropout: on what the adapters read; lora alone. The authors' scripts and PEFT have none.
        target_modules: which linear layers: endings of their names (`[query, value]`), `all-linear` for every one of
            the body, or null: what PEFT knows of the architecture, mostly the attention's query and value as the paper.
        dora: learn the length of each output's weights apart from their direction (DoRA, arXiv 2402.09353); lora alone.
        rslora: scale by alpha / sqrt(rank), for high ranks (rsLoRA, arXiv 2312.03732); lora alone.
    """

    imports: ClassVar[tuple[str, ...]] = ("peft",)

    adapter: str = "lora"
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    target_modules: list[str] | str | None = None
    dora: bool = False
    rslora: bool = False

    def __post_init__(self) -> None:
        faults = []
        if self.adapter not in ADAPTERS:
            choices = f"choose {', '.join(ADAPTERS)}{nearest(self.adapter, list(ADAPTERS))}"
            faults.append(f"strategy.adapter: no such adapter; found {self.adapter!r}; {choices}")
        if self.rank < 1 or self.alpha <= 0:
            found = f"rank={self.rank}, alpha={self.alpha}"
            faults.append(f"strategy: rank and alpha must be above 0; found {found}; correct them")
        if not 0 <= self.dropout < 1:
            faults.append(f"strategy.dropout: must be from 0 to below 1; found {self.dropout}; correct it")
        if isinstance(self.target_modules, str) and self.target_modules != ALL_LINEAR:
            remedy = f"give {ALL_LINEAR} or a list, such as [{self.target_modules}]"
            faults.append(f"strategy.target_modules: neither a list nor a set; found {self.target_modules!r}; {remedy}")
        own = {"dropout": self.dropout, "dora": self.dora, "rslora": self.rslora}
        if self.adapter != "lora" and any(own.values()):
            found = ", ".join(name for name, value in own.items() if value)
            faults.append(f"strategy.adapter: {self.adapter} has no {found}; found both; use adapter=lora")
        if faults:
            raise ConfigError("\n".join(faults))

    def adapt(self, model: PreTrainedModel, heads: Collection[str]) -> Adapted:
        if importlib.util.find_spec("peft") is None:
            raise ConfigError(
                'strategy: adapters need a package that is not installed; found no peft; pip install "headswap[peft]"'
            )
        layers = _layers(model, heads)
        targets = self._targets(model, layers)
        saved = _head_modules(model, heads)
        moved = {name: weight.requires_grad for name, weight in model.named_parameters()}
        return Adapted(model, self._inject(model, {name: layers[name] for name in targets}), saved, moved)

    def phases(self, names: Sequence[str]) -> list[Phase]:
        adapters = Rule(rf"\.{ADAPTERS[self.adapter]}\w+\.{_NAME}(\.|$)", 1.0)
        head = (Rule(r"^head\.", 1.0),) if any(name.startswith("head.") for name in names) else ()
        return [Phase(self.adapter, 1.0, (*head, adapters, Rule(r"^body\.", None)))]

    def _targets(self, model: PreTrainedModel, layers: Mapping[str, torch.nn.Module]) -> list[str]:
        """Return the names of the layers that get an adapter."""
        from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

        if not layers:
            remedy = "use strategy=full or strategy=bias_only"
            what = f"{type(model).__name__} without any"
            raise ConfigError(f"strategy: adapters stand beside linear layers of the body; found {what}; {remedy}")
        if self.target_modules == ALL_LINEAR:
            return list(layers)
        wanted = KNOWN.get(model.config.model_type, []) if self.target_modules is None else self.target_modules
        if isinstance(wanted, str):  # a few of PEFT's entries are a regex
            found = {wanted: [name for name in layers if re.fullmatch(wanted, name)]}
        else:
            found = {end: [name for name in layers if f".{name}".endswith(f".{end}")] for end in wanted}
        ends = list(dict.fromkeys(name.rpartition(".")[2] for name in layers))
        remedy = f"set strategy.target_modules={ALL_LINEAR} or a list of {', '.join(ends)}"
        if self.target_modules is None and not any(found.values()):
            what = f"{type(model).__name__} ({model.config.model_type})"
            raise ConfigError(f"strategy.target_modules: PEFT knows no layers of this body; found {what}; {remedy}")
        if idle := [end for end in self.target_modules or () if not found[end]]:
            what = f"{idle[0]!r}{nearest(idle[0], ends)}"
            raise ConfigError(f"strategy.target_modules: no linear layer of the body ends so; found {what}; {remedy}")
        return [name for name in layers if any(name in names for names in found.values())]

    def _inject(self, model: PreTrainedModel, targets: Mapping[str, torch.nn.Module]) -> Any:
        """Put the adapters into the model; return PEFT's tuner, which can merge them."""
        import peft
        from transformers.pytorch_utils import Conv1D

        conv1d = any(isinstance(layer, Conv1D) for layer in targets.values())
        common: dict[str, Any] = {"r": self.rank, "target_modules": list(targets)}
        if self.adapter == "lora":
            config: Any = peft.LoraConfig(
                lora_alpha=self.alpha, lora_dropout=self.dropout, use_dora=self.dora, use_rslora=self.rslora,
                fan_in_fan_out=conv1d, **common,
            )  # fmt: skip
            kind: Any = peft.LoraModel
        elif conv1d:
            found = f"Conv1D in {type(model).__name__}"
            raise ConfigError(f"strategy.adapter: {self.adapter} is for nn.Linear; found {found}; use adapter=lora")
        else:
            kind = {"loha": peft.LoHaModel, "lokr": peft.LoKrModel}[self.adapter]
            config = {"loha": peft.LoHaConfig, "lokr": peft.LoKrConfig}[self.adapter](alpha=self.alpha, **common)
        with warnings.catch_warnings():  # of a body with both kinds of layers; PEFT sets it right for each
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
            return kind(model, config, _NAME)


@dataclass(frozen=True)
class Adapted:
    """A model with adapters in it; a copy that is made together with the model's is one of that copy.

    Args:
        tuner: PEFT's, around `model`.
        head: the modules that hold the head.
        moved: each parameter's `requires_grad` before.
    """

    model: PreTrainedModel
    tuner: Any
    head: Sequence[str]
    moved: Mapping[str, bool]

    def save(self, folder: Path) -> None:
        """Write a folder for `peft.PeftModel.from_pretrained`: the adapters and, as its modules_to_save, the head.

        Raises:
            RunError: the disk refuses.
        """
        from safetensors.torch import save

        kind, config = type(self.model), copy.copy(self.tuner.peft_config[_NAME])
        config.target_modules = sorted(self.tuner.targeted_module_names)
        config.modules_to_save = list(self.head) or None
        config.base_model_name_or_path = self.model.name_or_path or None
        config.inference_mode = True
        mapping = {"base_model_class": kind.__name__, "parent_library": kind.__module__}
        try:
            with published(folder) as draft:
                draft.write("adapter_model.safetensors", [save(self._tensors(), metadata={"format": "pt"})])
                config.save_pretrained(str(draft.path), auto_mapping_dict=mapping)
        except OSError as error:
            raise cannot_write(folder, error) from error

    def remove(self) -> None:
        """Add what the adapters learned to the layers' own weights, and take the adapters out."""
        self.tuner.merge_and_unload()
        for name, weight in self.model.named_parameters():
            weight.requires_grad_(self.moved[name])

    def _tensors(self) -> dict[str, torch.Tensor]:
        """Return adapters and head under the names that PEFT gives them in a file."""
        from peft import get_peft_model_state_dict

        found = get_peft_model_state_dict(self.model, adapter_name=_NAME, save_embedding_layers=False)
        for name in self.head:
            module = self.model.get_submodule(name)
            found |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
        return {f"base_model.model.{name}": value.detach().cpu().clone().contiguous() for name, value in found.items()}


def _layers(model: PreTrainedModel, heads: Collection[str]) -> dict[str, torch.nn.Module]:
    """Return the body's linear layers by name, without an output layer that is the embeddings once more."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    taken = {id(weight) for name, weight in model.named_parameters() if name in heads}
    taken |= {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | Conv1D) and id(layer.weight) not in taken
    }


def _head_modules(model: PreTrainedModel, heads: Collection[str]) -> list[str]:
    """Return the modules that hold the head: the largest with nothing else in them.

    A weight beside one that is tied to the body (BERT's `cls.predictions.bias` beside its decoder) takes its module.
    """
    head = {name: weight for name, weight in model.named_parameters() if name in heads}
    own = {id(weight) for weight in head.values()}
    found: list[str] = []
    for name in head:
        parts = name.split(".")[:-1]
        if not parts:
            raise ConfigError(
                f"strategy: an adapter folder holds a head in modules; found the bare weight {name} in "
                f"{type(model).__name__}; use another strategy"
            )
        paths = [".".join(parts[: depth + 1]) for depth in range(len(parts))]
        whole = (path for path in paths if all(id(each) in own for each in model.get_submodule(path).parameters()))
        found.append(next(whole, paths[-1]))
    outer = [name for name in found if not any(name.startswith(f"{other}.") for other in found)]
    return list(dict.fromkeys(outer))
