"""Runs of the stub on 8 virtual devices, for a process of its own: reads overrides of all runs,
and three lists of overrides, one for each layout of devices. Trains on the first and the second
layout, and resumes the first run on the second and the third from half of its steps. Prints the
losses of each run, the bytes of the state on a device, and its folder."""

import json
import os
import sys
from pathlib import Path


# Threads of XLA, of which each device holds one while it waits for the others. With as many as
# two cores give, two programs at once can wait for each other without end.
os.environ["NPROC"] = "32"
# A machine that is short of memory may keep one of the threads waiting for longer than the 40 s
# after which XLA would end the process.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    " --xla_cpu_collective_call_terminate_timeout_seconds=600"
)
sys.path.insert(0, str(Path(__file__).parents[2]))

import jax

from ide_transformer.training.steps import layout as parallel
from ide_transformer.training.steps.step import TrainState
from tests.training import stub


SECTIONS = {
    "model": {"operators": ["attention", "feed_forward"], "width": 16, "context": 8},
    "optimizer": {"warmup": 2},
    "training": {"steps": 6, "batch_size": 8, "checkpoint_every": 3, "evaluate_every": 6},
}


def main() -> None:
    folder, options, layouts = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
    placed: list[int] = []
    place = parallel.Layout.place

    def measured(layout, state):
        state = place(layout, state)
        # Batches are placed too.
        if isinstance(state, TrainState):
            arrays = jax.tree.leaves((state.weights, state.optimizer))
            placed.append(sum(x.addressable_shards[0].data.nbytes for x in arrays))
        return state

    parallel.Layout.place = measured
    results = []

    def report(run):
        row = {"losses": stub.losses(run), "bytes": placed[-1], "folder": str(run.path)}
        results.append(row)
        return run

    first, second, third = layouts
    run = report(stub.train(folder / "first", *options, *first, **SECTIONS))
    report(stub.train(folder / "second", *options, *second, **SECTIONS))
    report(stub.resumed(run, folder / "resumed-second", 3, second))
    report(stub.resumed(run, folder / "resumed-third", 3, third))
    print(json.dumps(results))


if __name__ == "__main__":
    with stub.known():
        main()
