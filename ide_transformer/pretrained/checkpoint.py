"""A checkpoint whose tensors fit its options."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
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
from .transfer import StoredTensor, expected_shapes, fill


class Checkpoint(NamedTuple):
    """A checkpoint whose tensors fit its options; no tensor is read yet.

    - `skeleton`: the model with shapes in the place of weights.
    - `table`: the places of these weights.
    - `tensors`: the tensors by their names in the table.
    - `original`: the name in the file for each name in the table.
    - `copies`: of a tensor that repeats a weight of the table, the name of that weight.
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
        tensors = {name: stored[there] for name, there in original.items()}
        options.allow("quantization_config", None)
        skeleton = eqx.filter_eval_shape(family.build, options, frozenset(tensors))
        options.check_all_asked(family.harmless)
        table = family.table(skeleton)
        copies = _copies(table, tensors, family)
        wrong = _not_fitting(table, tensors, copies, family)
        if wrong:
            raise InputError(
                f"{at}: the tensors do not fit the model that config.json describes:\n  "
                + "\n  ".join(wrong)
            )
        return cls(options, family, skeleton, table, tensors, original, copies)

    def model(self, dtype: DTypeLike | None) -> AbstractModel:
        """The model with its weights."""
        chosen = None if dtype is None else np.dtype(jnp.dtype(dtype))
        return fill(self.skeleton, self.table, self.tensors, chosen)


def _copies(
    table: list[Placement], tensors: Mapping[str, StoredTensor], family: Family
) -> dict[str, str]:
    """The tensors that repeat a weight of the table."""
    expected = expected_shapes(table)
    return {
        name: weight
        for name, weight in family.copies
        if name in tensors.keys() - expected.keys()
        and weight in tensors.keys() & expected.keys()
        and np.array_equal(tensors[name].read(), tensors[weight].read())
    }


def _not_fitting(
    table: list[Placement],
    tensors: Mapping[str, StoredTensor],
    copies: Mapping[str, str],
    family: Family,
) -> list[str]:
    """The tensors that are missing, of another shape, or not known."""
    expected, twice = expected_shapes(table), dict(family.copies)
    found = {name: tensors[name].shape for name in expected if name in tensors}
    missing = [f"{name} {expected[name]}: missing" for name in expected if name not in found]
    wrong = [
        f"{name}: shape {shape}, expected {expected[name]}"
        for name, shape in found.items()
        if shape != expected[name]
    ]
    unknown = [
        f"{name} {tensor.shape}: "
        + (
            f"differs from {twice[name]}, though tied (tie_word_embeddings)"
            if name in twice
            else "not known"
        )
        for name, tensor in tensors.items()
        if name not in (expected | copies) and not re.fullmatch(family.ignored, name)
    ]
    return missing + wrong + unknown
