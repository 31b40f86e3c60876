"""Where the state of training and the batches lie on the devices, and several processes that
train one run."""

import contextlib
import fnmatch
import json
import math
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from ...equation import LAYOUT_AXES, divided
from ...errors import InputError
from ...tasks import AbstractTask, Batch
from ..configuration.config import ParallelConfig
from .optimizer import path_of


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

    def batch_shardings(self, batch: Batch) -> Batch:
        """Places of the arrays of a batch: samples and tokens divided where they can be, and
        what samples share on every device."""

        def sharding(x: Any) -> NamedSharding:
            names = ("samples", "tokens", *(None,) * x.ndim)[: x.ndim]
            return NamedSharding(self.grid, divided(x.shape, names, self.sizes))

        own, shared = batch.divided()
        whole = jax.tree.map(lambda x: self.whole(), shared)
        return eqx.combine(jax.tree.map(sharding, own), whole)

    def shapes(self, state: T) -> T:
        """The shapes of a state with the places of its arrays."""
        return jax.tree.map(_shape_at, state, self.shardings(state))

    def batch_shapes(self, batch: Batch) -> Batch:
        """The shapes of a batch with the places of its arrays."""
        return jax.tree.map(_shape_at, batch, self.batch_shardings(batch))

    def placed(self, state: T) -> T:
        """A state, the same in all processes, on the devices."""
        return jax.tree.map(_placed, state, self.shardings(state))

    def placed_batch(self, batch: Batch) -> Batch:
        """A batch, the same in all processes, on the devices."""
        return jax.tree.map(_placed, batch, self.batch_shardings(batch))

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

        return jax.tree.map(placed, part, whole, self.batch_shardings(whole))

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


def make_layout(config: ParallelConfig, devices: Sequence[Any] | None = None) -> Layout:
    """The layout of the section `parallel`, on the first of all devices."""
    devices = jax.devices() if devices is None else devices
    number = len(devices)
    wanted = config.devices
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


# The errors of JAX that say nothing of other processes.
_OWN_FAULTS = ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED")


def start(parallel: ParallelConfig) -> None:
    """Joins the processes of a run, before anything is computed. Where they do not all appear,
    it says so and ends this process."""
    if parallel.processes is None or jax.distributed.is_initialized():
        return
    rank = parallel.rank
    seconds = parallel.timeout
    if rank is None and (given := os.environ.get("JAX_PROCESS_ID")):
        if not given.isdecimal():
            raise InputError(f"JAX_PROCESS_ID={given}: the rank of a process is 0, 1, 2, ….")
        rank = int(given)
    # JAX aborts a process that waits in vain, without saying for what; this one is first.
    absent = threading.Timer(seconds, _end_without_the_others, (parallel,))
    absent.daemon = True
    absent.start()
    try:
        jax.distributed.initialize(
            parallel.coordinator,
            parallel.processes,
            rank,
            initialization_timeout=seconds + 10,
            heartbeat_timeout_seconds=seconds,
            shutdown_timeout_seconds=seconds,
        )
    except ValueError as error:
        raise InputError(
            f"parallel.processes={parallel.processes}: {error} Without SLURM, give "
            "parallel.coordinator=HOST:PORT and parallel.rank=0, 1, …."
        ) from None
    except RuntimeError as error:
        raise InputError(
            f"parallel.processes={parallel.processes}: processes have to be joined before "
            f"anything is computed; call train first, or start scripts/train.py. JAX: {error}"
        ) from None
    finally:
        absent.cancel()


def _end_without_the_others(parallel: ParallelConfig) -> None:
    where = parallel.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS", "the coordinator")
    print(
        f"error: parallel.processes={parallel.processes}: they did not all appear at {where} "
        f"within {parallel.timeout} s (parallel.timeout). Start all of them, with the same "
        "address and with ranks from 0 on.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(2)


@contextlib.contextmanager
def others_needed() -> Iterator[None]:
    """Says of an error in a collective operation what it means."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or str(error).startswith(_OWN_FAULTS):
            raise
        raise InputError(
            f"process {jax.process_index()}: another process of this run has ended or does not "
            f"answer ({str(error).splitlines()[0][:200]}). Start all of them again with "
            "--resume; the run goes on from its last checkpoint, also with fewer processes."
        ) from error


def primary() -> bool:
    """Whether this is the process that writes files."""
    return jax.process_index() == 0


def gathered(state: T) -> T:
    """A state whose arrays this process can read as a whole; all processes call it."""

    def whole(x: Any) -> Any:
        apart = isinstance(x, jax.Array) and not x.is_fully_addressable
        return multihost_utils.process_allgather(x, tiled=True) if apart else x

    return jax.tree.map(whole, state)


# Waits until all processes are at the place of this name.
wait_for_all = multihost_utils.sync_global_devices


def check_equal(values: Mapping[str, Mapping[str, Any]]) -> None:
    """Compares values, by what is other where they differ, with those of process 0."""
    told = json.dumps(values)
    own, first = json.loads(told), json.loads(from_primary(told))
    differs = np.array([own[what] != first[what] for what in own])
    of_all = np.reshape(multihost_utils.process_allgather(differs), (-1, len(own)))
    if not of_all.any():
        return
    rank = jax.process_index() if differs.any() else int(np.argmax(of_all.any(axis=1)))
    what = [name for name, other in zip(own, of_all[rank], strict=True) if other]
    changed = [
        f"{key}: {own[name].get(key)!r} there, {first[name].get(key)!r} in process 0"
        for name in what
        for key in own[name] | first[name]
        if own[name].get(key) != first[name].get(key)
    ]
    raise InputError(
        f"process {rank} has {' and '.join(what)} than process 0"
        f"{' (' * bool(changed)}{'; '.join(changed)}{')' * bool(changed)}. Start all processes "
        "with the same options, files and release."
    )


def from_primary(text: str) -> str:
    """The text of the process that writes files."""
    own = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.array(len(own))))
    return bytes(multihost_utils.broadcast_one_to_all(np.resize(own, size))).decode()


def largest(number: int) -> int:
    """The largest of the numbers of all processes."""
    return int(np.max(multihost_utils.process_allgather(np.array(number))))
