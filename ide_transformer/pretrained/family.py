"""A family of checkpoints: how its models are built and where their weights are stored."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from ..equation import Linear, Tied
from ..models import Model
from .options import Options


class Placement(NamedTuple):
    """A weight of a model and its place in a checkpoint, for both directions,

        weight = scale · tensor[permuted by axes][..., rows] + shift.

    - `weight`: the array itself, recognised by its identity; `None` where the model lacks it.
    - `name`: that of the tensor; with `{layer}` in it of one for each entry of the first axis.
    - `axes`: the order of the axes of the tensor, which is then reshaped to the weight.
    - `shape`: of the permuted tensor, where it is not that of the weight.
    - `rows`: the outputs, along the last axis, that the weight takes from the tensor.
    - `sharing`: how many weights of equal size share the tensor.
    - `repeated`: whether all layers of the weight are the same tensor.
    """

    weight: Any
    name: str
    axes: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None
    rows: np.ndarray | None = None
    sharing: int = 1
    repeated: bool = False
    scale: float = 1.0
    shift: float = 0.0

    @property
    def layered(self) -> bool:
        return self.repeated or "{layer}" in self.name

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        shape = self.shape or tuple(self.weight.shape)[self.layered :]
        if self.sharing > 1:
            shape = (*shape[:-1], self.sharing * shape[-1])
        return shape if self.axes is None else tuple(shape[i] for i in np.argsort(self.axes))

    def names(self) -> list[str]:
        """The names of its tensors, in the order of layers."""
        layers = self.weight.shape[0] if self.layered else 1
        return [self.name.format(layer=layer) for layer in range(layers)]

    def permuted(self, tensor: np.ndarray) -> np.ndarray:
        return tensor if self.axes is None else tensor.transpose(self.axes)


def expected_shapes(table: list[Placement]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, by its name."""
    return {name: place.tensor_shape for place in table for name in place.names()}


class Family(NamedTuple):
    """Checkpoints that use the same options and the same names of tensors.

    - `build`: makes the model, with weights of any value, from the options and the names of
      the tensors in the checkpoint.
    - `places`: gives the places of all weights of that model.
    - `prefix`: stands before the names in a checkpoint that also has a head, not in the table.
    - `ignored`: matches tensors that are no weights but constants of the original library.
    - `unread`: matches weights of parts that the model does not have; a warning names them.
    - `copies`: tensors that repeat another one, whose name is given, where the table does not
      place them, as a tied read-out. One that differs is refused, unless it is `unread`.
    - `renamed`: parts of other spellings of a name, and what the table has in their place:
      newer versions of the original library rename its modules, and relatives have other names.
    - `harmless`: options, with spaces between them, that `build` does not ask for since they
      do not change the outputs; those of every family are known.
    - `options_of`: gives the options of the model of this family that is nearest to one put
      together otherwise, or `None` where inputs or read-out are of another kind; what it leaves
      open is compared afterwards. Families without are written like a checkpoint only.
    - `head`: the part of such a model whose tensors have no `prefix`.
    """

    build: Callable[[Options, Set[str]], Model]
    places: Callable[..., Iterable[Placement]]
    prefix: str = ""
    ignored: str = ""
    unread: str = ""
    copies: Mapping[str, str] = {}
    renamed: Mapping[str, str] = {}
    harmless: str = ""
    options_of: Callable[[Model], dict[str, Any] | None] | None = None
    head: str = ""

    def table(self, model: Model) -> list[Placement]:
        """The places of the weights that a model has."""
        return [place for place in self.places(model) if place.weight is not None]

    def canonical(self, name: str) -> str:
        """The name of a tensor as the table spells it."""
        name = name.removeprefix(self.prefix)
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        if not self.renamed:
            return name
        # The longest first.
        parts = "|".join(map(re.escape, sorted(self.renamed, key=len, reverse=True)))
        return re.sub(rf"(?<![^.])({parts})(?![^.])", lambda x: self.renamed[x[0]], name)


def block(control: Any) -> Any:
    """The operators or constraints that a control stores, stacked over layers if not tied."""
    return control.block if isinstance(control, Tied) else control.blocks


def weights_of(module: Any, below: str = "", **names: str) -> Iterator[Placement]:
    """The arrays, linear maps and normalisations of a module, as far as it has them, by the
    names of its attributes: `query="q_proj"`, each behind `below`."""
    for attribute, name in names.items():
        part = getattr(module, attribute, None)
        name = f"{below}.{name}" if below else name
        if isinstance(part, Linear):
            yield from linear(part, name)
        elif isinstance(part, eqx.Module):
            yield from norm(part, name)
        else:
            yield Placement(part, name)


def linear(
    part: Any,
    name: str,
    *,
    axes: tuple[int, ...] | None = (1, 0),
    shape: tuple[int, ...] | None = None,
    **of_both: Any,
) -> Iterator[Placement]:
    """The weight and bias of a linear map; PyTorch stores `[out, in]`."""
    if part is not None:
        yield Placement(part.weight, f"{name}.weight", axes, shape, **of_both)
        yield Placement(part.bias, f"{name}.bias", **of_both)


def windows(inputs: Any, name: str, features: int) -> Iterator[Placement]:
    """The linear map of the windows of an image, stored as a convolution."""
    shape = (inputs.window, inputs.window, inputs.image_shape[2], features)
    return linear(inputs.embedding, name, axes=(2, 3, 1, 0), shape=shape)


def norm(part: Any, name: str) -> Iterator[Placement]:
    """The gain and bias of a part, as far as it has them."""
    return weights_of(part, name, gain="weight", bias="bias")


def fused(
    parts: Sequence[Linear], name: str, *, groups: int = 1, **of_all: Any
) -> Iterator[Placement]:
    """Linear maps of equal size that share a tensor, one after the other in each group."""
    number = len(parts)
    rows = np.arange(number * parts[0].weight.shape[-1]).reshape(groups, number, -1)
    for index, part in enumerate(parts):
        own = rows[:, index].reshape(-1)
        yield from linear(part, name, rows=own, sharing=number, **of_all)


def neighbours_to_halves(heads: int, head_features: int, turning: int) -> np.ndarray:
    """The order of rows that puts rotary pairs of neighbours half a width apart."""
    first = [*range(0, turning, 2), *range(1, turning, 2), *range(turning, head_features)]
    starts = head_features * np.arange(heads)[:, None]
    return (starts + np.array(first)).reshape(-1)
