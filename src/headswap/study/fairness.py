"""Whether the two runs of each pair were alike in all but what was declared, by what both wrote down while they ran.

Study chain: runs -> fairness (this) -> results. plan.audit compares configurations before anything trains; files may
change after that, an `auto` may come to something else on another machine, and a run may be reused from another study.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from headswap.config import parsed
from headswap.errors import RunError
from headswap.identity import read_keys
from headswap.records import METRICS, read_json, read_jsonl
from headswap.spine import StudyConfig
from headswap.study.plan import declared
from headswap.study.runs import RunRecord, flatten
from headswap.study.units import plural

Standing = Literal["undeclared", "declared", "weakens"]
MORE_CHANCES = 1.25
"""A run judged this many times as often has noticeably more chances to keep a lucky step."""

_BODY = ("body.source", "body.architecture", "body.settings", "body.tokenizer_source", "task")
_ROWS = ("data.train_rows", "data.validation_rows", "data.test_rows", "data.split_seed", "data.drop_duplicates", "task")
_ORDER = (*_ROWS, *_BODY, "data.bucket", "data.max_length", "train.batch_size")
# What breaks a comparison where it differs -> the configuration's keys of which one, declared, explains it.
BREAKING = {
    "rows": _ROWS,
    "rows.train": _ROWS,
    "rows.validation": _ROWS,
    "rows.test": _ROWS,
    "order": _ORDER,
    "labels": ("task",),
    "head": ("head", *_BODY),
    "tokenizer": _BODY,
    "precision": ("train.precision",),
}
# What weakens it.
WEAKENING = {
    "attention": ("train.attention", *_BODY),
    "evaluations": ("train.evaluations", "train.evaluate_every", "train.patience"),
    "evaluation steps": ("train.evaluations", "train.evaluate_every"),
}
# A run is known by these keys of its configuration; hardware, paths and the study's own keys are none of its settings.
_CONFIGURED = ("task", "body", "head", "strategy", "baseline", "metric", "data", "train", "seed")
_NOT_SETTINGS = ("config.train.save_every", "config.train.measure_change")  # neither changes a bit of the result


@dataclass(frozen=True)
class Difference:
    """A key in which `pairs` pairs differ, with the values of the first of them."""

    key: str
    treatment: str
    control: str
    values: tuple[str, str]
    pairs: int
    standing: Standing


@dataclass(frozen=True)
class Audit:
    """How many pairs were compared in which keys, and every difference that was found."""

    pairs: int
    keys: tuple[str, ...]
    differences: tuple[Difference, ...]

    @property
    def said(self) -> str:
        """Return the line of the design box."""
        weak = [each.key for each in self.differences if each.standing == "weakens"]
        found = f"weakened by {', '.join(dict.fromkeys(weak))}" if weak else "no undeclared difference"
        return f"{plural(self.pairs, 'pair')}, {plural(len(self.keys), 'key')} compared, {found}"

    @property
    def warnings(self) -> Iterator[str]:
        """Yield a sentence for what weakens the pairs of each arm, and one for the arms that have several causes."""
        causes = []
        for arm in dict.fromkeys(each.treatment for each in self.differences):
            of = [each for each in self.differences if each.treatment == arm]
            weak = [each for each in of if each.standing == "weakens"]
            odd = [_name(each.key) for each in of if each.standing == "undeclared"]
            if weak:
                yield f"Unlike pairs: {arm} and {of[0].control} differ in {_few(list(self._told(weak)))}."
            causes += [f"{arm} ({_few(odd)})"] if odd else []
        if causes:
            yield (
                f"More than one cause: further arms differ from {self.differences[0].control} also in what "
                f"study.may_differ does not name: {', '.join(causes)}."
            )

    def _told(self, weak: Sequence[Difference]) -> Iterator[str]:
        for each in weak:
            where = "" if each.pairs >= self.pairs else f", {plural(each.pairs, 'pair')}"
            yield f"{each.key} ({each.values[0]} against {each.values[1]}{where})"


def audit(records: Sequence[RunRecord], study: StudyConfig, tuning: Mapping[str, Any] | None = None) -> Audit:
    """Compare what the runs of every pair recorded; a key that one of them lacks is left out.

    Args:
        records: of the study; their folders can be read.
        tuning: arm -> how many trials chose its recipe, where any did.

    Raises:
        RunError: a treatment and its control differ in what would break their comparison and is not declared.
    """
    known = {
        (each.arm, each.size, each.seed): (each, recorded(each.folder, (tuning or {}).get(each.arm)))
        for each in records
        if each.status == "finished"
    }
    keys: dict[str, None] = {}
    found: dict[tuple[str, str, Standing], Difference] = {}
    pairs = 0
    for (arm, size, seed), (record, facts) in known.items():
        partner = known.get((study.control, size, seed))
        if arm == study.control or partner is None:
            continue
        main, both = arm == study.treatment, (record, partner[0])
        unlike = list(_unlike(both, (facts, partner[1]), study.may_differ))
        _refuse(both, [each for each in unlike if main and each.standing == "undeclared"])
        pairs += main
        keys |= dict.fromkeys(facts.keys() & partner[1].keys() if main else ())
        for each in unlike:
            at = each.key, arm, each.standing
            found[at] = each if at not in found else replace(found[at], pairs=found[at].pairs + 1)
    return Audit(pairs, tuple(sorted(keys)), tuple(found.values()))


def recorded(folder: Path, trials: Any = None) -> dict[str, Any]:
    """Return what a run wrote down of itself, by key; what it lacks, or what cannot be read, is not there."""
    result, about = (_read(folder / name) for name in ("result.json", "run.json"))
    data, hardware = about.get("data") or {}, about.get("hardware") or {}
    found = {
        "rows": data.get("fingerprint"),
        **{f"rows.{split}": told for split, told in (data.get("splits") or {}).items()},
        "order": data.get("order"),
        "labels": result.get("labels"),
        "head": starting_head(_read(folder / "ledger.json")),
        "tokenizer": data.get("tokenizer"),
        "precision": result.get("precision"),
        "attention": about.get("attention"),
        **{key: hardware.get(key) for key in ("device", "device_name", "processes", "engine", "threads")},
        **_evaluations(folder / METRICS, result),
        **flatten(about.get("versions") or {}, "versions"),
        "headswap": about.get("headswap"),
        "tuning trials": trials,
    }
    config = read_keys(_read(folder / "config.yaml"))
    settings = flatten({key: config[key] for key in _CONFIGURED if key in config}, "config")
    kept = {key: value for key, value in settings.items() if not key.startswith(_NOT_SETTINGS)}
    return kept | {key: value for key, value in found.items() if value not in (None, "", {}, [])}


def starting_head(ledger: Mapping[str, Any]) -> str | None:
    """Return a name for the head's weights before the first step: how they began, and a hash over all of them."""
    entries = [each for each in ledger.get("entries") or () if each["part"] == "head" and each["fate"] != "dropped"]
    if not entries:
        return None
    lines = sorted(f"{each['name']} {each['sha256']}" for each in entries)
    start = "new" if {each["fate"] for each in entries} == {"new"} else "from the checkpoint"
    return f"{start} {hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"


def _evaluations(path: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return how often validation was scored, and when, as shares of the run; nothing of one that ended early."""
    if not path.is_file() or result.get("stopped_early") or not result.get("steps"):
        return {}
    try:
        steps = sorted({line["step"] for line in read_jsonl(path) if line["kind"] == "validation"})
    except (RunError, KeyError, TypeError):
        return {}
    shares = [round(step / result["steps"], 4) for step in steps]
    return {"evaluations": len(steps), "evaluation steps": (result["steps"], shares)}


def _unlike(
    pair: tuple[RunRecord, RunRecord], facts: tuple[dict[str, Any], dict[str, Any]], may_differ: Sequence[str]
) -> Iterator[Difference]:
    first, second = facts
    for key in sorted(first.keys() & second.keys()):
        if key == "evaluation steps" and first[key][0] != second[key][0]:
            continue  # of runs of other lengths the marks are others by rule; how many there are is what counts
        if first[key] == second[key] or (key == "evaluations" and _near(first[key], second[key])):
            continue
        standing = _standing(key, (first[key], second[key]), may_differ)
        yield Difference(key, pair[0].arm, pair[1].arm, (_short(first[key]), _short(second[key])), 1, standing)


def _near(first: int, second: int) -> bool:
    return max(first, second) < MORE_CHANCES * min(first, second)


def _standing(key: str, values: tuple[Any, Any], may_differ: Sequence[str]) -> Standing:
    if key.startswith("config."):
        return "declared" if declared(key.removeprefix("config."), may_differ) else "undeclared"
    reasons = BREAKING.get(key) or WEAKENING.get(key, ())
    if key == "head" and len({value.split()[0] for value in values}) > 1:
        reasons = (*reasons, "body.init")  # the checkpoint's own head is part of what the body's start brings
    if any(declared(reason, may_differ) for reason in reasons):
        return "declared"
    return "undeclared" if key in BREAKING else "weakens"


def _refuse(pair: tuple[RunRecord, RunRecord], odd: Sequence[Difference]) -> None:
    if not odd:
        return
    shown = ", ".join(f"{_name(each.key)} ({each.values[0]} against {each.values[1]})" for each in odd)
    ways = dict.fromkeys(BREAKING.get(each.key, (_name(each.key),))[0] for each in odd)
    raise RunError(
        f"{pair[0].folder} and {pair[1].folder}: the two runs of a pair differ in more than study.may_differ names; "
        f"found {shown}; run the pair again alike with output.reuse=false, or declare the difference there "
        f"({', '.join(ways)})"
    )


def _few(words: Sequence[str], most: int = 4) -> str:
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return f"{', '.join(words[:most])}{more}"


def _name(key: str) -> str:
    return key.removeprefix("config.")


def _short(value: Any) -> str:
    """Return a value as a sentence holds it: of a hash its first digits."""
    if isinstance(value, tuple):  # evaluation steps
        return "after " + ", ".join(f"{share:.0%}" for share in value[1])
    words = [word[:8] if len(word) == 64 else word for word in str(value).split(" ")]
    return " ".join(words)


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON or YAML object; nothing where there is none: runs.py says what is damaged."""
    try:
        found = read_json(path) if path.suffix == ".json" else parsed(path.read_text(encoding="utf-8"))
    except (RunError, OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}
