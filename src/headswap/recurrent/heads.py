"""Heads on a recurrent encoder, as transformers' Auto classes ask for them: one class a task.

Each has the encoder as `recurrent`; whatever else it has is the head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.modeling_outputs import (
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils.generic import can_return_tuple

from headswap.errors import ConfigError
from headswap.recurrent.encoder import (
    RecurrentConfig,
    RecurrentLanguageOutput,
    RecurrentModel,
    RecurrentPreTrainedModel,
)

TIED = {"words.decoder.weight": "recurrent.embeddings.word_embeddings.weight"}


class _Headed(RecurrentPreTrainedModel):
    """An encoder, and dropout before the head."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.recurrent = RecurrentModel(config)
        self.dropout = nn.Dropout(config.dropout)


class _Classifier(_Headed):
    """A linear layer as the head, as wide as there are labels, or `outputs`."""

    outputs: int | None = None

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.classifier = nn.Linear(config.hidden_size, self.outputs or config.num_labels or 0)
        self.post_init()


class RecurrentForSequenceClassification(_Classifier):
    """One answer a text: the states, pooled, through a linear layer."""

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **others: Any,
    ) -> SequenceClassifierOutput:
        found = self.recurrent(input_ids, attention_mask, return_dict=True, **others)
        vectors = pooled(found.last_hidden_state, attention_mask, self.config)
        logits = self.classifier(self.dropout(vectors))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=found.hidden_states)


class RecurrentForMultipleChoice(_Classifier):
    """One number a choice; inputs are (batch, choices, length)."""

    outputs = 1

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **others: Any,
    ) -> MultipleChoiceModelOutput:
        given: Any = input_ids if inputs_embeds is None else inputs_embeds
        flat = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "inputs_embeds": inputs_embeds,
        }
        flat = {name: None if each is None else each.flatten(0, 1) for name, each in flat.items()}
        found = self.recurrent(**flat, return_dict=True, **others)
        vectors = pooled(found.last_hidden_state, flat["attention_mask"], self.config)
        logits = self.classifier(self.dropout(vectors)).view(given.shape[:2])
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return MultipleChoiceModelOutput(loss=loss, logits=logits, hidden_states=found.hidden_states)


class RecurrentForTokenClassification(_Classifier):
    """One answer a token."""

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **others: Any,
    ) -> TokenClassifierOutput:
        found = self.recurrent(input_ids, attention_mask, return_dict=True, **others)
        logits = self.classifier(self.dropout(found.last_hidden_state))
        loss = None if labels is None else self.loss_function(logits, labels, self.config)
        return TokenClassifierOutput(loss=loss, logits=logits, hidden_states=found.hidden_states)


class RecurrentForQuestionAnswering(_Headed):
    """Where an answer begins and where it ends: two numbers a token."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **others: Any,
    ) -> QuestionAnsweringModelOutput:
        found = self.recurrent(input_ids, attention_mask, return_dict=True, **others)
        start, end = self.qa_outputs(self.dropout(found.last_hidden_state)).unbind(-1)
        told = start_positions is not None and end_positions is not None
        loss = self.loss_function(start, end, start_positions, end_positions) if told else None
        return QuestionAnsweringModelOutput(
            loss=loss, start_logits=start, end_logits=end, hidden_states=found.hidden_states
        )


class WordHead(nn.Module):
    """From states to the vocabulary by way of the embeddings' width, as in BERT: its last weights may be theirs."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.embedding_size)
        self.norm = nn.LayerNorm(config.embedding_size)
        self.decoder = nn.Linear(config.embedding_size, config.vocab_size)

    def forward(self, states: Tensor) -> Tensor:
        return self.decoder(self.norm(nn.functional.gelu(self.dense(states))))


class _Language(_Headed):
    _tied_weights_keys = TIED

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.words = WordHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.words.decoder

    def set_output_embeddings(self, new_embeddings: Any) -> None:
        self.words.decoder = new_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **others: Any,
    ) -> RecurrentLanguageOutput:
        found = self.recurrent(input_ids, attention_mask, return_dict=True, **others)
        logits = self.words(self.dropout(found.last_hidden_state))
        loss = None if labels is None else self.loss_function(logits, labels, vocab_size=self.config.vocab_size)
        return RecurrentLanguageOutput(loss, logits, found.hidden_states, found.state)


class RecurrentForMaskedLM(_Language):
    """Words that were hidden, by what stands on both sides of them."""


class RecurrentForCausalLM(_Language, GenerationMixin):
    """The next word. Only a model that reads from left to right can learn it."""

    _is_stateful = True  # no token can be taken back: generation that guesses ahead is refused

    def __init__(self, config: RecurrentConfig) -> None:
        if config.bidirectional:
            raise ConfigError(
                "body.settings.bidirectional: a causal language model must not see the words that it predicts; found "
                "true; set body.settings.bidirectional=false, or learn masked words instead"
            )
        super().__init__(config)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # a state of fixed size takes the place of keys and values

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        state: tuple[Tensor, ...] | None = None,
        use_cache: bool = True,
        **kwargs: Any,  # transformers looks for this name
    ) -> dict[str, Any]:
        """Return what the next step reads: the text, or its last token alone where a state holds what came before."""
        if state is not None:
            return {"input_ids": input_ids[:, -1:], "state": state, "use_cache": use_cache}
        return {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": use_cache}

    def _reorder_cache(self, state: tuple[Tensor, ...], beams: Tensor) -> tuple[Tensor, ...]:
        return tuple(each.index_select(0, beams) for each in state)


def pooled(states: Tensor, mask: Tensor | None, config: Any) -> Tensor:
    """Return one vector a row (batch, hidden_size) of the real tokens' states, as `config.pooling` says."""
    real = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device) if mask is None else mask.bool()
    if config.pooling == "max":
        return states.masked_fill(~real[..., None], torch.finfo(states.dtype).min).amax(1)
    if config.pooling == "mean":
        return states.masked_fill(~real[..., None], 0.0).sum(1) / real.sum(1, keepdim=True).clamp(min=1)
    places = torch.arange(real.shape[1], device=real.device)
    rows, last = torch.arange(len(real), device=real.device), torch.where(real, places, 0).amax(1)
    if not config.bidirectional:
        return states[rows, last]
    forwards, backwards = states.chunk(2, -1)  # each has read the whole row where it ends
    return torch.cat([forwards[rows, last], backwards[rows, real.int().argmax(1)]], -1)
