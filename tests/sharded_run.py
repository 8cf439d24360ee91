"""Whole runs under FSDP2 on CPUs, one rank of them: straight, and in two halves. A script for torch elastic.

argv: the folders of straight runs, and last that of a run that stops and goes on.
"""

import sys
from pathlib import Path

import accelerate

from sharded_on_cpu import shard_on_cpu

made = accelerate.Accelerator.__init__


def sharding(self, *given, fsdp_plugin=None, **settings) -> None:
    made(self, *given, fsdp_plugin=fsdp_plugin, **settings)
    shard_on_cpu(self, fsdp_plugin)


if __name__ == "__main__":
    accelerate.Accelerator.__init__ = sharding
    from headswap.records import RunFolder
    from headswap.stopping import Stop
    from headswap.worker import outcome

    *straight, halves = (Path(word) for word in sys.argv[1:])
    whole = [(folder, None, "finished") for folder in straight]
    for folder, at_step, expected in (*whole, (halves, 4, "failed"), (halves, None, "finished")):
        stop = Stop(at_step)
        with stop.listening():
            ended = outcome(RunFolder(folder), lambda line: None, stop)
        assert ended["kind"] == expected, ended
        assert expected == "finished" or ended["status"] == "stopped", ended
