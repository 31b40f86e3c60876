"""Families of checkpoints: how their models are built, and where weights are stored."""

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
    - `name`: the name of the tensor; with `{layer}` each layer, along the first axis of the
      weight, has its own tensor.
    - `axes`: the permutation of the tensor's axes, before it is reshaped to the weight.
    - `shape`: the shape of the permuted tensor; `None` for the shape of the weight.
    - `rows`: the indices along the tensor's last axis that belong to the weight.
    - `sharing`: the number of weights of equal size in the tensor.
    - `repeated`: whether one tensor is repeated for all layers of the weight.
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


# Maps the number of layers of each equation, and the options, to changed options.
LayerOptions = Callable[[Sequence[int], Mapping[str, Any]], dict[str, Any]]


def layers_by(name: str) -> LayerOptions:
    """Sets the option `name` to the number of layers, if the file has it."""
    return lambda layers, options: {name: layers[0]} if name in options else {}


class Family(NamedTuple):
    """Checkpoints with common options and tensor names.

    - `build`: builds the model with arbitrary weights from the options and the tensor names.
    - `places`: yields the placements of the model's weights.
    - `prefix`: begins the names of tensors in checkpoints that also have a head.
    - `ignored`: a pattern of constants of the original library.
    - `unread`: a pattern of weights of parts that the model lacks; a warning names them.
    - `copies`: maps a tensor that may repeat another one, such as a tied read-out, to its
      original. A copy that differs is an error, unless it is `unread`.
    - `renamed`: maps parts of names in other versions or relatives to parts of names in
      `places`.
    - `harmless`: options of this family that do not change the outputs, separated by spaces.
    - `options_of`: returns options of this family for a model that was not loaded, or `None` if
      its inputs or read-out do not fit; `None` without this direction.
    - `head`: the part of such a model whose tensors have no `prefix`.
    - `layers`: returns the options for fewer layers.
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
    """The operators or constraints of a control, stacked over layers unless tied."""
    return control.block if isinstance(control, Tied) else control.blocks


def weights_of(module: Any, below: str = "", **names: str) -> Iterator[Placement]:
    """Placements of arrays, linear maps and normalisations of a module. `names` maps attributes
    that it may have to names after `below`: `query="q_proj"`."""
    for attribute, end in names.items():
        part = getattr(module, attribute, None)
        name = f"{below}.{end}" if below else end
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
    **fields: Any,
) -> Iterator[Placement]:
    """Placements of the weight and bias of a linear map; PyTorch stores `[out, in]`."""
    if part is not None:
        yield Placement(part.weight, f"{name}.weight", axes, shape, **fields)
        yield Placement(part.bias, f"{name}.bias", **fields)


def windows(inputs: Any, name: str, features: int) -> Iterator[Placement]:
    """Placements of the embedding of image windows, stored as a convolution."""
    shape = (inputs.window, inputs.window, inputs.image_shape[2], features)
    return linear(inputs.embedding, name, axes=(2, 3, 1, 0), shape=shape)


def fused(
    parts: Sequence[Linear], name: str, *, groups: int = 1, **fields: Any
) -> Iterator[Placement]:
    """Placements of linear maps of equal size in one tensor, consecutive in each group."""
    sharing = len(parts)
    rows = np.arange(sharing * parts[0].weight.shape[-1]).reshape(groups, sharing, -1)
    for index, part in enumerate(parts):
        part_rows = rows[:, index].reshape(-1)
        yield from linear(part, name, rows=part_rows, sharing=sharing, **fields)


def neighbours_to_halves(heads: int, head_features: int, turning: int) -> np.ndarray:
    """The order of rows that moves the features of rotary pairs from neighbours to halves."""
    first = [*range(0, turning, 2), *range(1, turning, 2), *range(turning, head_features)]
    starts = head_features * np.arange(heads)[:, None]
    return (starts + np.array(first)).reshape(-1)
