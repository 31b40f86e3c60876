"""The section `parallel` of a configuration."""

import math
from typing import ClassVar

from pydantic import model_validator

from .choice import Section
from .types import Count, CountOrZero


class ParallelConfig(Section):
    """`parallel`: the devices and processes of a run. They change how fast it is and what
    memory each device needs, and not what is learned, so that a run may go on with others."""

    # Devices among which the samples of a batch are divided.
    data: Count = 1
    # The same, and the weights and the state of the optimizer are divided among them too.
    fsdp: Count = 1
    # Devices among which the heads and the hidden features are divided.
    tensor: Count = 1
    # Devices among which the tokens are divided.
    sequence: Count = 1
    # Processes, one for each host or device; default: this one alone. Where address and rank
    # are not given, they are those of SLURM, Open MPI or Kubernetes.
    processes: Count | None = None
    # HOST:PORT of process 0, for all of them; also by JAX_COORDINATOR_ADDRESS.
    coordinator: str | None = None
    # The number of this process, from 0 on; also by JAX_PROCESS_ID.
    rank: CountOrZero | None = None
    # Seconds after which a process that does not appear, or no longer answers, ends the run.
    timeout: Count = 100

    axes: ClassVar[tuple[str, ...]] = ("data", "fsdp", "tensor", "sequence")

    @property
    def sizes(self) -> dict[str, int]:
        """Devices along each axis of the layout."""
        return {axis: getattr(self, axis) for axis in self.axes}

    @property
    def devices(self) -> int:
        """Devices of the layout."""
        return math.prod(self.sizes.values())

    @model_validator(mode="after")
    def _of_a_process(self):
        if self.processes is None and (self.coordinator is not None or self.rank is not None):
            raise ValueError(
                "parallel.coordinator and parallel.rank are for several processes; give "
                "parallel.processes, their number"
            )
        if self.rank is not None and self.rank >= (self.processes or 1):
            raise ValueError(
                f"parallel.rank={self.rank}: the {self.processes} processes have the ranks "
                f"0 to {(self.processes or 1) - 1}"
            )
        if self.coordinator is not None and not self.coordinator.rpartition(":")[2].isdecimal():
            raise ValueError(
                f"parallel.coordinator={self.coordinator} has no port; write for example "
                "parallel.coordinator=10.0.0.1:1234"
            )
        return self
