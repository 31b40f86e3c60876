"""Families of checkpoints: how to build their models, and where their weights are stored."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from ..equation import Linear, Tied
from ..models import Model
from .options import Options


class Placement(NamedTuple):
    """A weight of a model and its place in a checkpoint, for reading and writing,

        weight = scale · tensor[permuted by axes][..., rows] + shift.

    - `weight`: the array, recognised by its identity; `None` if the model lacks it.
    - `name`: of the tensor; with `{layer}` there is a tensor for each entry of the first axis.
    - `axes`: the permutation of the tensor's axes, before it is reshaped to the weight.
    - `shape`: of the permuted tensor; `None` for the weight's.
    - `rows`: the indices along the last axis that the weight takes.
    - `sharing`: the number of weights of equal size in the tensor.
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
        layers = self.weight.shape[0] if self.layered else 1
        return [self.name.format(layer=layer) for layer in range(layers)]

    def permuted(self, tensor: np.ndarray) -> np.ndarray:
        return tensor if self.axes is None else tensor.transpose(self.axes)


def expected_shapes(table: list[Placement]) -> dict[str, tuple[int, ...]]:
    return {name: place.tensor_shape for place in table for name in place.names()}


# From the number of layers of each equation, and the options, to the options to change.
LayerOptions = Callable[[Sequence[int], Mapping[str, Any]], dict[str, Any]]


def layers_by(name: str) -> LayerOptions:
    """The number of layers is the option `name`; nothing changes if the file lacks it."""
    return lambda layers, options: {name: layers[0]} if name in options else {}


class Family(NamedTuple):
    """Checkpoints with common options and tensor names.

    - `build`: makes the model, with any weights, from the options and the tensor names.
    - `places`: the placements of the model's weights.
    - `prefix`: precedes the names in checkpoints that also have a head.
    - `ignored`: matches constants of the original library.
    - `unread`: matches weights of parts that the model lacks; a warning names them.
    - `copies`: tensors that may repeat another one, such as a tied read-out, by its name. A
      different tensor is refused, unless it is `unread`.
    - `renamed`: other spellings of parts of names (newer versions, relatives), and the spelling
      of `places`.
    - `harmless`: options of this family that do not change the outputs, separated by spaces.
    - `options_of`: the options of this family for a model that was not loaded, or `None` for
      other kinds of inputs or read-out. `None` if such models cannot be written.
    - `head`: the part of such a model whose tensors have no `prefix`.
    - `layers`: the options for fewer layers.
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
    layers: LayerOptions = layers_by("num_hidden_layers")

    def table(self, model: Model) -> list[Placement]:
        """The placements of the weights that a model has."""
        return [place for place in self.places(model) if place.weight is not None]

    def canonical(self, name: str) -> str:
        """The name of a tensor as `places` spells it."""
        name = name.removeprefix(self.prefix)
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        if not self.renamed:
            return name
        # The longest first.
        parts = "|".join(map(re.escape, sorted(self.renamed, key=len, reverse=True)))
        return re.sub(rf"(?<![^.])({parts})(?![^.])", lambda x: self.renamed[x[0]], name)


def block(control: Any) -> Any:
    """The stored operators or constraints of a control, stacked over layers unless tied."""
    return control.block if isinstance(control, Tied) else control.blocks


def weights_of(module: Any, below: str = "", **names: str) -> Iterator[Placement]:
    """Placements of the arrays, linear maps and normalisations that a module has, by attribute:
    `query="q_proj"`, below the name `below`."""
    for attribute, name in names.items():
        part = getattr(module, attribute, None)
        name = f"{below}.{name}" if below else name
        if isinstance(part, Linear):
            yield from linear(part, name)
        elif isinstance(part, eqx.Module):
            yield from weights_of(part, name, gain="weight", bias="bias")
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
    """Placements of a linear map; PyTorch stores `[out, in]`."""
    if part is not None:
        yield Placement(part.weight, f"{name}.weight", axes, shape, **of_both)
        yield Placement(part.bias, f"{name}.bias", **of_both)


def windows(inputs: Any, name: str, features: int) -> Iterator[Placement]:
    """Placements of the embedding of image windows, stored as a convolution."""
    shape = (inputs.window, inputs.window, inputs.image_shape[2], features)
    return linear(inputs.embedding, name, axes=(2, 3, 1, 0), shape=shape)


def fused(
    parts: Sequence[Linear], name: str, *, groups: int = 1, **of_all: Any
) -> Iterator[Placement]:
    """Placements of linear maps of equal size in one tensor, consecutive in each group."""
    number = len(parts)
    rows = np.arange(number * parts[0].weight.shape[-1]).reshape(groups, number, -1)
    for index, part in enumerate(parts):
        own = rows[:, index].reshape(-1)
        yield from linear(part, name, rows=own, sharing=number, **of_all)


def neighbours_to_halves(heads: int, head_features: int, turning: int) -> np.ndarray:
    """The order of rows that moves rotary pairs from neighbours to half a width apart."""
    first = [*range(0, turning, 2), *range(1, turning, 2), *range(turning, head_features)]
    starts = head_features * np.arange(heads)[:, None]
    return (starts + np.array(first)).reshape(-1)
