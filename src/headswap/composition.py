"""The one place that talks to Hydra's compose API: overrides in, plain containers out. Floor 0, used by config.py.

Hydra's own messages name no near key (and even suggest `+key`); `_said` says what was meant.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headswap.errors import ConfigError, nearest
from headswap.placeholders import looks_secret, names_in, placeholder, plain_key_fault

CONFIG_NAME = "config"
SPACES = r"sweep\.space|study\.tuning\.spaces"
TUNING_WORD = re.compile(r"study\.tuning=([\w-]+)")
STAGE_WORD = re.compile(r"[+~]*stages\.([A-Za-z_][\w-]*)\.(.+)", re.DOTALL)


def register_spine() -> None:
    """Put the typed spine into Hydra's ConfigStore, once a process."""
    from hydra.core.config_store import ConfigStore

    from headswap.spine import Config

    ConfigStore.instance().store(name="spine", node=Config)


def compose_node(overrides: Sequence[str], config_dirs: Sequence[str | Path]) -> dict[str, Any]:
    """Compose and resolve; return plain dicts and lists. Raises ConfigError in our words."""
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    register_spine()
    GlobalHydra.instance().clear()
    try:
        with secrets_kept():
            config = _composed(overrides, config_dirs)
            return resolved(config, config.hydra.runtime.choices, OmegaConf)
    finally:
        GlobalHydra.instance().clear()


@contextmanager
def secrets_kept() -> Iterator[None]:
    """Leave `${oc.env:NAME}` as it is inside, where NAME reads as a secret's; other variables resolve as ever."""
    from omegaconf import OmegaConf
    from omegaconf.basecontainer import BaseContainer
    from omegaconf.resolvers import oc

    def env(name: str, *default: Any) -> Any:
        secret = isinstance(name, str) and looks_secret(name)
        return placeholder(name, *default) if secret else oc.env(name, *default)

    # What stood there comes back: it may be a user's own resolver, or ours where a sweep's job composes again.
    before = BaseContainer._resolvers["oc.env"]
    OmegaConf.register_new_resolver("oc.env", env, replace=True)
    try:
        yield
    finally:
        BaseContainer._resolvers["oc.env"] = before


def resolved(config: Any, choices: Any, omegaconf: Any) -> dict[str, Any]:
    """Return a composed node as plain containers with the chosen options noted under `choices`."""
    from omegaconf.errors import OmegaConfBaseException

    named = {group: str(option) for group, option in choices.items() if "/" not in group and option is not None}
    omegaconf.set_struct(config, False)
    config.pop("hydra", None)
    try:
        tree = omegaconf.to_container(config, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        key = error.full_key or "config"
        if secret := next(names_in(str(error)), None):  # a number was wanted
            raise ConfigError(plain_key_fault(key, secret)) from error
        if asked := re.search(r"Missing mandatory value: ([\w.]+)", str(error)):  # `key` refers to it
            raise ConfigError(f"{asked[1]}: needs a value; found none; set {asked[1]}=...") from error
        raise ConfigError(f"{key}: cannot be resolved; {_line(error)}; correct it") from error
    tree["choices"] = {group: option for group, option in named.items() if group != "hydra"}
    return tree


def _composed(overrides: Sequence[str], config_dirs: Sequence[str | Path]) -> Any:
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from headswap.config import conf_dir

    extra = [f"hydra.searchpath=[{','.join(_search_entry(folder) for folder in config_dirs)}]"] if config_dirs else []
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return compose(CONFIG_NAME, overrides=[*extra, *forced(overrides)], return_hydra_config=True)
    except YAMLError as error:
        raise ConfigError(f"{_yaml_place(error)}: not valid YAML; {_line(error)}; correct the file") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, overrides, config_dirs)) from error


def forced(overrides: Sequence[str]) -> list[str]:
    """Let overrides of a plug's field through where its YAML leaves the field out; the plug's class checks the name.

    `body.init=random` becomes `++body.init=random`: Hydra only knows the keys that the file spells out. A word for one
    stage of a chain (`stages.NAME.WORD`) is left out: stages.py reads it. `study.tuning=fair` names an option of the
    group study/tuning.
    """
    overrides = [_quoted(TUNING_WORD.sub(r"study/tuning=\1", text)) for text in overrides if not STAGE_WORD.match(text)]
    return [
        f"++{text}"
        if re.match(rf"(task|body|head|strategy|baseline|metric|tracker|{SPACES}|sweep\.conditions)\.[\w.]+=", text)
        else text
        for text in overrides
    ]


def _quoted(text: str) -> str:
    """Let `sweep.space.KEY=interval(0,1)` be the text that it is for us; Hydra would take it for a sweep of its own."""
    key, _, value = text.partition("=")
    if not re.match(rf"({SPACES})\.", key) or value[:1] in ("'", '"', "{") or value == "null":
        return text
    return f'{key}="{value}"'


def _search_entry(folder: str | Path) -> str:
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        raise ConfigError(f"--config-dir: no such folder; found {folder}; name a folder with groups such as task/")
    return f'"file://{path}"'


def explain(error: Exception, overrides: Sequence[str], config_dirs: Sequence[str | Path] = ()) -> str:
    """Put a Hydra or OmegaConf error into one line: key, what was found, the remedy."""
    chain = " ".join(str(part) for part in _causes(error))
    if group := re.search(
        r"Could not (?:find|load) '([\w/]+)/([^'/]+)'|In '.*?': Could not find '([\w/]+)/([^']+)'", chain
    ):
        name, option = (part for part in group.groups() if part)
        return _unknown_option(name, option, options(name, config_dirs) or _offered(chain), config_dirs)
    if match := re.search(r"Could not override '([^']+)'", chain):
        key = match.group(1)
        if "No match in the defaults list" in chain:
            return f"{key}: no such group{nearest(key, known_groups(config_dirs))}; headswap list shows all groups"
        return unknown_key(key)
    if match := re.search(r"Key '([^']+)' (?:is )?not in '?\w+'?|Key '([^']+)' is not in struct", chain):
        full = re.search(r"full_key: (\S+)", chain)
        return unknown_key(full.group(1) if full else next(part for part in match.groups() if part))
    full = re.search(r"full_key: (\S+)", chain)
    if full and (match := re.search(r"Value '(.*?)'.* could not be converted to (\w+)", chain)):
        return f"{full.group(1)}: wrong type; found {match.group(1)!r}; set a value of type {match.group(2)}"
    if (full and "not Optional" in chain) or (full and "None" in chain and "non-optional" in chain.lower()):
        return f"{full.group(1)}: cannot be null; found null; set a value"
    named = (getattr(cause, "override", None) for cause in _causes(error))  # of Hydra's parser
    told = (text for text in overrides if text in chain or "=" not in text)
    bad = next((text.removeprefix("++") for text in itertools.chain(named, told) if text), None)
    key, _, value = (bad or "").lstrip("+~").partition("=")
    inner = [name for name in known_keys() if name.startswith(f"{key}.")]
    if inner and value:
        return f"{key}: holds several keys; found {value}; set one of them, such as {', '.join(inner[:3])}"
    if bad is not None and value:
        found = _line(error).partition(" See https")[0]
        return f"{bad}: not a value that can be read; found {found}; write {{a: 1}}, [a,b] or 'a text', keys unquoted"
    if bad is not None:
        return f"{bad}: not an override; {_line(error)}; write key=value"
    return f"config: cannot be composed; {_line(error)}; see headswap show"


def unknown_key(key: str) -> str:
    """Say that `key` does not exist, with the nearest of all keys of the default configuration."""
    known = list(known_keys())
    return f"{key}: no such key{nearest(key, known)}; headswap show lists all keys"


def known_keys() -> Iterator[str]:
    """Yield the groups and the dotted keys of the spine; a plug's fields are named by its class."""
    from headswap.config import GROUPS
    from headswap.spine import Config

    yield from GROUPS
    yield from _keys_of(Config)


def _keys_of(schema: type, prefix: str = "") -> Iterator[str]:
    from dataclasses import fields, is_dataclass

    for field in fields(schema):
        yield prefix + field.name
        if isinstance(field.default_factory, type) and is_dataclass(field.default_factory):
            yield from _keys_of(field.default_factory, f"{prefix}{field.name}.")


def known_groups(config_dirs: Sequence[str | Path]) -> list[str]:
    """Return the names of all option groups."""
    from headswap.config import conf_dir

    roots = [conf_dir(), *(Path(folder) for folder in config_dirs)]
    return sorted({entry.name for root in roots for entry in root.iterdir() if entry.is_dir()})


def options(group: str, config_dirs: Sequence[str | Path] = ()) -> dict[str, Path]:
    """Return the options of a group: name -> YAML file, a user's folders last."""
    from headswap.config import conf_dir

    found: dict[str, Path] = {}
    for root in [conf_dir(), *(Path(folder) for folder in config_dirs)]:
        for path in sorted((root / group).glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def _offered(said: str) -> list[str]:
    """Return the options that Hydra's own message names: of hydra/launcher, for one, no file of ours tells."""
    found = re.search(r"Available options in '[^']+':((?:\n\t[\w-]+)+)", said)
    return found.group(1).split() if found else []


def _unknown_option(group: str, option: str, known: Iterable[str], config_dirs: Sequence[str | Path]) -> str:
    if not known:
        return f"{group}: no such group{nearest(group, known_groups(config_dirs))}; headswap list shows all groups"
    return f"{group}: no such option; found {option}{nearest(option, known)}; options: {', '.join(known)}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _yaml_place(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"{mark.name}, line {mark.line + 1}" if mark else "config"
