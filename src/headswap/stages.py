"""Chains of runs: each stage is the experiment with other overrides, and the body of the stage before. Floor 5."""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from headswap import config as configuration
from headswap.composition import STAGE_WORD
from headswap.errors import ConfigError, nearest
from headswap.launch import folder_of
from headswap.overlays import overlay
from headswap.spine import Config, Stage

Change = Callable[[Stage, Config], Config]


def stage_configs(config: Config, flags: argparse.Namespace) -> Iterator[tuple[str, Config]]:
    """Yield (name, configuration) of each stage in order; an experiment without stages is one stage."""
    if not config.stages:
        if words := [word for word in flags.overrides if STAGE_WORD.match(word)]:
            raise ConfigError(f"{words[0].split('=')[0]}: this experiment has no stages; found that word; leave it out")
        yield "run", config
        return
    if config.baseline is not None:
        raise ConfigError(
            f"baseline: has no body to hand on to the next stage; found {config.choices.get('baseline', '')} and "
            f"{len(config.stages)} stages; set baseline=none, or choose an experiment without stages"
        )
    yield from Chain(config, flags).configs()


@dataclass(frozen=True)
class Chain:
    """The stages of an experiment.

    A stage's overrides come after the experiment's and before the user's own on the command line; its `run` is the
    folder of the stage before. The user's `body` words go to the stages that do not take the body of the stage before,
    `task` words to the stages that do not name a task, and `stages.NAME.WORD` to stage NAME alone.

    Args:
        flags: the command line: `overrides` and `config_dir`.
    """

    config: Config
    flags: argparse.Namespace

    def configs(self, change: Change = lambda stage, made: made) -> Iterator[tuple[str, Config]]:
        """Yield (name, configuration) of each stage; the one before must have trained when the next is asked for.

        Args:
            change: what a study does to a stage's configuration.
        """
        before, made = self.config.run, None
        for stage in self.config.stages:
            if made is not None:  # only now: what a folder is called hangs on the weights that a stage starts from
                before = str(folder_of(made).path)
            made = change(stage, self.composed(stage, stage.overrides, before))
            yield stage.name, made

    @property
    def last(self) -> Stage:
        return self.config.stages[-1]

    def final(self) -> Config:
        """Return the last stage as far as it is known before the others have trained; its body has a name alone."""
        names = [stage.name for stage in self.config.stages]
        place = f"stage/{names[-2]}" if len(names) > 1 else self.config.run
        made = self.composed(self.last, self.last.overrides, place)
        return dataclasses.replace(made, stages=self.config.stages)

    def alone(self) -> Config:
        """Return the last stage without the others: what they bought is what this one lacks.

        Raises:
            ConfigError: the experiment does not say what it starts from then.
        """
        words = [word for word in self.last.overrides if word != "body=from_run"]
        if len(words) != len(self.last.overrides) and not self.last.alone:
            raise ConfigError(
                f"stages.{self.last.name}.alone: what does it start from without the stages before it; found none; set "
                "overrides there, such as alone: [body=minilm, head=fresh]"
            )
        return self.composed(self.last, [*words, *self.last.alone], self.config.run)

    def composed(self, stage: Stage, overrides: list[str], run: str | None) -> Config:
        """Return a stage's configuration with these overrides of its own, from the body of the folder `run`."""
        if idle := [word for word in self.flags.overrides if _is(word, set.intersection(*map(_settled, self._all)))]:
            key = idle[0].lstrip("+~").split("=", 1)[0]
            raise ConfigError(
                f"{key}: every stage of this experiment settles that itself; found {idle[0]!r}, which none would take; "
                "write the stages that you want into an experiment of your own"
            )
        words = [
            *overrides,
            *(word for word in self.flags.overrides if not _is(word, {"stages", *_settled(overrides)})),
            *self._own_words(stage),
        ]
        words += ["stages=[]"] + ([f"run='{run}'"] if run is not None else [])
        try:
            made = _compose(tuple(words), tuple(self.flags.config_dir))
        except ConfigError as error:
            raise ConfigError("\n".join(f"stages.{stage.name}.{line}" for line in str(error).splitlines())) from None
        if made.task.get("of", "") is None and stage is not self.last:  # the texts of what the last stage learns
            about = {"of": self.final().task, "of_plugins": made.plugins}
            made = overlay(made, {"task": about}, f"stages.{stage.name}")
        return made

    def _own_words(self, stage: Stage) -> list[str]:
        """Return what the command line says to this stage alone."""
        said = [match for word in self.flags.overrides if (match := STAGE_WORD.match(word))]
        names = [each.name for each in self.config.stages]
        if odd := [match[1] for match in said if match[1] not in names]:
            raise ConfigError(
                f"stages.{odd[0]}: no such stage; found {odd[0]!r}{nearest(odd[0], names)}; stages: {', '.join(names)}"
            )
        return [match[2] for match in said if match[1] == stage.name]

    @property
    def _all(self) -> list[list[str]]:
        return [stage.overrides for stage in self.config.stages]


@functools.lru_cache(maxsize=256)  # a study composes the same stage for every size and seed
def _compose(words: tuple[str, ...], config_dirs: tuple[str, ...]) -> Config:
    return configuration.compose(words, config_dirs)


def _settled(overrides: list[str]) -> set[str]:
    """Return the groups in which a stage leaves no choice."""
    named = {"task"} if any(_is(word, {"task"}) for word in overrides) else set()
    return named | ({"body"} if "body=from_run" in overrides else set())


def _is(word: str, groups: set[str]) -> bool:
    """Say whether a Hydra override sets one of the groups, or a key under it."""
    key = word.lstrip("+~").split("=", 1)[0]
    return any(key == group or key.startswith((f"{group}.", f"{group}@")) for group in groups)
