"""`python -m headswap` is the headswap command."""

from headswap.cli import main

if __name__ == "__main__":
    main()
