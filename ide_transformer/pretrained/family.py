"""A family of checkpoints: how its models are built and where their weights are stored."""

import re
from collections.abc import Callable, Iterable, Mapping, Set
from typing import NamedTuple

from ..models import AbstractModel
from .options import Options
from .placement import Placement


class Family(NamedTuple):
    """Checkpoints that use the same options and the same names of tensors.

    - `build`: makes the model, with weights of any value, from the options and the names of
      the tensors in the checkpoint.
    - `places`: gives the places of all weights of that model.
    - `prefix`: stands in front of the names in a checkpoint that also has a head. The names
      in the table are without it.
    - `ignored`: a regular expression for tensors that are no weights: constants that the
      original library computes by itself.
    - `unread`: a regular expression for weights of parts that the model does not have; a
      warning names them.
    - `copies`: tensors that repeat another one where the table does not place them, as a tied
      read-out repeats the embedding; the name of that other one for each. One that differs is
      refused, unless it is `unread`.
    - `renamed`: pairs (regular expression, replacement) that turn other spellings of a name
      into that of the table: newer versions of the original library rename its modules.
    - `harmless`: options, with spaces between them, that `build` does not ask for since they
      do not change the outputs; those of every family are known.
    """

    build: Callable[[Options, Set[str]], AbstractModel]
    places: Callable[..., Iterable[Placement]]
    prefix: str = ""
    ignored: str = ""
    unread: str = ""
    copies: Mapping[str, str] = {}
    renamed: tuple[tuple[str, str], ...] = ()
    harmless: str = ""

    def table(self, model: AbstractModel) -> list[Placement]:
        """The places of the weights that a model has."""
        return [place for place in self.places(model) if place.weight is not None]

    def canonical(self, name: str) -> str:
        """The name of a tensor as the table spells it."""
        name = name.removeprefix(self.prefix)
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        for spelling, replacement in self.renamed:
            name = re.sub(spelling, replacement, name)
        return name
