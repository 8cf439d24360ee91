"""`python scripts/train.py ...` is `headswap train ...`."""

import sys

from headswap.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
