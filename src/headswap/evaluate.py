"""Scoring: every feature of a split exactly once, every metric once over all of them. Floor 3."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headswap.answers import Answers, Observed, Scores
from headswap.contracts import LossFunction, Metric, Splits, Task
from headswap.errors import Diverged, OutOfMemory, RunError, Stopped
from headswap.hardware import Hardware, first_line, is_out_of_memory
from headswap.stopping import Stop

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from headswap.data import Batches


@dataclass(frozen=True)
class Judge:
    """What scoring needs besides a model; made once a run."""

    splits: Splits
    batches: Batches
    task: Task
    loss: LossFunction
    metrics: Sequence[Metric]
    tokenizer: PreTrainedTokenizerBase
    hardware: Hardware
    stop: Stop = field(default_factory=Stop)
    find_batch_size: bool = False
    _rows: dict[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    def score(self, model: torch.nn.Module, split: str, calibration: Mapping[str, Any] | None = None) -> Scores:
        """Score `model`, already placed by the hardware, on a split; it is left in evaluation mode.

        Args:
            calibration: what the final weights' validation outputs settled; validation settles its own.

        Raises:
            RunError: a feature was scored twice or not at all.
            Diverged: a score is not a number.
            Stopped: somebody asked for it; only where one process computes, since all would have to leave together.
        """
        features, outputs, loss = self._forward(model, split, True)
        encoded = self.batches.of(split)
        if not np.array_equal(np.sort(features), np.arange(len(encoded))):
            raise RunError(
                f"{split}: features were not scored exactly once; found {len(features)} scores, "
                f"{len(np.unique(features))} of them distinct, for {len(encoded)} features; this is a bug"
            )
        outputs = [outputs[place] for place in np.argsort(features)]
        _refuse_broken(outputs, split, encoded)
        if split not in self._rows:
            self._rows[split] = self.splits.of(split)[:]
        observed = Observed(outputs, encoded, self._rows[split], self.tokenizer, self.splits.labels, calibration or {})
        found = judged(observed, self.task, self.metrics, (split, loss))
        return replace(found, lengths=encoded.input_tokens)

    def finish(self, model: torch.nn.Module) -> dict[str, Scores]:
        """Score validation, and test for the first and only time, with each example's value of the metrics it has."""
        validation = self.score(model, "validation")
        test = self.score(model, "test", validation.calibration)
        return {"validation": by_example(validation, self.metrics), "test": by_example(test, self.metrics)}

    def watch(self, select_by: str) -> Callable[[torch.nn.Module, str], Scores]:
        """Return what judges a model while it trains: `score`, or the loss alone, for which nothing is generated."""
        return self.score if select_by == "metric" else self._loss_alone

    def _loss_alone(self, model: torch.nn.Module, split: str) -> Scores:
        _, _, loss = self._forward(model, split, False)
        return Scores({}, loss, (), Answers((), (), self.splits.labels))

    def _forward(
        self, model: torch.nn.Module, split: str, observing: bool
    ) -> tuple[np.ndarray, list[np.ndarray], float]:
        """Return features' numbers, what was observed of each and the mean loss, gathered over the processes."""
        model.eval()
        features: list[np.ndarray] = []
        outputs: list[np.ndarray] = []
        totals = torch.zeros(2, dtype=torch.float64)
        every = self.batches.evaluation(split)
        mine = every[self.hardware.rank :: self.hardware.world]
        idle = -(-len(every) // self.hardware.world) - len(mine) if self.hardware.in_pieces else 0
        with torch.inference_mode():
            for rows in mine:
                if self.stop.reason and self.hardware.world == 1:
                    raise Stopped(f"stopped by {self.stop.reason} while {split} was scored")
                for part, output, sums in self._passes(model, split, rows, observing):
                    totals += sums
                    features.append(part)
                    outputs += output
            for _ in range(idle):  # the others' passes need this process's pieces of the weights
                list(self._passes(model, split, every[0], observing))
        parts = self.hardware.gather((features, outputs, totals))
        rows = np.concatenate([row for part in parts for row in part[0]])
        values = [value for part in parts for value in part[1]]
        summed = sum((part[2] for part in parts), torch.zeros(2, dtype=torch.float64))
        return rows, values, float(summed[0] / summed[1])

    def _passes(
        self, model: torch.nn.Module, split: str, rows: np.ndarray, observing: bool
    ) -> Iterator[tuple[np.ndarray, list[np.ndarray], torch.Tensor]]:
        """Yield features, their outputs, and the sums of loss and weight; in halves where memory does not hold all."""
        try:
            batch = self.hardware.move(self.batches.collate(split, rows))
            output = self.task.forward(model, batch)
            sums = [float(self.loss(output, batch)), float(self.loss.weight(batch))]
            found = self.task.observe(model, batch, output) if observing else []
            done = (rows, found, torch.tensor(sums, dtype=torch.float64))
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
            yield from self._passes(model, split, half, observing)


def judged(observed: Observed, task: Task, metrics: Sequence[Metric], found: tuple[str, float]) -> Scores:
    """Read outputs as answers and score them.

    Args:
        observed: with the calibration that validation settled; validation itself settles its own.
        found: the split's name, and the mean loss of these outputs.
    """
    split, loss = found
    settled = task.calibrate(observed) if split == "validation" else dict(observed.calibration)
    answers = task.answers(replace(observed, calibration=settled))
    values = {metric.name: metric.compute(answers) for metric in metrics}
    return Scores(values, loss, tuple(observed.features.ids), answers, calibration=settled)


def by_example(scores: Scores, metrics: Sequence[Metric]) -> Scores:
    """Return scores with the value that each example has of the metrics that are means of such."""
    found = {metric.name: metric.values(scores.answers) for metric in metrics if metric.per_example}
    return replace(scores, examples={name: np.asarray(each) for name, each in found.items() if each is not None})


def _refuse_broken(outputs: Sequence[np.ndarray], split: str, encoded: Any) -> None:
    bad = [feature for feature, output in enumerate(outputs) if not np.isfinite(output).all()]
    if bad:
        rows = sorted({int(encoded.example[feature]) for feature in bad})
        raise Diverged(
            f"{split}: the model answers NaN or Inf; the run diverged; lower train.learning_rate",
            {"split": split, "rows": rows, "ids": [encoded.ids[row] for row in rows]},
        )
