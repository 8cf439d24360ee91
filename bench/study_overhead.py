"""What a study costs beyond training: wall time, the sum of its runs' parts, and the overhead a run.

    python bench/study_overhead.py STUDY_FOLDER WALL_SECONDS [--workers N]

Reads the runs' result.json. Overhead = everything that is neither training steps, nor scoring, nor loading the body.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description="what a study costs beyond training")
    parser.add_argument("folder", type=Path)
    parser.add_argument("wall", type=float)
    parser.add_argument("--workers", type=int, default=2)
    flags = parser.parse_args()
    runs = [one["folder"] for one in json.loads((flags.folder / "runs.json").read_text())]
    parts: dict[str, float] = {}
    for run in runs:
        for name, value in json.loads((flags.folder / run / "result.json").read_text())["seconds"].items():
            parts[name] = parts.get(name, 0.0) + value
    inside = parts["total"] - parts["fit"] - parts["score"] - parts["body"]
    outside = flags.wall * flags.workers - parts["total"]
    print(f"runs {len(runs)}, wall {flags.wall:.1f} s with {flags.workers} workers")
    for name, value in parts.items():
        print(f"  sum of {name:<6} {value:8.1f} s   a run {value / len(runs):6.2f} s")
    print(f"overhead inside a run (data, save)         {inside / len(runs):6.2f} s")
    print(f"worker time outside runs (server, report)  {outside / len(runs):6.2f} s a run, {outside:.1f} s in all")


if __name__ == "__main__":
    main()
