"""Weights from tensors, and tensors from weights, by one table."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..errors import InputError
from .placement import Placement


class StoredTensor(NamedTuple):
    """A tensor of a checkpoint. `read` gives its numbers, which the caller may keep."""

    dtype: np.dtype
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def expected_shapes(table: list[Placement]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, by its name."""
    outputs: dict[str, int] = {}
    for placement in table:
        if placement.rows is not None:
            most = int(placement.rows.max()) + 1
            outputs[placement.name] = max(most, outputs.get(placement.name, 0))
    shapes = {}
    for placement in table:
        shape = placement.permuted_shape(outputs.get(placement.name, 0))
        if placement.axes is not None:
            shape = tuple(shape[i] for i in np.argsort(placement.axes))
        shapes |= dict.fromkeys(placement.names(), shape)
    return shapes


def fill(
    skeleton: PyTree,
    table: list[Placement],
    tensors: Mapping[str, StoredTensor],
    dtype: np.dtype | None,
) -> PyTree:
    """Fill a skeleton of shapes with the weights in the tensors. The weights are read one
    after the other, the largest first, so that they take hardly more memory than they need.

    **Arguments:**

    - `dtype`: the dtype of the weights; `None` for that of the tensors, at least float32.
    """
    placements = {id(p.weight): p for p in table}
    leaves, structure = jax.tree.flatten(skeleton)
    weights = [i for i, x in enumerate(leaves) if isinstance(x, jax.ShapeDtypeStruct)]
    for i in sorted(weights, key=lambda i: -np.prod(leaves[i].shape, dtype=int)):
        leaves[i] = _read(placements[id(leaves[i])], tensors, dtype)
    return jax.tree.unflatten(structure, leaves)


def _read(
    placement: Placement, tensors: Mapping[str, StoredTensor], dtype: np.dtype | None
) -> Array:
    names = placement.names()
    stored = tensors[names[0]].dtype
    chosen = np.promote_types(stored, np.float32) if dtype is None else dtype
    weight = _aligned(tuple(placement.weight.shape), chosen)
    slots = weight if placement.layered else weight[None]
    for slot, name in zip(slots, names, strict=True):
        slot[...] = placement.taken_from(tensors[name].read())
    if placement.scale != 1:
        weight *= placement.scale
    if placement.shift:
        weight += placement.shift
    return jnp.asarray(weight)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array that starts at a multiple of 64 bytes: JAX takes it without a copy."""
    size = int(np.prod(shape, dtype=int)) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def tensors_of(table: list[Placement]) -> dict[str, np.ndarray]:
    """The tensors of a model, the inverse of `fill`.

    **Raises:** `InputError` where two weights share a tensor but differ.
    """
    shapes = expected_shapes(table)
    tensors: dict[str, np.ndarray] = {}
    written: set[str] = set()
    for placement in table:
        weight = (np.asarray(placement.weight) - placement.shift) / placement.scale
        weight = weight.astype(placement.weight.dtype)
        parts = weight if placement.layered else weight[None]
        for name, part in zip(placement.names(), parts, strict=True):
            tensor = tensors.setdefault(name, np.empty(shapes[name], part.dtype))
            view = tensor if placement.axes is None else tensor.transpose(placement.axes)
            if placement.rows is not None:
                view[..., placement.rows] = part
                continue
            part = part.reshape(view.shape)
            if name in written:
                _check_equal(name, view, part)
            view[...] = part
            written.add(name)
    return tensors


def _check_equal(name: str, one: np.ndarray, other: np.ndarray) -> None:
    if not np.array_equal(one, other):
        raise InputError(
            f"{name} is one tensor in this layout, but several weights of the model, which "
            "differ now; it cannot be written. Train the other weights only, or save the run."
        )
