"""Two copies of one encoder as an encoder-decoder (arXiv:1907.12461): the second reads the first. Floor 2.

Each tensor of the checkpoint's body goes to two places. What the decoder reads the encoder with, its cross-attention,
is in no such checkpoint and starts new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headswap.errors import WeightsError
from headswap.weights import Checkpoint, NameMap, map_names

if TYPE_CHECKING:
    from transformers import EncoderDecoderConfig, PreTrainedConfig, PreTrainedModel

CROSS_ATTENTION = "crossattention"
"""What transformers calls it in every architecture that can be both encoder and decoder."""
STALE_KEYS = ("architectures", "dtype", "torch_dtype", "_name_or_path", "transformers_version")


def is_possible(config: PreTrainedConfig) -> bool:
    """Say whether an architecture can be an encoder and a decoder that attends to another's outputs."""
    from transformers import AutoModel, AutoModelForCausalLM

    served = all(type(config) in auto._model_mapping for auto in (AutoModel, AutoModelForCausalLM))
    return served and hasattr(config, "is_decoder") and hasattr(config, "add_cross_attention")


def make_config(config: PreTrainedConfig) -> EncoderDecoderConfig:
    """Return the config of an encoder-decoder whose halves are both `config`."""
    from transformers import EncoderDecoderConfig

    plain = {key: value for key, value in config.to_dict().items() if key not in STALE_KEYS}
    both: Any = EncoderDecoderConfig(
        encoder={**plain, "is_decoder": False, "add_cross_attention": False},
        decoder={**plain, "is_decoder": True, "add_cross_attention": True},
        pad_token_id=config.pad_token_id,
    )
    both.vocab_size = both.decoder.vocab_size
    return both


def map_twice(model: PreTrainedModel, checkpoint: Checkpoint) -> NameMap:
    """Map one encoder's checkpoint to both halves of an EncoderDecoderModel.

    Raises:
        WeightsError: the architecture fuses or splits tensors, which is proved for a whole model only.
    """
    halves: dict[str, Any] = {"encoder": model.encoder, "decoder": model.decoder}
    maps = {half: map_names(part, checkpoint) for half, part in halves.items()}
    if any(each.converted for each in maps.values()):
        raise WeightsError(
            f"body.source: the tensors of this encoder are stored in another arrangement; found model_type "
            f"{halves['encoder'].config.model_type!r}; save it once as an EncoderDecoderModel and name that folder"
        )
    placed = {f"{half}.{name}": source for half, each in maps.items() for name, source in each.one_to_one.items()}
    left = {name: target for name, target in maps["encoder"].left.items() if name in maps["decoder"].left}
    added = {name: "cross-attention" for name in model.state_dict() if CROSS_ATTENTION in name.split(".")}
    return NameMap(placed, (), left, added)
