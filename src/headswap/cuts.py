"""Where a body is cut, so that what lies below is computed once: above the body, or inside, above layers. Floor 2.

frozen.py decides what is cut; body_output.py says what is kept of what passes there.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from headswap.architecture import aside
from headswap.body_output import Given, Passes, Unserved
from headswap.layers import layer_groups, layers

Say = Callable[[Given | None, Callable[[], Any]], Any]
"""(what the body is given, computes what passes the cut) -> what shall pass it."""


class Cut(Protocol):
    """A place in a model that every forward pass goes through once.

    Attributes:
        forms: what may be kept of what passes there, the smallest first.
        rest: what places that are not kept are filled with, to prove that nothing reads them.
    """

    @property
    def forms(self) -> Sequence[str]: ...

    @property
    def rest(self) -> float: ...

    def through(self, say: Say) -> AbstractContextManager[None]:
        """Let what passes the cut inside be what `say` answers."""
        ...


@dataclass(frozen=True)
class AboveBody:
    """The cut between body and head: what passes is the body's output."""

    base: Any
    forms: Sequence[str] = ("pooler_output", "first", "last", "last_hidden_state")
    rest: float = float("nan")

    @contextlib.contextmanager
    def through(self, say: Say) -> Iterator[None]:
        compute, signature = self.base.forward, inspect.signature(self.base.forward)

        def forward(*args: Any, **named: Any) -> Any:
            return say(Given.of(signature, args, named), lambda: compute(*args, **named))

        with replaced(self.base, forward):
            yield


@dataclass(frozen=True)
class AboveLayers:
    """The cut above the lowest layers of a body: what passes are the states of all tokens.

    While it is cut, the lowest layers wait: the last of them asks `say`, and they compute, one after another, only if
    that wants it. Attention gives padding no weight, but 0 x NaN is NaN: `rest` is a number that would show.
    """

    base: Any
    lowest: Sequence[Any]
    forms: Sequence[str] = ("last_hidden_state",)
    rest: float = 100.0
    _packed: list[bool] = field(default_factory=list, repr=False)

    @contextlib.contextmanager
    def through(self, say: Say) -> Iterator[None]:
        if not self._packed:
            raise RuntimeError("AboveLayers: learn() comes first")
        compute, signature = self.base.forward, inspect.signature(self.base.forward)
        given: list[Given | None] = [None]
        waiting: list[Callable[[Any], Any]] = []

        def forward(*args: Any, **named: Any) -> Any:
            given[0] = Given.of(signature, args, named)
            waiting.clear()
            return compute(*args, **named)

        def wait(layer: Callable[..., Any], states: Any, rest: tuple[Any, ...], named: dict[str, Any]) -> Any:
            waiting.append(lambda entering: self._open(layer(entering, *rest, **named)))
            if len(waiting) < len(self.lowest):
                return self._pack(states)

            def lazily() -> Any:
                passing = states  # the layers before have handed on what entered the first
                for step in waiting:
                    passing = step(passing)
                return {"last_hidden_state": passing}

            return self._pack(say(given[0], lazily)["last_hidden_state"])

        with contextlib.ExitStack() as stack:
            stack.enter_context(replaced(self.base, forward))
            for each in self.lowest:
                stack.enter_context(replaced(each, _by_states(each.forward, wait)))
            yield

    def learn(self, run: Callable[[], Any]) -> None:
        """Watch one pass of the whole model, made by `run`, for how its layers hand on their states.

        Raises:
            Unserved: a layer is not passed once, gives more than its states, or not to the layer above.
        """
        seen: list[tuple[int, Any, Any]] = []
        with contextlib.ExitStack() as stack:
            for place, each in enumerate(self.lowest):
                stack.enter_context(replaced(each, _by_states(each.forward, _recorded(seen, place))))
            run()
        order, entering, leaving = ([part[index] for part in seen] for index in range(3))
        packed = [isinstance(value, tuple) for value in leaving]
        states = [value[0] if isinstance(value, tuple) else value for value in leaving]
        alone = all(not isinstance(value, tuple) or len(value) == 1 for value in leaving)
        handed = all(states[place] is entering[place + 1] for place in range(len(seen) - 1))
        if order != list(range(len(self.lowest))) or not alone or not handed or len(set(packed)) != 1:
            raise Unserved("the body's layers do not hand on their states one to the next and nothing else")
        self._packed[:] = packed[:1]

    def _pack(self, states: Any) -> Any:
        return (states,) if self._packed[0] else states

    def _open(self, value: Any) -> Any:
        return value[0] if self._packed[0] else value


def above_layers(base: Any, names: Sequence[str], count: int) -> AboveLayers:
    """Return the cut above the lowest `count` layers of a body.

    Args:
        names: the model's role names, in its order.

    Raises:
        Unserved: its layers are not found.
    """
    groups = layer_groups(names)
    found = []
    for layer in layers(names)[:count]:
        number = layer.split()[-1]
        roots = {match[1] for name in groups[layer] if (match := re.match(rf"body\.(.*?\.{number})\.", name))}
        if len(roots) != 1:
            raise Unserved(f"{layer} is no module of its own")
        found.append(base.get_submodule(roots.pop()))
    return AboveLayers(base, found)


def require_still(ask: Passes, cut: AboveLayers, rows: np.ndarray) -> None:
    """Learn how the lowest layers hand on their states; require that they give the same bits in training."""
    cut.learn(lambda: ask.plain("train", rows))
    calm, buffers = ask.whole("train", rows), {name: each.clone() for name, each in ask.model.named_buffers()}
    ask.model.train()
    try:
        with aside():
            stirred = ask.whole("train", rows)
    finally:
        ask.model.eval()
        for name, each in ask.model.named_buffers():
            each.copy_(buffers[name])
    first, second = (heard.output["last_hidden_state"][torch.from_numpy(heard.given.real)] for heard in (calm, stirred))
    if not torch.equal(first, second):
        raise Unserved("the layers that stay as they are give something else in training: dropout lies in them")


@contextlib.contextmanager
def replaced(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Give a module another forward inside."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def _by_states(
    layer: Callable[..., Any], say: Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any]
) -> Callable[..., Any]:
    """Return a forward that gives `say` the layer, the states that enter it, and what else it is given."""
    names = [name for name in inspect.signature(layer).parameters if name != "self"]

    def forward(*args: Any, **named: Any) -> Any:
        if args:
            return say(layer, args[0], args[1:], named)
        return say(layer, named.pop(names[0]), (), named)

    return forward


def _recorded(seen: list[tuple[int, Any, Any]], place: int) -> Callable[..., Any]:
    def record(layer: Callable[..., Any], states: Any, rest: tuple[Any, ...], named: dict[str, Any]) -> Any:
        leaving = layer(states, *rest, **named)
        if isinstance(leaving, torch.Tensor | tuple):
            seen.append((place, states, leaving))
        return leaving

    return record
