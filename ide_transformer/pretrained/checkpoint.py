"""A checkpoint whose tensors fit its options."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from ..models import AbstractModel
from .archive import read_archive
from .families import families
from .family import Family
from .options import Options
from .placement import Placement
from .safetensors_files import stored_tensors
from .table import check_table
from .tensors import StoredTensor
from .transfer import fill


class Checkpoint(NamedTuple):
    """A checkpoint whose tensors fit its options; no tensor is read yet.

    - `skeleton`: the model with shapes in the place of weights.
    - `table`: the places of these weights.
    - `tensors`: the tensors by their names in the table.
    - `original`: the name in the file for each name in the table.
    """

    options: Options
    family: Family
    skeleton: AbstractModel
    table: list[Placement]
    tensors: Mapping[str, StoredTensor]
    original: Mapping[str, str]

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
        skeleton = eqx.filter_eval_shape(family.build, options, frozenset(tensors))
        table = list(family.table(skeleton))
        ignored = {name for name in tensors if re.fullmatch(family.ignored, name)}
        check_table(table, tensors, ignored, at)
        return cls(options, family, skeleton, table, tensors, original)

    def model(self, dtype: DTypeLike | None) -> AbstractModel:
        """The model with its weights."""
        chosen = None if dtype is None else np.dtype(jnp.dtype(dtype))
        return fill(self.skeleton, self.table, self.tensors, chosen)
