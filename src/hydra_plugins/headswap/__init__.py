"""Headswap in Hydra's namespace for plugins; the namespace itself has no __init__.py, other packages share it."""
