"""`python scripts/compare.py ...` is `headswap compare ...`."""

import sys

from headswap.cli import main

if __name__ == "__main__":
    main(["compare", *sys.argv[1:]])
