"""How much faster than packed sequences a padded batch is read in pieces, forward and backward, on one CPU thread.

    python bench/recurrent_pieces.py

Both ways in turn, ten times each; prints the medians and the median of the ratios.
"""

import statistics
import time

import torch

from headswap.recurrent.cells import _in_pieces, _packed


def seconds(run, rnn, states, lengths):
    start = time.perf_counter()
    outputs, last = run(rnn, states, lengths, None)
    (outputs.square().sum() + last.square().sum()).backward()
    return time.perf_counter() - start


def main():
    torch.set_num_threads(1)
    for cell in (torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN):
        for rows, longest in ((32, 40), (16, 256), (4, 1024)):
            torch.manual_seed(0)
            rnn = cell(128, 116, batch_first=True)
            states = torch.randn(rows, longest, 128, requires_grad=True)
            lengths = torch.randint(longest // 2, longest + 1, (rows,))
            pairs = [tuple(seconds(run, rnn, states, lengths) for run in (_packed, _in_pieces)) for _ in range(11)][1:]
            packed, pieces = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(first / second for first, second in pairs)
            print(f"{cell.__name__:<5} {rows:>3} rows of up to {longest:>5} tokens: packed {1000 * packed:7.1f} ms, "
                  f"in pieces {1000 * pieces:7.1f} ms, {ratio:.1f} times faster")  # fmt: skip


if __name__ == "__main__":
    main()
