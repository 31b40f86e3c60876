"""A checkpoint whose tensors fit its options."""

import math
import re
import warnings
from collections.abc import Mapping, Set
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, PyTree

from ..errors import InputError
from ..models import Model
from .families import families
from .family import Family, Placement, expected_shapes
from .files import StoredTensor, read_archive, read_json, stored_tensors
from .options import Options


# The tensors that an error lists.
_MOST_LINES = 200

# What a file of any family may have switched on, and no model here has.
_OFF = {
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "is_decoder": False,
    "pruned_heads": {},
    "quantization_config": None,
    "tie_encoder_decoder": False,
}

_LAYERS = r"n_layers?|(\w+_)?layers"
_WIDTHS = r"d_\w+|n_(embd|inner|head|heads)|(\w+_)?(dim|size|heads|ratio)"
# Layers that share their weights have no tensors of their own.
_MOST_SHARED = 1000


class Checkpoint(NamedTuple):
    """A checkpoint whose tensors fit its options; no tensor is read yet.

    - `skeleton`: the model with shapes in the place of weights.
    - `table`: the places of these weights.
    - `tensors`: the tensors by their names in the table.
    - `original`: the name in the file for each name in the table.
    - `copies`: the tensors that repeat one of the table, by their names; that other name.
    """

    options: Options
    family: Family
    skeleton: Model
    table: list[Placement]
    tensors: Mapping[str, StoredTensor]
    original: Mapping[str, str]
    copies: Mapping[str, str]

    @classmethod
    def open(cls, path: Path) -> "Checkpoint":
        """The checkpoint in a folder of Hugging Face's layout, or in a NumPy archive."""
        if path.is_file():
            values, tensors = read_archive(path)
            return cls.check(Options(values, path), tensors, path)
        file = path / "config.json"
        if not file.is_file():
            raise InputError(
                f"{path} has no config.json; it is not the folder of a checkpoint."
            )
        return cls.check(Options(read_json(file), file), stored_tensors(path), path)

    @classmethod
    def check(
        cls, options: Options, stored: Mapping[str, StoredTensor], at: Path
    ) -> "Checkpoint":
        """The checkpoint of these options and tensors, which have to fit each other."""
        family = options.choose("model_type", families())
        original = {family.canonical(name): name for name in stored}
        if twice := sorted(stored.keys() - set(original.values())):
            raise InputError(
                f"{at}: {', '.join(twice)}: there under another name too. Remove one of them."
            )
        tensors = {name: stored[there] for name, there in original.items()}
        held = sum(math.prod(tensor.shape) for tensor in tensors.values())
        _check_sizes(options, len(tensors), held)
        for name, off in _OFF.items():
            options.allow(name, off)
        skeleton = eqx.filter_eval_shape(family.build, options, frozenset(tensors))
        options.check_all_asked(family.harmless)
        # Before the names of its tensors take memory.
        for weight in jax.tree.leaves(skeleton):
            if isinstance(weight, jax.ShapeDtypeStruct) and math.prod(weight.shape) > 2 * held:
                raise InputError(
                    f"{at}: config.json describes a weight of shape {weight.shape}, but the "
                    f"tensors have {held} numbers in all. Correct the sizes in config.json."
                )
        table = family.table(skeleton)
        expected = expected_shapes(table)
        copies = _copies(expected.keys(), tensors, family)
        if wrong := _not_fitting(expected, tensors, copies, family):
            raise InputError(
                f"{at}: the tensors do not fit the model that config.json describes:\n  "
                + "\n  ".join(wrong[:_MOST_LINES])
                + f"\n  and {len(wrong) - _MOST_LINES:,} more" * (len(wrong) > _MOST_LINES)
            )
        return cls(options, family, skeleton, table, tensors, original, copies)

    def model(self, dtype: DTypeLike | None) -> Model:
        """The model with its weights. A warning names the weights of other parts."""
        held = expected_shapes(self.table).keys() | self.copies.keys()
        unread = {  # once for all layers
            re.sub(r"\b\d+\b", "*", original): None
            for name, original in self.original.items()
            if name not in held and re.fullmatch(self.family.unread, name)
        }
        if unread:
            text = f"not part of the model, so not read: {', '.join(unread)}."
            warnings.warn(f"{self.options.file}: {text}", stacklevel=2)
        return _filled(self.skeleton, self.table, self.tensors, _of_weights(dtype))


def _check_sizes(options: Options, tensors: int, weights: int) -> None:
    """Refuses, before a model of that size is described, more layers than tensors, and than
    1,000, and a width above the number of all weights together."""
    for pattern, held, of in ((_LAYERS, tensors, "tensors"), (_WIDTHS, weights, "weights")):
        for name, value in options.values.items():
            large = isinstance(value, int | float) and value > max(held, _MOST_SHARED)
            if large and re.fullmatch(pattern, name):
                found = f"{name} = {str(value)[:24]}"
                raise InputError(
                    f"{options.file}: {found} does not fit a checkpoint of {held:,} {of}."
                )


def _of_weights(dtype: DTypeLike | None) -> np.dtype | None:
    """The dtype, checked to be one that a state can have."""
    if dtype is None:
        return None
    try:
        chosen = np.dtype(jnp.dtype(dtype))
    except TypeError:
        chosen = np.dtype(object)
    if chosen not in (np.float32, np.float64):
        raise InputError(
            f"dtype={getattr(dtype, '__name__', dtype)}: the weights of a model are float32 or "
            "float64. For products in less load it so and write "
            "model.with_options(compute_dtype='bfloat16')."
        )
    if jax.dtypes.canonicalize_dtype(chosen) != chosen:
        raise InputError(
            "dtype=float64: JAX would make float32 of it; write jax.config.update("
            "'jax_enable_x64', True) before, or dtype='float32'."
        )
    return chosen


def _filled(
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


def _copies(
    expected: Set[str], tensors: Mapping[str, StoredTensor], family: Family
) -> dict[str, str]:
    """The tensors that repeat one of the table, and which."""
    return {
        name: other
        for name, other in family.copies.items()
        if name in tensors.keys() - expected
        and other in tensors.keys() & expected
        and np.array_equal(tensors[name].read(), tensors[other].read())
    }


def _not_fitting(
    expected: Mapping[str, tuple[int, ...]],
    tensors: Mapping[str, StoredTensor],
    copies: Mapping[str, str],
    family: Family,
) -> list[str]:
    """The tensors that are missing, of another shape, no weights, no copies, or not known."""
    wrong = [f"{name} {expected[name]}: missing" for name in expected if name not in tensors]
    for name, tensor in tensors.items():
        if name in copies:
            continue
        if name in expected:
            if tensor.shape != expected[name]:
                wrong.append(f"{name}: shape {tensor.shape}, expected {expected[name]}")
            if not jnp.issubdtype(tensor.dtype, jnp.floating):
                kind = tensor.dtype.name
                wrong.append(
                    f"{name}: stored as {kind}, but weights are floating-point numbers"
                )
        elif not re.fullmatch(f"{family.ignored}|{family.unread}", name):
            other = family.copies.get(name)
            repeats = f"differs from {other}, which config.json says it repeats"
            known = other in expected and other in tensors
            wrong.append(f"{name} {tensor.shape}: {repeats if known else 'not known'}")
    return wrong
