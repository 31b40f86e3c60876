"""What a family of checkpoints is."""

import re
from collections.abc import Callable, Iterable, Set
from typing import NamedTuple

from ..equation import gelu, gelu_tanh, quick_gelu, relu, silu
from ..models import AbstractModel
from .fields import Fields
from .placement import Placement


class Family(NamedTuple):
    """Checkpoints that share their options and the names of their tensors.

    - `build`: from the options, and the names of the tensors that are there, to a model with
      weights of any value.
    - `table`: from that model to the places of all its weights.
    - `prefix`: in front of the names where the checkpoint has a head too; the table is
      without it.
    - `ignored`: a regular expression for tensors that are no weights of the model.
    - `renamed`: (regular expression, replacement), from other spellings of the names, those
      of the library's modules of today, to that of the table.
    """

    build: Callable[[Fields, Set[str]], AbstractModel]
    table: Callable[..., Iterable[Placement]]
    prefix: str = ""
    ignored: str = ""
    renamed: tuple[tuple[str, str], ...] = ()

    def canonical(self, name: str) -> str:
        """The name of a tensor as it stands in the table."""
        name = name.removeprefix(self.prefix)
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        for spelling, replacement in self.renamed:
            name = re.sub(spelling, replacement, name)
        return name


ACTIVATIONS = {
    "gelu": gelu,
    "gelu_fast": gelu_tanh,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": relu,
    "silu": silu,
    "swish": silu,
}
