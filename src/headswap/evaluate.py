"""Scoring: every example of a split exactly once, every metric once over all of them. Floor 3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from headswap.contracts import LossFunction, Metric, Scores, Task
from headswap.errors import RunError
from headswap.hardware import Hardware

if TYPE_CHECKING:
    from headswap.data import Batches


@dataclass(frozen=True)
class Judge:
    """What scoring needs besides a model; made once a run."""

    batches: Batches
    task: Task
    loss: LossFunction
    metrics: Sequence[Metric]
    label_count: int
    hardware: Hardware

    def score(self, model: torch.nn.Module, split: str) -> Scores:
        """Score `model`, already placed by the hardware, on a split; it is left in evaluation mode.

        Raises:
            RunError: an example was scored twice or not at all, or a score is not a number.
        """
        indices, logits, loss = self._forward(model, split)
        encoded = self.batches.of(split)
        if not np.array_equal(np.sort(indices), np.arange(len(encoded.ids))):
            raise RunError(
                f"{split}: examples were not scored exactly once; found {len(indices)} scores, "
                f"{len(np.unique(indices))} of them distinct, for {len(encoded.ids)} examples; this is a bug"
            )
        logits = logits[np.argsort(indices)]
        if not np.isfinite(logits).all():
            raise RunError(f"{split}: the model answers NaN or Inf; the run diverged; lower train.learning_rate")
        references = np.asarray(encoded.labels)
        predictions = self.task.predict(logits)
        values = {metric.name: metric.compute(predictions, references, self.label_count) for metric in self.metrics}
        return Scores(values, loss, tuple(encoded.ids), references, predictions, logits)

    def _forward(self, model: torch.nn.Module, split: str) -> tuple[np.ndarray, np.ndarray, float]:
        """Return row indices, their logits and the mean loss, gathered over the processes."""
        model.eval()
        indices: list[np.ndarray] = []
        logits: list[torch.Tensor] = []
        totals = torch.zeros(2, dtype=torch.float64)
        mine = self.batches.evaluation(split)[self.hardware.rank :: self.hardware.world]
        with torch.inference_mode():
            for rows in mine:
                batch = self.hardware.move(self.batches.collate(split, rows))
                inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
                output = model(**inputs).logits.float()
                totals += torch.tensor(
                    [float(self.loss(output, batch)), float(self.loss.weight(batch))], dtype=torch.float64
                )
                indices.append(rows)
                logits.append(output.cpu())
        parts = self.hardware.gather((indices, logits, totals))
        rows = np.concatenate([row for part in parts for row in part[0]])
        values = torch.cat([value for part in parts for value in part[1]]).numpy()
        summed = sum((part[2] for part in parts), torch.zeros(2, dtype=torch.float64))
        return rows, values, float(summed[0] / summed[1])
