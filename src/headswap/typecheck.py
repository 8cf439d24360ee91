"""Check a plain value against a type hint of a plug's field. Floor 0.

OmegaConf has already typed the spine; plugs are checked here so that workers need no OmegaConf, and so that the message
names the key. An int is taken where a float is asked for; nothing else is cast.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from headswap.errors import ConfigError


def conform(value: Any, hint: Any, key: str) -> Any:
    """Return `value` in the shape `hint` asks for.

    Raises:
        ConfigError: it does not fit; the message names `key`, the value and the type.
    """
    if _fits(value, hint):
        return _shaped(value, hint)
    raise ConfigError(f"{key}: must be {_said(hint)}; found {value!r} ({type(value).__name__}); correct the value")


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is Literal:
        return value in arguments
    if origin in (list, tuple, Sequence):
        inner = arguments[0] if arguments else Any
        return isinstance(value, list | tuple) and all(_fits(item, inner) for item in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(_fits(item, arguments[1]) for item in value.values())
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return value is None if hint in (None, type(None)) else isinstance(value, hint)


def _shaped(value: Any, hint: Any) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _shaped(value, next(option for option in get_args(hint) if _fits(value, option)))
    if origin is tuple:
        return tuple(value)
    return float(value) if hint is float else value


def _said(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_said(option) for option in get_args(hint))
    if hint in (None, type(None)):
        return "null"
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false"}.get(hint, str(hint))
