"""The section `parallel`, and where the state of training and the batches lie."""

import fnmatch
import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import equinox as eqx
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree
from pydantic import model_validator

from ..equation import LAYOUT_AXES, divided
from ..errors import InputError
from ..tasks import AbstractTask, Batch
from .choice import Count, CountOrZero, Section
from .optimizer import path_of


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


T = TypeVar("T", bound=PyTree)

# The names of the last axes of a weight by the end of its path, the first that fits; see
# `LAYOUT_AXES`. Those before them are of layers, or of what a control has in their place.
_INTO, _OUT_OF = ("features", "inner"), ("inner", "features")
_TABLES = ("embedding", "readout", "velocity", "read_out.weight")
_NAMES: dict[str, tuple[str | None, ...]] = {
    **{f"*.{name}.weight": _INTO for name in ("query", "key", "value", "inner", "gate")},
    **{f"*.{name}.bias": ("inner",) for name in ("query", "key", "value", "inner", "gate")},
    **{f"*.{name}.weight": _OUT_OF for name in ("output", "outer")},
    **{f"*{name}": ("vocabulary", "features") for name in _TABLES},
    "*read_out.bias": ("vocabulary",),
    "*": ("features",),
}


class Layout(NamedTuple):
    """The layout of devices of a run, and how arrays lie on it."""

    grid: Mesh

    @property
    def sizes(self) -> dict[str, int]:
        """Devices along each axis."""
        return dict(self.grid.shape)

    def shardings(self, state: PyTree) -> PyTree[NamedSharding]:
        """Places of the arrays of a state. What an optimizer keeps of a weight lies where the
        weight does."""

        def sharding(path: tuple, x: Any) -> NamedSharding:
            return NamedSharding(self.grid, divided(x.shape, _names(path, x.ndim), self.sizes))

        return jax.tree.map_with_path(sharding, state)

    def shapes(self, state: T) -> T:
        """The shapes of a state with the places of its arrays."""
        return jax.tree.map(_shape_at, state, self.shardings(state))

    def batch_shapes(self, batch: Batch) -> Batch:
        """The shapes of a batch with the places of its arrays."""
        return jax.tree.map(_shape_at, batch, self._of_batch(batch))

    def placed(self, state: T) -> T:
        """A state, the same in all processes, on the devices."""
        return jax.tree.map(_placed, state, self.shardings(state))

    def batch(self, batch: Batch) -> Batch:
        """A batch, the same in all processes, on the devices."""
        return jax.tree.map(_placed, batch, self._of_batch(batch))

    def load(self, task: AbstractTask, step: int, size: int, seed: int) -> Batch:
        """The batch of a step on the devices. Each process loads the samples of its own."""
        sizes = {axis: self.sizes.get(axis, 1) for axis in LAYOUT_AXES["samples"]}
        where = NamedSharding(self.grid, divided((size,), ("samples",), sizes))
        (rows,) = _own(where, (size,))
        part = task.part_of_batch(step, size, seed, rows)
        whole = enlarged(part, size)

        def placed(x: Any, y: Any, where: NamedSharding) -> jax.Array:
            inner = (slice(None), *_own(where, y.shape)[1:])
            return jax.make_array_from_process_local_data(where, np.asarray(x)[inner], y.shape)

        return jax.tree.map(placed, part, whole, self._of_batch(whole))

    def described(self, state: PyTree) -> str:
        """One line on the layout, and on the bytes of a state on each device."""
        sizes = ", ".join(f"{axis} {size}" for axis, size in self.sizes.items() if size > 1)
        return f"devices: {sizes}; the state takes {self.bytes_each(state):,} bytes on each"

    def bytes_each(self, state: PyTree) -> int:
        """Bytes of a state on each device."""

        def size(x: Any, where: NamedSharding) -> int:
            return math.prod(where.shard_shape(x.shape)) * x.dtype.itemsize

        return sum(jax.tree.leaves(jax.tree.map(size, state, self.shardings(state))))

    def whole(self) -> NamedSharding:
        """Place of what each device has a copy of."""
        return NamedSharding(self.grid, PartitionSpec())

    def _of_batch(self, batch: Batch) -> PyTree[NamedSharding]:
        """Places of the arrays of a batch: samples and tokens divided where they can be, and
        what samples share on every device."""

        def sharding(x: Any) -> NamedSharding:
            names = ("samples", "tokens", *(None,) * x.ndim)[: x.ndim]
            return NamedSharding(self.grid, divided(x.shape, names, self.sizes))

        own, shared = batch.divided()
        return eqx.combine(
            jax.tree.map(sharding, own), jax.tree.map(lambda x: self.whole(), shared)
        )


def make_layout(config: ParallelConfig, devices: Sequence[Any] | None = None) -> Layout:
    """The layout of the section `parallel`, on the first of all devices.

    **Raises:** `InputError` where there are not as many.
    """
    devices = jax.devices() if devices is None else devices
    number, wanted = len(devices), config.devices
    if number % wanted or (jax.process_count() > 1 and wanted != number):
        sizes = " × ".join(f"{axis} {size}" for axis, size in config.sizes.items())
        raise InputError(
            f"parallel: {sizes} makes a layout of {wanted} devices, and there are {number}; "
            f"their product has to {'be' if jax.process_count() > 1 else 'divide'} {number}. "
            "On a CPU, XLA_FLAGS=--xla_force_host_platform_device_count=8 gives 8 of them."
        )
    shape = tuple(config.sizes.values())
    types = (AxisType.Auto,) * len(shape)
    return Layout(jax.make_mesh(shape, config.axes, types, devices=devices[:wanted]))


def enlarged(batch: Batch, size: int) -> Batch:
    """The shapes of a batch of so many samples like those of another."""
    own, shared = batch.divided()
    own = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), own)
    return eqx.combine(own, shared)


def _shape_at(x: Any, where: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)


def _placed(x: Any, where: NamedSharding) -> jax.Array:
    if where.is_fully_addressable:
        return jax.device_put(x, where)
    x = np.asarray(x)
    return jax.make_array_from_process_local_data(where, x[_own(where, x.shape)], x.shape)


def _own(where: NamedSharding, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The smallest block of an array that has all parts of this process."""
    parts: list[Any] = list(where.addressable_devices_indices_map(shape).values())
    return tuple(
        slice(
            min(part[axis].start or 0 for part in parts),
            max(length if part[axis].stop is None else part[axis].stop for part in parts),
        )
        for axis, length in enumerate(shape)
    )


def _names(path: tuple, rank: int) -> tuple[str | None, ...]:
    written = path_of(path)
    names = next(names for end, names in _NAMES.items() if fnmatch.fnmatchcase(written, end))
    names = names[-rank:] if rank else ()
    return ("layers",) * (rank - len(names)) + names
