"""A recurrent encoder-decoder as an ordinary transformers model: it learns beside the target and writes by generate().

    source -> encoder.py: states of all tokens, and the cells' last ones
    target, one step late -> cells that begin with the encoder's last states -> attention over its states -> vocabulary

Attention stands on the decoder's outputs (Luong et al. 2015, 1508.04025, section 3.1, without input feeding): no step
waits for what the step before it read, so that torch's fused kernels run over a whole target. Bahdanau's decoder
(1409.0473) reads before each step, and input feeding after it; both would make training go cell by cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers import initialization as init
from transformers.modeling_outputs import Seq2SeqLMOutput, Seq2SeqModelOutput
from transformers.utils.generic import ModelOutput, can_return_tuple

from headswap.recurrent.attention import ATTENTIONS
from headswap.recurrent.encoder import (
    RecurrentConfig,
    RecurrentModel,
    RecurrentPreTrainedModel,
    check_recurrence,
    layer_of,
)

IGNORED = -100


@strict
class RecurrentSeq2SeqConfig(RecurrentConfig):
    """The architecture of a recurrent encoder-decoder; what it shares with RecurrentConfig holds of both halves.

    Args:
        attention: dot or additive (attention.py); none: the target is written from the encoder's last states alone
            (Sutskever et al. 2014, 1409.3215).
        num_hidden_layers: of the encoder, and as many of the decoder: each of these begins with its last state.
        bidirectional: the encoder; a decoder reads from left to right.
        tie_word_embeddings: sources, targets and what is written share one table of embeddings; source and target
            always do.
        decoder_start_token_id: what a target begins with.
    """

    model_type = "recurrent_seq2seq"
    keys_to_ignore_at_inference = ("past_key_values",)

    attention: str = "dot"
    is_encoder_decoder: bool = True
    decoder_start_token_id: int | None = None

    def validate_recurrence(self) -> None:
        """Raise ValueError for settings that make no such model; transformers calls it."""
        check_recurrence(self)
        if self.attention not in ATTENTIONS:
            raise ValueError(f"attention={self.attention!r}: choose {', '.join(ATTENTIONS)}")


@dataclass
class EncoderOutput(ModelOutput):
    """What a decoder needs of a source.

    Args:
        last_hidden_state: (batch, length, hidden_size), 0 at padding.
        state: of each layer after a row's last token, (batch, layers, parts, hidden_size): an LSTM's parts are output
            and cell. One tensor whose rows are the batch's, as beam search repeats and picks them.
    """

    last_hidden_state: Tensor | None = None
    state: Tensor | None = None


class RecurrentSeq2SeqPreTrainedModel(RecurrentPreTrainedModel):
    """Draws the weights of recurrent encoder-decoders."""

    config: RecurrentSeq2SeqConfig
    config_class = RecurrentSeq2SeqConfig
    base_model_prefix = "model"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)  # N(0, 0.02), as in BERT, would hand next to nothing of a state on
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)


class RecurrentEncoder(RecurrentModel):
    """The encoder: RecurrentModel, whose last states come as one tensor."""

    config_class = RecurrentSeq2SeqConfig

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **unused: Any,
    ) -> EncoderOutput:
        """Return the states of all tokens, and each layer's last one."""
        found = super().forward(input_ids, attention_mask, inputs_embeds=inputs_embeds, use_cache=True)
        return EncoderOutput(found.last_hidden_state, torch.stack(cast(Any, found.state), 1))


class RecurrentDecoder(nn.Module):
    """Reads a target from left to right beside the source's states."""

    def __init__(self, config: RecurrentSeq2SeqConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.norm = nn.LayerNorm(config.embedding_size) if config.layer_norm else None
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            layer_of(config, place, bidirectional=False) for place in range(config.num_hidden_layers)
        )
        self.attention = ATTENTIONS[config.attention](width)
        self.mix = nn.Linear(width if self.attention is None else 2 * width, config.embedding_size)

    def forward(
        self, vectors: Tensor, state: Tensor, source: Tensor, real: Tensor | None = None, final: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Return (batch, steps, embedding_size) to be compared with the tokens' embeddings, and the state after them.

        Args:
            vectors: the embeddings of the target so far, or of its last tokens, (batch, steps, embedding_size).
            state: the encoder's, or the one after the tokens before `vectors`.
            source: the encoder's states of all tokens; `real` is false or 0 at its padding.
        """
        outputs, last = self.dropout(vectors if self.norm is None else self.norm(vectors)), []
        for place, layer in enumerate(self.layers):
            outputs, after = layer(outputs, None, state[:, place], final=final)
            last.append(after)
        if self.attention is not None:
            outputs = torch.cat([self.attention(outputs, source, real), outputs], -1)
        return self.dropout(torch.tanh(self.mix(outputs))), torch.stack(last, 1) if final else None


class RecurrentSeq2SeqModel(RecurrentSeq2SeqPreTrainedModel):
    """The body: encoder and decoder, with one table of embeddings."""

    def __init__(self, config: RecurrentSeq2SeqConfig) -> None:
        super().__init__(config)
        self.encoder = RecurrentEncoder(config)
        self.decoder = RecurrentDecoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.encoder.set_input_embeddings(value)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: Any = None,
        *,
        past_key_values: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **unused: Any,
    ) -> Seq2SeqModelOutput:
        """Return what the decoder's steps give, and the state after the last of them.

        Args:
            attention_mask: (batch, length) of the source, 0 at padding, at either side; None for no padding.
            decoder_input_ids: what stands before each token to write; padding at the right reaches no real step.
            encoder_outputs: what `encoder` gave, in place of the source.
            past_key_values: the state that an earlier pass over the tokens before these gave, a tensor.
            use_cache: false where nobody goes on from the state.
        """
        read = encoder_outputs
        if read is None:
            read = self.encoder(input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds)
        state = getattr(read, "state", None) if past_key_values is None else past_key_values
        if state is None:
            raise ValueError("encoder_outputs: hold no state to begin with; give what get_encoder() returns, whole")
        if (decoder_input_ids is None) == (decoder_inputs_embeds is None):
            raise ValueError("give decoder_input_ids or decoder_inputs_embeds, and not both")
        given = decoder_inputs_embeds
        vectors = self.get_input_embeddings()(decoder_input_ids) if given is None else given
        outputs, after = self.decoder(vectors, state, read.last_hidden_state, attention_mask, use_cache is not False)
        return Seq2SeqModelOutput(
            last_hidden_state=outputs,
            past_key_values=after,  # pyright: ignore[reportArgumentType]
            encoder_last_hidden_state=read.last_hidden_state,
        )


class RecurrentForConditionalGeneration(RecurrentSeq2SeqPreTrainedModel, GenerationMixin):
    """The body with its output embeddings: translation, summarization.

    generate() keeps one state a row, so a token costs one step however many stand before it; beams pick their states.
    """

    _tied_weights_keys = {"lm_head.weight": "model.encoder.embeddings.word_embeddings.weight"}  # noqa: RUF012
    _is_stateful = True  # a state cannot be cut back, as drafts of another model would need

    def __init__(self, config: RecurrentSeq2SeqConfig) -> None:
        super().__init__(config)
        self.model = RecurrentSeq2SeqModel(config)
        self.lm_head = nn.Linear(config.embedding_size, config.vocab_size, bias=False)
        self.post_init()

    def get_encoder(self, *args: Any, **named: Any) -> nn.Module:
        """Return what reads the source."""
        return self.model.encoder

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: Any = None,
        *,
        past_key_values: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        **unused: Any,
    ) -> Seq2SeqLMOutput:
        """Return the logits of each step, and the loss where there are labels; see RecurrentSeq2SeqModel.

        The output has no `encoder_last_hidden_state`: without the cells' states nothing can go on from it.

        Args:
            labels: (batch, steps), -100 where nothing is to be written; the decoder is given them one step late.
        """
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        found = self.model(
            input_ids, attention_mask, decoder_input_ids, encoder_outputs, past_key_values=past_key_values,
            inputs_embeds=inputs_embeds, decoder_inputs_embeds=decoder_inputs_embeds, use_cache=use_cache,
        )  # fmt: skip
        logits = self.lm_head(found.last_hidden_state)
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        return Seq2SeqLMOutput(loss=loss, logits=logits, past_key_values=found.past_key_values)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Return the labels one step late, behind the start token; what is no label becomes padding."""
        start = self.config.decoder_start_token_id
        if start is None:
            raise ValueError("config.decoder_start_token_id: None; a target begins with nothing: set the start token")
        late = torch.cat([labels.new_full((len(labels), 1), start), labels[:, :-1]], 1)
        return late.masked_fill(late == IGNORED, self.config.pad_token_id or 0)

    def prepare_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input_ids: Tensor, past_key_values: Tensor | None = None, **given: Any
    ) -> dict[str, Any]:
        """Return what the next step is given: the last token and the state, or at first all tokens."""
        wanted = {name: given.get(name) for name in ("attention_mask", "encoder_outputs", "use_cache")}
        tokens = input_ids if past_key_values is None else input_ids[:, -1:]
        return {"decoder_input_ids": tokens, "past_key_values": past_key_values, **wanted}

    @staticmethod
    def _reorder_cache(state: Tensor, beams: Tensor) -> Tensor:
        return state.index_select(0, beams)
