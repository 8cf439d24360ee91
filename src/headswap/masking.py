"""Which tokens of a text a masked language model must guess, and what it sees in their place. Floor 0.

BERT's recipe (arXiv 1810.04805, section 3.1 and appendix C.2): a share of the tokens is chosen; most become the mask
token, some a random one, some stay. As in its code a feature has a fixed number of chosen ones, at least one, where
transformers' collator throws a coin for each. The dice are keyed by (split, epoch, feature) in training and by the
feature's own tokens elsewhere, so that no batch, process or resume changes them, and scores of runs compare.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headswap.errors import ConfigError
from headswap.losses import IGNORED
from headswap.seeds import Seeds

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Shares:
    """How much is guessed: `chosen` of all tokens (or words); of these `random` and `kept`, the rest is masked."""

    chosen: float = 0.15
    random: float = 0.1
    kept: float = 0.1


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer says of its tokens.

    Args:
        mask: the mask token.
        special: [ids] True for tokens that are never guessed; the unknown token is not one of them.
        ordinary: the tokens that a random one is drawn from.
    """

    mask: int
    special: np.ndarray
    ordinary: np.ndarray

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
        """Read it off a tokenizer.

        Raises:
            ConfigError: it has no mask token.
        """
        import numpy as np

        known: Any = tokenizer
        if known.mask_token_id is None:
            raise ConfigError(
                f"task: masked language modelling needs a mask token; found none in the body's tokenizer "
                f"({type(tokenizer).__name__}); use task=causal_language_modeling, or an encoder's body"
            )
        ids = np.array(sorted(known.get_vocab().values()))
        special = np.zeros(1 + ids[-1], dtype=bool)
        special[known.all_special_ids] = True
        roles = [getattr(known, f"{role}_token_id") for role in ("mask", "pad", "cls", "sep", "bos", "eos")]
        if known.unk_token_id is not None and known.unk_token_id not in roles:
            special[known.unk_token_id] = False
        return cls(known.mask_token_id, special, ids[~special[ids]])


@dataclass(frozen=True)
class Masking:
    """A collator that adds `labels` and hides tokens of `input_ids`; whole words where `target_word` tells them."""

    vocabulary: Vocabulary
    shares: Shares
    seeds: Seeds

    def __call__(
        self, batch: dict[str, torch.Tensor], split: str, features: np.ndarray, epoch: int
    ) -> dict[str, torch.Tensor]:
        import numpy as np
        import torch

        ids = batch["input_ids"].numpy()
        open_to = (batch["attention_mask"].numpy() == 1) & ~self.vocabulary.special[ids]
        draws = [
            self._dice(split, epoch, int(feature), row[may]).random((3, int(may.sum())))
            for feature, row, may in zip(features, ids, open_to, strict=True)
        ]
        order, share, token = np.concatenate(draws, axis=1)  # of each open token, whatever the batch is filled with
        words = batch["target_word"].numpy() if "target_word" in batch else None
        chosen = self._chosen(open_to, words, order)
        seen, guessed = ids.copy(), chosen[open_to]
        seen[chosen] = self._shown(ids[chosen], share[guessed], token[guessed])
        labels = np.where(chosen, ids, IGNORED)
        return {**batch, "input_ids": torch.from_numpy(seen), "labels": torch.from_numpy(labels)}

    def _dice(self, split: str, epoch: int, feature: int, tokens: np.ndarray) -> np.random.Generator:
        if split == "train":
            return self.seeds.generator("mask", split, epoch, feature)
        return Seeds(0).generator("mask", hashlib.sha256(tokens.tobytes()).hexdigest())

    def _chosen(self, open_to: np.ndarray, words: np.ndarray | None, order: np.ndarray) -> np.ndarray:
        """Return a mask [features, width] of the tokens to guess; those of one word, where it is told, go together."""
        import numpy as np

        starts = open_to.copy()
        if words is not None:
            starts[:, 1:] &= words[:, 1:] != words[:, :-1]
        units = starts.sum(axis=1)
        count = np.minimum(units, np.maximum(1, np.rint(self.shares.chosen * units)))
        score = np.full(starts.shape, np.inf)
        score[open_to] = order
        score[~starts] = np.inf
        drawn = score.argsort(axis=1).argsort(axis=1) < count[:, None]
        start = np.maximum.accumulate(np.where(starts, np.arange(starts.shape[1]), 0), axis=1)
        return open_to & np.take_along_axis(drawn, start, axis=1)

    def _shown(self, tokens: np.ndarray, share: np.ndarray, token: np.ndarray) -> np.ndarray:
        """Return what stands in the place of the tokens to guess."""
        import numpy as np

        ordinary = self.vocabulary.ordinary
        kept_or_mask = np.where(share < self.shares.random + self.shares.kept, tokens, self.vocabulary.mask)
        return np.where(share < self.shares.random, ordinary[(token * len(ordinary)).astype(int)], kept_or_mask)
