"""A study's arms side by side: score, paired difference, weights that learn, seconds, as a Markdown table.

    python bench/arms.py [--adapters] study=strategies study.sizes=[1000] study.seeds=5 task=text task.train=FILE ...

Words are those of `headswap compare`. Test scores are means and standard deviations over seeds; differences are to the
study's control, with the crossed interval over seeds and test rows; seconds are means over seeds, with as many runs
side by side as the study has workers. `--adapters` adds the arms lora and mixout.

Each arm has the learning rate that the study gives it. `--factors 0.4,1,2.5` tries multiples of it first, on `--tuning`
seeds that the study has not (seed + 1000 and up), and takes the one with the best mean validation score; a best one at
an end of the range is marked. `--rates` takes the rates that another table was made with (its last line).
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Mapping
from typing import Any

from headswap import config as configuration
from headswap.records import read_json
from headswap.spine import Config
from headswap.study import execute
from headswap.study.plan import Planned, plan
from headswap.study.results import Comparison
from headswap.study.workers import workers_of

ADAPTERS: dict[str, Any] = {
    "lora": {"strategy": {"_target_": "headswap.strategies.lora.Lora"}, "train": {"learning_rate": 2e-3}},
    "mixout": {"strategy": {"_target_": "headswap.strategies.mixout.Mixout"}, "train": {"learning_rate": 2e-4}},
}


def with_study(config: Config, **changes: Any) -> Config:
    return dataclasses.replace(config, study=dataclasses.replace(config.study, **changes))


def with_rate(config: Config, arm: str, rate: float) -> dict[str, Any]:
    changes = config.study.arms[arm] or {}
    return {**changes, "train": {**changes.get("train", {}), "learning_rate": rate}}


def at_rate(config: Config, arm: str, factor: float) -> dict[str, Any]:
    """Return the arm's overlay with its learning rate times `factor`."""
    own = (config.study.arms[arm] or {}).get("train", {}).get("learning_rate", config.train.learning_rate)
    return with_rate(config, arm, float(f"{own * factor:.2g}"))


def finished(cells: list[Planned], workers: int) -> list[dict[str, Any] | None]:
    """Run the cells and return their result.json, None of a run that failed."""
    told = time.monotonic()

    def on_event(job: Any, event: Mapping[str, Any]) -> None:
        if event["kind"] == "ended":
            print(f"{time.monotonic() - told:7.1f} s  {job.title}  {event.get('kind')}", flush=True)

    outcomes = execute.run_cells(cells, workers, on_event)
    for outcome in outcomes:
        if not outcome.finished:
            print(f"failed: {outcome.job.title}: {outcome.error}")
    return [read_json(one.job.folder.path / "result.json") if one.finished else None for one in outcomes]


def tuned(config: Config, factors: list[float], seeds: int, workers: int) -> dict[str, tuple[dict[str, Any], str]]:
    """Return arm -> its overlay at the best factor, and how it was found."""
    tried = {f"{arm}@{factor}": (arm, factor) for arm in config.study.arms for factor in factors}
    arms = {name: at_rate(config, *which) for name, which in tried.items()}
    study = config.study
    ends = {"treatment": f"{study.treatment}@{factors[0]}", "control": f"{study.control}@{factors[0]}"}
    trial = dataclasses.replace(with_study(config, arms=arms, seeds=seeds, **ends), seed=config.seed + 1000)
    cells = plan(trial)
    scores: dict[str, list[float]] = {}
    for cell, result in zip(cells, finished(cells, workers), strict=True):
        if result is not None:
            sign = 1 if result["greater_is_better"] else -1
            scores.setdefault(cell.arm, []).append(sign * result["scores"]["validation"][result["primary"]])
    found = {}
    for arm in study.arms:
        means = {
            factor: statistics.mean(scores[f"{arm}@{factor}"]) for factor in factors if f"{arm}@{factor}" in scores
        }
        best = max(means, key=lambda factor: means[factor])
        edge = " (edge)" if best in (min(factors), max(factors)) and len(factors) > 1 else ""
        shown = ", ".join(f"x{factor:g} {abs(mean):.3f}" for factor, mean in means.items())
        print(f"{arm}: {shown}", flush=True)
        found[arm] = at_rate(config, arm, best), edge
    return found


def table(
    comparison: Comparison, config: Config, results: dict[str, list[dict[str, Any]]], edges: dict[str, str]
) -> str:
    """Return the Markdown table; scores and differences times 100."""
    columns = ("arm", "peak rate", f"test {comparison.metric}", f"minus {config.study.control}", "trainable")
    lines = [f"| {' | '.join((*columns, 'training, s', 'run, s'))} |", "|---|---|---|---|---|---|---|"]
    against = {each.treatment: each for each in comparison.contrasts}
    for score in sorted(comparison.scores, key=lambda score: -score.mean):
        runs, arm = results[score.arm], score.arm
        other, difference = against.get(arm), ""
        if other is not None:
            ends = ["?" if end is None else f"{100 * end:+.1f}" for end in (other.interval.low, other.interval.high)]
            difference = f"{100 * other.interval.mean:+.1f} [{', '.join(ends)}] {other.outcome}"
        seconds = [statistics.mean(run["seconds"][part] for run in runs) for part in ("train", "total")]
        rate = config.study.arms[arm]["train"]["learning_rate"]
        lines.append(
            f"| {arm} | {rate:g}{edges[arm]} | {100 * score.mean:.1f} ± {100 * (score.deviation or 0.0):.1f} | "
            f"{difference} | {runs[0]['parameters']['trainable']:,} | {seconds[0]:.1f} | {seconds[1]:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="a study's arms side by side")
    parser.add_argument("--factors", default="1", help="of each arm's learning rate; 1 tunes nothing")
    parser.add_argument("--tuning", type=int, default=3, help="seeds to tune on; one picks by luck")
    parser.add_argument("--adapters", action="store_true")
    parser.add_argument("--rates", default="", help="arm=rate,arm=rate ...: tune nothing")
    parser.add_argument("words", nargs="*")
    flags = parser.parse_intermixed_args()
    config = configuration.compose(flags.words)
    if flags.adapters:
        config = with_study(config, arms={**config.study.arms, **ADAPTERS})
    factors, workers = [float(each) for each in flags.factors.split(",")], workers_of(config)
    load, started = os.getloadavg()[0], time.monotonic()
    if flags.rates:
        given = {arm: float(rate) for arm, _, rate in (word.partition("=") for word in flags.rates.split(","))}
        found = {arm: (with_rate(config, arm, given[arm]), "") for arm in config.study.arms}
    elif len(factors) == 1:
        found = {arm: (at_rate(config, arm, factors[0]), "") for arm in config.study.arms}
    else:
        found = tuned(config, factors, flags.tuning, workers)
    chosen = with_study(config, arms={arm: changes for arm, (changes, _) in found.items()})
    cells = plan(chosen)
    results: dict[str, list[dict[str, Any]]] = {}
    for cell, result in zip(cells, finished(cells, workers), strict=True):
        if result is not None:
            results.setdefault(cell.arm, []).append(result)
    study = execute.execute(chosen, cells)
    print(f"load {load:.1f} before, {workers} runs side by side, {time.monotonic() - started:.0f} s in all")
    print(table(study.comparison, chosen, results, {arm: edge for arm, (_, edge) in found.items()}))
    for warning in study.comparison.warnings:
        print(f"warning: {warning}")
    print(f"report: {study.report}")
    rates = {arm: changes["train"]["learning_rate"] for arm, changes in chosen.study.arms.items()}
    print("--rates " + ",".join(f"{arm}={rate:g}" for arm, rate in rates.items()))


if __name__ == "__main__":
    main()
