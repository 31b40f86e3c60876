"""Places the training state and the batches on devices; joins the processes of a run."""

import contextlib
import fnmatch
import json
import math
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from ...equation import AbstractAttention, partition_spec, parts
from ...errors import InputError
from ...integration import Mesh
from ...models import Model
from ...tasks import AbstractTask, Batch
from ..configuration.key import path_of
from ..configuration.training import ParallelConfig


T = TypeVar("T", bound=PyTree)

# The names of the last axes of a weight, by the first pattern that fits its path; see
# `LAYOUT_AXES`. The axes before them are layers, or coefficients of a control.
_INPUT_MAPS = ("query", "key", "value", "inner", "gate")
_NAMES: dict[str, tuple[str | None, ...]] = {
    **{f"*.{name}.weight": ("features", "inner") for name in _INPUT_MAPS},
    **{f"*.{name}.bias": ("inner",) for name in _INPUT_MAPS},
    **{f"*.{name}.weight": ("inner", "features") for name in ("output", "outer")},
    **dict.fromkeys(("*embedding", "*readout", "*read_out.weight"), ("vocabulary", "features")),
    "*read_out.bias": ("vocabulary",),
    "*": ("features",),
}


class Layout(NamedTuple):
    """The layout of a run on devices."""

    devices: jax.sharding.Mesh

    @property
    def sizes(self) -> dict[str, int]:
        """Devices along each axis."""
        return dict(self.devices.shape)

    def shardings(self, tree: PyTree) -> PyTree[NamedSharding]:
        """The places of the arrays of a state or a batch. Moments lie with their weight.
        Samples and tokens are divided if possible; every device has what samples share."""

        def of_state(path: tuple, x: Any) -> NamedSharding:
            return self._sharding(x.shape, _names(path, x.ndim))

        def of_samples(x: Any) -> NamedSharding:
            return self._sharding(x.shape, ("samples", "tokens", *(None,) * x.ndim)[: x.ndim])

        if not isinstance(tree, Batch):
            return jax.tree.map_with_path(of_state, tree)
        by_sample, shared = tree.divided()
        replicated = jax.tree.map(lambda x: self.replicated(), shared)
        return eqx.combine(jax.tree.map(of_samples, by_sample), replicated)

    def shapes(self, tree: T) -> T:
        """The shapes of the arrays of a state or a batch, with their places."""

        def shape(x: Any, where: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

        return jax.tree.map(shape, tree, self.shardings(tree))

    def place(self, tree: T) -> T:
        """Puts a state or a batch, equal in all processes, on the devices."""

        def put(x: Any, where: NamedSharding) -> jax.Array:
            if where.is_fully_addressable:
                return jax.device_put(x, where)
            block = np.asarray(x)[_local_block(where, x.shape)]
            return jax.make_array_from_process_local_data(where, block, x.shape)

        return jax.tree.map(put, tree, self.shardings(tree))

    def load(self, task: AbstractTask, step: int, size: int, seed: int) -> Batch:
        """The batch of a step, on the devices. Each process loads only its own samples."""
        (rows,) = _local_block(self._sharding((size,), ("samples",)), (size,))
        part = task.part_of_batch(step, size, seed, rows)

        def whole(x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)

        def put(x: Any, y: Any, where: NamedSharding) -> jax.Array:
            block = (slice(None), *_local_block(where, y.shape)[1:])
            return jax.make_array_from_process_local_data(where, np.asarray(x)[block], y.shape)

        by_sample, shared = part.divided()
        batch = eqx.combine(jax.tree.map(whole, by_sample), shared)
        return jax.tree.map(put, part, batch, self.shardings(batch))

    def bytes_each(self, state: PyTree) -> int:
        """Bytes of a state on each device."""
        return sum(
            math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
            for x in jax.tree.leaves(self.shapes(state))
        )

    def check_divides(self, samples: int, model: Model, meshes: Iterable[Mesh]) -> None:
        """Raises `InputError` if the devices do not divide the samples of a part of a batch,
        the heads or the tokens."""
        attentions = parts(model.control, AbstractAttention)
        heads = {count for x in attentions for count in (x.heads, x.key_value_heads)}
        tokens = {model.domain.num_tokens, *(mesh.tokens for mesh in meshes if mesh.tokens)}
        sizes = self.sizes
        groups = sizes["data"] * sizes["fsdp"]
        batch = "training.batch_size / training.accumulate"
        checks = [
            ("parallel.data × parallel.fsdp", groups, batch, samples),
            *(("parallel.tensor", sizes["tensor"], "the number of heads", n) for n in heads),
            *(("parallel.sequence", sizes["sequence"], "the tokens", n) for n in tokens),
        ]
        for key, devices, name, count in checks:
            if count % devices:
                raise InputError(f"{key} = {devices} does not divide {name}, {count}.")

    def replicated(self) -> NamedSharding:
        """The sharding of an array that each device has whole."""
        return NamedSharding(self.devices, PartitionSpec())

    def _sharding(self, shape: tuple[int, ...], names: tuple[str | None, ...]) -> NamedSharding:
        """The place of an array whose axes have these names, see `LAYOUT_AXES`."""
        return NamedSharding(self.devices, partition_spec(shape, names, self.sizes))


def make_layout(config: ParallelConfig) -> Layout:
    """The layout of the section `parallel`, on the first of all devices."""
    devices = jax.devices()
    num_devices = config.devices
    if len(devices) % num_devices or (jax.process_count() > 1 and num_devices != len(devices)):
        sizes = " × ".join(f"parallel.{axis}={size}" for axis, size in config.sizes.items())
        fit = "be" if jax.process_count() > 1 else "divide"
        raise InputError(f"{sizes} = {num_devices}: it must {fit} the {len(devices)} devices.")
    shape = tuple(config.sizes.values())
    types = (AxisType.Auto,) * len(shape)
    return Layout(jax.make_mesh(shape, config.axes, types, devices=devices[:num_devices]))


def _local_block(where: NamedSharding, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The smallest block of an array that holds all parts of this process."""
    blocks: list[Any] = list(where.addressable_devices_indices_map(shape).values())
    return tuple(
        slice(
            min(block[axis].start or 0 for block in blocks),
            max(length if block[axis].stop is None else block[axis].stop for block in blocks),
        )
        for axis, length in enumerate(shape)
    )


def _names(path: tuple, rank: int) -> tuple[str | None, ...]:
    name = path_of(path)
    names = next(names for end, names in _NAMES.items() if fnmatch.fnmatchcase(name, end))
    names = names[-rank:] if rank else ()
    return ("layers",) * (rank - len(names)) + names


# Errors of JAX that have nothing to do with other processes.
_LOCAL_ERRORS = ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED")


def start(parallel: ParallelConfig) -> None:
    """Joins the processes of a run. If some do not appear, an error ends this process."""
    if parallel.processes is None or jax.distributed.is_initialized():
        return
    seconds = parallel.timeout
    process_id = os.environ.get("JAX_PROCESS_ID")
    rank = int(process_id) if parallel.rank is None and process_id else parallel.rank

    def end() -> None:
        address = os.environ.get("JAX_COORDINATOR_ADDRESS", "the coordinator")
        print(
            f"error: parallel.processes={parallel.processes}: not all reached "
            f"{parallel.coordinator or address} within {seconds} s (parallel.timeout).",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)

    # JAX would abort a process that waits in vain a little later, and not say why.
    absent = threading.Timer(seconds, end)
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
            f"parallel.processes={parallel.processes}: {error} Without SLURM, set "
            "parallel.coordinator=HOST:PORT and parallel.rank=0, 1, …."
        ) from None
    finally:
        absent.cancel()


@contextlib.contextmanager
def explain_lost_process() -> Iterator[None]:
    """Turns the error of a collective operation into an `InputError` that explains it."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or str(error).startswith(_LOCAL_ERRORS):
            raise
        raise InputError(
            f"process {jax.process_index()}: another process of this run has ended "
            f"({str(error).splitlines()[0][:200]}). Start all again with --resume."
        ) from error


def primary() -> bool:
    """Whether this is the process that writes files."""
    return jax.process_index() == 0


def gather(state: T) -> T:
    """Makes the arrays of a state readable in this process. All processes must call it."""

    def gather_array(x: Any) -> Any:
        is_local = not isinstance(x, jax.Array) or x.is_fully_addressable
        return x if is_local else multihost_utils.process_allgather(x, tiled=True)

    return jax.tree.map(gather_array, state)


# Waits until all processes have called it with this name.
wait_for_all = multihost_utils.sync_global_devices


def check_equal(values: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises `InputError` if values differ from process 0. Their keys, such as "other data",
    are used in its message."""
    text = json.dumps(values)
    local = json.loads(text)
    first = json.loads(from_primary(text))
    differs = np.array([local[name] != first[name] for name in local])
    of_all = np.reshape(multihost_utils.process_allgather(differs), (-1, len(local)))
    if not of_all.any():
        return
    rank = jax.process_index() if differs.any() else int(np.argmax(of_all.any(axis=1)))
    names = [name for name, is_other in zip(local, of_all[rank], strict=True) if is_other]
    changes = [
        f"; {key}: {local[name].get(key)!r} there, {first[name].get(key)!r} in process 0"
        for name in names
        for key in local[name] | first[name]
        if local[name].get(key) != first[name].get(key)
    ]
    raise InputError(
        f"process {rank} has {' and '.join(names)} than process 0{''.join(changes)}. Start all "
        "with the same options, files and release."
    )


def from_primary(text: str) -> str:
    """The text of the primary process. All processes must call it."""
    data = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.array(len(data))))
    return bytes(multihost_utils.broadcast_one_to_all(np.resize(data, size))).decode()


def largest(value: int) -> int:
    """The largest of the values that the processes pass. All must call it."""
    return int(np.max(multihost_utils.process_allgather(np.array(value))))
