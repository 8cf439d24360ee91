"""Sweeps: trials over a space of settings, each a run of its own. Floor 5.

execute.sweep() -> Search (Optuna's study: proposes, remembers) <-> Trials (a source of jobs) <-> pool.drain()
"""
