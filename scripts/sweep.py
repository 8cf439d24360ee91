"""`python scripts/sweep.py ...` is `headswap sweep ...`."""

import sys

from headswap.cli import main

if __name__ == "__main__":
    main(["sweep", *sys.argv[1:]])
