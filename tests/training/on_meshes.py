"""Runs on 8 virtual devices, for a process of its own: reads a list of runs, each a list of
overrides, and writes their losses and the bytes of the state on a device. With `resume`, the
runs after the first go on from its checkpoint of half the steps."""

import json
import os
import sys
from pathlib import Path


os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
)
sys.path.insert(0, str(Path(__file__).parent))

import jax
from tiny_runs import configured, losses, without_its_end

from ide_transformer import training
from ide_transformer.training import parallel, run as run_module


def main() -> None:
    there, runs = Path(sys.argv[1]), json.loads(sys.argv[2])
    run_module.plot_run = lambda *_: None
    placed: list[int] = []
    place = parallel.Layout.placed

    def measured(layout, state):
        state = place(layout, state)
        arrays = jax.tree.leaves((state.weights, state.optimizer))
        placed.append(sum(x.addressable_shards[0].data.nbytes for x in arrays))
        return state

    parallel.Layout.placed = measured
    results, first = [], None
    for number, overrides in enumerate(runs):
        if first is None or "resume" not in sys.argv:
            config = configured(there, overrides)
            folder = training.train(config, runs=there / "runs").path
            first = folder if first is None else first
        else:
            folder = without_its_end(first, there / f"resumed/{number}")
            training.resume_run(folder, overrides)
        results.append({"losses": losses(folder), "bytes": placed[-1], "folder": str(folder)})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
