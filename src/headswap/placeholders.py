"""Secrets in a configuration: `${oc.env:NAME}` stays text until a plug is made of it. Floor 0.

    composition.py  leaves ${oc.env:HF_TOKEN} as it is      so config.yaml, show and a run's identity hold no value
    config.build()  reveal()  -> the plug's field           conceal() -> its error messages

Whether a variable is a secret is judged by its name alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from headswap.errors import ConfigError

# Inside a word these tell by themselves (PGPASSWORD); KEY and AUTH must be whole words: KEYBOARD is no secret.
_ANYWHERE = re.compile(r"SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|APIKEY")
_WORD = re.compile(r"(KEYS?|AUTH|\w*TOKENS?)\d*")
_PLACEHOLDER = re.compile(r'\$\{oc\.env:(?P<name>[^,{}"\s]+)(?:,(?P<default>null|"(?:[^"\\]|\\.)*"))?\}')
_NAME = re.compile(r'\$\{oc\.env:([^,{}"\s]+)')


def looks_secret(name: str) -> bool:
    """Say whether an environment variable's name reads as a secret's, such as HF_TOKEN or AWS_SECRET_ACCESS_KEY."""
    upper = name.upper()
    return bool(_ANYWHERE.search(upper)) or any(_WORD.fullmatch(word) for word in re.split(r"[^A-Z0-9]+", upper))


def placeholder(name: str, *default: Any) -> str:
    """Return the text that stands for a secret: `${oc.env:NAME}`, or `${oc.env:NAME,"default"}`."""
    text = "".join("," + ("null" if each is None else json.dumps(str(each))) for each in default)
    return f"${{oc.env:{name}{text}}}"


def names_in(value: Any) -> Iterator[str]:
    """Yield the secrets that a text, or the texts in nested containers, stand for."""
    if isinstance(value, str):
        yield from filter(looks_secret, _NAME.findall(value))
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from names_in(inner)


def reveal(value: Any, key: str) -> Any:
    """Return `value` with the secrets' values in place of their placeholders.

    Raises:
        ConfigError: a variable is not set and its placeholder has no default; the message names `key` and variable.
    """
    if isinstance(value, str):
        whole = _PLACEHOLDER.fullmatch(value)
        return _value(whole, key) if whole else _PLACEHOLDER.sub(lambda found: str(_value(found, key)), value)
    if isinstance(value, Mapping):
        return {name: reveal(inner, f"{key}.{name}") for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(reveal(inner, f"{key}[{place}]") for place, inner in enumerate(value))
    return value


def _value(found: re.Match[str], key: str) -> Any:
    name = found["name"]
    if not looks_secret(name):
        return found[0]
    if name in os.environ:
        return os.environ[name]
    if found["default"] is None:
        raise ConfigError(f"{key}: the environment variable is not set; found {found[0]}; set {name} before headswap")
    return reveal(json.loads(found["default"]), key)


def conceal(text: str, value: Any) -> str:
    """Return `text` with a placeholder wherever a secret that `value` names stands in it, as it is or quoted."""
    secrets = {os.environ[name]: name for name in names_in(value) if os.environ.get(name)}
    for secret in sorted(secrets, key=len, reverse=True):
        for form in dict.fromkeys((secret, repr(secret)[1:-1], json.dumps(secret)[1:-1])):
            text = text.replace(form, placeholder(secrets[secret]))
    return text


def faults(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield a message for every key of a tree without plugs that holds a placeholder."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from faults(value, f"{prefix}{key}.")
        else:
            yield from (plain_key_fault(f"{prefix}{key}", name) for name in dict.fromkeys(names_in(value)))


def plain_key_fault(key: str, name: str) -> str:
    """Return the message for a secret in a key that is written into the run folder."""
    return (
        f"{key}: is written into the run folder, so it takes no secret; found {placeholder(name)}; "
        "use a variable whose name does not read as a secret's"
    )
