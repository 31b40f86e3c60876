"""Weights from tensors, and tensors from weights, by one table."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..errors import InputError
from .family import Placement
from .files import StoredTensor


def expected_shapes(table: list[Placement]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, by its name."""
    return {name: place.tensor_shape for place in table for name in place.names()}


def fill(
    skeleton: PyTree,
    table: list[Placement],
    tensors: Mapping[str, StoredTensor],
    dtype: np.dtype | None,
) -> PyTree:
    """Fill a skeleton of shapes with the weights in the tensors, of `dtype`, or of that of the
    tensors, at least float32. The weights are read one after the other, the largest first, so
    that they take hardly more memory than they need."""
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
    tensors: dict[str, np.ndarray] = {}
    for placement in table:
        weight = (np.asarray(placement.weight) - placement.shift) / placement.scale
        weight = weight.astype(placement.weight.dtype)
        parts = weight if placement.layered else weight[None]
        for name, part in zip(placement.names(), parts, strict=True):
            written = name in tensors
            tensor = tensors.setdefault(name, np.empty(placement.tensor_shape, part.dtype))
            view = placement.permuted(tensor)
            if placement.rows is not None:
                view[..., placement.rows] = part
                continue
            part = part.reshape(view.shape)
            if written and not np.array_equal(view, part):
                raise InputError(
                    f"{name} is one tensor in this layout, but several weights of the model, "
                    "which differ now; it cannot be written. Train the other weights only, or "
                    "save the run."
                )
            view[...] = part
    return tensors
