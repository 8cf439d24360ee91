"""What a body that stays as it is gives for each feature: computed once, kept on disk, read by the head. Floor 2.

    serving() -> Form: what is read of what passes the cut -> Table: from disk, or computed and put there
              -> what lies below the cut answers from the tables as long as the block lasts

While no weight of the body moves, the loop keeps it in evaluation mode: its output is a function of what it is given,
and it draws no random number. So a row is looked up by its real tokens, and what is not found is computed as ever. The
head is the model's own, on tensors of the same shapes: dropout draws the same numbers. That places which are not kept
are not read is proved on every feature: they are NaN while a table is made, and change no loss and nothing observed.

below() serves a body of which only the lowest layers stay as they are; those must give in training what they give in
evaluation (no dropout), which a trial finds out.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headswap.architecture import body_modules, role_names
from headswap.body_output import Form, Given, Passes, ReadMore, Table, Unserved, threads
from headswap.contracts import LossFunction, Task
from headswap.cuts import AboveBody, AboveLayers, Cut, above_layers, require_still
from headswap.errors import WeightsError
from headswap.hardware import Hardware, is_out_of_memory
from headswap.stopping import Stop

if TYPE_CHECKING:
    from headswap.data import Batches

CACHE_FORMAT = 1
MOST_BYTES = 4 << 30
# A padded width changes a value by rounding: more than this share of a vector's length is not rounding.
_ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-4}
_ROUNDING_OF_HALF = 0.05
_NOT_THE_BODYS = ("id2label", "label2id", "problem_type", "num_labels", "architectures", "_name_or_path", "dtype")


@dataclass
class Frozen:
    """Serves a body's outputs while it stays as it is.

    Args:
        cache: the folder of the tables.
        about: what the body's weights are known by; JSON.
        note: told what came of it, for run.json.
        lowest: how many of the body's lowest layers stay as they are; None for all of it.
    """

    task: Task
    batches: Batches
    loss: LossFunction
    hardware: Hardware
    cache: Path
    about: Mapping[str, Any]
    stop: Stop = field(default_factory=Stop)
    note: Callable[[Mapping[str, Any]], None] = lambda facts: None
    lowest: int | None = None
    _below: dict[int, Frozen] = field(default_factory=dict, repr=False)
    _cut: Cut | None = field(default=None, repr=False)
    _tables: dict[str, Table] = field(default_factory=dict, repr=False)
    _form: Form | None = field(default=None, repr=False)
    _told: dict[str, Any] = field(default_factory=dict, repr=False)
    _refused: str = ""
    _threads: int = field(default_factory=torch.get_num_threads)

    @contextlib.contextmanager
    def serving(self, model: Any, splits: Sequence[str], reads: int | None = None) -> Iterator[None]:
        """Let the body of `model` answer from tables of `splits` inside; compute as ever where it cannot be.

        Args:
            model: plain; no weight that is served has moved or moves inside.
            reads: training features that will be asked for; below their number a table would cost more than it saves.

        Raises:
            Stopped: somebody asked for it while a table was made.
        """
        try:
            self._require_worth(reads)
            self._cut = self._cut or self._found_cut(model)
            if lacking := [each for each in splits if each not in self._tables]:
                self._fill(model, self._cut, lacking)
        except Unserved as why:
            self._refused = str(why)
            self._tell(served=False, why=str(why))
            yield
            return
        few = threads(1) if self.lowest is None else contextlib.nullcontext()  # a head is too little work for more
        with self._cut.through(self._answer), few:
            yield

    def below(self, count: int) -> Frozen:
        """Return what serves the lowest `count` layers of a body whose others move."""
        if count not in self._below:

            def tell(facts: Mapping[str, Any]) -> None:
                held = self._told.get("lowest_layers", {})
                self._tell(**{**self._told, "lowest_layers": {**held, str(count): facts}})

            empty: dict[str, Any] = {"_below": {}, "_cut": None, "_tables": {}, "_form": None, "_told": {}}
            self._below[count] = replace(self, lowest=count, note=tell, **empty, _refused="")
        return self._below[count]

    def _require_worth(self, reads: int | None) -> None:
        """Refuse what was refused before, and what would cost more than it saves."""
        if self._refused:
            raise Unserved(self._refused)
        count = len(self.batches.of("train"))
        if reads is not None and reads < count:
            raise Unserved(f"the frozen phase reads {reads:,} of {count:,} training features")
        if self.hardware.world > 1 or self.hardware.in_pieces:
            raise Unserved("several processes train together")

    def _found_cut(self, model: Any) -> Cut:
        """Return the place in the model that tables can answer for."""
        try:
            modules = body_modules(model)
        except WeightsError as error:
            raise Unserved(str(error)) from error
        if len(modules) != 1:
            raise Unserved("the body is an encoder with a decoder")
        rows = self.batches.epoch(0)[0]
        first, second = (self.batches.collate("train", rows, epoch) for epoch in (0, 1))
        inputs = [name for name in first if not name.startswith(("labels", "target"))]
        if not all(first[name].shape == second[name].shape and first[name].equal(second[name]) for name in inputs):
            raise Unserved("what the body is given changes from epoch to epoch")
        if self.lowest is None:
            return AboveBody(modules[0])
        return above_layers(modules[0], list(role_names(model).values()), self.lowest)

    def _fill(self, model: Any, cut: Cut, lacking: Sequence[str]) -> None:
        """Read or compute the tables of some splits; the model is left as it was."""
        training = [module for module in model.modules() if module.training]
        placed = self.hardware.place(model)
        placed.eval()
        try:
            with torch.inference_mode(), threads(1):
                self._settle(Passes(self.task, self.batches, self.loss, self.hardware, placed, cut), model, lacking)
        except OSError as error:
            raise Unserved(f"{self.cache}: cannot be written; {error.strerror or error}") from error
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise Unserved("a pass over the features did not fit into memory") from error
        finally:
            self.hardware.plain(placed)
            for module in training:
                module.training = True

    def _settle(self, ask: Passes, model: Any, lacking: Sequence[str]) -> None:
        """Take the smallest form that holds all that the head reads."""
        started, why = time.perf_counter(), "no part of its output serves"
        order = np.argsort(self.batches.of("train").lengths, kind="stable")
        trial = order[[0, len(order) // 2]]
        if isinstance(ask.cut, AboveLayers) and self._form is None:
            require_still(ask, ask.cut, trial)
        for form in ask.forms(trial) if self._form is None else [self._form]:
            try:
                made = {split: self._table(ask, model, split, form) for split in lacking}
            except ReadMore as error:
                why = str(error)
                continue
            first, self._form = self._form is None, form
            self._tables |= {split: table for split, (table, _) in made.items()}
            new = [split for split, (_, computed) in made.items() if computed]
            if first or new:
                self._require_agreement(ask, np.concatenate([order[:8], order[8:][-8:]]) if new else trial)
            self._tell_served(form, new, time.perf_counter() - started)
            return
        raise Unserved(f"the head reads more of the body's output than a table holds; {why}")

    def _tell_served(self, form: Form, new: list[str], seconds: float) -> None:
        self._tell(
            served=True,
            kept=form.kind,
            features={split: len(self.batches.of(split)) for split in self._tables},
            computed=[*self._told.get("computed", []), *new],
            bytes=sum(table.values.nbytes for table in self._tables.values()),
            seconds=round(self._told.get("seconds", 0.0) + seconds, 3),
        )

    def _table(self, ask: Passes, model: Any, split: str, form: Form) -> tuple[Table, bool]:
        """Return the table of a split, and whether it was computed rather than found."""
        folder = self.cache / self._key(model, split, form)
        with _locked(folder.with_suffix(".lock")):
            if (found := Table.read(folder, form.width)) is not None:
                return found, False
            self._require_room(split, form)
            with threads(self._threads):
                Table.write(folder, ask.pieces(split, form, self.stop))
        made = Table.read(folder, form.width)
        if made is None:
            raise Unserved(f"{folder}: cannot be read back")
        return made, True

    def _require_room(self, split: str, form: Form) -> None:
        encoded = self.batches.of(split)
        slots = int(encoded.lengths.sum()) if form.kind == "last_hidden_state" else len(encoded)
        self.cache.mkdir(parents=True, exist_ok=True)
        size, most = slots * form.width * 4, min(MOST_BYTES, shutil.disk_usage(self.cache).free // 2)
        if size > most:
            raise Unserved(f"the outputs of {split} would take {size:,} bytes on disk; at most {most:,} are taken")

    def _key(self, model: Any, split: str, form: Form) -> str:
        """Return what a table is known by: all that its numbers hang on, save how many threads computed them.

        So the runs of a sweep read one table, whether they compute alone or side by side.
        """
        import transformers

        encoded = self.batches.of(split)
        digest = hashlib.sha256()
        for name, (values, offsets) in sorted(encoded.columns.items()):
            if not name.startswith(("labels", "target")):
                digest.update(name.encode() + values.tobytes() + offsets.tobytes())
        config = {name: value for name, value in model.config.to_dict().items() if name not in _NOT_THE_BODYS}
        place = self.hardware.describe()
        about = [
            CACHE_FORMAT, self.about, self.lowest, form.kind, type(model).__name__, config,
            model.config._attn_implementation, digest.hexdigest(), repr(encoded.padding), self.batches.evaluation_size,
            *(place[key] for key in ("device", "device_name", "precision")),
            torch.__version__, transformers.__version__,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:32]

    def _require_agreement(self, ask: Passes, rows: np.ndarray) -> None:
        """Compare what is kept of some training features with what the body gives for them in one batch."""
        assert self._form is not None
        heard = ask.whole("train", rows)
        values = self._form.taken(heard.output, heard.given.real)
        known = self._found(heard.given)
        if known is None:
            raise Unserved("the body is given other tokens than its features have")
        tolerance = _ROUNDING.get(self._form.dtype, _ROUNDING_OF_HALF)
        apart = np.linalg.norm(values - known, axis=-1) > tolerance * (np.linalg.norm(values, axis=-1) + 1e-6)
        if apart.any():
            raise Unserved("what the body gives for a feature hangs on the batch around it")

    def _found(self, given: Given) -> np.ndarray | None:
        """Return the kept values of the rows, one after another; None where one is not known."""
        found = []
        for key in given.keys:
            for table in self._tables.values():
                if (span := table.spans.get(key)) is not None:
                    found.append(table.values[span[0] : span[1]])
                    break
            else:
                return None
        return np.concatenate(found)

    def _answer(self, given: Given | None, compute: Callable[[], Any]) -> Any:
        values = given and self._found(given)
        if given is None or values is None or self._form is None:
            return compute()
        return self._form.output(values, given, 0.0)

    def _tell(self, **facts: Any) -> None:
        if facts != self._told:
            self._told = facts
            self.note(facts)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time compute a table; where the disk knows no locks, each computes its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
