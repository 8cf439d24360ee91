"""What attention dropout costs a training step of body=long_transformer on one CPU thread: fused attention is out.

    python bench/attention_dropout.py

With and without in turn, three times each after a warm-up; prints the medians and the median of the ratios.
"""

import statistics
import time

import torch
from transformers import BertConfig, BertModel

from headswap.config import compose

LENGTHS = ((8, 256), (8, 512), (8, 1024), (4, 2048))


def body(dropout):
    settings = compose(["body=long_transformer", "body.tokenizer_source=none", "task.source=none"]).body["settings"]
    return BertModel(BertConfig(**{**settings, "attention_probs_dropout_prob": dropout, "vocab_size": 4000})).train()


def seconds(model, tokens):
    start = time.perf_counter()
    model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state.square().mean().backward()
    return time.perf_counter() - start


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    bodies = body(0.1), body(0.0)
    for rows, length in LENGTHS:
        tokens = torch.randint(5, 4000, (rows, length))
        pairs = [[seconds(model, tokens) for model in bodies] for _ in range(4)][1:]
        dropped, fused = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(first / second for first, second in pairs)
        print(f"{rows} rows of {length:>4} tokens: attention dropout 0.1 {dropped:6.2f} s, none {fused:5.2f} s, "
              f"{ratio:.1f} times faster")  # fmt: skip


if __name__ == "__main__":
    main()
