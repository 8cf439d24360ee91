"""Scoring: every example of a split exactly once, every metric once over all of them. Floor 3."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from headswap.contracts import LossFunction, Metric, Scores, Task
from headswap.errors import Diverged, OutOfMemory, RunError, Stopped
from headswap.hardware import Hardware, first_line, is_out_of_memory
from headswap.stopping import Stop

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
    stop: Stop = field(default_factory=Stop)
    find_batch_size: bool = False

    def score(self, model: torch.nn.Module, split: str) -> Scores:
        """Score `model`, already placed by the hardware, on a split; it is left in evaluation mode.

        Raises:
            RunError: an example was scored twice or not at all.
            Diverged: a score is not a number.
            Stopped: somebody asked for it; only where one process computes, since all would have to leave together.
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
            bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
            raise Diverged(
                f"{split}: the model answers NaN or Inf; the run diverged; lower train.learning_rate",
                {"split": split, "rows": bad.tolist(), "ids": [encoded.ids[row] for row in bad]},
            )
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
        every = self.batches.evaluation(split)
        mine = every[self.hardware.rank :: self.hardware.world]
        idle = -(-len(every) // self.hardware.world) - len(mine) if self.hardware.in_pieces else 0
        with torch.inference_mode():
            for rows in mine:
                if self.stop.reason and self.hardware.world == 1:
                    raise Stopped(f"stopped by {self.stop.reason} while {split} was scored")
                for part, output, sums in self._passes(model, split, rows):
                    totals += sums
                    indices.append(part)
                    logits.append(output)
            for _ in range(idle):  # the others' passes need this process's pieces of the weights
                list(self._passes(model, split, every[0]))
        parts = self.hardware.gather((indices, logits, totals))
        rows = np.concatenate([row for part in parts for row in part[0]])
        values = torch.cat([value for part in parts for value in part[1]]).numpy()
        summed = sum((part[2] for part in parts), torch.zeros(2, dtype=torch.float64))
        return rows, values, float(summed[0] / summed[1])

    def _passes(
        self, model: torch.nn.Module, split: str, rows: np.ndarray
    ) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
        """Yield rows, their logits, and the sums of loss and weight; in halves where memory does not hold all."""
        try:
            batch = self.hardware.move(self.batches.collate(split, rows))
            inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
            output = model(**inputs).logits.float()
            sums = [float(self.loss(output, batch)), float(self.loss.weight(batch))]
            done = (rows, output.cpu(), torch.tensor(sums, dtype=torch.float64))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if not self.find_batch_size or len(rows) == 1:
                remedy = "set a smaller one, or train.find_batch_size=true"
                if len(rows) == 1:
                    remedy = "take a smaller body or data.max_length"
                raise OutOfMemory(
                    f"train.eval_batch_size: does not fit into memory; found {len(rows)} examples a pass "
                    f"({first_line(error)}); {remedy}"
                ) from error
            done = None
        if done is not None:
            yield done
            return
        self.hardware.free_cache()
        for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
            yield from self._passes(model, split, half)
