"""Build the plain transformers model of a run, tell its body from its head, and draw the head. Floor 2.

join() (model.py) is the only caller during a run; bodyconfig.py says of what class and config, weights.py fills it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from headswap.bodyfiles import one_line
from headswap.errors import ConfigError, WeightsError
from headswap.seeds import Seeds

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def build(kind: type[PreTrainedModel], config: PreTrainedConfig, seed: int, blank: bool = False) -> PreTrainedModel:
    """Build a model in float32 on the CPU, drawn by its own initialiser under `seed`.

    With `blank`, weights hold whatever the memory held (nothing is drawn, so it takes milliseconds) until
    `finish_blank` and a full copy.
    """
    from contextlib import nullcontext

    from transformers.initialization import no_init_weights

    try:
        with quiet(), dice(seed), no_init_weights() if blank else nullcontext():
            model = kind._from_config(copy.deepcopy(config), dtype=torch.float32)
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError, ZeroDivisionError, ImportError) as fault:
        raise ConfigError(
            f"body.config_overrides: {kind.__name__} cannot be built with these settings; found {one_line(fault)}; "
            "correct them, or config.json of the body"
        ) from fault
    if blank:
        model.tie_weights()
    return model


def finish_blank(model: PreTrainedModel, seed: int) -> None:
    """Run the initialiser of a blank model for everything but its body's tensors, which the caller then fills all.

    Buffers that no checkpoint holds may be computed there (rotary frequencies); it is what from_pretrained does too.
    """
    prefixes, body = tuple(body_prefixes(model)), split(model)[0]
    state = model.state_dict(keep_vars=True)
    done = [each for name, each in state.items() if name.startswith(prefixes) or name in body]
    with quiet(), dice(seed), _marked(done):
        model.init_weights()


def split(model: PreTrainedModel) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """Return the parameters of body and head by name; a tied one once, as the body's if it has any name there."""
    prefixes = tuple(body_prefixes(model))
    body, head = {}, {}
    for name, parameter in model.named_parameters():
        (body if name.startswith(prefixes) else head)[name] = parameter
    inside = {id(parameter) for module in body_modules(model) for parameter in module.parameters()}
    for name in [name for name, parameter in head.items() if id(parameter) in inside]:
        body[name] = head.pop(name)
    return body, head


def body_modules(model: PreTrainedModel) -> list[nn.Module]:
    """Return the modules that are the body: the base model, or encoder and decoder without what they are read with."""
    return [model.get_submodule(prefix.removesuffix(".")) for prefix in body_prefixes(model)]


def body_prefixes(model: PreTrainedModel) -> dict[str, str]:
    """Return what the names of body tensors begin with, such as `bert.`, and what stands for it in a role name."""
    base = model.base_model_prefix
    if isinstance(getattr(model, base or " ", None), nn.Module):
        return {f"{base}.": ""}
    if model.config.model_type == "encoder-decoder":
        decoder = {f"decoder.{prefix}": "decoder." for prefix in body_prefixes(cast(Any, model.decoder))}
        bridge = {"enc_to_dec_proj.": "enc_to_dec_proj."} if hasattr(model, "enc_to_dec_proj") else {}
        return {"encoder.": "encoder.", **decoder, **bridge}
    return {f"{name}.": f"{name}." for name in _own_halves(model)}


def role_names(model: PreTrainedModel) -> dict[str, str]:
    """Return `body.<name inside the base model>` or `head.<name>` for each parameter, in the model's order.

    What the architecture computes and does not save (Marian's positions) has no role: no strategy may move it.
    """
    body, _ = split(model)
    prefixes = body_prefixes(model)
    roles = {}
    computed = set(model._keys_to_ignore_on_save or ())
    for name in (name for name, _ in model.named_parameters() if name not in computed):
        prefix = next((each for each in prefixes if name.startswith(each)), "")
        roles[name] = f"body.{prefixes.get(prefix, '')}{name.removeprefix(prefix)}" if name in body else f"head.{name}"
    return roles


def _own_halves(model: PreTrainedModel) -> list[str]:
    """Return the children that are the body of a model that keeps encoder and decoder as its own (T5 and its kin)."""
    from transformers import PreTrainedModel

    halves = {name for name, child in model.named_children() if isinstance(child, PreTrainedModel)}
    if not halves:
        raise WeightsError(
            f"body.source: {type(model).__name__} does not tell its body from its head; found no submodule "
            f"{model.base_model_prefix!r} (base_model_prefix); use another body"
        )
    shared = model.get_input_embeddings()
    return [name for name, child in model.named_children() if name in halves or child is shared]


def untie(model: Any) -> None:
    """Give the output embeddings weights of their own, where the config can only say that they are tied (T5).

    Published T5 1.1 and FLAN checkpoints have them; plain transformers unties when a file holds two that differ.
    """
    output = model.get_output_embeddings()
    output.weight = nn.Parameter(output.weight.detach().clone())
    names = {name for name, each in model.named_parameters() if each is output.weight}
    model.all_tied_weights_keys = {
        target: source for target, source in model.all_tied_weights_keys.items() if target not in names
    }


def resize(model: PreTrainedModel, rows: int) -> None:
    """Give the embeddings (of both halves of an encoder-decoder) this many rows; new ones are drawn."""
    halves = [model.encoder, model.decoder] if model.config.model_type == "encoder-decoder" else [model]
    for half in cast(Any, halves):
        half.resize_token_embeddings(rows, mean_resizing=False)
    model.config.vocab_size = rows


@torch.no_grad()
def draw_head(model: PreTrainedModel, seeds: Seeds) -> None:
    """Draw the head by the model's own `_init_weights`, each module under its own stream.

    The values are a function of the seed, the module's name and its tensors alone, whatever was built or loaded
    before: the head of a pretrained arm and of its random-init twin are the same bits.
    """
    body, head = split(model)
    constructed = {name: parameter.clone() for name, parameter in head.items()}
    for parameter in head.values():
        parameter.fill_(float("nan"))  # tells afterwards what the initialiser did not touch
        vars(parameter).pop("_is_hf_initialized", None)
    with _marked(body.values()):  # an initialiser that walks the whole model must leave the body alone
        for name, module, initialise in _head_modules(model, "", model._init_weights, body_modules(model)):
            with dice(seeds.stream("head", name)):
                reset = getattr(module, "reset_parameters", None)
                if callable(reset) and name:
                    reset()
                initialise(module)
    for name, parameter in head.items():
        untouched = parameter.isnan()
        if bool(untouched.any()):
            parameter.copy_(torch.where(untouched, _fallback(model, name, constructed[name], seeds), parameter))


def _head_modules(
    module: nn.Module, name: str, initialise: Callable[[nn.Module], None], body: Sequence[nn.Module]
) -> Iterator[tuple[str, nn.Module, Callable[[nn.Module], None]]]:
    """Yield the modules outside the body, children first, each with the initialiser of the model it belongs to."""
    from transformers import PreTrainedModel

    for child_name, child in module.named_children():
        if not any(child is each for each in body):
            own = child._init_weights if isinstance(child, PreTrainedModel) else initialise
            yield from _head_modules(child, f"{name}.{child_name}".lstrip("."), own, body)
    yield name, module, initialise


def _fallback(model: PreTrainedModel, name: str, constructed: torch.Tensor, seeds: Seeds) -> torch.Tensor:
    """Return the start of a raw head parameter that `_init_weights` forgets.

    It is the constructor's value where that is a constant (a scale of ones), else a draw of the usual width: a random
    constructor's value would depend on how much the body drew before it.
    """
    first, second = (
        dict(build(type(model), model.config, seeds.stream("head", name, attempt)).named_parameters())[name]
        for attempt in (1, 2)
    )
    if torch.equal(first, second) and bool(first.isfinite().all()):
        return first.detach()
    with dice(seeds.stream("head", name)):
        width = getattr(model.config.get_text_config(), "initializer_range", None) or 0.02
        return torch.randn(constructed.shape) * width


@contextmanager
def dice(seed: int) -> Iterator[None]:
    """Seed the CPU's generator inside; leave it as it was. torch.manual_seed would reach the accelerators too."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def aside() -> Iterator[None]:
    """Leave the random state as it was, and work in one thread.

    Copying and comparing wait for memory: more threads do not help, and cost tenfold when other runs share the cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' load report and progress bars inside: the ledger says it all, and checks it."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _marked(tensors: Any) -> Iterator[None]:
    """Tell transformers' initialisers that these tensors are done."""
    marked = list(tensors)
    for tensor in marked:
        tensor._is_hf_initialized = True
    try:
        yield
    finally:
        for tensor in marked:
            tensor.__dict__.pop("_is_hf_initialized", None)
