"""Which weight of a model is which tensor of a checkpoint: one table for both directions."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..equation import AbstractConstraint, Free, Linear
from ..errors import InputError
from .tensor_files import StoredTensor


class Placement(NamedTuple):
    """A weight of a model and where it lies in a checkpoint,

        weight = scale · tensor[permuted by axes][..., rows] + shift.

    - `weight`: the array itself, recognised by its identity.
    - `name`: of the tensor. With `{layer}` in it the weight has a leading axis over layers,
      each of them a tensor.
    - `axes`: the order of the axes of the tensor; afterwards it is reshaped to the weight.
    - `shape`: of the permuted tensor, where the weight has another one.
    - `rows`: which outputs of a tensor that several weights share, along its last axis.
    - `repeated`: whether the layers of the weight are all the same tensor.
    """

    weight: Any
    name: str
    axes: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None
    rows: np.ndarray | None = None
    repeated: bool = False
    scale: float = 1.0
    shift: float = 0.0

    @property
    def layered(self) -> bool:
        return self.repeated or "{layer}" in self.name

    def names(self) -> list[str]:
        """The tensors that the weight takes, in the order of layers."""
        layers = self.weight.shape[0] if self.layered else 1
        return [self.name.format(layer=layer) for layer in range(layers)]

    def permuted_shape(self, outputs: int) -> tuple[int, ...]:
        """The shape of a tensor after its axes were permuted.

        **Arguments:**

        - `outputs`: length of the last axis of a shared tensor.
        """
        if self.shape is not None:
            return self.shape
        shape = tuple(self.weight.shape)[self.layered :]
        return shape if self.rows is None else (*shape[:-1], outputs)

    def taken_from(self, tensor: np.ndarray) -> np.ndarray:
        """The part of the weight that is in one tensor."""
        x = tensor if self.axes is None else tensor.transpose(self.axes)
        x = x if self.rows is None else x[..., self.rows]
        return x.reshape(tuple(self.weight.shape)[self.layered :])


def linear(
    weights: Linear,
    name: str,
    *,
    transposed: bool = True,
    rows: np.ndarray | None = None,
    scale: float = 1.0,
) -> Iterator[Placement]:
    """The weight and bias of a linear map. PyTorch stores `[out, in]`; `transposed=False` is
    for `[in, out]`."""
    axes = (1, 0) if transposed else None
    yield Placement(weights.weight, f"{name}.weight", axes, rows=rows, scale=scale)
    if weights.bias is not None:
        yield Placement(weights.bias, f"{name}.bias", rows=rows, scale=scale)


def norm(weights: AbstractConstraint, name: str, *, shift: float = 0.0) -> Iterator[Placement]:
    """The gain and bias of a normalisation; the gain is `shift + tensor`."""
    if isinstance(weights, Free):
        return
    gain, bias = weights.gain, getattr(weights, "bias", None)  # pyright: ignore
    yield Placement(gain, f"{name}.weight", shift=shift)
    if bias is not None:
        yield Placement(bias, f"{name}.bias")


def check_table(
    table: Iterable[Placement],
    tensors: Mapping[str, StoredTensor],
    ignored: set[str],
    at: Path,
) -> None:
    """Refuses a checkpoint whose tensors are not those of the table, all listed at once.

    **Arguments:**

    - `ignored`: tensors that are no weights.
    - `at`: the checkpoint, for the error.
    """
    expected = expected_shapes(table)
    wrong = [
        *(
            f"{name} {shape}: missing"
            for name, shape in expected.items()
            if name not in tensors
        ),
        *(
            f"{name}: shape {tensors[name].shape}, expected {shape}"
            for name, shape in expected.items()
            if name in tensors and tensors[name].shape != shape
        ),
        *(
            f"{name} {tensor.shape}: not known"
            for name, tensor in tensors.items()
            if name not in expected and name not in ignored
        ),
    ]
    if wrong:
        raise InputError(
            f"{at}: the tensors do not fit the model that config.json describes:\n  "
            + "\n  ".join(wrong)
        )


def expected_shapes(table: Iterable[Placement]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, by its name."""
    table = list(table)
    outputs = _outputs(table)
    shapes = {}
    for placement in table:
        shape = placement.permuted_shape(outputs.get(placement.name, 0))
        if placement.axes is not None:
            shape = tuple(shape[i] for i in np.argsort(placement.axes))
        shapes |= dict.fromkeys(placement.names(), shape)
    return shapes


def fill(
    skeleton: PyTree,
    table: Iterable[Placement],
    tensors: Mapping[str, StoredTensor],
    dtype: np.dtype | None,
) -> PyTree:
    """The model of a skeleton of shapes, with the weights of the tensors. One weight after
    the other is read, the largest first, so that hardly more memory is taken than they need.

    **Arguments:**

    - `dtype`: of the weights; `None` for that of the tensors, at least float32.
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


def tensors_of(table: Iterable[Placement]) -> dict[str, np.ndarray]:
    """The tensors of a model: `fill`, the other way.

    **Raises:** `InputError` where two weights that are one tensor differ.
    """
    table = list(table)
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


def _outputs(table: list[Placement]) -> dict[str, int]:
    """Length of the last axis of each tensor that weights share by rows."""
    outputs: dict[str, int] = {}
    for placement in table:
        if placement.rows is not None:
            most = int(placement.rows.max()) + 1
            outputs[placement.name] = max(most, outputs.get(placement.name, 0))
    return outputs
