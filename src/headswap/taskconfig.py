"""What a task asks of a body beyond its labels: a class, a direction of sight, special tokens, generation. Floor 2.

Between bodyconfig.make_config and the building of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from headswap import bodyconfig, warm_start
from headswap.architecture import dice, quiet, resize
from headswap.bodyfiles import one_line
from headswap.contracts import Body, BodyFiles
from headswap.errors import ConfigError, WeightsError
from headswap.seeds import Seeds

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

SEQ2SEQ, CAUSAL = "AutoModelForSeq2SeqLM", "AutoModelForCausalLM"


@dataclass(frozen=True)
class SpecialTokens:
    """The tokenizer's numbers that a model's config must agree with.

    Args:
        pad: fills batches; decoders find the last word of a padded input by it.
        start: what a decoder without one of its own begins a target with, and `end` what ends it.
        vocabulary_size: len(tokenizer); more than the embeddings have rows is refused, or rows are added.
    """

    pad: int | None = None
    start: int | None = None
    end: int | None = None
    vocabulary_size: int | None = None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, pad: int | None = None) -> SpecialTokens:
        """Read them from a tokenizer: it starts with the class or begin token and ends with the separator or end."""
        known: Any = tokenizer
        start = known.cls_token_id if known.cls_token_id is not None else known.bos_token_id
        end = known.sep_token_id if known.sep_token_id is not None else known.eos_token_id
        return cls(known.pad_token_id if pad is None else pad, start, end, len(tokenizer))


@dataclass(frozen=True)
class Served:
    """The class and config that serve a task; `notes` say what was changed for it; `warm`: one encoder, twice."""

    kind: type[PreTrainedModel]
    config: PreTrainedConfig
    notes: tuple[str, ...] = ()
    warm: bool = False


def serve(config: PreTrainedConfig, auto_class: str, body: Body, files: BodyFiles, tokens: SpecialTokens) -> Served:
    """Return what `auto_class` builds of this config, fitted to the task.

    Raises:
        WeightsError: no class of transformers serves the pair, or only one that cannot do the task.
        ConfigError: the tokenizer has no token that a target could start with.
    """
    if auto_class == CAUSAL and getattr(config, "is_encoder_decoder", False):
        raise WeightsError(
            f"body.source: half of an encoder-decoder is no causal language model; found model_type "
            f"{config.model_type!r}; use a decoder, or a sequence-to-sequence task"
        )
    if auto_class == SEQ2SEQ and _needs_warm_start(config, files):
        config = warm_start.make_config(config)
        _set_tokens(config, tokens)
        start = "at random" if body.init == "random" else "as the checkpoint's encoder"
        note = f"encoder and decoder both start {start}"
        return Served(bodyconfig.model_class(config, auto_class, files), config, (note,), warm=True)
    kind = bodyconfig.model_class(config, auto_class, files)
    note = _set_direction(config, auto_class, body)
    if auto_class in (SEQ2SEQ, CAUSAL):
        _set_tokens(config, tokens)
    return Served(kind, config, (note,) if note else ())


def _needs_warm_start(config: PreTrainedConfig, files: BodyFiles) -> bool:
    from transformers import AutoModelForSeq2SeqLM

    own = dict(getattr(config, "auto_map", None) or {}) if files.code else {}
    if type(config) in AutoModelForSeq2SeqLM._model_mapping or SEQ2SEQ in own:
        return False
    if not warm_start.is_possible(config):
        raise WeightsError(
            f"body.source: {SEQ2SEQ} does not serve this architecture, and it cannot be the decoder of an "
            f"encoder-decoder either; found model_type {config.model_type!r}; use an encoder-decoder (T5, BART, "
            "Marian), or an encoder that can attend to another (BERT, RoBERTa, ELECTRA)"
        )
    return True


def _set_direction(config: Any, auto_class: str, body: Body) -> str:
    """Let an encoder see both sides, or as a causal language model only what stands before; return a note of a change.

    The task decides, whatever the checkpoint was trained for: a classifier reads the first token, which sees nothing
    but itself in a decoder. body.config_overrides has the last word.
    """
    from transformers import AutoModelForMaskedLM

    is_encoder = type(config) in AutoModelForMaskedLM._model_mapping or warm_start.is_possible(config)
    causal = auto_class == CAUSAL
    if (
        not is_encoder
        or not hasattr(config, "is_decoder")
        or "is_decoder" in body.config_overrides
        or config.is_decoder == causal
    ):
        return ""
    config.is_decoder = causal
    if not causal and hasattr(config, "add_cross_attention"):
        config.add_cross_attention = False
    return "is_decoder=true: each token sees those before it" if causal else "is_decoder=false: tokens see both sides"


def _set_tokens(config: Any, tokens: SpecialTokens) -> None:
    """Fill in what the config does not say; a checkpoint's own start and end stand, it was trained with them."""
    if getattr(config, "eos_token_id", None) is None and tokens.end is not None:
        config.eos_token_id = tokens.end
    if not getattr(config, "is_encoder_decoder", False):
        return
    if getattr(config, "decoder_start_token_id", None) is None:
        start = tokens.start if tokens.start is not None else tokens.pad  # T5 starts with its pad token
        if start is None and tokens.vocabulary_size is not None:
            raise ConfigError(
                "body.source: nothing to start a target with; found a tokenizer without class, begin and pad token "
                "and no decoder_start_token_id in config.json; save the tokenizer with a cls_token or bos_token"
            )
        config.decoder_start_token_id = start


def fit_vocabulary(model: Any, body: Body, seeds: Seeds, files: BodyFiles, tokens: SpecialTokens) -> None:
    """Refuse a tokenizer that knows more tokens than the embeddings have rows, or add the rows when asked."""
    try:
        rows = int(model.get_input_embeddings().weight.shape[0])
    except NotImplementedError:
        return  # embeddings without rows for tokens: canine hashes characters
    wanted = tokens.vocabulary_size
    if wanted is None or wanted <= rows:
        return
    if not body.resize_embeddings:
        raise WeightsError(
            f"{files.folder}: the tokenizer has more tokens than the embeddings have rows; found {wanted} tokens and "
            f"{rows} rows; use the body's own tokenizer, or body.resize_embeddings=true"
        )
    with quiet(), dice(seeds.stream("body", "rows")):
        resize(model, wanted)


def set_generation(model: Any, served: Served, files: BodyFiles) -> None:
    """Give a model that generates the checkpoint's generation settings, with the config's special tokens.

    Raises:
        WeightsError: they are wrong, which saving the trained model would otherwise be the first to tell.
    """
    if not model.can_generate():
        return
    with quiet():
        if not served.warm:  # an encoder's settings would say nothing of a decoder
            model.generation_config = _read_generation(files)
        settings = model.generation_config
        for key in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
            value = getattr(model.config, key, None)
            if value is not None and (served.warm or getattr(settings, key, None) is None):
                setattr(settings, key, value)
        # Many published ones have flags without effect (a temperature of greedy search): transformers saves them back
        # only as long as they are what was read.
        settings._original_object_hash = hash(settings)


def _read_generation(files: BodyFiles) -> GenerationConfig:
    from transformers import GenerationConfig

    own = (files.folder / "generation_config.json").is_file()
    name: dict[str, Any] = {} if own else {"config_file_name": "config.json", "_from_model_config": True}
    try:
        settings = GenerationConfig.from_pretrained(str(files.folder), local_files_only=True, **name)
        settings.validate()
    except (OSError, ValueError, TypeError, AttributeError) as fault:
        raise WeightsError(
            f"{files.folder}: its generation settings are wrong; found {one_line(fault)}; mend or remove "
            f"{'generation_config.json' if own else 'what config.json says of generation'}"
        ) from fault
    return settings


def require_causal(model: Any, auto_class: str) -> None:
    """Refuse a causal language model whose outputs hang on the words that they are to predict (XLNet, XLM).

    Raises:
        WeightsError: a change of the last token changes an output before it.
    """
    if auto_class != CAUSAL:
        return
    rows = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]])
    training = model.training
    with quiet(), torch.no_grad():
        outputs = model.eval()(input_ids=rows).logits[:, :-1]
    model.train(training)
    if not torch.allclose(outputs[0], outputs[1], atol=1e-4, rtol=1e-3):
        raise WeightsError(
            f"body.source: {type(model).__name__} sees the words that a causal language model predicts; found another "
            "output for another next word; use a decoder, or masked language modelling"
        )
