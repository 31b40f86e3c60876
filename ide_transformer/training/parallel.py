"""Training on a layout of devices: where the state of training and the batches lie."""

import fnmatch
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from ..equation import LAYOUT_AXES, AbstractAttention, divided, parts
from ..errors import InputError
from ..models import Model
from ..tasks import AbstractTask, Batch
from .config import Config
from .optimizer import path_of
from .parallel_config import ParallelConfig


T = TypeVar("T", bound=PyTree)

# The names of the last axes of a weight by the end of its path, the first that fits; see
# `LAYOUT_AXES`. Those before them are of layers, or of what a control has in their place.
_INTO, _OUT_OF = ("features", "inner"), ("inner", "features")
_NAMES: dict[str, tuple[str | None, ...]] = {
    **{f"*.{name}.weight": _INTO for name in ("query", "key", "value", "inner", "gate")},
    **{f"*.{name}.bias": ("inner",) for name in ("query", "key", "value", "inner", "gate")},
    **{f"*.{name}.weight": _OUT_OF for name in ("output", "outer")},
    **{f"*{name}": ("vocabulary", "features") for name in ("embedding", "readout", "velocity")},
    "*readout_bias": ("vocabulary",),
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
        return jax.tree.map(
            lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
            state,
            self.shardings(state),
        )

    def placed(self, state: T) -> T:
        """A state, the same in all processes, on the devices."""
        return jax.tree.map(_placed, state, self.shardings(state))

    def batch(self, batch: Batch) -> Batch:
        """A batch, the same in all processes, on the devices."""
        return jax.tree.map(_placed, batch, self._of_batch(batch))

    def batch_shapes(self, batch: Batch) -> Batch:
        """The shapes of a batch with the places of its arrays."""
        return jax.tree.map(
            lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
            batch,
            self._of_batch(batch),
        )

    def load(self, task: AbstractTask, step: int, size: int, seed: int) -> Batch:
        """The batch of a step on the devices. Each process loads the samples of its own."""
        sizes = {axis: self.sizes.get(axis, 1) for axis in LAYOUT_AXES["samples"]}
        where = NamedSharding(self.grid, divided((size,), ("samples",), sizes))
        (rows,) = _own(where, (size,))
        part = task.part_of_batch(step, size, seed, rows)
        own, shared = part.divided()
        own = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), own)
        whole = eqx.combine(own, shared)
        return jax.tree.map(
            lambda x, y, where: _from_part(np.asarray(x), where, y.shape),
            part,
            whole,
            self._of_batch(whole),
        )

    def described(self, state: PyTree) -> str:
        """One line on the layout, and on the bytes of a state on each device."""
        sizes = ", ".join(f"{axis} {size}" for axis, size in self.sizes.items() if size > 1)
        return f"devices: {sizes}; the state takes {self.bytes_each(state):,} bytes on each"

    def bytes_each(self, state: PyTree) -> int:
        """Bytes of a state on each device."""
        return sum(
            math.prod(where.shard_shape(x.shape)) * x.dtype.itemsize
            for x, where in zip(
                jax.tree.leaves(state), jax.tree.leaves(self.shardings(state)), strict=True
            )
        )

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


def check_divisible(config: Config, model: Model) -> None:
    """Refuses a layout of devices that does not divide what is to be divided.

    **Raises:** `InputError` that names the keys.
    """
    parallel, training = config.parallel, config.training
    batch, samples = "training.batch_size", training.batch_size // training.accumulate
    if training.accumulate > 1:
        batch += " / training.accumulate"
    attentions = parts(model.control, AbstractAttention)
    heads = {number for x in attentions for number in (x.heads, x.key_value_heads)}
    tokens = {model.domain.num_tokens, *(x.tokens for x in training.meshes if x.tokens)}
    wanted = [
        ("parallel.data × parallel.fsdp", parallel.data * parallel.fsdp, batch, samples),
        *(("parallel.tensor", parallel.tensor, "the number of heads", n) for n in heads),
        *(("parallel.sequence", parallel.sequence, "the number of tokens", n) for n in tokens),
    ]
    for key, devices, what, number in wanted:
        if number % devices:
            raise InputError(
                f"{key} = {devices} does not divide {what}, {number}; take a divisor of it, or "
                "change it."
            )


def _placed(x: Any, where: NamedSharding) -> jax.Array:
    if where.is_fully_addressable:
        return jax.device_put(x, where)
    x = np.asarray(x)
    return jax.make_array_from_process_local_data(where, x[_own(where, x.shape)], x.shape)


def _from_part(x: np.ndarray, where: NamedSharding, shape: tuple[int, ...]) -> jax.Array:
    """An array from those of its rows that this process has."""
    own = _own(where, shape)
    return jax.make_array_from_process_local_data(where, x[(slice(None), *own[1:])], shape)


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
