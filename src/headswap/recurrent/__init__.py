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

_SERVED: dict[type[RecurrentConfig], dict[str, Any]] = {
    RecurrentConfig: {
        "AutoModel": RecurrentModel,
        "AutoModelForCausalLM": RecurrentForCausalLM,
        "AutoModelForMaskedLM": RecurrentForMaskedLM,
        "AutoModelForMultipleChoice": RecurrentForMultipleChoice,
        "AutoModelForQuestionAnswering": RecurrentForQuestionAnswering,
        "AutoModelForSequenceClassification": RecurrentForSequenceClassification,
        "AutoModelForTokenClassification": RecurrentForTokenClassification,
    },
    RecurrentSeq2SeqConfig: {
        "AutoModel": RecurrentSeq2SeqModel,
        "AutoModelForSeq2SeqLM": RecurrentForConditionalGeneration,
    },
}
for _config, _kinds in _SERVED.items():
    transformers.AutoConfig.register(_config.model_type, _config, exist_ok=True)
    for _name, _kind in _kinds.items():
        getattr(transformers, _name).register(_config, _kind, exist_ok=True)
