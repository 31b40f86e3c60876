"""The section `parallel`."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from .section import Count, CountOrZero, Section


class ParallelConfig(Section):
    """`parallel`: the devices and processes of a run. They change its speed and memory, not
    what is learned; a run may be resumed on others."""

    # Devices that divide the samples of a batch.
    data: Count = 1
    # The same; they also divide the weights and the optimizer state.
    fsdp: Count = 1
    # Devices that divide the heads and the hidden features.
    tensor: Count = 1
    # Devices that divide the tokens.
    sequence: Count = 1
    # Processes, one for each host or device. Default: one. Address and rank come from SLURM,
    # Open MPI or Kubernetes if not given.
    processes: Count | None = None
    # HOST:PORT of process 0, for all processes; or set JAX_COORDINATOR_ADDRESS.
    coordinator: str | None = None
    # Number of this process, from 0; or set JAX_PROCESS_ID.
    rank: CountOrZero | None = None
    # Seconds after which a missing or silent process ends the run.
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

    def problems(self) -> Mapping[str, Any]:
        alone = self.processes is None
        coordinator = self.coordinator
        return {
            "parallel.coordinator and parallel.rank are for several processes; give "
            "parallel.processes, their number": alone
            and (coordinator is not None or self.rank is not None),
            f"parallel.rank={self.rank}: the {self.processes} processes have the ranks 0 to "
            f"{(self.processes or 1) - 1}": (self.rank or 0) >= (self.processes or 1),
            f"parallel.coordinator={coordinator} has no port; write for example "
            "parallel.coordinator=10.0.0.1:1234": coordinator is not None
            and not coordinator.rpartition(":")[2].isdecimal(),
        }
