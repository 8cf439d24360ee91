"""What exact checkpoints cost: seconds a save, its share of the time at the default interval, seconds to resume.

    python bench/checkpoints.py [--saves 7] [--body minilm]

The state is a real one: the body of the embedded default with the AdamW state and best weights of a trained step.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from headswap import config as configuration
from headswap.checkpoint import Checkpoints, State, fill_optimizer, load, optimizer_tensors
from headswap.contracts import Labels
from headswap.model import join
from headswap.seeds import Seeds
from headswap.spine import SaveConfig


def state_of(model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> State:
    names: dict[torch.Tensor, str] = {weight: name for name, weight in model.named_parameters()}
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    best = {name: value.clone() for name, value in weights.items()}
    return State(step, {"metrics_lines": 0}, weights, optimizer_tensors(optimizer, names), best, step)


def trained(body: str) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    config = configuration.compose([f"body={body}"])
    plugs = configuration.build_plugs(config)
    labels = Labels(("negative", "neutral", "positive"))
    model, _ = join(plugs.body, plugs.head, labels, Seeds(0), plugs.task.auto_class)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    model(input_ids=torch.ones(4, 16, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    return model, optimizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--saves", type=int, default=7)
    parser.add_argument("--body", default="minilm")
    flags = parser.parse_args()
    model, optimizer = trained(flags.body)
    every = SaveConfig()
    with tempfile.TemporaryDirectory() as place:
        saves, resumes = [], []
        for step in range(1, flags.saves + 1):
            checkpoints = Checkpoints(Path(place) / "checkpoint", every, lambda line: None)
            state = state_of(model, optimizer, step)
            began = time.perf_counter()
            assert checkpoints.save(state)
            saves.append(time.perf_counter() - began)
            began = time.perf_counter()
            newest = Checkpoints(Path(place) / "checkpoint", every, print).newest(0)
            assert newest is not None
            found = load(newest)
            model.load_state_dict(dict(found.weights))
            fresh = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
            names: dict[torch.Tensor, str] = {weight: name for name, weight in model.named_parameters()}
            fill_optimizer(fresh, names, found.optimizer)
            resumes.append(time.perf_counter() - began)
        size = sum(path.stat().st_size for path in newest.iterdir()) / 1e6
        best = sum(path.stat().st_size for path in (Path(place) / "checkpoint").glob("best-*/*")) / 1e6
    parameters = sum(weight.numel() for weight in model.parameters()) / 1e6
    seconds, interval = statistics.median(saves), every.seconds or 300.0
    print(f"body {flags.body}: {parameters:.1f}M parameters, {size:.0f} MB a state, {best:.0f} MB of best weights")
    print(f"save    median {seconds:.2f} s of {len(saves)} ({min(saves):.2f} to {max(saves):.2f})")
    print(f"share   {seconds / interval:.2%} of the time at the default, a save every {interval:.0f} s")
    least, most = min(resumes), max(resumes)
    print(f"resume  median {statistics.median(resumes):.2f} s ({least:.2f} to {most:.2f}): verify, read, fill")


if __name__ == "__main__":
    main()
