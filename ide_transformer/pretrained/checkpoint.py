"""A checkpoint whose tensors fit its options."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from ..errors import InputError
from ..models import AbstractModel
from .archive import read_archive
from .families import families
from .family import Family
from .options import Options
from .placement import Placement
from .safetensors_files import stored_tensors
from .sizes import check_sizes, check_weights
from .transfer import StoredTensor, expected_shapes, fill


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
    skeleton: AbstractModel
    table: list[Placement]
    tensors: Mapping[str, StoredTensor]
    original: Mapping[str, str]
    copies: Mapping[str, str]

    @classmethod
    def open(cls, path: Path) -> "Checkpoint":
        """The checkpoint in a folder of Hugging Face's layout, or in a NumPy archive."""
        if path.is_file():
            return cls.check(*read_archive(path), path)
        return cls.check(Options.read(path), stored_tensors(path), path)

    @classmethod
    def check(
        cls, options: Options, stored: Mapping[str, StoredTensor], at: Path
    ) -> "Checkpoint":
        """The checkpoint of these options and tensors.

        **Raises:** `InputError` where they do not fit each other.
        """
        family = options.choose("model_type", families())
        original = {family.canonical(name): name for name in stored}
        if twice := sorted(stored.keys() - set(original.values())):
            raise InputError(
                f"{at}: {', '.join(twice)}: there under another name too. Remove one of them."
            )
        tensors = {name: stored[there] for name, there in original.items()}
        check_sizes(options, tensors)
        for name, off in _OFF.items():
            options.allow(name, off)
        skeleton = eqx.filter_eval_shape(family.build, options, frozenset(tensors))
        options.check_all_asked(family.harmless)
        check_weights(skeleton, tensors, at)
        table = family.table(skeleton)
        copies = _copies(table, tensors, family)
        wrong = _not_fitting(table, tensors, copies, family)
        if wrong:
            raise InputError(
                f"{at}: the tensors do not fit the model that config.json describes:\n  "
                + "\n  ".join(wrong[:_MOST_LINES])
                + f"\n  and {len(wrong) - _MOST_LINES:,} more" * (len(wrong) > _MOST_LINES)
            )
        return cls(options, family, skeleton, table, tensors, original, copies)

    def model(self, dtype: DTypeLike | None) -> AbstractModel:
        """The model with its weights. A warning names the weights of other parts."""
        held = expected_shapes(self.table).keys() | self.copies.keys()
        unread = [
            re.sub(r"\b\d+\b", "*", original)
            for name, original in self.original.items()
            if name not in held and re.fullmatch(self.family.unread, name)
        ]
        if unread:
            # Once for all layers.
            names = ", ".join(dict.fromkeys(unread))
            text = f"{self.options.file}: not part of the model, so not read: {names}."
            warnings.warn(text, stacklevel=2)
        return fill(self.skeleton, self.table, self.tensors, _of_weights(dtype))


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


def _copies(
    table: list[Placement], tensors: Mapping[str, StoredTensor], family: Family
) -> dict[str, str]:
    """The tensors that repeat one of the table, and which."""
    placed = tensors.keys() & expected_shapes(table).keys()
    return {
        name: other
        for name, other in family.copies.items()
        if name in tensors.keys() - placed
        and other in placed
        and np.array_equal(tensors[name].read(), tensors[other].read())
    }


def _not_fitting(
    table: list[Placement],
    tensors: Mapping[str, StoredTensor],
    copies: Mapping[str, str],
    family: Family,
) -> list[str]:
    """The tensors that are missing, of another shape, no weights, not known, or no copies."""
    expected = expected_shapes(table)
    found = {name: tensors[name].shape for name in expected if name in tensors}
    missing = [f"{name} {expected[name]}: missing" for name in expected if name not in found]
    wrong = [
        f"{name}: shape {shape}, expected {expected[name]}"
        for name, shape in found.items()
        if shape != expected[name]
    ]
    wrong += [
        f"{name}: stored as {tensors[name].dtype.name}, but weights are floating-point numbers"
        for name in found
        if not jnp.issubdtype(tensors[name].dtype, jnp.floating)
    ]
    tied = {name: other for name, other in family.copies.items() if other in found}
    unknown = [
        f"{name} {tensor.shape}: "
        + (
            f"differs from {tied[name]}, which config.json says it repeats"
            if name in tied
            else "not known"
        )
        for name, tensor in tensors.items()
        if name not in expected
        and name not in copies
        and not re.fullmatch(family.ignored, name)
        and not re.fullmatch(family.unread, name)
    ]
    return missing + wrong + unknown
