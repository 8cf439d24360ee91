"""Configuration: Hydra composes it, the typed spine checks it, and plugs are built from it. Floor 0.

    overrides -> compose() -> Config (plain dataclasses, resolved) -> build_plugs() -> Plugs
    Config -> dump() -> config.yaml -> load() -> the same Config, in a worker that never sees Hydra

Nothing here touches data, weights or a device, so that every mistake in a configuration shows at once. hydra and
omegaconf are imported here, in cli.py and nowhere else, and only inside functions: a worker reads YAML without them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from headswap.answers import misfits
from headswap.contracts import Body, Head, Metric, Task
from headswap.errors import ConfigError, nearest
from headswap.fitted import Baseline, refused
from headswap.phases import Strategy
from headswap.placeholders import conceal, reveal
from headswap.placeholders import faults as secret_faults
from headswap.ranges import faults
from headswap.spine import (
    Config,
    DataConfig,
    HardwareConfig,
    OutputConfig,
    RayConfig,
    SaveConfig,
    Stage,
    StudyConfig,
    SweepConfig,
    TrainConfig,
    TuningConfig,
)
from headswap.tracked import Tracker
from headswap.typecheck import conform

PLUG_GROUPS = {"task": Task, "body": Body, "head": Head, "strategy": Strategy, "baseline": Baseline}
GROUPS = (*PLUG_GROUPS, "metric", "hardware", "study", "sweep", "tracker", "experiment")
NODES = {
    "data": DataConfig,
    "train": TrainConfig,
    "hardware": HardwareConfig,
    "output": OutputConfig,
    "study": StudyConfig,
    "sweep": SweepConfig,
}
INNER_NODES = (
    ("train", "save_every", SaveConfig),
    ("hardware", "ray", RayConfig),
    ("study", "tuning", TuningConfig),
)


@dataclass(frozen=True)
class Plugs:
    """The objects a run is made of. `metrics[0]` selects the best weights and is what a study compares.

    With a `baseline`, body, head and strategy have no part in the run.
    """

    task: Task
    body: Body
    head: Head
    strategy: Strategy
    metrics: tuple[Metric, ...]
    baseline: Baseline | None = None


def conf_dir() -> Path:
    """Return the folder of the shipped options: inside the wheel, or beside src in a checkout."""
    here = Path(__file__).parent
    return here / "conf" if (here / "conf").is_dir() else here.parents[1] / "conf"


def compose(overrides: Sequence[str] = (), config_dirs: Sequence[str | Path] = ()) -> Config:
    """Compose, resolve and check a configuration.

    Args:
        overrides: Hydra overrides, such as `["task=tweets", "train.learning_rate=3e-5"]`.
        config_dirs: folders with options of your own, searched after the shipped ones.

    Raises:
        ConfigError: an unknown key or option, a wrong type, a missing or an impossible value; each with its remedy.
    """
    from headswap.composition import compose_node

    return checked(from_dict(compose_node(overrides, config_dirs)))


def from_dict(tree: dict[str, Any]) -> Config:
    """Make a Config of plain resolved containers; unknown keys are refused with the nearest known one."""
    _refuse_unknown(tree, Config, "")
    values = dict(tree)
    for key, schema in NODES.items():
        if key in values:
            _refuse_unknown(values[key], schema, f"{key}.")
            values[key] = schema(**values[key])
    for outer, key, schema in INNER_NODES:
        inner = getattr(values[outer], key) if outer in values else None
        if isinstance(inner, dict):
            _refuse_unknown(inner, schema, f"{outer}.{key}.")
            setattr(values[outer], key, schema(**inner))
    values["stages"] = [stage if isinstance(stage, Stage) else Stage(**stage) for stage in values.get("stages", [])]
    return Config(**values)


def checked(config: Config) -> Config:
    """Return `config` with every field of its plugs written out; raise all its faults at once if there are any."""
    found = [*secret_faults(_plain_keys(config)), *faults(config), *_plug_faults(config)]
    if found:
        raise ConfigError("\n".join(found))
    nodes = {group: completed(getattr(config, group), config.plugins) for group in _chosen(config)}
    metric = {name: completed(node, config.plugins) for name, node in config.metric.items()}
    tracker = {name: completed(node, config.plugins) for name, node in config.tracker.items()}
    return dataclasses.replace(config, **nodes, metric=metric, tracker=tracker)


def _plain_keys(config: Config) -> dict[str, Any]:
    """Return the spine without what a plug's fields may come from; a secret has no place in it."""
    tree = to_dict(config)
    tree["study"].pop("arms")
    return {key: value for key, value in tree.items() if key not in (*PLUG_GROUPS, "metric", "tracker", "stages")}


def build_plugs(config: Config) -> Plugs:
    """Make the plugs. No I/O. Raises ConfigError for a class that is not allowed or a field that does not fit."""
    built = {
        group: build(getattr(config, group), group, contract, config.plugins)
        for group, contract in _chosen(config).items()
    }
    metrics = tuple(build(node, f"metric.{name}", Metric, config.plugins) for name, node in config.metric.items())
    plugs = Plugs(**built, metrics=metrics)
    if fault := misfits(metrics, plugs.task.problem):
        raise ConfigError(fault)
    if plugs.baseline and (fault := refused(plugs.baseline, type(plugs.baseline).__name__, plugs.task.problem)):
        raise ConfigError(fault)
    return plugs


def _chosen(config: Config) -> dict[str, type]:
    """Return the groups that have a plug, with what it must offer: a run may be without a baseline alone."""
    return {group: kind for group, kind in PLUG_GROUPS.items() if group != "baseline" or config.baseline is not None}


def build(node: Any, key: str, contract: type, allowed: Sequence[str] = ()) -> Any:
    """Make the plug that `node` names by `_target_`, with `node`'s other keys as its fields."""
    if not isinstance(node, dict) or "_target_" not in node:
        raise ConfigError(
            f"{key}: no _target_; found {node!r}; choose an option: headswap list {key.split('.', maxsplit=1)[0]}"
        )
    cls = _plug_class(node["_target_"], key, allowed)
    given = {name: value for name, value in node.items() if name != "_target_"}
    _refuse_unknown(given, cls, f"{key}.")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    missing = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and given.get(name, "???") == "???"
    ]
    unset = missing + [name for name, value in given.items() if value == "???" and name not in missing]
    if unset:
        raise ConfigError("\n".join(f"{key}.{name}: needs a value; found none; set {key}.{name}=..." for name in unset))
    try:
        plug = cls(**_typed(cls, reveal(given, key), key))
    except ConfigError as error:
        raise ConfigError(conceal(str(error), given)) from None
    if not isinstance(plug, contract):
        lacking = sorted(name for name in _members(contract) if not hasattr(plug, name))
        raise ConfigError(
            f"{key}._target_: does not serve as a {contract.__name__}; found {node['_target_']} without "
            f"{', '.join(lacking)}; see {contract.__module__}.{contract.__name__}"
        )
    return plug


def completed(node: dict[str, Any], allowed: Sequence[str] = ()) -> dict[str, Any]:
    """Return a plug's node with the defaults of the fields that it leaves out, in the fields' order."""
    cls = _plug_class(node["_target_"], "", allowed)
    whole: dict[str, Any] = {"_target_": node["_target_"]}
    for field in dataclasses.fields(cls):
        if field.name in node:
            whole[field.name] = node[field.name]
        elif field.default is not dataclasses.MISSING:
            whole[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            made = field.default_factory()
            whole[field.name] = list(made) if isinstance(made, tuple) else made
    return whole


def _plug_class(target: Any, key: str, allowed: Sequence[str]) -> type:
    packages = ("headswap", *allowed)
    dotted = isinstance(target, str) and all(part.isidentifier() for part in target.split("."))
    if not dotted or not _within(target.rpartition(".")[0], packages):  # before anything is imported
        raise ConfigError(
            f"{key}._target_: only classes of {', '.join(packages)} may be named; found {target}; "
            f"add its package to plugins=[...] if you trust it"
        )
    module, _, name = target.rpartition(".")
    try:
        cls = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}._target_: cannot be imported; found {target} ({error}); check the name") from error
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)) or not _within(cls.__module__, packages):
        raise ConfigError(
            f"{key}._target_: must be a dataclass of {', '.join(packages)}; found {target}; name its class"
        )
    return cls


def _within(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _typed(cls: type, given: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the values with the types that the fields ask for; a number in a text field is a fault, not a cast."""
    hints = get_type_hints(cls)
    return {name: conform(value, hints[name], f"{key}.{name}") for name, value in given.items()}


def _members(contract: type) -> set[str]:
    return set(getattr(contract, "__protocol_attrs__", ())) or {
        name for name in (*vars(contract), *getattr(contract, "__annotations__", {})) if not name.startswith("_")
    }


def _plug_faults(config: Config) -> Iterator[str]:
    nodes = [(group, getattr(config, group), contract) for group, contract in _chosen(config).items()]
    nodes += [(f"metric.{name}", node, Metric) for name, node in config.metric.items()]
    nodes += [(f"tracker.{name}", node, Tracker) for name, node in config.tracker.items()]
    for key, node, contract in nodes:
        try:
            build(node, key, contract, config.plugins)
        except ConfigError as error:
            yield str(error)


def _refuse_unknown(given: dict[str, Any], schema: type, prefix: str) -> None:
    known = [field.name for field in dataclasses.fields(schema)]
    for name in given:
        if name not in known:
            raise ConfigError(
                f"{prefix}{name}: no such key{nearest(prefix + name, [prefix + key for key in known])}; "
                f"keys here: {', '.join(known)}"
            )


def to_dict(config: Config) -> dict[str, Any]:
    """Return `config` as plain containers."""
    return dataclasses.asdict(config)


def dump(config: Config) -> str:
    """Return `config` as the YAML text that `load` reads."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def load(path: Path) -> Config:
    """Read a config.yaml that holds what `dump` made. Raises ConfigError naming the file."""
    try:
        return read(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read as a configuration; found {error}; remake the run") from error


def parsed(text: str) -> Any:
    """Return what YAML says, plain values alone: ten times sooner where libyaml is there. Raises yaml.YAMLError."""
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text).get_single_data()


def read(text: str, where: str) -> Config:
    """Return the configuration that `dump` made a text of; `where` is what an error calls it."""
    try:
        tree = parsed(text)
    except yaml.YAMLError as error:
        found = " ".join(str(error).split())
        raise ConfigError(f"{where}: cannot be read as a configuration; found {found}; remake the run") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: not a configuration; found {type(tree).__name__}; remake the run")
    return from_dict(tree)
