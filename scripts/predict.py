"""`python scripts/predict.py ...` is `headswap predict ...`."""

import sys

from headswap.cli import main

if __name__ == "__main__":
    main(["predict", *sys.argv[1:]])
