"""Studies: arms x sizes x paired seeds, their statistics, verdict and report. Floor 5."""

from __future__ import annotations

from pathlib import Path

from headswap.spine import Config


def compare(config: Config) -> Path:
    """Run a study and return its folder; `comparison.json` and `report.html` lie in it."""
    from headswap.study.execute import execute

    return execute(config).folder


__all__ = ["compare"]
