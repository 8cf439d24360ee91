"""Whether somebody wants this run to stop: a signal, a lost parent, or a step to stop at. Floor 0.

SIGTERM, SIGINT, SIGUSR1 (headswap's own SLURM jobs) and SIGUSR2 (submitit's) are heard.

A handler only notes the wish. While training, the loop looks at it after every optimizer step, all processes agree,
the state is saved, and `Stopped` ends the run; anywhere else there is nothing to save and `Stopped` is raised at once.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from headswap.errors import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


@dataclass
class Stop:
    """One process's wish to stop.

    Args:
        at_step: stop once so many optimizer steps are done, as verify-resume does.
        reason: why, empty while nobody asked.
        patient: true while the loop trains and will look at `reason` itself. One rank of several always is: were it to
            leave alone, the others would wait for it.
    """

    at_step: int | None = None
    reason: str = ""
    patient: bool = False

    def ask(self, reason: str) -> None:
        """Ask for a stop. Raises Stopped unless the loop is training."""
        self.reason = self.reason or reason
        if not self.patient:
            raise Stopped(f"stopped by {self.reason}; nothing was in training; the same command starts again")

    def asked_after(self, step: int) -> bool:
        """Return whether to stop now that `step` optimizer steps are done."""
        if self.at_step is not None and step == self.at_step:
            self.reason = self.reason or f"request at step {step}"
        return bool(self.reason)

    @contextlib.contextmanager
    def patiently(self) -> Iterator[None]:
        """Leave a wish to the loop until the block ends; after an error the process ends, and does so undisturbed."""
        before, self.patient = self.patient, True
        yield
        self.patient = before

    @contextlib.contextmanager
    def listening(self, signals: Sequence[signal.Signals] = SIGNALS) -> Iterator[None]:
        """Hear the signals until the block ends. Main thread only, as Python asks."""
        before = {number: signal.signal(number, self._hear) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: Any) -> None:
        self.ask(signal.Signals(number).name)


class Relay:
    """The parent's side: while children run, a signal becomes one SIGTERM to each of them.

    They save and end. A second SIGINT ends them at once. A host that listened for the signal before, as submitit does
    to put its job back into the queue, hears it when they have saved. Only the main thread can hear signals; elsewhere
    this does nothing.

    Args:
        children: gives the processes that run now.
    """

    def __init__(self, children: Callable[[], Sequence[Any]]) -> None:
        self.asked = ""
        self._children = children
        self._before: dict[int, Any] = {}
        self._heard: list[int] = []

    def __enter__(self) -> Relay:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for number in self._heard:
            if callable(host := self._before[number]) and host is not signal.default_int_handler:
                signal.raise_signal(number)

    def _hear(self, number: int, frame: Any) -> None:
        if self.asked and number == signal.SIGINT:
            for child in self._children():
                child.kill()
            raise KeyboardInterrupt
        self._heard.append(number)
        self.asked = self.asked or signal.Signals(number).name
        for child in self._children():
            child.terminate()
