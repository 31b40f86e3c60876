"""Runs of the stub on 8 virtual devices, for a process of its own: reads a list of runs, each a
list of overrides, and writes their losses, the bytes of the state on a device, and their
folders. With `resume`, the runs after the first go on from its checkpoint of half the steps."""

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
    there, runs = Path(sys.argv[1]), json.loads(sys.argv[2])
    placed: list[int] = []
    place = parallel.Layout.placed

    def measured(layout, state):
        state = place(layout, state)
        # Batches are placed too.
        if isinstance(state, TrainState):
            arrays = jax.tree.leaves((state.weights, state.optimizer))
            placed.append(sum(x.addressable_shards[0].data.nbytes for x in arrays))
        return state

    parallel.Layout.placed = measured
    results, first = [], None
    for number, overrides in enumerate(runs):
        if "resume" in sys.argv and first:
            run = stub.resumed(first, there / str(number), 3, overrides)
        else:
            run = stub.train(there / str(number), *overrides, **SECTIONS)
        first = first or run
        losses = stub.losses(run)
        results.append({"losses": losses, "bytes": placed[-1], "folder": str(run.path)})
    print(json.dumps(results))


if __name__ == "__main__":
    with stub.known():
        main()
