"""Sizes in the options of a checkpoint, against what it holds."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import jax

from ..errors import InputError
from ..models import AbstractModel
from .options import Options
from .transfer import StoredTensor


_LAYERS = re.compile(r"n_layers?|(\w+_)?layers")
_WIDTHS = re.compile(r"d_\w+|n_(embd|inner|head|heads)|(\w+_)?(dim|size|heads|ratio)")
# Layers that share their weights have no tensors of their own.
_MOST_SHARED = 1000


def check_sizes(options: Options, tensors: Mapping[str, StoredTensor]) -> None:
    """Refuses sizes that the tensors cannot have, before a model of that size is described.

    **Raises:** `InputError` for more layers than tensors, and than 1,000, and for a width
    above the number of all weights together.
    """
    weights = sum(math.prod(tensor.shape) for tensor in tensors.values())
    for name, value in options.values.items():
        most = None
        if _LAYERS.fullmatch(name):
            most, of = max(len(tensors), _MOST_SHARED), f"{len(tensors):,} tensors"
        elif _WIDTHS.fullmatch(name):
            most, of = max(weights, _MOST_SHARED), f"{weights:,} weights"
        if most is not None and isinstance(value, int | float) and value > most:
            raise InputError(
                f"{options.file}: {name} = {str(value)[:24]} does not fit a checkpoint of {of}."
            )


def check_weights(
    skeleton: AbstractModel, tensors: Mapping[str, StoredTensor], at: Path
) -> None:
    """Refuses a model that has far more weights than the tensors, before the names of its
    tensors take memory."""
    held = sum(math.prod(tensor.shape) for tensor in tensors.values())
    for weight in jax.tree.leaves(skeleton):
        if isinstance(weight, jax.ShapeDtypeStruct) and math.prod(weight.shape) > 2 * held:
            raise InputError(
                f"{at}: config.json describes a weight of shape {weight.shape}, but the "
                f"tensors have {held} numbers in all. Correct the sizes in config.json."
            )
