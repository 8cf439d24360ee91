"""Examples a second of forward and backward by attention kernel and input length, on this machine.

    python bench/attention_speed.py [--threads 2] [--lengths 24 64 128 256]

The embedded body, 32 rows, half of them half as long, the precision that auto picks, the fastest of four. Started twice
at once with --threads 1 it tells what two runs side by side do together.
"""

from __future__ import annotations

import argparse
import time

import torch

from headswap.config import build_plugs, compose
from headswap.contracts import Labels
from headswap.hardware import start
from headswap.model import join
from headswap.seeds import Seeds


def main() -> None:
    parser = argparse.ArgumentParser(description="examples a second by attention kernel and length")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lengths", type=int, nargs="+", default=[24, 64, 128, 256])
    flags = parser.parse_args()
    config = compose([f"hardware.threads={flags.threads}"])
    plugs = build_plugs(config)
    hardware = start(config.hardware, config.train)
    for length in flags.lengths:
        found = []
        for kernel in ("sdpa", "eager"):
            model = join(plugs.body, plugs.head, Labels(("a", "b", "c")), Seeds(0), plugs.task.auto_class)[0]
            hardware.choose_attention(model, kernel, length)
            placed, _ = hardware.prepare(model, torch.optim.AdamW(model.parameters()))
            found.append(f"{kernel} {examples_a_second(placed, length, hardware.device):.0f}")
        print(
            f"{length:>4} tokens  {'  '.join(found)}  ({hardware.precision.name}, {flags.threads} threads)", flush=True
        )


def examples_a_second(model: torch.nn.Module, length: int, device: torch.device) -> float:
    tokens = torch.randint(1000, 2000, (32, length), device=device)
    mask = torch.ones_like(tokens)
    mask[:16, length // 2 :] = 0
    model.train()
    fastest = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        model(input_ids=tokens, attention_mask=mask, labels=torch.zeros_like(tokens[:, 0])).loss.backward()
        fastest = min(fastest, time.perf_counter() - started)
    return 32 / fastest


if __name__ == "__main__":
    main()
