"""Recurrent bodies as transformers models: after `import headswap.recurrent`, AutoModel... knows them. Floor 0.

A model that headswap saved loads with plain transformers after that import. bodyfiles.OWN_TYPES names the model types;
whatever reads a config.json of them imports this package first.
"""

from __future__ import annotations

from typing import Any

import transformers

from headswap.recurrent.encoder import RecurrentConfig, RecurrentModel
from headswap.recurrent.heads import (
    RecurrentForCausalLM,
    RecurrentForMaskedLM,
    RecurrentForMultipleChoice,
    RecurrentForQuestionAnswering,
    RecurrentForSequenceClassification,
    RecurrentForTokenClassification,
)
from headswap.recurrent.seq2seq import RecurrentForConditionalGeneration, RecurrentSeq2SeqConfig, RecurrentSeq2SeqModel

__all__ = [
    "RecurrentConfig",
    "RecurrentForCausalLM",
    "RecurrentForConditionalGeneration",
    "RecurrentForMaskedLM",
    "RecurrentForMultipleChoice",
    "RecurrentForQuestionAnswering",
    "RecurrentForSequenceClassification",
    "RecurrentForTokenClassification",
    "RecurrentModel",
    "RecurrentSeq2SeqConfig",
    "RecurrentSeq2SeqModel",
]

transformers.AutoConfig.register(RecurrentConfig.model_type, RecurrentConfig, exist_ok=True)
_SERVED: dict[str, Any] = {
    "AutoModel": RecurrentModel,
    "AutoModelForCausalLM": RecurrentForCausalLM,
    "AutoModelForMaskedLM": RecurrentForMaskedLM,
    "AutoModelForMultipleChoice": RecurrentForMultipleChoice,
    "AutoModelForQuestionAnswering": RecurrentForQuestionAnswering,
    "AutoModelForSequenceClassification": RecurrentForSequenceClassification,
    "AutoModelForTokenClassification": RecurrentForTokenClassification,
}
for _name, _kind in _SERVED.items():
    getattr(transformers, _name).register(RecurrentConfig, _kind, exist_ok=True)

transformers.AutoConfig.register(RecurrentSeq2SeqConfig.model_type, RecurrentSeq2SeqConfig, exist_ok=True)
transformers.AutoModel.register(RecurrentSeq2SeqConfig, RecurrentSeq2SeqModel, exist_ok=True)
transformers.AutoModelForSeq2SeqLM.register(RecurrentSeq2SeqConfig, RecurrentForConditionalGeneration, exist_ok=True)
